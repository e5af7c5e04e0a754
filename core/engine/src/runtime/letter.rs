//! What happens to a message that a component rejects: policy, dead letters, and the split of rejected rows from the rest.

use std::collections::BTreeSet;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use pipeline_sdk::{Error, Message, Payload, Rows, Run};

use super::call::Failure;
use super::task::Task;
use crate::config::{OnError, OnRejectedChange};
use crate::graph::Node;
use crate::state::{Change, DeadLetter};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Stop,
    Retry,
    Keep,
}

impl Task {
    pub(super) fn verdict(&self, node: &Node, message: &Message) -> Verdict {
        let settings = &self.pipeline.settings;
        match (&message.payload, node.settings.on_error.unwrap_or(settings.on_error)) {
            (Payload::Change(_), _) => match settings.on_rejected_change {
                OnRejectedChange::Stop => Verdict::Stop,
                OnRejectedChange::DeadLetter => Verdict::Keep,
            },
            (_, OnError::Stop) => Verdict::Stop,
            (_, OnError::Retry) => Verdict::Retry,
            (_, OnError::DeadLetter) => Verdict::Keep,
        }
    }

    /// Stores a dead letter; durable when it returns.
    pub(super) async fn keep_letter(&self, node: &Node, message: &Message, error: &Error) -> Result<(), Failure> {
        let limit = self.pipeline.settings.dead_letters_max;
        let store = &self.run.store;
        if store.dead_letter_count().map_err(Failure::Fatal)? >= limit {
            let full = error.clone().context(format!("there are {limit} dead letters already"));
            return Err(Failure::Policy(full.hint("look at them, or raise `dead-letters-max` of the pipeline")));
        }
        let rows = message.row_count();
        let letter = DeadLetter {
            pipeline: self.pipeline.name.clone(),
            task: self.value.clone(),
            component: node.name.clone(),
            lane: message.header.lane.to_string(),
            position: message.header.position.to_string(),
            time_ms: self.run.wall_clock_ms(),
            error: Error { message: self.run.redact(&error.message), ..error.clone() },
            rows,
            payload: crate::state::payload_json(message),
        };
        store.commit(vec![Change::DeadLetter(letter)]).await.map_err(Failure::Fatal)?;
        self.counters.dead_letters.add(rows.max(1));
        let error = self.run.redact(&error.to_string());
        tracing::warn!(task = %self.key, component = node.name, rows, error, "kept as a dead letter");
        Ok(())
    }
}

/// The rejected rows of a message and the others; all are rejected where `rows` does not tell.
pub(super) fn split(message: &Message, rows: &[u64]) -> (Message, Option<Message>) {
    let Payload::Rows(all) = &message.payload else { return (message.clone(), None) };
    let count = all.batch.num_rows();
    let rejected: BTreeSet<usize> = rows.iter().filter_map(|row| usize::try_from(*row).ok()).filter(|row| *row < count).collect();
    if rejected.is_empty() || rejected.len() == count {
        return (message.clone(), None);
    }
    let part = |is_in: &dyn Fn(usize) -> bool| {
        let keep: Vec<bool> = (0..count).map(is_in).collect();
        let rows = filter(all, &keep)?;
        Some(Message { header: message.header.clone(), payload: Payload::Rows(rows) })
    };
    match (part(&|row| rejected.contains(&row)), part(&|row| !rejected.contains(&row))) {
        (Some(kept), Some(rest)) => (kept, Some(rest)),
        _ => (message.clone(), None),
    }
}

fn filter(rows: &Rows, keep: &[bool]) -> Option<Rows> {
    let batch = filter_record_batch(&rows.batch, &BooleanArray::from(keep.to_vec())).ok()?;
    let mut runs: Vec<Run> = Vec::new();
    let mut first_row = 0;
    for (index, run) in rows.runs.iter().enumerate() {
        let end = rows.runs.get(index + 1).map_or(keep.len(), |next| next.first_row as usize);
        let kept = keep[run.first_row as usize..end].iter().filter(|it| **it).count() as u64;
        if kept > 0 {
            runs.push(Run { first_row, ..run.clone() });
            first_row += kept;
        }
    }
    Some(Rows { batch, runs })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use pipeline_sdk::{Header, Lane, Position};

    use super::*;

    #[test]
    fn rejected_rows_are_split_from_the_rest_with_their_tables() {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(0..6))]).unwrap();
        let run = |first_row, table: &str| Run { first_row, table: table.into(), ..Run::default() };
        let rows = Rows { batch, runs: vec![run(0, "a"), run(2, "b"), run(3, "c")] };
        let header = Header::new(Lane::new("1"), Position::from_number(1));
        let message = Message { header, payload: Payload::Rows(rows) };
        let read = |message: &Message| {
            let Payload::Rows(rows) = &message.payload else { panic!("rows stay rows") };
            let values = rows.batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
            let runs: Vec<_> = rows.runs.iter().map(|it| (it.first_row, it.table.to_string())).collect();
            (values, runs)
        };
        let text = |runs: &[(u64, &str)]| runs.iter().map(|(at, name)| (*at, (*name).to_owned())).collect::<Vec<_>>();
        let (kept, rest) = split(&message, &[1, 2, 5, 77]);
        assert_eq!(read(&kept), (vec![1, 2, 5], text(&[(0, "a"), (1, "b"), (2, "c")])));
        assert_eq!(read(&rest.unwrap()), (vec![0, 3, 4], text(&[(0, "a"), (1, "c")])));
        assert!(split(&message, &[]).1.is_none());
        assert!(split(&message, &[0, 1, 2, 3, 4, 5]).1.is_none());
    }
}
