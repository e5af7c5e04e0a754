//! A service that waits to be stopped.

use std::sync::atomic::{AtomicU32, Ordering};

use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Defect, SLOW, leak};

/// Waits to be stopped.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is wrong with it.
    #[serde(default)]
    defect: Defect,
}

impl ServiceConfig for Config {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("serves", Kind::Service, "Waits, with a defect")
    }

    fn build(self, _: Context) -> Result<Box<dyn Service>> {
        Ok(Box::new(Serves { defect: self.defect }))
    }
}

struct Serves {
    defect: Defect,
}

static STARTED: AtomicU32 = AtomicU32::new(0);

#[async_trait]
impl Service for Serves {
    async fn run(self: Box<Self>, mut ready: Ready, stop: Stop) -> Result<()> {
        let earlier = STARTED.fetch_add(1, Ordering::Relaxed);
        match self.defect {
            Defect::Abort => std::process::abort(),
            Defect::Panic => panic!("as told"),
            Defect::Leak => leak(256 << 10),
            Defect::Reconnect if earlier > 0 => return Err(Error::fatal("what the last turn left is in the way")),
            Defect::TwoInstances if earlier > 0 => panic!("as told"),
            _ => {}
        }
        ready.ready();
        match self.defect {
            Defect::EndOfStream => Ok(()),
            Defect::Hang | Defect::Cancel => {
                tokio::time::sleep(SLOW).await;
                Ok(())
            }
            _ => {
                stop.stopped().await;
                Ok(())
            }
        }
    }
}
