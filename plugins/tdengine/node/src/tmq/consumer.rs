//! One consumer: its lanes, where each stands, and the message that it holds.
//!
//! Positions and offsets are "next to read" everywhere. The position of a lane moves when a message is handed out, and over
//! what the consumer does not get; `commit` stores the positions of all lanes, the held message included (trap T5).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tdengine_store::database::TopicKind;
use tdengine_store::{Store, VgroupId};
use tdengine_wire::envelope::{AssignedVgroup, NEVER_COMMITTED};
use tokio::time::Instant;

use super::group::{Lane, Membership};
use super::message::{Message, Selection, scan};
use super::subscribe::{Options, Reset};
use crate::error::Fail;
use crate::fault::Faults;

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Next version to read; `None` while the reset policy gives none.
    position: Option<i64>,
    /// What `assignment` shows: start of the last rows, next offset after a change (FACTS F38), what was committed since.
    shown: i64,
    /// A message was handed out or sought: there is something to commit.
    touched: bool,
}

/// A consumer that subscribed.
#[derive(Debug)]
pub(crate) struct Consumer {
    store: Store,
    pub options: Options,
    pub membership: Membership,
    selection: Selection,
    generation: u64,
    /// In the order in which they are asked next.
    turns: VecDeque<Lane>,
    places: HashMap<Lane, Place>,
    /// Positions are known to the client's library: after the first poll or `assignment` (0x4010 before).
    known: bool,
    /// The next poll returns nothing, as the first one after a seek does (FACTS F39).
    sought: bool,
    /// Handed out first, behind a seek.
    answered: Option<Arc<Message>>,
    last_commit: Instant,
    last_id: u64,
    /// The message that `fetch…` reads; the next one, or `unsubscribe`, frees it.
    pub held: Option<Arc<Message>>,
}

impl Consumer {
    pub fn new(store: Store, options: Options, membership: Membership, selection: Selection) -> Self {
        Self {
            store,
            options,
            membership,
            selection,
            generation: 0,
            turns: VecDeque::new(),
            places: HashMap::new(),
            known: false,
            sought: false,
            answered: None,
            last_commit: Instant::now(),
            last_id: 0,
            held: None,
        }
    }

    /// Takes over lanes that were dealt since the last call; new ones start at their committed offset or by the reset
    /// policy.
    pub fn refresh(&mut self) -> Result<(), Fail> {
        let assigned = self.membership.assigned();
        let assigned = assigned.lock();
        if assigned.generation == self.generation {
            return Ok(());
        }
        self.generation = assigned.generation;
        self.places.retain(|lane, _| assigned.lanes.contains(lane));
        for lane in &assigned.lanes {
            if !self.places.contains_key(lane) {
                let place = self.place(lane)?;
                self.places.insert(lane.clone(), place);
            }
        }
        // The last one first, as the real server was seen to begin (recording c4).
        self.turns = assigned.lanes.iter().rev().cloned().collect();
        Ok(())
    }

    fn place(&self, lane: &Lane) -> Result<Place, Fail> {
        let committed = self.store.committed(self.membership.group(), &lane.topic, lane.vgroup);
        let (first, next) = self.store.wal_range(lane.vgroup)?;
        let position = committed.or(match self.options.reset {
            Reset::Earliest => Some(first),
            Reset::Latest => Some(next),
            Reset::None => None,
        });
        Ok(Place { position, shown: position.unwrap_or(first), touched: committed.is_some() })
    }

    /// Whether the next poll has to come back empty; asked once.
    pub fn takes_seek_pause(&mut self) -> bool {
        std::mem::take(&mut self.sought)
    }

    /// Hands the next message out, from each lane in turn, and frees the held one. `None` when no lane has one; then the
    /// held one can still be read.
    pub fn next(&mut self, faults: &Faults) -> Result<Option<Arc<Message>>, Fail> {
        self.refresh()?;
        self.known = true;
        if let Some(answered) = self.answered.take() {
            self.held = Some(answered.clone());
            return Ok(Some(answered));
        }
        if let Some(again) = self.held.clone().filter(|_| faults.duplicates()) {
            self.last_id += 1;
            let again = Arc::new(Message { id: self.last_id, ..(*again).clone() });
            self.held = Some(again.clone());
            return Ok(Some(again));
        }
        for _ in 0..self.turns.len() {
            let Some(lane) = self.turns.pop_front() else {
                break;
            };
            self.turns.push_back(lane.clone());
            if faults.is_frozen(lane.vgroup) {
                continue;
            }
            if let Some(message) = self.read(&lane)? {
                self.held = Some(message.clone());
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn read(&mut self, lane: &Lane) -> Result<Option<Arc<Message>>, Fail> {
        let Some(place) = self.places.get_mut(lane) else {
            return Ok(None);
        };
        let Some(start) = place.position else {
            // 3.3.0.1 says nothing (FACTS F44), newer servers do (PROTOCOL 6.4).
            return if self.store.config().version.has_stmt2() { Err(no_committed_offset()) } else { Ok(None) };
        };
        let topic = self.store.topic(&lane.topic)?;
        let scanned = scan(&self.store, &topic, lane.vgroup, start, self.selection)?;
        if scanned.next != start {
            place.touched = true;
            let (group, rows) = (self.membership.group(), scanned.rows as u64);
            self.store.hand_out(group, &lane.topic, lane.vgroup, scanned.next, rows);
        }
        place.position = Some(scanned.next);
        let Some(content) = scanned.content else {
            return Ok(None);
        };
        let precision = self.store.database(&topic.database)?.options.precision();
        self.last_id += 1;
        let message = Message {
            id: self.last_id,
            topic: topic.name.clone(),
            database: topic.database.clone(),
            vgroup: lane.vgroup,
            precision,
            has_table_names: !matches!(topic.kind, TopicKind::Select { .. }),
            start,
            next: scanned.next,
            content,
        };
        place.shown = message.offset();
        Ok(Some(Arc::new(message)))
    }

    /// Commits what was handed out when the time for it has come.
    pub fn commit_if_due(&mut self) -> Result<(), Fail> {
        match self.options.auto_commit {
            Some(interval) if self.last_commit.elapsed() >= interval => self.commit(),
            _ => Ok(()),
        }
    }

    /// Commits the position of every lane.
    pub fn commit(&mut self) -> Result<(), Fail> {
        self.last_commit = Instant::now();
        for (lane, place) in &mut self.places {
            if let (Some(position), true) = (place.position, place.touched) {
                store_commit(&self.store, self.membership.group(), lane, position)?;
                place.shown = position;
            }
        }
        Ok(())
    }

    /// Commits one lane, forwards or backwards (FACTS F37).
    pub fn commit_offset(&mut self, lane: &Lane, offset: i64) -> Result<(), Fail> {
        self.find(lane)?;
        self.check_known()?;
        let (first, next) = self.store.wal_range(lane.vgroup)?;
        if !(first..=next).contains(&offset) {
            return Err(out_of_range());
        }
        store_commit(&self.store, self.membership.group(), lane, offset)?;
        if let Some(place) = self.places.get_mut(lane) {
            place.shown = offset;
        }
        Ok(())
    }

    /// Moves a lane; −1 is accepted as the real server accepts it and reads from the first kept version (FACTS F39).
    pub fn seek(&mut self, lane: &Lane, offset: i64, pauses: bool, faults: &Faults) -> Result<(), Fail> {
        self.find(lane)?;
        self.check_known()?;
        let (first, next) = self.store.wal_range(lane.vgroup)?;
        if offset != -1 && !(first..=next).contains(&offset) {
            return Err(out_of_range());
        }
        if faults.answers_after_seek() {
            self.answered = self.read(lane)?;
        }
        self.places.insert(lane.clone(), Place { position: Some(offset), shown: offset, touched: true });
        self.sought = pauses;
        Ok(())
    }

    pub fn committed(&mut self, lane: &Lane) -> Result<i64, Fail> {
        self.find(lane)?;
        let committed = self.store.committed(self.membership.group(), &lane.topic, lane.vgroup);
        Ok(committed.unwrap_or(NEVER_COMMITTED))
    }

    pub fn position(&mut self, lane: &Lane) -> Result<i64, Fail> {
        let place = self.find(lane)?;
        self.check_known()?;
        place.position.map_or_else(|| self.store.wal_range(lane.vgroup).map(|(first, _)| first).map_err(Fail::from), Ok)
    }

    /// Lanes that were dealt since the last poll are not seen: a client's library takes them over when it polls.
    pub fn assignment(&mut self, topic: &str) -> Result<Vec<AssignedVgroup>, Fail> {
        self.check_topic(topic)?;
        self.known = true;
        let mut lanes: Vec<(&Lane, &Place)> = self.places.iter().filter(|(lane, _)| lane.topic == topic).collect();
        lanes.sort_by_key(|(lane, _)| lane.vgroup);
        let assigned = lanes.into_iter().map(|(lane, place)| {
            let (begin, end) = self.store.wal_range(lane.vgroup)?;
            Ok(AssignedVgroup { vgroup_id: lane.vgroup, offset: place.shown, begin, end })
        });
        assigned.collect()
    }

    /// The vgroups of its lanes, to wait for entries in them.
    pub fn vgroups(&self) -> Vec<VgroupId> {
        self.turns.iter().map(|lane| lane.vgroup).collect()
    }

    fn find(&mut self, lane: &Lane) -> Result<Place, Fail> {
        self.check_topic(&lane.topic)?;
        let place = self.places.get(lane).copied();
        place.ok_or_else(|| Fail::new(0x4008, "VgId does not belong to this consumer"))
    }

    fn check_topic(&self, topic: &str) -> Result<(), Fail> {
        match self.options.topics.iter().any(|subscribed| subscribed == topic) {
            true => Ok(()),
            false => Err(Fail::new(0x4009, "Topic does not belong to this consumer")),
        }
    }

    fn check_known(&self) -> Result<(), Fail> {
        match self.known {
            true => Ok(()),
            false => Err(Fail::new(0x4010, "Assignment or poll interface need to be called first")),
        }
    }
}

/// The committed value again is no entry in the log and no error (FACTS F39).
fn store_commit(store: &Store, group: &str, lane: &Lane, offset: i64) -> Result<(), Fail> {
    if store.committed(group, &lane.topic, lane.vgroup) == Some(offset) {
        return Ok(());
    }
    Ok(store.commit(group, &lane.topic, lane.vgroup, offset)?)
}

/// How long a poll sleeps before it looks again: the real server does not wake it (FACTS F43).
pub(crate) fn look_again(left: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(1);
    left.min(LONGEST)
}

fn no_committed_offset() -> Fail {
    Fail::new(0x0A0D, "TQ no committed offset")
}

fn out_of_range() -> Fail {
    Fail::new(0x4007, "Offset out of range")
}
