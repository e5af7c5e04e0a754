//! What happens to a message that a component rejects: policy, dead letters, and the split of rejected rows from the rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use pipeline_sdk::{Error, Message, Payload, Rows};

use super::call::{Failure, call};
use super::tap::DEAD_LETTER;
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

    /// Stores a dead letter; durable when it returns. Rows go to the pipeline's own sink where it has one, and so does a frame of text,
    /// as the column `payload`.
    pub(super) async fn keep_letter(&self, node: &Node, message: &Message, error: &Error) -> Result<(), Failure> {
        let sink = self.pipeline.dead_letter.as_ref();
        let is_wanted = sink.is_some() || self.run.taps.is_any();
        if let Some(rows) = is_wanted.then(|| as_rows(message)).flatten() {
            let letter = Message { header: message.header.clone(), payload: Payload::Rows(self.with_reason(node, message, &rows, error)?) };
            self.show(sink.map_or(DEAD_LETTER, |sink| &sink.name), &letter);
            let Some(sink) = sink else { return self.store_letter(node, message, error).await };
            self.write_letter(sink, letter).await.map_err(|it| it.context(&sink.path))?;
            self.count_letter(node, message.row_count(), error);
            return Ok(());
        }
        self.store_letter(node, message, error).await
    }

    async fn store_letter(&self, node: &Node, message: &Message, error: &Error) -> Result<(), Failure> {
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
        self.count_letter(node, rows, error);
        Ok(())
    }

    fn count_letter(&self, node: &Node, rows: u64, error: &Error) {
        self.counters.dead_letters.add(rows.max(1));
        let error = self.run.redact(&error.to_string());
        tracing::warn!(task = %self.key, component = node.name, rows, error, "kept as a dead letter");
    }

    /// The rows with why they are here.
    fn with_reason(&self, node: &Node, message: &Message, rows: &Rows, error: &Error) -> Result<Rows, Failure> {
        let reasons = [
            ("_error", self.run.redact(&error.to_string())),
            ("_component", node.name.clone()),
            ("_lane", message.header.lane.to_string()),
            ("_position", message.header.position.to_string()),
        ];
        let count = rows.batch.num_rows();
        let schema = rows.batch.schema();
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        let mut columns = rows.batch.columns().to_vec();
        for (name, text) in reasons {
            fields.push(Arc::new(Field::new(name, DataType::Utf8, false)));
            columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text.as_str(), count))));
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        let batch = batch.map_err(|it| Failure::Fatal(Error::fatal(format!("rows with the reason why they were rejected: {it}"))))?;
        Ok(Rows { batch, runs: rows.runs.clone() })
    }

    /// Writes and flushes; what was written before is not written again when the connection is lost.
    async fn write_letter(&self, node: &Node, mut letter: Message) -> Result<(), Failure> {
        // Several letters may be of one position: none of them is its end, by which a sink could tell that the others are there already.
        letter.header.ends_position = false;
        let limit = self.pipeline.settings.call_timeout;
        let mut letters = self.letters.lock().await;
        let mut sink = match letters.take() {
            Some(sink) => sink,
            None => {
                let mut sink = self.make_sink(node, None, "").await.map_err(Failure::of)?;
                call("the dead letters' connect", limit, sink.connect()).await.map_err(Failure::of)?;
                sink
            }
        };
        call("the dead letters' write", limit, sink.write(&letter)).await.map_err(Failure::of)?;
        call("the dead letters' flush", limit, sink.flush()).await.map_err(Failure::of)?;
        *letters = Some(sink);
        Ok(())
    }

    /// Nothing is rejected any more: the session is over.
    pub(super) async fn close_letters(&self) {
        drop(self.letters.lock().await.take());
    }
}

/// What a sink of dead letters takes.
fn as_rows(message: &Message) -> Option<Rows> {
    match &message.payload {
        Payload::Rows(rows) => Some(rows.clone()),
        Payload::Frame(frame) => {
            let text = StringArray::from(vec![std::str::from_utf8(&frame.data).ok()?]);
            RecordBatch::try_from_iter([("payload", Arc::new(text) as _)]).ok().map(Rows::plain)
        }
        Payload::Change(_) => None,
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
        let rows = all.filter(&BooleanArray::from(keep)).ok()?;
        Some(Message { header: message.header.clone(), payload: Payload::Rows(rows) })
    };
    match (part(&|row| rejected.contains(&row)), part(&|row| !rejected.contains(&row))) {
        (Some(kept), Some(rest)) => (kept, Some(rest)),
        _ => (message.clone(), None),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use pipeline_sdk::{Header, Lane, Position, Run};

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
