//! What moves through a pipeline: messages with a header and one of three payloads.
//!
//! Arrow is the only row format. A frame is opaque and never holds a change, so a replica moves frames untouched and the
//! engine decodes them only where a consumer needs rows. No transform turns [`Mark::Replicated`] into [`Mark::Local`].

use std::fmt;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// An ordered sub-stream of a source: a TMQ vgroup, a Kafka partition, a file. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lane(pub Arc<str>);

impl Lane {
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(Arc::from(name.as_ref()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a lane: "resume behind this". Opaque to everybody but the source that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// What the source needs to resume; stored as it is.
    pub bytes: Bytes,
    /// The position as a number that grows along the lane, where the source has one (lag is a difference of these).
    pub number: Option<i64>,
    /// The form to show, where it is neither the number nor the bytes.
    pub display: Option<Arc<str>>,
}

impl Position {
    /// A position that is a number: stored as eight little-endian bytes.
    pub fn from_number(number: i64) -> Self {
        Self { bytes: Bytes::copy_from_slice(&number.to_le_bytes()), number: Some(number), display: None }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.display, self.number) {
            (Some(text), _) => f.write_str(text),
            (None, Some(number)) => write!(f, "{number}"),
            (None, None) => self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// Whether a message was born at its source or was written there by a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    #[default]
    Local,
    /// Written by a replica, from this site where the log says so.
    Replicated { site: Option<Arc<str>> },
}

/// What every message carries beside its payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub lane: Lane,
    /// Counts the messages of a lane since the source connected.
    pub sequence: u64,
    /// Where a source resumes once this message is durable everywhere.
    pub position: Position,
    /// One upstream offset may yield several messages; only the last ends it, and a barrier falls only behind such a one.
    pub ends_position: bool,
    pub mark: Mark,
    /// Set by the engine on what may have been written before a restart (invariant `no-regress`): a sink that replaces
    /// by key compares these before it writes them.
    pub replayed: bool,
    /// With `replayed`: how many rows at the start of the message may have been written; all where it is not known. A log may
    /// hand out what was written before a crash and what came since in one message.
    pub replayed_rows: u64,
    /// Smallest and largest event time in the message, in nanoseconds since the epoch, where the source knows them.
    pub events: Option<(i64, i64)>,
}

impl Header {
    pub fn new(lane: Lane, position: Position) -> Self {
        Self {
            lane,
            sequence: 0,
            position,
            ends_position: true,
            mark: Mark::Local,
            replayed: false,
            replayed_rows: u64::MAX,
            events: None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Message {
    pub header: Header,
    pub payload: Payload,
}

impl Message {
    /// Rows in the payload, as far as it tells: a change has none.
    pub fn row_count(&self) -> u64 {
        match &self.payload {
            Payload::Rows(rows) => rows.batch.num_rows() as u64,
            Payload::Change(_) => 0,
            Payload::Frame(frame) => frame.rows,
        }
    }

    /// Bytes that the payload keeps alive, for queue limits and metrics.
    pub fn byte_count(&self) -> u64 {
        match &self.payload {
            Payload::Rows(rows) => rows.batch.get_array_memory_size() as u64,
            Payload::Change(change) => change.raw.as_ref().map_or(256, |raw| raw.data.len() as u64),
            Payload::Frame(frame) => frame.data.len() as u64,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Payload {
    Rows(Rows),
    Change(Change),
    Frame(Frame),
}

/// One schema, many tables: ten thousand tables with one row each are one message.
///
/// Only the columns that the writer assigned are in the batch: an absent column is not a NULL
/// (invariant `assigned-columns-only`).
#[derive(Clone, Debug)]
pub struct Rows {
    pub batch: RecordBatch,
    /// Ascending by `first_row`; the first starts at 0. Run `i` ends where run `i + 1` starts.
    pub runs: Vec<Run>,
}

impl Rows {
    /// Rows of no table in particular.
    pub fn plain(batch: RecordBatch) -> Self {
        Self { batch, runs: vec![Run::default()] }
    }

    /// Each run with its rows. They are within the batch, whatever a sender wrote into its runs.
    pub fn ranges(&self) -> impl Iterator<Item = (&Run, std::ops::Range<usize>)> {
        let count = self.batch.num_rows();
        let first = move |run: &Run| usize::try_from(run.first_row).unwrap_or(count).min(count);
        self.runs.iter().enumerate().map(move |(index, run)| {
            let end = self.runs.get(index + 1).map_or(count, first);
            (run, first(run).min(end)..end)
        })
    }

    /// Those rows that `keep` is true for, with their tables.
    ///
    /// # Errors
    /// `keep` has another length than the batch.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        if keep.len() != self.batch.num_rows() {
            let text = format!("{} rows are filtered by {} values", self.batch.num_rows(), keep.len());
            return Err(ArrowError::InvalidArgumentError(text));
        }
        let batch = filter_record_batch(&self.batch, keep)?;
        let mut runs: Vec<Run> = Vec::new();
        let mut first_row = 0;
        for (run, rows) in self.ranges() {
            let kept = keep.slice(rows.start, rows.len()).true_count() as u64;
            if kept > 0 {
                runs.push(Run { first_row, ..run.clone() });
                first_row += kept;
            }
        }
        Ok(Self { batch, runs })
    }
}

/// The rows of one table within a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    pub first_row: u64,
    /// The database, bucket or folder. Empty where the source has none.
    pub namespace: Arc<str>,
    pub table: Arc<str>,
    /// The group that the table belongs to (a super table), empty where there is none.
    pub group: Arc<str>,
    /// Labels of the table (tags) as a JSON object, empty where the source does not tell.
    pub labels: Arc<str>,
}

/// A schema or deletion event, ordered with the rows of its lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub kind: ChangeKind,
    /// A log may show one change in several lanes, in different orders: who applies it does so once per identity.
    /// Empty: the change is its lane's own.
    pub identity: String,
    pub namespace: Arc<str>,
    /// The group that the change is about or that its tables belong to.
    pub group: Option<Arc<str>>,
    pub tables: Vec<Arc<str>>,
    /// The change in the source's JSON form.
    pub detail: serde_json::Value,
    /// The change as the source's log holds it, for a sink of the same kind.
    pub raw: Option<Opaque>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    CreateGroup,
    AlterGroup,
    DropGroup,
    CreateTable,
    AlterTable,
    DropTable,
    /// Rows of a range were deleted.
    Delete,
}

/// Bytes in a named format.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque {
    pub format: Arc<str>,
    pub data: Bytes,
}

/// Opaque rows in a named format, with an index just good enough to route and check them. Never holds a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub format: Arc<str>,
    pub data: Bytes,
    pub namespace: Arc<str>,
    pub rows: u64,
    /// Tables in the frame, counted with repetition.
    pub tables: u32,
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn ranges_are_within_the_batch_whatever_the_runs_say() {
        let batch = RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from_iter_values(0..5)) as ArrayRef)]).unwrap();
        let rows = |first: &[u64]| Rows { batch: batch.clone(), runs: first.iter().map(|first_row| Run { first_row: *first_row, ..Run::default() }).collect() };
        let ranges = |first: &[u64]| rows(first).ranges().map(|(_, range)| (range.start, range.end)).collect::<Vec<_>>();
        assert_eq!(ranges(&[0, 2]), [(0, 2), (2, 5)]);
        assert_eq!(ranges(&[0, 9, u64::MAX]), [(0, 5), (5, 5), (5, 5)]);
        assert_eq!(ranges(&[3, 1]), [(1, 1), (1, 5)]);
        let keep = |count: usize| BooleanArray::from(vec![true; count]);
        assert_eq!(rows(&[0, 9]).filter(&keep(5)).unwrap().runs.len(), 1);
        assert!(rows(&[0]).filter(&keep(4)).is_err() && rows(&[0]).filter(&keep(6)).is_err());
    }
}
