//! What a source gave as positions and rows, to compare one reading with another, also across a kill.

use std::collections::BTreeMap;

use pipeline_sdk::{Message, Payload};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::bench::Read;

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
}

impl Trace {
    pub fn of(read: &Read) -> Self {
        Self { steps: steps(&read.messages), ended: read.ended }
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

    /// Where to cut: behind the message in the middle, or the next that ends its position.
    pub fn cut(&self) -> Option<usize> {
        let middle = self.steps.len() / 2;
        let before = |at: &usize| self.steps[*at].ends;
        (middle.saturating_sub(1)..self.steps.len().saturating_sub(1)).find(before)
    }

    /// Whether two readings from the start gave the same, as far as both go.
    pub fn is_like(&self, other: &Trace) -> bool {
        let alike = self.steps.iter().zip(&other.steps).all(|(one, two)| (&one.lane, &one.position, one.rows) == (&two.lane, &two.position, two.rows));
        alike && (!self.ended || !other.ended || self.steps.len() == other.steps.len())
    }

    /// `self` read from the start, `rest` from behind `self.steps[cut]`: nothing is missing, nothing is there again.
    pub fn check_resumed(&self, cut: usize, rest: &Trace) -> Result<(), Outcome> {
        rest.check_order()?;
        let done = &self.steps[..=cut];
        let again = rest.steps.iter().find(|step| done.iter().any(|old| old.lane == step.lane && old.position == step.position));
        if let Some(step) = again {
            let place = format!("lane {}, position {}", step.lane, step.shown);
            return Err(Outcome::failed(place, "came again though the checkpoint is behind it"));
        }
        let missing = self.steps[cut + 1..].iter().find(|step| !rest.steps.iter().any(|new| new.lane == step.lane && new.position == step.position));
        match missing {
            // A source may cut its batches otherwise: then the rows count.
            Some(_) if self.ended && rest.ended && sum(done) + rest.rows() == self.rows() => Ok(()),
            Some(step) if rest.ended || rest.steps.len() >= self.steps.len() - cut - 1 => {
                let place = format!("lane {}, position {}", step.lane, step.shown);
                let counts = format!("{} rows up to the checkpoint, {} behind it, {} in all", sum(done), rest.rows(), self.rows());
                Err(Outcome::failed(place, format!("was left out ({counts})")))
            }
            Some(step) if rest.steps.is_empty() => Err(Outcome::failed(format!("lane {}, position {}", step.lane, step.shown), "was left out: nothing came behind the checkpoint")),
            _ => Ok(()),
        }
    }
}

fn sum(steps: &[Step]) -> u64 {
    steps.iter().map(|step| step.rows).sum()
}

fn steps(messages: &[Message]) -> Vec<Step> {
    messages.iter().map(|message| {
        let header = &message.header;
        Step {
            lane: header.lane.to_string(),
            position: header.position.bytes.to_vec(),
            number: header.position.number,
            sequence: header.sequence,
            rows: match &message.payload {
                Payload::Change(_) => 1,
                _ => message.row_count(),
            },
            ends: header.ends_position,
            shown: header.position.to_string(),
        }
    }).collect()
}
