//! A source that counts.

use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::arrow::array::{Int64Array, RecordBatch};
use pipeline_sdk::arrow::datatypes::{DataType, Field, Schema};
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Defect, SLOW, leak};

const MESSAGES: i64 = 20;
const ROWS: i64 = 10;

/// Counts.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is wrong with it.
    #[serde(default)]
    defect: Defect,
    /// Of messages.
    #[serde(default = "messages")]
    #[schemars(with = "u32", range(min = 1))]
    messages: serde_json::Value,
}

/// A key without a word on it.
#[derive(Deserialize, JsonSchema)]
pub struct Undocumented {
    #[serde(default)]
    #[expect(dead_code, reason = "only its name matters")]
    key: u32,
}

fn messages() -> serde_json::Value {
    MESSAGES.into()
}

impl SourceConfig for Undocumented {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("undocumented", Kind::Source, "says nothing")
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        Err(Error::fatal("never built"))
    }
}

impl SourceConfig for Config {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("counts", Kind::Source, "Counts, with a defect")
    }

    fn lint(&self) -> Vec<Error> {
        let is_wrong = self.messages.as_i64().is_none_or(|messages| messages < 1) && self.defect != Defect::BadConfig;
        if is_wrong { vec![Error::fatal("a number above 0 is needed").path("messages")] } else { Vec::new() }
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        if let Some(error) = self.lint().into_iter().next() {
            return Err(error);
        }
        let (defect, messages) = (self.defect, self.messages.as_i64().unwrap_or(MESSAGES));
        Ok(Box::new(Counter { defect, messages, context, at: 0, sequence: 0, connects: 0, ended: false }))
    }
}

struct Counter {
    defect: Defect,
    messages: i64,
    context: Context,
    /// Messages given so far.
    at: i64,
    sequence: u64,
    connects: u32,
    ended: bool,
}

impl Counter {
    fn message(&mut self) -> Message {
        self.at += 1;
        self.sequence += 1;
        let first = (self.at - 1) * ROWS;
        let numbers = Int64Array::from_iter((first..first + ROWS).map(|number| (number % 3 != 0).then_some(number)));
        // One whose schema denies the NULLs that it has.
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, self.defect != Defect::ArrowTypes)]);
        // SAFETY: one column of the schema's type and of this length; only the NULLs are not as the schema says.
        let batch = unsafe { RecordBatch::new_unchecked(Arc::new(schema), vec![Arc::new(numbers)], ROWS as usize) };
        let position = match self.defect {
            Defect::Order if self.at == 7 => 2,
            _ => self.at,
        };
        let mut header = Header::new(Lane::new("0"), Position::from_number(position));
        header.sequence = self.sequence;
        let first_row = if self.defect == Defect::Batches { 99 } else { 0 };
        Message { header, payload: Payload::Rows(Rows { batch, runs: vec![Run { first_row, table: "n".into(), ..Run::default() }] }) }
    }
}

#[async_trait]
impl Source for Counter {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        self.connects += 1;
        self.ended = false;
        self.at = match from.lanes.get(&Lane::new("0")) {
            None => 0,
            Some(position) => match <[u8; 8]>::try_from(&position.bytes[..]) {
                Ok(bytes) => i64::from_le_bytes(bytes).clamp(0, self.messages),
                Err(_) if self.defect == Defect::BadPosition => 0,
                Err(_) if self.defect == Defect::Panic => panic!("as told"),
                Err(_) => return Err(Error::fatal("a position of this source has 8 bytes").code("counts.position")),
            },
        };
        if self.defect == Defect::Panic && from.lanes.len() == 1 && self.at == 0 {
            panic!("as told");
        }
        let skipped = match self.defect {
            // Behind the message in which it stood when the connection went.
            Defect::Reconnect if self.connects > 1 => 1,
            Defect::DuplicatesAfterKill if self.at > 0 => -1,
            // Reading is taken for committing.
            Defect::CommitAfterDurable => self.context.state().get("read")?.map_or(0, |bytes| i64::from(bytes[0])),
            _ => 0,
        };
        self.at = (self.at + skipped).min(self.messages);
        Ok(Connected::default())
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        match self.defect {
            Defect::Hang => tokio::time::sleep(SLOW).await,
            Defect::Abort => std::process::abort(),
            Defect::Leak => leak(256 << 10),
            Defect::BackPressure if self.at == 0 => {
                // Fetches ahead without a bound; who waits between gets a processor soon on a loaded machine, too.
                std::thread::spawn(|| {
                    for _ in 0..60 {
                        leak(8 << 20);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
            Defect::Cancel if self.context.is_cancelled() => tokio::time::sleep(wait + SLOW).await,
            _ => {}
        }
        if self.at >= self.messages {
            let is_first = !std::mem::replace(&mut self.ended, true);
            if self.defect == Defect::EndOfStream && !is_first {
                return Ok(Polled::Messages(vec![self.message()]));
            }
            return Ok(Polled::End);
        }
        let message = self.message();
        if self.defect == Defect::CommitAfterDurable {
            self.context.state().put("read", &[self.at as u8])?;
        }
        if self.defect == Defect::TwoInstances {
            // State of the process in place of the instance's.
            static SHARED: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(i64::MAX);
            let number = SHARED.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            let header = Header { position: Position::from_number(number), ..message.header.clone() };
            return Ok(Polled::Messages(vec![Message { header, ..message }]));
        }
        Ok(Polled::Messages(vec![message]))
    }

    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let at = |number| Some(Position::from_number(number));
        Ok(vec![LaneProgress { lane: Lane::new("0"), oldest: at(0), current: at(self.at), latest: at(self.messages), retention_seconds: None, ends: true }])
    }
}
