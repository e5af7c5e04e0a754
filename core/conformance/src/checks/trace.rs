//! What a source gave as positions and rows, to compare one reading with another, also across a kill.

use std::collections::BTreeMap;

use pipeline_sdk::Message;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::bench::{Read, row_count};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub lane: String,
    pub position: Vec<u8>,
    pub number: Option<i64>,
    pub sequence: u64,
    pub rows: u64,
    pub ends: bool,
    pub shown: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trace {
    pub steps: Vec<Step>,
    pub ended: bool,
    /// There was nothing more at the time.
    pub exhausted: bool,
}

impl Trace {
    pub fn of(read: &Read) -> Self {
        Self { steps: steps(&read.messages), ended: read.ended, exhausted: read.exhausted }
    }

    pub fn rows(&self) -> u64 {
        self.steps.iter().map(|step| step.rows).sum()
    }

    /// Nothing goes back within a lane.
    ///
    /// # Errors
    /// The first place where it does.
    pub fn check_order(&self) -> Result<(), Outcome> {
        let mut last: BTreeMap<&str, &Step> = BTreeMap::new();
        for step in &self.steps {
            let place = format!("lane {}, position {}", step.lane, step.shown);
            if let Some(before) = last.insert(&step.lane, step) {
                if step.number < before.number {
                    return Err(Outcome::failed(place, format!("comes behind position {}", before.shown)));
                }
                if step.sequence < before.sequence {
                    return Err(Outcome::failed(place, format!("has sequence {} behind {}", step.sequence, before.sequence)));
                }
            }
            if step.position.is_empty() {
                return Err(Outcome::failed(place, "a message without a position: nothing can be resumed behind it"));
            }
        }
        Ok(())
    }

    /// How many messages to read before the cut: half of them.
    pub fn half(&self) -> Option<usize> {
        (self.steps.len() > 1).then_some(self.steps.len() / 2)
    }

    /// Up to the last message that ends its position.
    pub fn up_to_checkpoint(mut self) -> Self {
        let end = self.steps.iter().rposition(|step| step.ends).map_or(0, |at| at + 1);
        self.steps.truncate(end);
        self
    }

    /// Whether two readings from the start gave the same, as far as both go.
    pub fn is_like(&self, other: &Trace) -> bool {
        let alike = self.steps.iter().zip(&other.steps).all(|(one, two)| (&one.lane, &one.position, one.rows) == (&two.lane, &two.position, two.rows));
        alike && (!self.ended || !other.ended || self.steps.len() == other.steps.len())
    }

    /// Whether all rows of this step come first in its lane, however the batches are cut.
    fn begins_with(&self, first: &Step) -> bool {
        let mut rows = 0;
        for step in self.steps.iter().filter(|step| step.lane == first.lane) {
            rows += step.rows;
            let is_at_its_end = step.position == first.position || (step.number.is_some() && step.number >= first.number);
            if is_at_its_end && (step.ends || rows >= first.rows) {
                return rows >= first.rows;
            }
        }
        false
    }

    /// `self` read from the start; `done` read by another instance up to a checkpoint, `rest` from behind that: nothing is missing,
    /// nothing is there again. Where a source cuts its batches otherwise each time, the rows count.
    pub fn check_resumed(&self, done: &Trace, rest: &Trace) -> Result<(), Outcome> {
        rest.check_order()?;
        let has = |steps: &[Step], step: &Step| steps.iter().any(|one| one.lane == step.lane && one.position == step.position);
        let place = |step: &Step| format!("lane {}, position {}", step.lane, step.shown);
        if let Some(step) = rest.steps.iter().find(|step| has(&done.steps, step)) {
            return Err(Outcome::failed(place(step), "came again though the checkpoint is behind it"));
        }
        let missing = self.steps.iter().find(|step| !has(&done.steps, step) && !has(&rest.steps, step));
        let (sum, all) = (done.rows() + rest.rows(), self.rows());
        let is_missing = match self.exhausted && rest.exhausted {
            true => sum < all,
            // Of an endless one: it begins where the same reading went on the first time.
            false => self.is_like(done) && self.steps.get(done.steps.len()).is_some_and(|next| !rest.begins_with(next)),
        };
        let counts = format!("{} rows up to the checkpoint, {} behind it, {all} in all", done.rows(), rest.rows());
        if is_missing {
            let place = missing.map_or_else(|| "behind the checkpoint".to_owned(), place);
            return Err(Outcome::failed(place, format!("was left out ({counts})")));
        }
        if self.ended && rest.ended && sum > all {
            return Err(Outcome::failed("behind the checkpoint", format!("rows came again ({counts})")));
        }
        Ok(())
    }
}

fn steps(messages: &[Message]) -> Vec<Step> {
    messages.iter().map(|message| {
        let header = &message.header;
        Step {
            lane: header.lane.to_string(),
            position: header.position.bytes.to_vec(),
            number: header.position.number,
            sequence: header.sequence,
            rows: row_count(message),
            ends: header.ends_position,
            shown: header.position.to_string(),
        }
    }).collect()
}
