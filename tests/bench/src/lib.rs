//! Components that the benchmark needs, as a plugin like any other: a source of equal frames and a sink that drops them
//! measure the boundary alone; two transforms that change nothing measure what a consumer of frames and one of rows cost.
//!
//! The library's name does not begin as a plugin's does: nothing but the benchmark finds it.

use std::time::Duration;

use bytes::Bytes;
use pipeline_sdk::{
    Checkpoint, ComponentDescription, Connected, Context, Frame, Header, Kind, Lane, LaneProgress, Message, Output,
    Payload, Plugin, Polled, Position, Result, Sink, SinkConfig, Source, SourceConfig, Transform, TransformConfig,
    async_trait,
};
use schemars::JsonSchema;
use serde::Deserialize;

pipeline_sdk::plugin!(plugin);

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("bench", env!("CARGO_PKG_VERSION"), "What the benchmark measures with")
        .source::<FramesConfig>()
        .transform::<PassConfig>()
        .transform::<RowsConfig>()
        .sink::<DropConfig>()
}

/// Hands out one frame a poll, all sharing the same bytes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FramesConfig {
    /// Frames until the source is done.
    messages: u64,
    /// Bytes of each.
    bytes: usize,
}

impl SourceConfig for FramesConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("bench-frames", Kind::Source, "Equal frames").frames("bench")
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        let frame = Frame { format: "bench".into(), data: Bytes::from(vec![0; self.bytes]), namespace: "bench".into(), rows: 1, tables: 1 };
        Ok(Box::new(Frames { left: self.messages, sequence: 0, lane: Lane::new("1"), frame }))
    }
}

struct Frames {
    left: u64,
    sequence: u64,
    lane: Lane,
    frame: Frame,
}

#[async_trait]
impl Source for Frames {
    async fn connect(&mut self, _: &Checkpoint) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn next(&mut self, _: Duration) -> Result<Polled> {
        if self.left == 0 {
            return Ok(Polled::End);
        }
        self.left -= 1;
        self.sequence += 1;
        let mut header = Header::new(self.lane.clone(), Position::from_number(self.sequence as i64));
        header.sequence = self.sequence;
        Ok(Polled::Messages(vec![Message { header, payload: Payload::Frame(self.frame.clone()) }]))
    }

    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        Ok(Vec::new())
    }
}

/// Passes everything on as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassConfig {}

impl TransformConfig for PassConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("bench-pass", Kind::Transform, "Passes everything on").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Pass))
    }
}

/// Passes everything on, and takes rows only: frames are decoded before it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowsConfig {}

impl TransformConfig for RowsConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("bench-rows", Kind::Transform, "Passes rows on")
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Pass))
    }
}

struct Pass;

impl Transform for Pass {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        out.push(message);
        Ok(())
    }
}

/// Takes everything and writes it nowhere.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DropConfig {}

impl SinkConfig for DropConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("bench-drop", Kind::Sink, "Writes nothing").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Drop))
    }
}

struct Drop;

#[async_trait]
impl Sink for Drop {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, _: &Message) -> Result<()> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
