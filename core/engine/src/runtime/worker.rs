//! One instance of a sink: writes what its queue holds, in order (invariant `lane-order`), and flushes at barriers.
//!
//! Before a sink that compares replays writes, the last position of what it is about to write is stored; after a restart or a
//! rewind, messages up to there are flagged `replayed` (invariant `no-regress`), see [`super::replays`]. Positions are stored once for what is written in
//! one go, and while the messages before are written: few messages that were not written are flagged, and no time is lost.

use std::sync::Arc;

use pipeline_sdk::describe::COMPARES_REPLAYS;
use pipeline_sdk::{Checkpoint, Error, Lane, Message, Payload, Position, Reaction, Sink};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::batch::Batcher;
use super::call::{Failure, call, is_broken};
use super::isolation::Decoder;
use super::keeper::Notice;
use super::letter::Verdict;
use super::queue::{Queue, Weight};
use super::replays::{self, Replays};
use super::task::Task;
use crate::graph::Step;
use crate::state::Change;

/// Messages that are written in one go.
pub(super) const CHUNK_MESSAGES_MAX: u64 = 64;
/// Bytes that are written in one go, and as many that wait behind them, beside what the queue holds; a larger message goes alone.
const CHUNK_BYTES_MAX: u64 = 8 << 20;
/// Of these those that a sink which compares replays compares: twice as many may be flagged though they were never written, and a newer
/// value in one of those is then reported instead of written. A creation may be written twice.
pub(super) const COMPARED_MESSAGES_MAX: u64 = 4;

pub(super) enum Item {
    Message(Message),
    /// Everything of these lanes up to these positions was sent before it.
    Barrier { lanes: Arc<[(Lane, Position)]>, barrier: u64 },
}

/// What a worker needs of its session.
pub(super) struct WorkerEnds {
    pub queue: Arc<Queue<Item>>,
    pub notices: mpsc::Sender<Notice>,
    pub failures: mpsc::UnboundedSender<Failure>,
    /// Where the source resumed.
    pub resumed: Arc<Checkpoint>,
    /// The worker that wrote this lane before; it must have ended.
    pub previous: Option<JoinHandle<()>>,
}

pub(super) struct Worker {
    task: Arc<Task>,
    /// Of the sink in its pipeline.
    index: usize,
    lane: Option<Lane>,
    /// The source's.
    identity: String,
    decoder: Decoder,
    ends: WorkerEnds,
    retries: Backoff,
    batcher: Option<Batcher>,
}

/// What comes before the writing: takes from the queue, flags, and stores what may be written.
struct Feed {
    task: Arc<Task>,
    identity: String,
    queue: Arc<Queue<Item>>,
    replays: Option<Replays>,
}

/// Items with the number of the last of them in their queue.
#[derive(Default)]
struct Fed {
    items: Vec<Item>,
    upto: u64,
}

/// A sink that gets nothing is flushed this often, so that it can try again what it keeps for later.
const IDLE_FLUSH_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

impl Worker {
    pub fn new(task: Arc<Task>, index: usize, lane: Option<Lane>, identity: String, ends: WorkerEnds) -> pipeline_sdk::Result<Self> {
        let decoder = Decoder::new(&task)?;
        let retries = Backoff::retry(&task.pipeline.settings, task.run.seed());
        let batcher = task.pipeline.sinks[index].node.settings.batching.clone().map(Batcher::new);
        Ok(Self { task, index, lane, identity, decoder, ends, retries, batcher })
    }

    fn step(&self) -> &Step {
        &self.task.pipeline.sinks[self.index]
    }

    /// Runs until the queue is closed or the sink cannot go on.
    pub async fn run(mut self) {
        if let Some(previous) = self.ends.previous.take() {
            // How it ended was reported by itself.
            let _ = previous.await;
        }
        let result = self.work().await;
        self.ends.queue.close();
        if let Err(failure) = result {
            let failure = failure.context(&self.step().node.path);
            // The session is over when nobody listens.
            let _ = self.ends.failures.send(failure);
        }
    }

    async fn work(&mut self) -> Result<(), Failure> {
        // Of a thousand idle tasks each waits for items: what else a worker does takes its memory when it does it.
        let Some(mut sink) = Box::pin(self.connect()).await? else { return Ok(()) };
        let mut feed = self.feed()?;
        let is_blocking = self.step().node.description.blocking;
        let mut fed_last = Fed::default();
        loop {
            let (queue, limit) = (self.ends.queue.clone(), feed.limit());
            let fed = feed.next();
            tokio::pin!(fed);
            let mut early = None;
            let upto = fed_last.upto;
            if !fed_last.items.is_empty() {
                // A write under way is not dropped when the next items cannot be stored: both go on until it is done. What comes
                // meanwhile is taken together, so that it is stored once and may be written at once: before the write is done where
                // no more can be taken.
                let mut write = Box::pin(self.write_items(&mut sink, std::mem::take(&mut fed_last)));
                let mut is_enough = false;
                let written = loop {
                    tokio::select! {
                        biased;
                        written = &mut write => break written,
                        () = queue.has(limit), if !is_enough => is_enough = true,
                        next = &mut fed, if is_enough && early.is_none() => early = Some(next),
                    }
                };
                if written.is_err() {
                    // Nothing more is written: do not wait for it.
                    queue.close();
                }
                written?;
                // As of the reader: writes that are done at once are no write that blocks its thread.
                if is_blocking {
                    tokio::task::yield_now().await;
                }
            }
            let next = match early {
                Some(next) => next?,
                None => loop {
                    let idle = tokio::time::Instant::now() + IDLE_FLUSH_INTERVAL;
                    let due = self.batcher.as_ref().and_then(Batcher::due);
                    match (tokio::time::timeout_at(due.unwrap_or(idle).min(idle), &mut fed).await, due) {
                        (Ok(next), _) => break next?,
                        (Err(_), Some(_)) => {
                            let held = self.batcher.as_mut().map_or_else(Vec::new, Batcher::take);
                            Box::pin(self.write(&mut sink, held)).await?;
                            queue.note_done(upto);
                        }
                        // A sink may have something of its own to try again, or have lost its connection.
                        (Err(_), None) => Box::pin(self.flush(&mut sink)).await?,
                    }
                },
            };
            match next {
                Some(next) => fed_last = next,
                None => return Ok(()),
            }
        }
    }

    fn feed(&self) -> Result<Feed, Failure> {
        let node = &self.step().node;
        let lane = self.lane.as_ref().map_or("", Lane::as_str);
        let key = format!("{}\0{lane}", node.name);
        let replays = match node.description.provides.contains(COMPARES_REPLAYS) {
            true => {
                let stored = self.task.run.store.intent(&self.task.key, &self.identity, &key).map_err(Failure::Fatal)?;
                Some(Replays::new(key, self.task.tenure().widened(stored), &self.ends.resumed))
            }
            false => None,
        };
        Ok(Feed { task: self.task.clone(), identity: self.identity.clone(), queue: self.ends.queue.clone(), replays })
    }

    /// Writes messages in order and flushes at barriers.
    async fn write_items(&mut self, sink: &mut Box<dyn Sink>, Fed { items, upto }: Fed) -> Result<(), Failure> {
        let mut messages = Vec::with_capacity(items.len());
        // What a batcher holds is not written with the rest.
        let mut ready = 0;
        for (number, item) in (upto + 1 - items.len() as u64..).zip(items) {
            match item {
                Item::Message(message) => match &mut self.batcher {
                    None => {
                        messages.push(message);
                        ready = number;
                    }
                    Some(batcher) => {
                        if batcher.add(message) {
                            messages.extend(batcher.take());
                            ready = number;
                        }
                    }
                },
                Item::Barrier { lanes, barrier } => {
                    messages.extend(self.batcher.as_mut().map_or_else(Vec::new, Batcher::take));
                    self.write(sink, std::mem::take(&mut messages)).await?;
                    self.flush(sink).await?;
                    self.ends.queue.note_done(number);
                    // The session is over when the keeper is gone.
                    let _ = self.ends.notices.send(Notice::Flushed { lanes, barrier }).await;
                }
            }
        }
        self.write(sink, messages).await?;
        self.ends.queue.note_done(ready);
        Ok(())
    }

    /// A connected sink; `None` when the session ended meanwhile. Nothing was written yet, so a refused connection is tried again here.
    async fn connect(&mut self) -> Result<Option<Box<dyn Sink>>, Failure> {
        let settings = self.task.pipeline.settings.clone();
        let mut backoff = Backoff::reconnect(&settings, self.task.run.seed());
        let halt = self.task.tenure().halt;
        let mut sink = self.make().await?;
        loop {
            let error = match call("the sink's connect", settings.call_timeout, sink.connect()).await {
                Ok(connected) => {
                    self.task.check_sites(&self.identity, connected.identity.as_deref()).map_err(Failure::Fatal)?;
                    self.task.note_calm();
                    return Ok(Some(sink));
                }
                Err(error) if matches!(error.reaction, Reaction::Disconnected | Reaction::Retry) => error,
                Err(error) => return Err(Failure::of(error)),
            };
            let Some(delay) = backoff.next() else {
                let attempts = backoff.attempts();
                return Err(Failure::Fatal(error.context(format!("gave up after {attempts} attempts"))));
            };
            if is_broken(&error) {
                sink = self.make().await?;
            }
            self.task.counters.retries.add(1);
            self.task.note_trouble(&error, self.lane.as_ref());
            tokio::select! {
                biased;
                () = tokio::time::sleep(delay) => {}
                () = self.ends.queue.closed() => return Ok(None),
                // Nothing was written: what was read is read again at the next start.
                () = halt.cancelled() => return Err(Failure::Lost(error)),
            }
        }
    }

    async fn make(&self) -> Result<Box<dyn Sink>, Failure> {
        let made = self.task.make_sink(&self.step().node, self.lane.as_ref(), &self.identity);
        made.await.map_err(Failure::of)
    }

    async fn flush(&mut self, sink: &mut Box<dyn Sink>) -> Result<(), Failure> {
        let limit = self.task.pipeline.settings.call_timeout;
        loop {
            self.task.fence()?;
            match call("the sink's flush", limit, sink.flush()).await {
                Ok(()) => break,
                Err(error) if error.reaction == Reaction::Retry => self.wait_to_retry(error).await?,
                Err(error) => return Err(Failure::of(error)),
            }
        }
        self.retries.reset();
        Ok(())
    }

    async fn write(&mut self, sink: &mut Box<dyn Sink>, mut messages: Vec<Message>) -> Result<(), Failure> {
        if messages.is_empty() {
            return Ok(());
        }
        if !self.step().decodes.is_empty() {
            messages = self.decoded(messages).await?;
        }
        self.write_in_order(sink, &messages).await
    }

    async fn decoded(&mut self, messages: Vec<Message>) -> Result<Vec<Message>, Failure> {
        let mut out = Vec::with_capacity(messages.len());
        for message in messages {
            match &message.payload {
                Payload::Frame(frame) if self.step().decodes.contains(&*frame.format) => {
                    let (whole, task) = (message.header.clone(), self.task.clone());
                    let mut rows = self.decoder.rows(&task, &task.pipeline.sinks[self.index].node, message).await?;
                    replays::flag_parts(&whole, &mut rows);
                    out.extend(rows);
                }
                _ => out.push(message),
            }
        }
        Ok(out)
    }

    async fn write_in_order(&mut self, sink: &mut Box<dyn Sink>, messages: &[Message]) -> Result<(), Failure> {
        let limit = self.task.pipeline.settings.call_timeout;
        let mut rest = messages;
        while !rest.is_empty() {
            self.task.fence()?;
            let written = tokio::time::timeout(limit, sink.write_many(rest)).await;
            let (done, result) = written.unwrap_or_else(|_| (0, Err(super::call::overdue("the sink's write", limit))));
            self.task.count_written(&rest[..done]);
            if done > 0 {
                self.retries.reset();
            }
            rest = &rest[done..];
            let Err(error) = result else { break };
            let Some((message, behind)) = rest.split_first() else { return Err(Failure::of(error)) };
            match error.reaction {
                _ if is_broken(&error) => return Err(Failure::of(error)),
                Reaction::Retry if error.code == crate::buffer::FULL => self.wait_for_room(error).await?,
                Reaction::Retry => self.wait_to_retry(error).await?,
                Reaction::Rejected => {
                    Box::pin(self.rejected(sink, message, error)).await?;
                    rest = behind;
                }
                Reaction::Disconnected | Reaction::Fatal => return Err(Failure::of(error)),
            }
        }
        self.retries.reset();
        Ok(())
    }

    /// What the policy says of a message that can never be written: done with when it returns `Ok`.
    async fn rejected(&mut self, sink: &mut Box<dyn Sink>, message: &Message, error: Error) -> Result<(), Failure> {
        let task = self.task.clone();
        let node = &task.pipeline.sinks[self.index].node;
        match self.task.verdict(node, message) {
            Verdict::Stop => Err(Failure::Policy(error)),
            Verdict::Retry => match self.wait_to_retry(error).await {
                Ok(()) => self.write_in_order(sink, std::slice::from_ref(message)).await,
                Err(Failure::Fatal(error)) => Err(Failure::Policy(error)),
                Err(failure) => Err(failure),
            },
            Verdict::Keep => {
                // Only rows can be told apart: a frame is decoded first, and each of its parts tried alone.
                if let Payload::Frame(_) = &message.payload
                    && let Ok(mut parts) = self.decoder.decode(&self.task, message.clone()).await
                    && !parts.iter().any(|part| matches!(part.payload, Payload::Frame(_)))
                {
                    replays::flag_parts(&message.header, &mut parts);
                    for part in parts {
                        self.write_in_order(sink, &[part]).await?;
                    }
                    return Ok(());
                }
                let (kept, rest) = super::letter::split(message, &error.rows);
                self.task.keep_letter(node, &kept, &error).await?;
                match rest {
                    Some(rest) => self.write_in_order(sink, &[rest]).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// A full buffer is no failure: it takes as long as its reader does. The session may end meanwhile: nothing was acknowledged.
    async fn wait_for_room(&mut self, error: Error) -> Result<(), Failure> {
        /// How soon room is seen.
        const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);
        self.task.note_full(&error);
        let cut = self.task.tenure().cut;
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => Ok(()),
            () = self.ends.queue.closed() => Err(Failure::Lost(error)),
            () = cut.cancelled() => Err(super::tenure::not_ours()),
        }
    }

    async fn wait_to_retry(&mut self, error: Error) -> Result<(), Failure> {
        self.task.counters.retries.add(1);
        self.task.note_trouble(&error, self.lane.as_ref());
        let Some(delay) = self.retries.next() else {
            let attempts = self.retries.attempts();
            return Err(Failure::Fatal(error.context(format!("gave up after {attempts} attempts"))));
        };
        let cut = self.task.tenure().cut;
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            () = cut.cancelled() => Err(super::tenure::not_ours()),
        }
    }
}

impl Feed {
    /// What is taken at once.
    fn limit(&self) -> Weight {
        let compared = if self.replays.is_some() { COMPARED_MESSAGES_MAX } else { u64::MAX };
        Weight { messages: CHUNK_MESSAGES_MAX, bytes: CHUNK_BYTES_MAX, compared }
    }

    /// The next items, ready to be written; `None` when the session is over.
    async fn next(&mut self) -> Result<Option<Fed>, Failure> {
        let Some((mut items, upto)) = self.queue.pop_numbered(self.limit()).await else { return Ok(None) };
        if let Some(replays) = &mut self.replays {
            let mut is_news = false;
            for item in &mut items {
                match item {
                    Item::Message(message) => is_news |= replays.note(message),
                    Item::Barrier { lanes, .. } => replays.barrier(lanes),
                }
            }
            if is_news {
                let (task, identity, sink) = (self.task.key.clone(), self.identity.clone(), replays.key().to_owned());
                let intent = replays.intent().clone();
                let stored = Box::pin(self.task.run.store.commit(vec![Change::Intent { task, identity, sink, intent }])).await;
                stored.map_err(Failure::Fatal)?;
            }
        }
        Ok(Some(Fed { items, upto }))
    }
}
