//! One connected stretch of a task: from a checkpoint until something ends it.
//!
//! Reads events, runs them through the transforms, hands them to the sinks' queues, and puts barriers behind them. A full queue
//! makes it wait, and so the source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{ChangeKind, Checkpoint, Lane, Message, Payload, Position, SOURCE_REPLACED, Source};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};

use super::call::{Failure, call};
use super::keeper::{Keeper, KeeperEnds, NOTICES_MAX, Notice, Settled};
use super::queue::{Queue, Weight};
use super::reader::{COMMANDS_MAX, Command, Event, Reader};
use super::share::Active;
use super::task::{Control, Task};
use super::tenure::{self, Tenure};
use super::transform::Chain;
use super::underway;
use super::worker::{Item, Worker, WorkerEnds};
use crate::metrics::TaskState;

/// Barriers come no closer together, whatever `checkpoint-interval` says.
const BARRIER_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// What is taken of the source's queue at once: what waits is bounded there.
const ONE: Weight = Weight { messages: 1, bytes: u64::MAX, compared: u64::MAX };

/// Why a session ended.
pub(super) enum End {
    /// As asked for.
    Stopped {
        /// All that was read is written, and committed at the source.
        is_committed: bool,
    },
    /// The source is done.
    Finished,
    Failed(Failure),
}

/// What the engine knows of a lane.
#[derive(Default)]
struct LaneState {
    /// Behind the last message that ended its position.
    ended: Option<Position>,
    /// Whether `ended` moved since the last barrier.
    is_dirty: bool,
    /// Whether the last message ended its position: a barrier falls only then.
    is_whole: bool,
    /// A barrier is due as soon as it is whole.
    is_due: bool,
    /// Whether each sink was sent anything since its last barrier.
    sent: Vec<bool>,
}

/// A sink's instance, as the session sees it; without a lane where the sink merges lanes.
type WorkerKey = (usize, Option<Lane>);

struct WorkerHandle {
    queue: Arc<Queue<Item>>,
    done: JoinHandle<()>,
}

pub(super) struct Session<'t> {
    task: &'t Arc<Task>,
    identity: String,
    resumed: Arc<Checkpoint>,
    chain: Chain,
    lanes: BTreeMap<Lane, LaneState>,
    workers: BTreeMap<WorkerKey, WorkerHandle>,
    /// Workers of revoked lanes that may still be in a call.
    retired: BTreeMap<WorkerKey, JoinHandle<()>>,
    barrier: u64,
    /// When barriers are due for what was read since the last ones.
    barriers_at: Option<Instant>,
    events: Arc<Queue<Event>>,
    commands: mpsc::Sender<Command>,
    notices: mpsc::Sender<Notice>,
    settled: Settled,
    failures: mpsc::UnboundedReceiver<Failure>,
    report: mpsc::UnboundedSender<Failure>,
    reader: JoinHandle<Option<Box<dyn Source>>>,
    keeper: JoinHandle<()>,
    /// Who waits for everything that was in the log to be durable.
    catching_up: Vec<oneshot::Sender<()>>,
    parts: Parts,
    tenure: Tenure,
    /// Where others share the tasks: told of until nothing is under way any more.
    active: Option<Active>,
}

/// Everything that a session started: ended with it when the run is ended at once.
#[derive(Default)]
struct Parts(Vec<AbortHandle>);

impl Parts {
    fn add<T>(&mut self, part: JoinHandle<T>) -> JoinHandle<T> {
        self.0.retain(|it| !it.is_finished());
        self.0.push(part.abort_handle());
        part
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Connects a source at its checkpoint. `None` when the task is stopped meanwhile.
async fn connect(task: &Task, source: &mut Box<dyn Source>) -> Result<(String, Checkpoint), Failure> {
    let limit = task.pipeline.settings.call_timeout;
    let stored = task.run.store.identity(&task.key).map_err(Failure::Fatal)?;
    let mut checkpoint = match &stored {
        Some(identity) => task.run.store.checkpoint(&task.key, identity).map_err(Failure::Fatal)?,
        None => Checkpoint::default(),
    };
    let mut connected = call("the source's connect", limit, source.connect(&checkpoint)).await;
    let replaced = match (&connected, &stored) {
        (Ok(found), Some(stored)) => {
            let found = found.identity.as_deref().unwrap_or_default();
            (found != stored).then(|| format!("the source is `{found}` now, positions are stored for `{stored}`"))
        }
        (Err(error), _) if error.code == SOURCE_REPLACED => Some(error.message.clone()),
        _ => None,
    };
    if let Some(why) = replaced {
        task.accept_other_source(why).await.map_err(Failure::Fatal)?;
        checkpoint = Checkpoint::default();
        connected = call("the source's connect", limit, source.connect(&checkpoint)).await;
    }
    let identity = connected.map_err(Failure::of)?.identity.unwrap_or_default();
    Ok((identity, checkpoint))
}

/// Where others share the tasks, and the last of them may have left something written and not committed: how far the logs reached
/// when the tenure began.
async fn look_before(task: &Task, source: &mut Box<dyn Source>) -> Result<(), Failure> {
    let Tenure { before, is_handed_over, .. } = task.tenure();
    if task.run.options.share.is_none() || is_handed_over || before.get().is_some() {
        return Ok(());
    }
    let progress = call("the source's progress", task.pipeline.settings.call_timeout, source.progress()).await.map_err(Failure::of)?;
    before.get_or_init(|| tenure::ends_of(progress));
    Ok(())
}

impl<'t> Session<'t> {
    /// Runs until the task is stopped, the source is done or something fails. `source` is left where it can be connected again.
    pub async fn run(task: &'t Arc<Task>, source: &mut Option<Box<dyn Source>>, control: &mut mpsc::Receiver<Control>) -> End {
        let made = match source.take() {
            Some(source) => Ok(source),
            None => task.make_source().await,
        };
        let mut connecting = match made {
            Ok(source) => source,
            Err(error) => return End::Failed(Failure::of(error)),
        };
        // What comes once a session, or once a barrier, takes its memory only while it lasts.
        let (identity, checkpoint) = match Box::pin(connect(task, &mut connecting)).await {
            Ok(connected) => connected,
            Err(failure) => {
                let is_broken = matches!(&failure, Failure::Lost(error) if super::call::is_broken(error));
                *source = (!is_broken).then_some(connecting);
                let path = &task.pipeline.source.node.path;
                return End::Failed(failure.context(path));
            }
        };
        if task.tenure().halt.is_cancelled() {
            return End::Stopped { is_committed: false };
        }
        if let Err(failure) = Box::pin(look_before(task, &mut connecting)).await {
            return End::Failed(failure.context(&task.pipeline.source.node.path));
        }
        let mut session = match Box::pin(Self::begin(task, connecting, identity, checkpoint)).await {
            Ok(session) => session,
            Err(failure) => return End::Failed(failure),
        };
        task.set_state(TaskState::Running);
        let end = session.go(control).await;
        *source = Box::pin(session.close()).await;
        end
    }

    async fn begin(task: &'t Arc<Task>, source: Box<dyn Source>, identity: String, checkpoint: Checkpoint) -> Result<Self, Failure> {
        task.note_connected(&checkpoint);
        let chain = Chain::new(task, &identity).await.map_err(Failure::of)?;
        let events = Arc::new(Queue::new(&task.pipeline.source.node.settings.buffer));
        let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
        let (notices, noticed) = mpsc::channel(NOTICES_MAX);
        let (report, failures) = mpsc::unbounded_channel();
        let (settle, settled) = tokio::sync::watch::channel(0);
        let ends = KeeperEnds { notices: noticed, settled: settle, commands: commands.clone(), failures: report.clone() };
        let keeper = Keeper::new(task.clone(), identity.clone(), checkpoint.clone(), ends);
        let reader = Reader::new(task.clone(), source, events.clone(), commanded);
        let is_blocking = task.pipeline.source.node.description.blocking;
        let mut parts = Parts::default();
        Ok(Self {
            task,
            identity,
            resumed: Arc::new(checkpoint),
            chain,
            lanes: BTreeMap::new(),
            workers: BTreeMap::new(),
            retired: BTreeMap::new(),
            barrier: 0,
            barriers_at: None,
            events,
            commands,
            notices,
            settled,
            failures,
            report,
            reader: parts.add(super::spawn(is_blocking, task.watched("the source", reader.run()))),
            keeper: parts.add(tokio::spawn(keeper.run())),
            catching_up: Vec::new(),
            parts,
            tenure: task.tenure(),
            active: task.run.options.share.as_ref().and_then(|share| share.enter(&task.key)),
        })
    }

    async fn go(&mut self, control: &mut mpsc::Receiver<Control>) -> End {
        let cut = self.tenure.cut.clone();
        tokio::select! {
            biased;
            () = cut.cancelled() => End::Failed(tenure::not_ours()),
            end = self.work(control) => end,
        }
    }

    async fn work(&mut self, control: &mut mpsc::Receiver<Control>) -> End {
        let stop = self.tenure.halt.clone();
        let mut is_stopping = false;
        loop {
            let events = self.events.clone();
            let handled = tokio::select! {
                biased;
                Some(failure) = self.failures.recv() => return End::Failed(failure),
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    self.task.set_state(TaskState::Stopping);
                    // When the reader is gone, its last event tells why.
                    let _ = self.commands.send(Command::Pause).await;
                    Ok(None)
                }
                () = sleep_until(self.barriers_at.unwrap_or_else(Instant::now)), if self.barriers_at.is_some() => Box::pin(self.tick()).await.map(|()| None),
                Some(Control::CatchUp(done)) = control.recv() => {
                    self.catching_up.push(done);
                    let _ = self.commands.send(Command::CatchUp).await;
                    Ok(None)
                }
                Some(events) = events.pop_many(ONE) => self.handle(events).await,
            };
            match handled {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(failure) => return End::Failed(failure),
            }
        }
    }

    /// What an event comes to: `Some` when it was the last.
    async fn handle(&mut self, events: Vec<Event>) -> Result<Option<End>, Failure> {
        for event in events {
            match event {
                Event::Messages(messages) => {
                    let lanes = underway::lanes_of(&messages);
                    for message in messages {
                        self.message(message).await?;
                    }
                    self.note_routed(lanes);
                }
                Event::Lanes { assigned, revoked } => {
                    revoked.iter().for_each(|lane| self.revoke(lane));
                    for lane in revoked {
                        self.notice(Notice::Revoked(lane)).await?;
                    }
                    for lane in assigned {
                        self.lane(&lane)?;
                        (0..self.task.pipeline.sinks.len()).try_for_each(|index| self.worker(index, &lane).map(drop))?;
                    }
                }
                Event::CaughtUp => {
                    Box::pin(self.barrier_over_all()).await?;
                    self.tell_caught_up();
                }
                Event::Paused => {
                    let is_committed = Box::pin(self.finish()).await?;
                    return Ok(Some(End::Stopped { is_committed }));
                }
                Event::End => {
                    Box::pin(self.finish()).await?;
                    return Ok(Some(End::Finished));
                }
                // What was read before is written and stored: only the source is gone.
                Event::Failed(failure) => {
                    let path = self.task.pipeline.source.node.path.clone();
                    Box::pin(self.settle()).await?;
                    return Err(failure.context(&path));
                }
            }
        }
        Ok(None)
    }

    async fn message(&mut self, message: Message) -> Result<(), Failure> {
        let interval = self.task.pipeline.settings.checkpoint_interval.max(BARRIER_INTERVAL_MIN);
        self.barriers_at.get_or_insert_with(|| Instant::now() + interval);
        let (lane, position, ends) =
            (message.header.lane.clone(), message.header.position.clone(), message.header.ends_position);
        self.task.show(&self.task.pipeline.source.node.name, &message);
        let out = self.chain.apply(self.task, message).await?;
        self.route(out).await?;
        let state = self.lane(&lane)?;
        state.is_whole = ends;
        if ends {
            state.ended = Some(position);
            state.is_dirty = true;
        }
        if state.is_due && state.is_whole {
            Box::pin(self.begin_barrier(vec![lane])).await?;
        }
        Ok(())
    }

    /// Everything that was read of these lanes last, or held by a transform, is in the sinks' queues.
    fn note_routed(&self, lanes: Vec<Lane>) {
        let ends = |lane: &Lane| {
            let queues = (0..self.task.pipeline.sinks.len()).filter_map(|index| Some(&self.workers.get(&self.key(index, lane))?.queue));
            queues.map(|queue| (queue.clone(), queue.pushed())).collect()
        };
        self.task.note_routed(lanes.into_iter().map(|lane| (ends(&lane), lane)));
    }

    /// Hands messages to every sink; waits where a queue is full.
    async fn route(&mut self, messages: Vec<Message>) -> Result<(), Failure> {
        let Some(last) = self.task.pipeline.sinks.len().checked_sub(1) else { return Ok(()) };
        for message in messages {
            for index in 0..last {
                self.route_to(index, message.clone()).await?;
            }
            self.route_to(last, message).await?;
        }
        Ok(())
    }

    async fn route_to(&mut self, index: usize, message: Message) -> Result<(), Failure> {
        let lane = message.header.lane.clone();
        for part in self.chain.for_sink(self.task, index, message).await? {
            self.send(index, &lane, part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, index: usize, lane: &Lane, message: Message) -> Result<(), Failure> {
        self.task.show(&self.task.pipeline.sinks[index].node.name, &message);
        self.lane(lane)?.sent[index] = true;
        let queue = self.worker(index, lane)?;
        let weight = Weight { messages: 1, bytes: message.byte_count(), compared: u64::from(!is_creation(&message)) };
        self.push(&queue, Item::Message(message), weight).await
    }

    async fn push(&mut self, queue: &Queue<Item>, item: Item, weight: Weight) -> Result<(), Failure> {
        match queue.push(item, weight).await {
            Ok(()) => Ok(()),
            // A worker closes its queue only when it fails, and then says why.
            Err(_) => Err(self.failures.recv().await.unwrap_or_else(gone)),
        }
    }

    fn lane(&mut self, lane: &Lane) -> Result<&mut LaneState, Failure> {
        if !self.lanes.contains_key(lane) {
            let limit = self.task.pipeline.settings.lanes_max as usize;
            if self.lanes.len() >= limit {
                let error = pipeline_sdk::Error::fatal(format!("the source has more than {limit} lanes"));
                return Err(Failure::Fatal(error.code("engine.lanes").hint("raise `lanes-max` of the pipeline")));
            }
            let sent = vec![false; self.task.pipeline.sinks.len()];
            self.lanes.insert(lane.clone(), LaneState { is_whole: true, sent, ..LaneState::default() });
        }
        self.lanes.get_mut(lane).ok_or_else(gone)
    }

    fn key(&self, index: usize, lane: &Lane) -> WorkerKey {
        let is_merged = self.task.pipeline.sinks[index].node.description.merged_lanes;
        (index, (!is_merged).then(|| lane.clone()))
    }

    /// The queue of the sink's instance for a lane, made where there is none.
    fn worker(&mut self, index: usize, lane: &Lane) -> Result<Arc<Queue<Item>>, Failure> {
        let key = self.key(index, lane);
        if let Some(worker) = self.workers.get(&key) {
            return Ok(worker.queue.clone());
        }
        let node = &self.task.pipeline.sinks[index].node;
        let queue = Arc::new(Queue::new(&node.settings.buffer));
        let ends = WorkerEnds {
            queue: queue.clone(),
            notices: self.notices.clone(),
            failures: self.report.clone(),
            resumed: self.resumed.clone(),
            previous: self.retired.remove(&key),
        };
        let worker = Worker::new(self.task.clone(), index, key.1.clone(), self.identity.clone(), ends).map_err(Failure::of)?;
        let part = self.task.watched(&format!("sink `{}`", node.name), worker.run());
        let done = self.parts.add(super::spawn(node.description.blocking, part));
        self.workers.insert(key, WorkerHandle { queue: queue.clone(), done });
        self.note_queues();
        Ok(queue)
    }

    /// Drops what is held of a lane; a call under way ends by itself.
    fn revoke(&mut self, lane: &Lane) {
        self.lanes.remove(lane);
        self.task.note_revoked(lane);
        for index in 0..self.task.pipeline.sinks.len() {
            let key = self.key(index, lane);
            if key.1.is_none() {
                if let Some(worker) = self.workers.get(&key) {
                    worker.queue.retain(|item| !matches!(item, Item::Message(message) if message.header.lane == *lane));
                }
            } else if let Some(worker) = self.workers.remove(&key) {
                worker.queue.close();
                self.retired.insert(key, worker.done);
            }
        }
        self.note_queues();
    }

    fn note_queues(&self) {
        self.task.note_queues(self.workers.values().map(|worker| worker.queue.clone()).collect());
    }

    /// Puts a barrier into every lane that moved, now or as soon as its position is whole.
    async fn tick(&mut self) -> Result<(), Failure> {
        self.barriers_at = None;
        let mut whole = Vec::new();
        for (lane, state) in self.lanes.iter_mut().filter(|(_, state)| state.is_dirty || !state.is_whole) {
            if state.is_whole {
                whole.push(lane.clone());
            } else {
                state.is_due = true;
            }
        }
        self.begin_barrier(whole).await
    }

    /// Puts a barrier into every lane that moved, whole or not: nothing more comes for now.
    async fn barrier_over_all(&mut self) -> Result<(), Failure> {
        let all = self.lanes.keys().cloned().collect();
        self.begin_barrier(all).await
    }

    async fn begin_barrier(&mut self, lanes: Vec<Lane>) -> Result<(), Failure> {
        if lanes.is_empty() {
            return Ok(());
        }
        let held = self.chain.barrier(self.task).await?;
        if !held.is_empty() {
            let lanes = underway::lanes_of(&held);
            self.task.note_held(&lanes);
            self.route(held).await?;
            self.note_routed(lanes);
        }
        self.barrier += 1;
        let barrier = self.barrier;
        let mut targets: BTreeMap<WorkerKey, Vec<(Lane, Position)>> = BTreeMap::new();
        for lane in lanes {
            let Some(state) = self.lanes.get_mut(&lane) else { continue };
            (state.is_due, state.is_dirty) = (false, false);
            let sent: Vec<usize> = (0..state.sent.len()).filter(|index| std::mem::take(&mut state.sent[*index])).collect();
            let Some(position) = state.ended.clone() else { continue };
            let begun = Notice::Begun { lane: lane.clone(), barrier, position: position.clone(), waiting: sent.len() };
            self.notice(begun).await?;
            for index in sent {
                targets.entry(self.key(index, &lane)).or_default().push((lane.clone(), position.clone()));
            }
        }
        self.notice(Notice::Announced(barrier)).await?;
        for (key, lanes) in targets {
            let Some(queue) = self.workers.get(&key).map(|worker| worker.queue.clone()) else { continue };
            let item = Item::Barrier { lanes: lanes.into(), barrier };
            self.push(&queue, item, Weight { messages: 1, bytes: 0, compared: 1 }).await?;
        }
        Ok(())
    }

    async fn notice(&mut self, notice: Notice) -> Result<(), Failure> {
        match self.notices.send(notice).await {
            Ok(()) => Ok(()),
            // The keeper ends early only when it fails, and then says why.
            Err(_) => Err(self.failures.recv().await.unwrap_or_else(gone)),
        }
    }

    /// Tells whoever waits, once everything up to now is stored.
    fn tell_caught_up(&mut self) {
        let (barrier, mut settled, waiting) = (self.barrier, self.settled.clone(), std::mem::take(&mut self.catching_up));
        tokio::spawn(async move {
            if settled.wait_for(|upto| *upto >= barrier).await.is_ok() {
                for done in waiting {
                    // Who gave up waiting does not need it.
                    let _ = done.send(());
                }
            }
        });
    }

    /// Makes everything read so far durable and stored.
    async fn settle(&mut self) -> Result<(), Failure> {
        self.barrier_over_all().await?;
        let barrier = self.barrier;
        let mut settled = self.settled.clone();
        tokio::select! {
            biased;
            Some(failure) = self.failures.recv() => Err(failure),
            done = settled.wait_for(|upto| *upto >= barrier) => done.map(drop).map_err(|_| gone()),
        }
    }

    /// Settles, and tells the source; whether it took that.
    async fn finish(&mut self) -> Result<bool, Failure> {
        self.settle().await?;
        let (done, told) = oneshot::channel();
        self.notice(Notice::Commit(done)).await?;
        // The source may be gone: then it is told when it is back.
        let is_told = told.await.is_ok();
        self.tell_caught_up();
        Ok(is_told)
    }

    /// Ends every part, waiting for calls that are under way: each of them has its own deadline.
    async fn close(self) -> Option<Box<dyn Source>> {
        let Self { workers, retired, events, commands, notices, reader, keeper, task, parts, active, .. } = self;
        events.close();
        workers.values().for_each(|worker| worker.queue.close());
        task.note_queues(Vec::new());
        drop((commands, notices));
        let begun = Instant::now();
        for done in workers.into_values().map(|worker| worker.done).chain(retired.into_values()) {
            // A worker that panicked has nothing to hand back.
            let _ = done.await;
        }
        let _ = keeper.await;
        task.close_letters().await;
        let source = reader.await.ok().flatten();
        task.note_unwritten();
        drop((parts, active));
        tracing::debug!(task = %task.key, waited_ms = begun.elapsed().as_millis() as u64, "session closed");
        source
    }
}

fn is_creation(message: &Message) -> bool {
    matches!(&message.payload, Payload::Change(change) if change.kind == ChangeKind::CreateTable)
}

fn gone() -> Failure {
    Failure::Lost(pipeline_sdk::Error::disconnected("a part of the task ended without a word").code("engine.gone"))
}
