//! What stands in the place of source and sinks while a case runs.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use pipeline_sdk::{Checkpoint, Connected, LaneProgress, Message, Payload, Polled, Result, Sink, Source, async_trait};

use crate::graph::{BuiltIn, BuiltInHost};

/// The rows of a case, once.
#[derive(Clone)]
pub(super) struct Given(pub Vec<Message>);

impl BuiltIn for Given {
    fn source(&self, _: &BuiltInHost<'_>) -> Result<Box<dyn Source>> {
        Ok(Box::new(GivenSource { all: self.0.clone(), left: Vec::new() }))
    }
}

struct GivenSource {
    all: Vec<Message>,
    left: Vec<Message>,
}

#[async_trait]
impl Source for GivenSource {
    async fn connect(&mut self, _: &Checkpoint) -> Result<Connected> {
        self.left = self.all.clone();
        Ok(Connected { identity: Some("test".into()) })
    }

    async fn next(&mut self, _: Duration) -> Result<Polled> {
        match std::mem::take(&mut self.left) {
            left if left.is_empty() => Ok(Polled::End),
            left => Ok(Polled::Messages(left)),
        }
    }

    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        Ok(Vec::new())
    }
}

/// Keeps what a sink is given.
#[derive(Clone, Default)]
pub(super) struct Collector(Arc<Mutex<Vec<RecordBatch>>>);

impl Collector {
    pub fn take(&self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.0.lock())
    }
}

impl BuiltIn for Collector {
    fn sink(&self, _: &BuiltInHost<'_>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Sink for Collector {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        if let Payload::Rows(rows) = &message.payload {
            self.0.lock().push(rows.batch.clone());
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
