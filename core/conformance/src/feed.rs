//! Rows to feed a transform or a sink: each carries a token by which it is found again, whatever the sink makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use pipeline_sdk::{Header, Lane, Message, Payload, Position, Rows, Run};

use crate::memory::Held;

/// Tokens are `kit-LANE-00000042`: the same length, so that text order is their order.
const MARK: &str = "kit-";
const DIGITS: usize = 8;
/// 2026-06-01, in nanoseconds.
const FIRST_EVENT: i64 = 1_780_272_000_000_000_000;
const EVENT_STEP: i64 = 1_000_000_000;

/// Rows of a lane in most checks, and in one message of them.
pub const ROWS: u64 = 60;
pub const MESSAGE_ROWS: u64 = 7;
/// `back-pressure`: messages of a MiB, how many between two flushes or barriers, and by how much memory may grow meanwhile, in bytes.
pub const WIDE_MESSAGES: u64 = 48;
pub const WIDE_EVERY: u64 = 8;
pub const GROWTH_MAX: i64 = 24 << 20;
const WIDE_ROWS: u64 = 1_024;
const WIDE_TEXT: usize = 1_024;

pub fn token(lane: &str, number: u64) -> String {
    format!("{MARK}{lane}-{number:08}")
}

pub fn has_tokens(text: &[u8]) -> bool {
    text.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

/// The numbers of a lane's tokens in a text, in their order.
pub fn tokens(text: &[u8], lane: &str) -> Vec<u64> {
    let mark = format!("{MARK}{lane}-").into_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].windows(mark.len()).position(|window| window == mark) {
        at += next + mark.len();
        let digits = text.get(at..at + DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
        found.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    found
}

/// Whether rows name no table: this process runs one check.
static PLAIN: AtomicBool = AtomicBool::new(false);

/// From now on rows are of no table in particular.
pub fn plain() {
    PLAIN.store(true, Ordering::Relaxed);
}

/// A message of a lane; its position is the number behind its last row.
pub fn message(lane: &str, end: u64, batch: RecordBatch) -> Message {
    let mut header = Header::new(Lane::new(lane), Position::from_number(end as i64));
    header.sequence = end;
    let run = match PLAIN.load(Ordering::Relaxed) {
        true => Run::default(),
        false => Run { first_row: 0, namespace: "kit".into(), table: "rows".into(), ..Run::default() },
    };
    Message { header, payload: Payload::Rows(Rows { batch, runs: vec![run] }) }
}

/// Rows `from` to `to` of a lane, in messages of `size` rows.
pub fn messages(lane: &str, from: u64, to: u64, size: u64) -> Vec<Message> {
    (from..to).step_by(size.max(1) as usize).map(|first| {
        let end = (first + size).min(to);
        message(lane, end, batch(lane, first, end))
    }).collect()
}

pub fn batch(lane: &str, from: u64, to: u64) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((from..to).map(|number| token(lane, number))));
    with_texts(from, to, texts)
}

/// The message of this index of a lane whose messages are a MiB each: long texts, the token in front.
pub fn wide_message(lane: &str, index: u64) -> Message {
    let (from, to) = (index * WIDE_ROWS, (index + 1) * WIDE_ROWS);
    let text = |number| format!("{:x<WIDE_TEXT$}", token(lane, number));
    message(lane, to, with_texts(from, to, Arc::new(StringArray::from_iter_values((from..to).map(text)))))
}

fn with_texts(from: u64, to: u64, texts: ArrayRef) -> RecordBatch {
    let numbers = || (from..to).map(|number| number as i64);
    let times = TimestampNanosecondArray::from_iter_values(numbers().map(|number| FIRST_EVENT + number * EVENT_STEP));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times),
        Arc::new(Int64Array::from_iter_values(numbers())),
        texts,
        Arc::new(Float64Array::from_iter_values(numbers().map(|number| number as f64 / 2.0))),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns).expect("columns of one length and of the schema's types")
}

pub fn schema() -> Schema {
    Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
    ])
}

/// The same rows in buffers that tell when they are given back.
pub fn counted(lane: &str, from: u64, to: u64, held: &Held) -> Message {
    let (mut bytes, mut ends) = (Vec::new(), vec![0i32]);
    for number in from..to {
        bytes.extend(token(lane, number).into_bytes());
        ends.push(bytes.len() as i32);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let texts = StringArray::new(offsets, Buffer::from(held.buffer(bytes)), None);
    message(lane, to, with_texts(from, to, Arc::new(texts)))
}

/// A batch with a column more (`level`), or one less (`value`), or `value` as text.
pub fn changed(lane: &str, from: u64, to: u64, how: SchemaStep) -> RecordBatch {
    let batch = batch(lane, from, to);
    let rows = batch.num_rows();
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) =
        batch.schema().fields().iter().zip(batch.columns()).map(|(field, column)| (field.as_ref().clone(), column.clone())).unzip();
    match how {
        SchemaStep::Same => {}
        SchemaStep::More => {
            fields.push(Field::new("level", DataType::Int64, true));
            columns.push(Arc::new(Int64Array::from(vec![Some(7); rows])));
        }
        SchemaStep::Less => {
            fields.pop();
            columns.pop();
        }
        SchemaStep::OtherType => {
            fields[3] = Field::new("value", DataType::Utf8, true);
            columns[3] = Arc::new(StringArray::from(vec!["one half"; rows]));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length and of the schema's types")
}

#[derive(Clone, Copy, Debug)]
pub enum SchemaStep {
    Same,
    More,
    Less,
    OtherType,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_order_and_of_their_lane_alone() {
        let text = format!("{},x\n\"{}\"{} kit-a-12", token("a", 2), token("b", 1), token("a", 1));
        assert_eq!(tokens(text.as_bytes(), "a"), [2, 1]);
        assert_eq!(tokens(text.as_bytes(), "b"), [1]);
    }
}
