//! Joins messages before a sink to larger ones, within the limits of its `batching`.
//!
//! Only rows of one lane and one schema that follow each other are joined, and none that may have been written before: order, positions
//! and what is known of replays stay as they are. A barrier takes out what is held, so nothing waits longer than a checkpoint.

use arrow::compute::concat_batches;
use pipeline_sdk::{Message, Payload, Rows, Run};
use tokio::time::Instant;

use crate::config::Batching;

pub(super) struct Batcher {
    limits: Batching,
    held: Vec<Message>,
    rows: u64,
    bytes: u64,
    since: Option<Instant>,
}

impl Batcher {
    pub fn new(limits: Batching) -> Self {
        Self { limits, held: Vec::new(), rows: 0, bytes: 0, since: None }
    }

    /// Takes a message; whether that is enough.
    pub fn add(&mut self, message: Message) -> bool {
        self.rows += message.row_count();
        self.bytes += message.byte_count();
        self.since.get_or_insert_with(Instant::now);
        self.held.push(message);
        let is_reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        is_reached(self.limits.rows, self.rows) || is_reached(self.limits.bytes, self.bytes)
    }

    /// When what is held is written though it is not enough.
    pub fn due(&self) -> Option<Instant> {
        Some(self.since? + self.limits.wait)
    }

    /// What is held, joined.
    pub fn take(&mut self) -> Vec<Message> {
        (self.rows, self.bytes, self.since) = (0, 0, None);
        let mut groups: Vec<Vec<Message>> = Vec::new();
        for message in self.held.drain(..) {
            match groups.last_mut() {
                Some(group) if group.last().is_some_and(|last| can_join(last, &message)) => group.push(message),
                _ => groups.push(vec![message]),
            }
        }
        groups.into_iter().flat_map(joined).collect()
    }
}

fn can_join(one: &Message, other: &Message) -> bool {
    let (Payload::Rows(first), Payload::Rows(second)) = (&one.payload, &other.payload) else { return false };
    let (a, b) = (&one.header, &other.header);
    a.lane == b.lane && a.mark == b.mark && !a.replayed && !b.replayed && first.batch.schema() == second.batch.schema()
}

/// One message of several; as they are where their rows cannot be put together.
fn joined(group: Vec<Message>) -> Vec<Message> {
    let Some(last) = group.last().filter(|_| group.len() > 1) else { return group };
    let mut header = last.header.clone();
    let all: Vec<&Rows> = group.iter().filter_map(|it| if let Payload::Rows(rows) = &it.payload { Some(rows) } else { None }).collect();
    let Ok(batch) = concat_batches(&all[0].batch.schema(), all.iter().map(|rows| &rows.batch)) else { return group };
    let mut runs: Vec<Run> = Vec::new();
    let mut before = 0;
    for rows in all {
        for run in &rows.runs {
            let run = Run { first_row: run.first_row + before, ..run.clone() };
            if runs.last().is_none_or(|known| Run { first_row: run.first_row, ..known.clone() } != run) {
                runs.push(run);
            }
        }
        before += rows.batch.num_rows() as u64;
    }
    let events = group.iter().map(|it| it.header.events).reduce(|one, other| Some((one?.0.min(other?.0), one?.1.max(other?.1))));
    header.events = events.flatten();
    vec![Message { header, payload: Payload::Rows(Rows { batch, runs }) }]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use pipeline_sdk::{Header, Lane, Position};

    use super::*;

    fn message(lane: &str, position: i64, rows: i64, name: &str) -> Message {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let mut header = Header::new(Lane::new(lane), Position::from_number(position));
        header.events = Some((position, position + 1));
        Message { header, payload: Payload::Rows(Rows::plain(RecordBatch::try_from_iter([(name, column)]).unwrap())) }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_are_joined_within_the_limits() {
        let limits = Batching { rows: Some(10), bytes: None, wait: Duration::from_secs(2) };
        let mut batcher = Batcher::new(limits);
        assert_eq!(batcher.due(), None);
        let begun = Instant::now();
        let mut replayed = message("a", 4, 1, "n");
        replayed.header.replayed = true;
        let messages = [message("a", 1, 3, "n"), message("a", 2, 2, "n"), message("b", 3, 1, "n"), replayed, message("a", 5, 1, "n")];
        for message in messages {
            assert!(!batcher.add(message));
        }
        assert!(batcher.add(message("a", 6, 2, "other")));
        assert_eq!(batcher.due(), Some(begun + Duration::from_secs(2)));
        let taken: Vec<_> = batcher.take().iter().map(|it| (it.header.position.number.unwrap(), it.row_count(), it.header.events)).collect();
        let expected = [(2, 5, Some((1, 3))), (3, 1, Some((3, 4))), (4, 1, Some((4, 5))), (5, 1, Some((5, 6))), (6, 2, Some((6, 7)))];
        assert_eq!(taken, expected);
        assert!(batcher.take().is_empty() && batcher.due().is_none());
    }

    #[test]
    fn tables_stay_with_their_rows() {
        let of_table = |position, table: &str| {
            let mut message = message("a", position, 2, "n");
            if let Payload::Rows(rows) = &mut message.payload {
                rows.runs = vec![Run { table: "x".into(), ..Run::default() }, Run { first_row: 1, table: table.into(), ..Run::default() }];
            }
            message
        };
        let one = joined(vec![of_table(1, "x"), of_table(2, "y")]);
        let Payload::Rows(rows) = &one[0].payload else { panic!("rows") };
        let runs: Vec<_> = rows.runs.iter().map(|run| (run.first_row, &*run.table)).collect();
        assert_eq!((runs, rows.batch.num_rows()), (vec![(0, "x"), (3, "y")], 4));
    }
}
