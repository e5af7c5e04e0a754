//! Columns that stand beside a payload: key, topic, time and headers of its message.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMillisecondBuilder};
use pipeline_formats::with_columns;
use pipeline_sdk::Result;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use schemars::JsonSchema;
use serde::Deserialize;

/// Names of columns for what a message has beside its payload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Beside {
    /// The key, as text.
    pub key: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// The message's time.
    pub time: Option<String>,
    /// Headers by name: `headers = { source = "from" }` puts the header `source` into the column `from`, as text.
    pub headers: BTreeMap<String, String>,
}

impl Beside {
    /// Adds them to rows; `rows` says how many each of the messages made.
    ///
    /// # Errors
    /// Fatal: the numbers do not fit together.
    pub fn add(&self, batch: RecordBatch, rows: &[usize], messages: &[BorrowedMessage<'_>]) -> Result<RecordBatch> {
        let mut more: Vec<(&str, ArrayRef)> = Vec::new();
        let text = |of: &dyn Fn(&BorrowedMessage<'_>) -> Option<String>| -> ArrayRef {
            let mut builder = StringBuilder::new();
            for (message, rows) in messages.iter().zip(rows).filter(|(_, rows)| **rows > 0) {
                let text = of(message);
                (0..*rows).for_each(|_| builder.append_option(text.as_deref()));
            }
            Arc::new(builder.finish())
        };
        let lossy = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if let Some(name) = &self.key {
            more.push((name, text(&|message| lossy(message.key()))));
        }
        if let Some(name) = &self.topic {
            more.push((name, text(&|message| Some(message.topic().to_owned()))));
        }
        for (header, name) in &self.headers {
            let of = |message: &BorrowedMessage<'_>| lossy(message.headers()?.iter().filter(|it| it.key == header).last()?.value);
            more.push((name, text(&of)));
        }
        if let Some(name) = &self.time {
            let mut times = TimestampMillisecondBuilder::new();
            for (message, rows) in messages.iter().zip(rows) {
                let time = message.timestamp().to_millis();
                (0..*rows).for_each(|_| times.append_option(time));
            }
            more.push((name, Arc::new(times.finish())));
        }
        if more.is_empty() {
            return Ok(batch);
        }
        with_columns(&batch, more)
    }
}
