//! What was read and is not written yet: lag counts what has not reached every sink, not what was not read.
//!
//! The reader notes what it read before it hands that on, the session which items of the sinks' queues came of it. It is written when the
//! sinks are done with those, though not flushed: a busy pipeline is not behind by as much as comes between two checkpoints.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pipeline_sdk::{Checkpoint, Lane, Message};
use tokio::time::Instant;

use super::queue::Queue;
use super::worker::Item;

/// Queues, each with the number of its item up to which it is meant.
pub(super) type Ends = Vec<(Arc<Queue<Item>>, u64)>;

/// Of all lanes. What is kept is bounded by the queues: what came to no item of its own is kept with what was read before it.
#[derive(Default)]
pub(super) struct Underway {
    lanes: BTreeMap<Lane, Way>,
}

#[derive(Default)]
struct Way {
    /// Where the session began to read it.
    first: Option<i64>,
    /// Behind the last position that was read as a whole.
    read: Option<i64>,
    /// In the order of the lane.
    batches: VecDeque<Batch>,
}

/// What was read of a lane in one go.
struct Batch {
    oldest: Oldest,
    /// `None`: not in the queues yet.
    ends: Option<Ends>,
}

/// Where a lane waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Oldest {
    /// When what waits was read.
    pub since: Instant,
    /// Up to where everything is written, where positions are numbers.
    pub before: Option<i64>,
}

impl Batch {
    fn is_written(&self) -> bool {
        self.ends.as_ref().is_some_and(|ends| ends.iter().all(|(queue, upto)| queue.is_done(*upto)))
    }

    /// Whether it is in the queues behind everything that is meant.
    fn covers(&self, other: &Ends) -> bool {
        let has = |(queue, upto): &(Arc<Queue<Item>>, u64)| {
            self.ends.iter().flatten().any(|(own, own_upto)| Arc::ptr_eq(own, queue) && own_upto >= upto)
        };
        other.iter().all(has)
    }
}

/// The lanes of messages, each once.
pub(super) fn lanes_of(messages: &[Message]) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    for message in messages {
        if !lanes.contains(&message.header.lane) {
            lanes.push(message.header.lane.clone());
        }
    }
    lanes
}

impl Underway {
    /// A session begins here.
    pub fn begin(&mut self, checkpoint: &Checkpoint) {
        let way = |number| Way { first: number, read: number, batches: VecDeque::new() };
        self.lanes = checkpoint.lanes.iter().map(|(lane, position)| (lane.clone(), way(position.number))).collect();
    }

    /// Messages were read, and not before the source told that it is at `told`, where it did.
    pub fn read(&mut self, now: Instant, messages: &[Message], told: impl Fn(&Lane) -> Option<i64>) {
        let mut seen: Vec<&Lane> = Vec::new();
        for message in messages {
            let (header, number) = (&message.header, message.header.position.number);
            let way = self.lanes.entry(header.lane.clone()).or_default();
            if !seen.contains(&&header.lane) {
                seen.push(&header.lane);
                // The position lies behind the message: where nothing else is known, all but that one is written.
                let last = number.map(|it| it - 1);
                let known = way.read.max(told(&header.lane));
                let before = known.map_or(last, |known| Some(last.map_or(known, |last| known.min(last))));
                way.first = way.first.or(before);
                way.settle();
                way.batches.push_back(Batch { oldest: Oldest { since: now, before }, ends: None });
            }
            if header.ends_position {
                way.read = number;
            }
        }
    }

    /// What was held back of a lane, behind what is stored, goes on now, before everything that was read since.
    pub fn hold(&mut self, now: Instant, lane: &Lane, stored: Option<i64>) {
        let way = self.lanes.entry(lane.clone()).or_default();
        let before = stored.or(way.first);
        way.batches.push_front(Batch { oldest: Oldest { since: now, before }, ends: None });
    }

    /// The oldest of what was not in the queues yet, is.
    pub fn routed(&mut self, lane: &Lane, ends: Ends) {
        let Some(way) = self.lanes.get_mut(lane) else { return };
        way.settle();
        let Some(at) = way.batches.iter().position(|batch| batch.ends.is_none()) else { return };
        let is_covered = at.checked_sub(1).is_some_and(|before| way.batches[before].covers(&ends));
        if is_covered {
            way.batches.remove(at);
        } else {
            way.batches[at].ends = Some(ends);
        }
        way.settle();
    }

    /// What is in the queues of this lane is dropped.
    pub fn revoke(&mut self, lane: &Lane) {
        if let Some(way) = self.lanes.get_mut(lane) {
            way.batches.retain(|batch| batch.ends.is_none());
            (way.first, way.read) = (None, None);
        }
    }

    /// Forgets what is written by now.
    pub fn settle(&mut self) {
        self.lanes.values_mut().for_each(Way::settle);
    }

    /// The session is over: what is left.
    pub fn end(&mut self) -> BTreeMap<Lane, Oldest> {
        std::mem::take(&mut self.lanes).into_iter().filter_map(|(lane, way)| Some((lane, way.batches.front()?.oldest))).collect()
    }

    /// What a lane waits with.
    pub fn oldest(&self, lane: &Lane) -> Option<Oldest> {
        Some(self.lanes.get(lane)?.batches.front()?.oldest)
    }

    /// Up to where a lane was read as a whole.
    pub fn read_upto(&self, lane: &Lane) -> Option<i64> {
        self.lanes.get(lane)?.read
    }

    /// The lanes that wait.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().filter(|(_, way)| !way.batches.is_empty()).map(|(lane, _)| lane)
    }
}

impl Way {
    fn settle(&mut self) {
        while self.batches.front().is_some_and(Batch::is_written) {
            self.batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use pipeline_sdk::{Frame, Header, Payload, Position};

    use super::super::queue::Weight;
    use super::*;
    use crate::config::Buffer;

    fn message(number: i64) -> Message {
        let header = Header { ends_position: true, ..Header::new(Lane::new("1"), Position::from_number(number)) };
        let frame = Frame { format: "f".into(), data: Vec::new().into(), namespace: "".into(), rows: 0, tables: 0 };
        Message { header, payload: Payload::Frame(frame) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_to_no_item_is_kept_with_what_was_read_before_it() {
        let (mut underway, lane, now) = (Underway::default(), Lane::new("1"), Instant::now());
        let queue = Arc::new(Queue::new(&Buffer::default()));
        for number in 11..=1_010 {
            underway.read(now, &[message(number)], |_| Some(5));
            if number == 11 || number == 500 {
                queue.push(Item::Message(message(number)), Weight { messages: 1, ..Weight::default() }).await.unwrap();
            }
            underway.routed(&lane, vec![(queue.clone(), queue.pushed())]);
        }
        assert_eq!(underway.lanes[&lane].batches.len(), 2);
        let before = |underway: &Underway| underway.oldest(&lane).map(|oldest| oldest.before);
        assert_eq!(before(&underway), Some(Some(5)));
        let (_, upto) = queue.pop_numbered(Weight { messages: 1, bytes: u64::MAX, compared: u64::MAX }).await.unwrap();
        underway.settle();
        assert_eq!(before(&underway), Some(Some(5)), "it is not written yet");
        queue.note_done(upto);
        underway.settle();
        assert_eq!(before(&underway), Some(Some(499)));
        // What is read again.
        underway.begin(&Checkpoint { lanes: [(lane.clone(), Position::from_number(300))].into() });
        assert_eq!(before(&underway), None);
        underway.read(now, &[message(301), message(302)], |_| Some(1_010));
        assert_eq!(before(&underway), Some(Some(300)));
        // The lane is another process's, and what was read and not handed on yet may be of the time when it is back.
        underway.revoke(&lane);
        assert_eq!(before(&underway), Some(Some(300)));
        underway.routed(&lane, vec![(queue.clone(), queue.pushed())]);
        underway.revoke(&lane);
        assert_eq!(before(&underway), None);
    }
}
