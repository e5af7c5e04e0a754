//! A connected source: polling, handing out messages, committing, and telling how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pipeline_sdk::{Checkpoint, Context, Error, Frame, Header, Interrupted, LaneProgress, Message, Payload, Polled, Result, SOURCE_HOLE};
use tdengine_wire::envelope::AssignedVgroup;
use tokio::time::Instant;

use super::changes::Changes;
use super::lane::{LaneState, Reader, lane_of, offset_of, position};
use super::pending::PendingTokens;
use super::{FRAME_FORMAT, TmqConfig};
use crate::client::Message as TmqMessage;
use crate::transport::{Connection, Consumer};
use crate::metadata::Database;

/// Shortest and longest blocking time of a poll: below, polls cost more than they bring; a server looks once a second
/// anyhow (FACTS F43).
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_secs(1);
/// Of the second consumer: a longer one answers as soon (FACTS F43), and costs less while nothing comes.
const META_POLL: Duration = Duration::from_secs(2);
/// Of both consumers while nothing is written at all and the engine waits for so long: it answers as soon.
const STILL_POLL: Duration = Duration::from_secs(16);
/// Entries of the second consumer that are taken before the first is asked again, as many as were fetched ahead where that has more, and how
/// long each reply is given.
const META_ENTRIES_AT_ONCE: usize = 64;
const META_REPLY_WAIT: Duration = Duration::from_millis(1);
/// Between two looks at where a lane without messages is.
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// Entries that are not ours to read (marked, subscriptions, commits) before a lane's position is moved over them.
const IDLE_ENTRIES: i64 = 32;

/// What a wait brought.
enum Came {
    Main(TmqMessage),
    Meta(TmqMessage),
    /// A poll ended that found nothing.
    Nothing,
    Over,
}

pub struct Session {
    pub cluster: String,
    database: Database,
    main: Consumer,
    meta: Option<Consumer>,
    lanes: BTreeMap<(Reader, i32), LaneState>,
    /// What the consumers read before they had all lanes.
    early: Vec<(Reader, TmqMessage)>,
    changes: Changes,
    /// Fetched while looking at something else; handed out first.
    stash: VecDeque<Message>,
    announced: bool,
    /// Where the second consumer's lanes stand is to be looked at: they are behind, or were not for a while.
    is_meta_wanted: bool,
    prefetch: usize,
    last_idle_look: Instant,
    /// Where each vgroup's log ended when that was last asked, and that nothing was written between the last two times.
    ends: BTreeMap<i32, i64>,
    is_still: bool,
    /// What comes next in a log is gone: said when all that was fetched before is handed out, instead of a poll, which would step over it.
    hole: Option<Error>,
}

impl Session {
    #[expect(clippy::too_many_arguments, reason = "the one place that puts together what connecting found")]
    pub fn new(
        config: &TmqConfig,
        context: &Context,
        cluster: String,
        database: Database,
        sql: Connection,
        main: Consumer,
        meta: Option<Consumer>,
        lanes: BTreeMap<(Reader, i32), LaneState>,
        early: Vec<(Reader, TmqMessage)>,
        pending: PendingTokens,
    ) -> Self {
        let changes = Changes::new(context.clone(), cluster.clone(), database.name.clone(), sql, pending);
        Self {
            cluster,
            database,
            main,
            meta,
            lanes,
            early,
            changes,
            stash: VecDeque::new(),
            announced: false,
            is_meta_wanted: true,
            prefetch: config.prefetch,
            last_idle_look: Instant::now(),
            ends: BTreeMap::new(),
            is_still: false,
            hole: None,
        }
    }

    pub async fn next(&mut self, wait: Duration, interrupted: &Interrupted) -> Result<Polled> {
        if !self.announced {
            self.announced = true;
            let assigned = self.lanes.values().map(|lane| lane.lane.clone()).collect();
            return Ok(Polled::Lanes { assigned, revoked: Vec::new() });
        }
        self.take_early().await?;
        let until = Instant::now() + wait;
        while self.stash.is_empty() {
            if let Some(hole) = &self.hole {
                return Err(hole.clone());
            }
            let is_over = self.read(until, interrupted).await?;
            if self.stash.is_empty() && self.last_idle_look.elapsed() >= IDLE_LOOK {
                self.last_idle_look = Instant::now();
                Box::pin(self.move_over_hidden_entries()).await?;
            }
            if self.stash.is_empty() && is_over {
                return Ok(Polled::Idle);
            }
        }
        Ok(Polled::Messages(self.stash.drain(..).collect()))
    }

    /// Takes what either consumer brings next. The poll after it is sent at once, so that the next messages come while this one is being
    /// written. Whether the wait is over.
    async fn read(&mut self, until: Instant, interrupted: &Interrupted) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let wait = left.clamp(POLL_MIN, POLL_MAX);
        let (poll, meta_poll) = if self.is_still && !self.is_meta_wanted && left > POLL_MAX { (left.min(STILL_POLL), STILL_POLL) } else { (wait, META_POLL) };
        let came = self.wait_for_message(poll, meta_poll, until, interrupted).await?;
        let is_over = matches!(came, Came::Over);
        match came {
            Came::Main(message) => {
                self.main.start_poll(wait);
                // A wait, of which there are many at once, does not hold the memory that this needs.
                Box::pin(self.take(Reader::Main, message)).await?;
                // What was fetched ahead goes along.
                while self.main.has_reply() && self.stash.len() < self.prefetch {
                    let Some(message) = self.main.poll(wait).await? else { break };
                    Box::pin(self.take(Reader::Main, message)).await?;
                }
            }
            Came::Meta(message) => self.take_meta(message, meta_poll).await?,
            Came::Nothing | Came::Over => {}
        }
        self.read_meta(meta_poll).await?;
        Ok(is_over)
    }

    /// The next message of either consumer; a poll that lasts longer than the wait stays under way.
    async fn wait_for_message(&mut self, poll: Duration, meta_poll: Duration, until: Instant, interrupted: &Interrupted) -> Result<Came> {
        let is_meta_wanted = self.is_meta_wanted;
        let of_meta = async {
            match self.meta.as_mut().filter(|_| !is_meta_wanted) {
                Some(meta) => meta.poll(meta_poll).await,
                None => std::future::pending().await,
            }
        };
        // Waiting for a poll can be given up and taken up again.
        tokio::select! {
            biased;
            polled = self.main.poll(poll) => Ok(polled?.map_or(Came::Nothing, Came::Main)),
            polled = of_meta => Ok(polled?.map_or(Came::Nothing, Came::Meta)),
            () = interrupted.interrupted() => Ok(Came::Over),
            () = tokio::time::sleep_until(until + POLL_MIN) => Ok(Came::Over),
        }
    }

    /// Takes what else the second consumer brought, and waits for nothing.
    async fn read_meta(&mut self, poll: Duration) -> Result<()> {
        for taken in 0..META_ENTRIES_AT_ONCE {
            if taken >= self.prefetch && self.main.has_reply() {
                return Ok(());
            }
            if self.is_meta_wanted {
                Box::pin(self.look_at_meta()).await?;
            }
            let Some(meta) = &mut self.meta else { return Ok(()) };
            if !meta.has_reply() {
                self.poll_meta(poll);
                return Ok(());
            }
            let Some(message) = meta.poll(poll).await? else { continue };
            self.take_meta(message, poll).await?;
            if !self.meta.as_ref().is_some_and(Consumer::has_reply) {
                tokio::time::sleep(META_REPLY_WAIT).await;
            }
        }
        Ok(())
    }

    /// Takes a message of the second consumer while its next poll is under way.
    async fn take_meta(&mut self, message: TmqMessage, poll: Duration) -> Result<()> {
        self.poll_meta(poll);
        Box::pin(self.take(Reader::Meta, message)).await
    }

    /// Begins the second consumer's next poll, unless it pauses because somebody wants to know where it stands.
    fn poll_meta(&mut self, poll: Duration) {
        if let Some(meta) = self.meta.as_mut().filter(|_| !self.is_meta_wanted) {
            meta.start_poll(poll);
        }
    }

    /// Where the server stands with the second consumer's lanes, which is wanted: the consumer pauses, and is asked when what it had fetched
    /// is taken.
    async fn look_at_meta(&mut self) -> Result<()> {
        let Some(meta) = self.meta.as_mut() else { return Ok(()) };
        meta.pause();
        if !meta.is_paused() {
            return Ok(());
        }
        let assigned = meta.assignment().await?;
        let of_reader = |lane: &&LaneState| lane.reader == Reader::Meta;
        if self.lanes.values().filter(of_reader).any(|lane| !assigned.iter().any(|it| it.vgroup_id == lane.vgroup)) {
            return Err(lanes_were_moved());
        }
        ask_positions(meta, Reader::Meta, &mut self.lanes).await?;
        self.is_meta_wanted = false;
        let log = assigned.into_iter().map(|it| (it.vgroup_id, it)).collect();
        self.look_for_hole(Reader::Meta, &log);
        Ok(())
    }

    /// Whether a log was cut beyond where its reader stands, while nothing was polled: a site that is away for long holds the pipeline up, and
    /// the next poll would step over what is gone without a word (FACTS F40). Asked where the reader's positions were just asked; connecting
    /// again, behind what was fetched, reports it.
    fn look_for_hole(&mut self, reader: Reader, log: &BTreeMap<i32, AssignedVgroup>) {
        for lane in self.lanes.values().filter(|lane| lane.reader == reader) {
            let (at, begin) = (lane.at(), log[&lane.vgroup].begin);
            if at < begin {
                let message = format!("lane {} stands at {at}, and its log begins at {begin} by now", lane.lane);
                self.hole.get_or_insert(Error::disconnected(message).code(SOURCE_HOLE));
            }
        }
    }

    async fn take_early(&mut self) -> Result<()> {
        for (reader, message) in std::mem::take(&mut self.early) {
            Box::pin(self.take(reader, message)).await?;
        }
        Ok(())
    }

    /// Turns a message of the log into messages of the pipeline.
    async fn take(&mut self, reader: Reader, message: TmqMessage) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(&(reader, message.vgroup)) else {
            return Err(Error::disconnected(format!("vgroup {} came that was not assigned", message.vgroup)));
        };
        self.is_still = false;
        let begins = message.begins();
        if begins >= 0 && !lane.takes(begins)? {
            return Ok(());
        }
        let read = self.changes.read(reader, &lane.lane, &message).await?;
        let place = position(read.next, self.database.created);
        let count = read.messages.len();
        for (index, (mark, payload)) in read.messages.into_iter().enumerate() {
            lane.sequence += 1;
            let mut header = Header::new(lane.lane.clone(), place.clone());
            header.sequence = lane.sequence;
            header.ends_position = index + 1 == count;
            header.mark = mark;
            self.stash.push_back(Message { header, payload });
        }
        lane.next = read.next;
        if count > 0 {
            lane.handed_out = read.next;
        }
        Ok(())
    }

    /// Lanes that only got entries which are not ours would stay where they are until retention takes the log from under
    /// them: an empty frame carries their position on.
    async fn move_over_hidden_entries(&mut self) -> Result<()> {
        if !self.is_at_rest() {
            self.is_meta_wanted = true;
            self.look_at_main().await?;
        }
        for (reader, vgroup, at) in self.positions() {
            let Some(lane) = self.lanes.get_mut(&(reader, vgroup)) else { continue };
            if at < lane.handed_out + IDLE_ENTRIES {
                continue;
            }
            lane.sequence += 1;
            lane.next = at;
            lane.handed_out = at;
            let mut header = Header::new(lane.lane.clone(), position(at, self.database.created));
            header.sequence = lane.sequence;
            let frame = Frame {
                format: FRAME_FORMAT.into(),
                data: bytes::Bytes::new(),
                namespace: self.database.name.as_str().into(),
                rows: 0,
                tables: 0,
            };
            self.stash.push_back(Message { header, payload: Payload::Frame(frame) });
        }
        Ok(())
    }

    /// Where the server stands with the first consumer's lanes, with no message between it and us: its polls under way are ended.
    async fn look_at_main(&mut self) -> Result<()> {
        self.take_early().await?;
        for message in self.main.settle().await? {
            self.take(Reader::Main, message).await?;
        }
        ask_positions(&self.main, Reader::Main, &mut self.lanes).await
    }

    /// As [`LaneState::at`] of each lane.
    fn positions(&self) -> Vec<(Reader, i32, i64)> {
        self.lanes.values().map(|lane| (lane.reader, lane.vgroup, lane.at())).collect()
    }

    /// Whether all that was written was read when that was last asked, and nothing came since.
    fn is_at_rest(&self) -> bool {
        let is_taken = self.stash.is_empty() && self.early.is_empty() && !self.main.has_reply();
        is_taken && self.is_still && self.positions().iter().all(|(_, vgroup, at)| self.ends.get(vgroup).is_some_and(|end| at >= end))
    }

    /// The log of each vgroup: its oldest entry and its end.
    async fn log(&self) -> Result<BTreeMap<i32, AssignedVgroup>> {
        // Both consumers read the same vgroups' logs.
        let log: BTreeMap<i32, _> = self.main.assignment().await?.into_iter().map(|it| (it.vgroup_id, it)).collect();
        if self.lanes.values().any(|lane| !log.contains_key(&lane.vgroup)) {
            return Err(lanes_were_moved());
        }
        Ok(log)
    }

    pub async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        for (name, place) in &upto.lanes {
            let Some(lane) = lane_of(name).and_then(|key| self.lanes.get_mut(&key)) else { continue };
            let offset = offset_of(place, &self.database.name, self.database.created)?;
            self.changes.pending.forget(name.as_str(), offset)?;
            // Nothing is committed past a token whose DROP was not seen.
            let opened = self.changes.pending.oldest_open(name.as_str());
            let offset = opened.map_or(offset, |opened| offset.min(opened - 1));
            if offset <= lane.committed {
                continue;
            }
            let consumer = match lane.reader {
                Reader::Main => &self.main,
                Reader::Meta => self.meta.as_ref().expect("a lane has its consumer"),
            };
            consumer.commit_offset(lane.vgroup, offset).await?;
            lane.committed = offset;
        }
        Ok(())
    }

    pub async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let ends_of = |log: &BTreeMap<i32, AssignedVgroup>| log.iter().map(|(vgroup, log)| (*vgroup, log.end)).collect::<BTreeMap<_, _>>();
        // At rest, nothing else is asked while nothing is written.
        let known = if self.is_at_rest() { Some(self.log().await?).filter(|log| ends_of(log) == self.ends) } else { None };
        let log = match known {
            Some(log) => log,
            None => {
                self.look_at_main().await?;
                let log = self.log().await?;
                self.look_for_hole(Reader::Main, &log);
                log
            }
        };
        let positions = self.positions();
        let ends = ends_of(&log);
        self.is_still = self.ends == ends;
        self.ends = ends;
        self.is_meta_wanted |= positions.iter().any(|(reader, vgroup, at)| *reader == Reader::Meta && *at < log[vgroup].end);
        let created = self.database.created;
        let place = |offset: i64| Some(position(offset, created));
        Ok(positions
            .into_iter()
            .filter_map(|(reader, vgroup, at)| {
                let (lane, log) = (self.lanes.get(&(reader, vgroup))?, log.get(&vgroup)?);
                // What waits here to be handed out has not been read yet.
                let waits = self.stash.iter().any(|message| message.header.lane == lane.lane);
                let current = if waits { lane.next - 1 } else { at };
                Some(LaneProgress {
                    lane: lane.lane.clone(),
                    oldest: place(log.begin),
                    current: place(current.min(log.end)),
                    latest: place(log.end),
                    retention_seconds: self.database.retention_seconds,
                    ends: false,
                })
            })
            .collect())
    }
}

/// Asks where the server stands with a consumer's lanes.
async fn ask_positions(consumer: &Consumer, reader: Reader, lanes: &mut BTreeMap<(Reader, i32), LaneState>) -> Result<()> {
    let of_reader = lanes.values_mut().filter(|lane| lane.reader == reader);
    let (vgroups, lanes): (Vec<i32>, Vec<_>) = of_reader.map(|lane| (lane.vgroup, lane)).unzip();
    for (lane, at) in lanes.into_iter().zip(consumer.position(&vgroups).await?) {
        lane.stands_at = at;
    }
    Ok(())
}

fn lanes_were_moved() -> Error {
    Error::disconnected("lanes were moved to another consumer of the group")
}
