//! Transforms of a world's entries.

use std::time::Duration;

use pipeline_sdk::describe::{MARKS_WRITES, TELLS_REPLICATED};
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

/// Drops what is marked; the world's own `loop-mark`.
#[derive(Deserialize, JsonSchema)]
pub struct SieveConfig {}

impl TransformConfig for SieveConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("sieve", Kind::Transform, "drops what is marked").any_frame()
            .requires(Kind::Source, TELLS_REPLICATED, "it drops by mark")
            .requires(Kind::Sink, MARKS_WRITES, "it drops by mark")
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Sieve { context }))
    }
}

struct Sieve {
    context: Context,
}

impl Transform for Sieve {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        match message.header.mark {
            Mark::Local => out.push(message),
            Mark::Replicated { .. } => self.context.count("loops_suppressed", 1),
        }
        Ok(())
    }
}

/// Holds messages back until a barrier.
#[derive(Deserialize, JsonSchema)]
pub struct HoldConfig {}

impl TransformConfig for HoldConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("hold", Kind::Transform, "holds back until a barrier").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Hold { held: Vec::new() }))
    }
}

struct Hold {
    held: Vec<Message>,
}

impl Transform for Hold {
    fn apply(&mut self, message: Message, _: &mut Output) -> Result<()> {
        self.held.push(message);
        Ok(())
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        out.messages.append(&mut self.held);
        Ok(())
    }
}

/// Clears marks, which no transform may.
#[derive(Deserialize, JsonSchema)]
pub struct ClearConfig {}

impl TransformConfig for ClearConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("clear", Kind::Transform, "clears marks").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Clear))
    }
}

struct Clear;

impl Transform for Clear {
    fn apply(&mut self, mut message: Message, out: &mut Output) -> Result<()> {
        message.header.mark = Mark::Local;
        out.push(message);
        Ok(())
    }
}

/// Blocks its thread, which no transform should.
#[derive(Deserialize, JsonSchema)]
pub struct BlockConfig {}

impl TransformConfig for BlockConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("block", Kind::Transform, "blocks its thread").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Block))
    }
}

struct Block;

impl Transform for Block {
    fn apply(&mut self, _: Message, _: &mut Output) -> Result<()> {
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    }
}
