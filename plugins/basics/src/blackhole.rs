//! `blackhole`: takes everything and writes it nowhere, for benchmarks and tests.

use pipeline_sdk::{ComponentDescription, Connected, Context, Kind, Message, Result, Sink, SinkConfig, async_trait};
use schemars::JsonSchema;
use serde::Deserialize;

/// Takes everything and writes it nowhere. Nothing to set.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlackholeConfig {}

impl SinkConfig for BlackholeConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("blackhole", Kind::Sink, "Takes everything and writes it nowhere").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Blackhole))
    }
}

struct Blackhole;

#[async_trait]
impl Sink for Blackhole {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, _: &Message) -> Result<()> {
        Ok(())
    }

    async fn write_many(&mut self, messages: &[Message]) -> (usize, Result<()>) {
        (messages.len(), Ok(()))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
