//! What a sink may have written before a restart or a rewind, so that it compares that before it writes it again (invariant
//! `no-regress`).
//!
//! Before something is written, its last position is stored: the intent. Read again, a message that begins before the intent
//! may reach further than it did, as a log hands out what was appended since in one message. So the intent also counts rows,
//! from the barriers before it on: the rows of such a message beyond that count are new, and are not flagged. Where nothing
//! tells, too many are flagged rather than too few.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_sdk::{Checkpoint, Header, Lane, Message, Position};

use crate::state::{Intent, RowCounts};

/// Barriers that an intent remembers the count of rows at: a checkpoint is at one of the last.
const BARRIERS_MAX: usize = 8;
/// Where a lane that was never checkpointed begins.
const BEGINNING: i64 = i64::MIN;

/// What may have been written before.
#[derive(Default)]
pub(super) struct Replays {
    /// Of the sink's instance in the store.
    key: String,
    /// Up to these positions messages are flagged.
    flagged: Checkpoint,
    /// Rows of a lane that may have been written and were not read again yet; absent where it is not known.
    left: BTreeMap<Lane, u64>,
    /// How far each lane was read.
    reached: Checkpoint,
    /// Lanes that are at their position, where positions have no order.
    seen: BTreeSet<Lane>,
    /// Rows since the session began, and at its barriers.
    counts: BTreeMap<Lane, RowCounts>,
    /// Where lanes resumed.
    resumed: Checkpoint,
    /// Up to where the store says that the sink may have written.
    stored: Intent,
}

impl Replays {
    pub fn new(key: String, stored: Intent, resumed: &Checkpoint) -> Self {
        let mut flagged = stored.upto.clone();
        // What is behind the checkpoint does not come again.
        flagged.lanes.retain(|lane, upto| resumed.lanes.get(lane).is_none_or(|from| from.bytes != upto.bytes));
        let left = |lane: &Lane| Some((lane.clone(), stored.rows.get(lane)?.behind(begin_of(resumed, lane)?)?));
        let left = flagged.lanes.keys().filter_map(left).collect();
        let (reached, resumed) = (resumed.clone(), resumed.clone());
        Self { key, flagged, left, reached, seen: BTreeSet::new(), counts: BTreeMap::new(), resumed, stored }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn intent(&self) -> &Intent {
        &self.stored
    }

    /// Flags what may have been written, and counts what will be. Whether the intent has to be stored anew.
    pub fn note(&mut self, message: &mut Message) -> bool {
        self.flag(message);
        let (lane, position) = (&message.header.lane, &message.header.position);
        let counts = count_of(&mut self.counts, &self.resumed, lane);
        counts.upto += message.row_count();
        let is_news = match (self.stored.upto.lanes.get(lane), message.header.replayed) {
            (Some(Position { number: Some(stored), .. }), _) if position.number.is_some() => {
                position.number > Some(*stored)
            }
            (Some(stored), false) => stored != position,
            (None, _) => true,
            (Some(_), true) => false,
        };
        // Another part of the same position.
        let is_more = self.stored.upto.lanes.get(lane) == Some(position)
            && self.stored.rows.get(lane).is_some_and(|stored| stored.upto < counts.upto);
        if is_news || is_more {
            self.stored.upto.lanes.insert(lane.clone(), position.clone());
            self.stored.rows.insert(lane.clone(), counts.clone());
        }
        is_news || is_more
    }

    /// A checkpoint may come to be here.
    pub fn barrier(&mut self, lanes: &[(Lane, Position)]) {
        for (lane, position) in lanes {
            let Some(number) = position.number else { continue };
            let counts = count_of(&mut self.counts, &self.resumed, lane);
            let at = counts.upto;
            counts.barriers.push((number, at));
            let surplus = counts.barriers.len().saturating_sub(BARRIERS_MAX);
            counts.barriers.drain(..surplus);
        }
    }

    /// Flags a message that begins before the stored position. The first one that begins behind it ends that for its lane.
    fn flag(&mut self, message: &mut Message) {
        let rows = message.row_count();
        let header = &mut message.header;
        let Some(upto) = self.flagged.lanes.get(&header.lane) else { return };
        let begins = self.reached.lanes.get(&header.lane).map(|reached| reached.number);
        let is_before = match (begins, upto.number) {
            (Some(Some(begins)), Some(upto)) => begins < upto,
            // The lane is read from its beginning.
            (None, Some(_)) => true,
            // Positions without an order: everything until the stored one was seen.
            _ if header.position.bytes == upto.bytes => {
                self.seen.insert(header.lane.clone());
                true
            }
            _ => !self.seen.contains(&header.lane),
        };
        let reaches_further = header.position.number.zip(upto.number).is_some_and(|(end, upto)| end > upto);
        if header.ends_position {
            self.reached.lanes.insert(header.lane.clone(), header.position.clone());
        }
        if !is_before {
            self.flagged.lanes.remove(&header.lane);
            return;
        }
        header.replayed = true;
        if let Some(left) = self.left.get_mut(&header.lane) {
            if reaches_further && rows > 0 {
                header.replayed_rows = *left;
                header.replayed = *left > 0;
            }
            *left = left.saturating_sub(rows);
        }
    }
}

/// Hands the flag of a message on to the parts that it was decoded into.
pub(super) fn flag_parts(whole: &Header, parts: &mut [Message]) {
    let mut left = whole.replayed_rows;
    for part in parts {
        let rows = part.row_count();
        part.header.replayed = whole.replayed && left > 0;
        part.header.replayed_rows = left;
        if left != u64::MAX {
            left = left.saturating_sub(rows);
        }
    }
}

fn begin_of(resumed: &Checkpoint, lane: &Lane) -> Option<i64> {
    resumed.lanes.get(lane).map_or(Some(BEGINNING), |position| position.number)
}

fn count_of<'a>(counts: &'a mut BTreeMap<Lane, RowCounts>, resumed: &Checkpoint, lane: &Lane) -> &'a mut RowCounts {
    if !counts.contains_key(lane) {
        let barriers = begin_of(resumed, lane).map(|begin| (begin, 0)).into_iter().collect();
        counts.insert(lane.clone(), RowCounts { upto: 0, barriers });
    }
    counts.get_mut(lane).expect("it was just inserted")
}

#[cfg(test)]
mod tests {
    use pipeline_sdk::{Frame, Payload};

    use super::*;

    fn message(position: Position, rows: u64) -> Message {
        let frame = Frame { format: "x".into(), data: Default::default(), namespace: "".into(), rows, tables: 1 };
        Message { header: Header::new(Lane::new("1"), position), payload: Payload::Frame(frame) }
    }

    fn flags(stored: Position, positions: impl IntoIterator<Item = Position>) -> Vec<bool> {
        let mut replays = Replays::default();
        replays.flagged.lanes.insert(Lane::new("1"), stored);
        let flag = |position| {
            let mut message = message(position, 1);
            replays.flag(&mut message);
            message.header.replayed
        };
        positions.into_iter().map(flag).collect()
    }

    #[test]
    fn what_may_have_been_written_is_flagged_and_nothing_else() {
        let number = Position::from_number;
        assert_eq!(flags(number(5), [4, 5, 6, 7].map(number)), [true, true, false, false]);
        // Read again, a message may end further on than what was written.
        assert_eq!(flags(number(5), [3, 7, 8].map(number)), [true, true, false]);
        let name = |text: &str| Position { bytes: text.as_bytes().to_vec().into(), ..Position::default() };
        assert_eq!(flags(name("m"), ["a", "m", "m", "b", "m"].map(name)), [true, true, true, false, false]);
    }

    /// Writes messages of `(position, rows)` with a barrier behind each, and says what the intent is then.
    fn written(resumed: &Checkpoint, messages: &[(i64, u64)]) -> Intent {
        let mut replays = Replays::new("s".into(), Intent::default(), resumed);
        for (number, rows) in messages {
            assert!(replays.note(&mut message(Position::from_number(*number), *rows)));
            replays.barrier(&[(Lane::new("1"), Position::from_number(*number))]);
        }
        replays.intent().clone()
    }

    #[test]
    fn rows_beyond_those_that_may_have_been_written_are_not_flagged() {
        let at = |number: i64| Checkpoint { lanes: [(Lane::new("1"), Position::from_number(number))].into() };
        let stored = written(&Checkpoint::default(), &[(10, 5), (20, 3), (30, 4)]);
        let again = |resumed: &Checkpoint, messages: &[(i64, u64)]| {
            let mut replays = Replays::new("s".into(), stored.clone(), resumed);
            let flag = |(number, rows): &(i64, u64)| {
                let mut message = message(Position::from_number(*number), *rows);
                replays.note(&mut message);
                if message.header.replayed { message.header.replayed_rows } else { 0 }
            };
            messages.iter().map(flag).collect::<Vec<_>>()
        };
        let all = u64::MAX;
        for (what, resumed, messages, expect) in [
            ("from a barrier, one message over all", at(10), vec![(50, 20)], vec![7]),
            ("from the beginning", Checkpoint::default(), vec![(50, 20)], vec![12]),
            ("in two, the second reaches further", at(10), vec![(20, 3), (40, 9), (50, 1)], vec![all, 4, 0]),
            ("from between two barriers: too many", at(25), vec![(50, 20)], vec![4]),
            ("from before all that is remembered", at(-1), vec![(50, 20)], vec![12]),
            ("nothing is left", at(30), vec![(50, 20)], vec![0]),
            ("rows vanished meanwhile: those behind them count", at(10), vec![(20, 1), (50, 20)], vec![all, 6]),
        ] {
            assert_eq!(again(&resumed, &messages), expect, "{what}");
        }
    }

    #[test]
    fn parts_share_the_flag() {
        let mut whole = Header::new(Lane::new("1"), Position::from_number(1));
        (whole.replayed, whole.replayed_rows) = (true, 5);
        let mut parts = [3, 4, 2].map(|rows| message(Position::from_number(1), rows));
        flag_parts(&whole, &mut parts);
        let flags = parts.map(|part| if part.header.replayed { part.header.replayed_rows } else { 0 });
        assert_eq!(flags, [5, 2, 0]);
    }
}
