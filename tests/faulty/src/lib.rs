//! A plugin that does what plugins must not do, when told to.

mod kit;

use std::time::Duration;

use pipeline_sdk::{
    ComponentDescription, Connected, Context, Kind, Message, Output, Plugin, Result, Sink, SinkConfig, Transform,
    TransformConfig, async_trait,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Misbehaves at the first message.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Faulty {
    does: Fault,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    /// Passes everything on.
    Nothing,
    Panic,
    /// Keeps the thread.
    Block,
    /// Gives the thread back and never ends.
    Hang,
}

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3_600);

impl TransformConfig for Faulty {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("faulty", Kind::Transform, "Misbehaves").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(self))
    }
}

impl Transform for Faulty {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        match self.does {
            Fault::Panic => panic!("as told"),
            Fault::Block | Fault::Hang => std::thread::sleep(FOR_EVER),
            Fault::Nothing => {}
        }
        out.push(message);
        Ok(())
    }
}

impl SinkConfig for Faulty {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("faulty", Kind::Sink, "Misbehaves").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(self))
    }
}

#[async_trait]
impl Sink for Faulty {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, _: &Message) -> Result<()> {
        match self.does {
            Fault::Panic => panic!("as told"),
            Fault::Block => std::thread::sleep(FOR_EVER),
            Fault::Hang => std::future::pending::<()>().await,
            Fault::Nothing => {}
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn plugin() -> Plugin {
    let plugin = Plugin::new("faulty", env!("CARGO_PKG_VERSION"), "Misbehaves as told").transform::<Faulty>().sink::<Faulty>();
    kit::components(plugin)
}

pipeline_sdk::plugin!(plugin);
