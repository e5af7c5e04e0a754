//! A message as bytes: sequence and rows before it, what is known of it as JSON, its rows as an Arrow stream.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use pipeline_sdk::abi::convert::ChangeText;
use pipeline_sdk::{Error, Frame, Header, Lane, Mark, Message, Opaque, Payload, Position, Result, Rows, Run};
use serde::{Deserialize, Serialize};

/// Sequence, rows before and rows, then the length of the JSON.
const FIXED: usize = 8 + 8 + 8 + 4;
const META_AT: usize = FIXED - 4;
/// No payload is shorter.
pub(super) const LENGTH_MIN: u64 = FIXED as u64;

#[derive(Serialize, Deserialize)]
struct Meta {
    /// The lane that it came from.
    lane: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events: Option<(i64, i64)>,
    /// Present where a replica wrote it: from which site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicated: Option<String>,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
enum Kind {
    Rows { runs: Vec<StoredRun> },
    Frame { format: String, namespace: String, rows: u64, tables: u32 },
    /// `raw` is the format of the opaque form.
    Change { change: ChangeText, raw: Option<String> },
}

#[derive(Serialize, Deserialize)]
struct StoredRun {
    first: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    table: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    labels: String,
}

/// The payload of a record.
pub(super) fn encode(message: &Message, sequence: u64, rows_before: u64) -> Result<Vec<u8>> {
    let (kind, data) = match &message.payload {
        Payload::Rows(rows) => (Kind::Rows { runs: rows.runs.iter().map(stored).collect() }, stream(&rows.batch)?),
        Payload::Frame(frame) => {
            let (format, namespace) = (frame.format.to_string(), frame.namespace.to_string());
            (Kind::Frame { format, namespace, rows: frame.rows, tables: frame.tables }, frame.data.to_vec())
        }
        Payload::Change(change) => {
            let data = change.raw.as_ref().map_or_else(Vec::new, |raw| raw.data.to_vec());
            (Kind::Change { change: ChangeText::of(change), raw: change.raw.as_ref().map(|raw| raw.format.to_string()) }, data)
        }
    };
    let replicated = match &message.header.mark {
        Mark::Local => None,
        Mark::Replicated { site } => Some(site.as_deref().unwrap_or_default().to_owned()),
    };
    let meta = Meta { lane: message.header.lane.to_string(), events: message.header.events, replicated, kind };
    let meta = serde_json::to_vec(&meta).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::with_capacity(FIXED + meta.len() + data.len());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(rows_before.to_le_bytes());
    bytes.extend(message.row_count().to_le_bytes());
    bytes.extend((meta.len() as u32).to_le_bytes());
    bytes.extend(meta);
    bytes.extend(data);
    Ok(bytes)
}

/// Where a record stands among all others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Numbers {
    pub sequence: u64,
    /// In all records up to and with it.
    pub rows_behind: u64,
}

/// `None` where the payload is too short to be one.
pub(super) fn numbers(payload: &[u8]) -> Option<Numbers> {
    let number = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
    Some(Numbers { sequence: number(0)?, rows_behind: number(8)?.checked_add(number(16)?)? })
}

/// The message, in the lane of the buffer, behind its sequence.
pub(super) fn decode(payload: &[u8], lane: &Lane) -> Result<Message> {
    let short = || unreadable(&"it is too short");
    let Numbers { sequence, .. } = numbers(payload).ok_or_else(short)?;
    let length = payload.get(META_AT..FIXED).and_then(|it| it.try_into().ok()).map(u32::from_le_bytes).ok_or_else(short)? as usize;
    let (meta, data) = payload[FIXED..].split_at_checked(length).ok_or_else(short)?;
    let meta: Meta = serde_json::from_slice(meta).map_err(|error| unreadable(&error))?;
    let mut header = Header::new(lane.clone(), Position::from_number(sequence as i64 + 1));
    header.events = meta.events;
    header.mark = match meta.replicated {
        None => Mark::Local,
        Some(site) => Mark::Replicated { site: (!site.is_empty()).then(|| Arc::from(site)) },
    };
    let payload = match meta.kind {
        Kind::Rows { runs } => Payload::Rows(Rows { batch: batch(data)?, runs: runs.into_iter().map(run).collect() }),
        Kind::Frame { format, namespace, rows, tables } => {
            let data = bytes::Bytes::copy_from_slice(data);
            Payload::Frame(Frame { format: format.into(), data, namespace: namespace.into(), rows, tables })
        }
        Kind::Change { change, raw } => {
            let raw = raw.map(|format| Opaque { format: format.into(), data: bytes::Bytes::copy_from_slice(data) });
            Payload::Change(change.into_change(raw))
        }
    };
    Ok(Message { header, payload })
}

fn stored(run: &Run) -> StoredRun {
    StoredRun {
        first: run.first_row,
        namespace: run.namespace.to_string(),
        table: run.table.to_string(),
        group: run.group.to_string(),
        labels: run.labels.to_string(),
    }
}

fn run(stored: StoredRun) -> Run {
    Run {
        first_row: stored.first,
        namespace: stored.namespace.into(),
        table: stored.table.into(),
        group: stored.group.into(),
        labels: stored.labels.into(),
    }
}

fn stream(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(|error| unreadable(&error))?;
    writer.write(batch).and_then(|()| writer.finish()).map_err(|error| unreadable(&error))?;
    writer.into_inner().map_err(|error| unreadable(&error))
}

fn batch(data: &[u8]) -> Result<RecordBatch> {
    let reader = StreamReader::try_new(Cursor::new(data), None).map_err(|error| unreadable(&error))?;
    let schema = reader.schema();
    let mut batches = reader.into_iter();
    match batches.next() {
        Some(batch) => batch.map_err(|error| unreadable(&error)),
        None => Ok(RecordBatch::new_empty(schema)),
    }
}

/// Written whole, and yet not what this program writes.
fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::fatal(format!("a record of the buffer cannot be written or read: {error}")).code("buffer.record")
}
