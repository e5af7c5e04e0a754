//! A task: one pipeline for one value of its source's task key, through all its sessions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::{Checkpoint, Error, Lane, LaneProgress, Message, Position, Result, SOURCE_HOLE, SOURCE_REPLACED, Sink};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::Failure;
use super::isolation::{Processes, RESTARTS};
use super::queue::Queue;
use super::run::Shared;
use super::tenure::Tenure;
use super::underway::{Ends, Underway};
use super::watch::{Watch, Watched};
use super::worker::Item;
use crate::buffer::Held;
use crate::graph::PipelineGraph;
use crate::metrics::{Counter, Counts, Labels, LagClock, LaneStatus, PipelineStatus, Registry, TaskState};
use crate::state::{Change, TaskKey};

/// What a run asks of a task.
pub(super) enum Control {
    /// Answers once everything that is in the source's log now is durable and stored.
    CatchUp(oneshot::Sender<()>),
}

pub(super) struct Task {
    pub run: Arc<Shared>,
    pub pipeline: Arc<PipelineGraph>,
    /// Empty where the pipeline is not divided.
    pub value: String,
    pub key: TaskKey,
    pub counters: TaskCounters,
    pub stop: CancellationToken,
    tenure: Mutex<Tenure>,
    live: Mutex<Live>,
    /// Of the parts that run now.
    watches: Mutex<Vec<Weak<Watch>>>,
    /// Whether `live` holds a trouble, so that a write need not lock to clear none.
    has_trouble: AtomicBool,
    /// When a sink last took something, in milliseconds since the epoch; 0 before that.
    applied_ms: AtomicI64,
    /// The pipeline's sink of dead letters, once there was one.
    pub(super) letters: Letters,
    pub(super) processes: Processes,
}

pub(super) type Letters = Arc<tokio::sync::Mutex<Option<Box<dyn Sink>>>>;

pub(super) struct TaskCounters {
    pub messages_read: Counter,
    pub rows_read: Counter,
    pub bytes_read: Counter,
    pub messages_written: Counter,
    pub rows_written: Counter,
    pub bytes_written: Counter,
    pub batches_written: Counter,
    pub retries: Counter,
    pub reconnects: Counter,
    pub errors: Counter,
    pub dead_letters: Counter,
}

impl TaskCounters {
    fn new(registry: &Registry, labels: &Labels) -> Self {
        let counter = |name| registry.counter(name, labels);
        Self {
            messages_read: counter("engine_messages_read"),
            rows_read: counter("engine_rows_read"),
            bytes_read: counter("engine_bytes_read"),
            messages_written: counter("engine_messages_written"),
            rows_written: counter("engine_rows_written"),
            bytes_written: counter("engine_bytes_written"),
            batches_written: counter("engine_batches_written"),
            retries: counter("engine_retries"),
            reconnects: counter("engine_reconnects"),
            errors: counter("engine_errors"),
            dead_letters: counter("engine_dead_letters"),
        }
    }
}

#[derive(Default)]
struct Live {
    state: TaskState,
    /// Since when it is in this state or has this trouble, in milliseconds since the epoch.
    since_ms: i64,
    /// What goes wrong while the task runs on: a sink that cannot be reached, a call that is repeated.
    trouble: Option<String>,
    checkpoint: Checkpoint,
    progress: Vec<LaneProgress>,
    /// When the source last told its progress.
    progress_at: Option<Instant>,
    clocks: BTreeMap<Lane, LagClock>,
    underway: Underway,
    queues: Vec<Arc<Queue<Item>>>,
    /// Whether something was stored since the last failure.
    has_advanced: bool,
}

impl Live {
    /// Up to where all of a lane is written at every sink, or needs not be.
    fn written(&self, progress: &LaneProgress) -> Option<i64> {
        let told = number(progress.current.as_ref())?;
        let written = match self.underway.oldest(&progress.lane) {
            Some(oldest) => oldest.before.unwrap_or(told),
            None => self.underway.read_upto(&progress.lane).map_or(told, |read| read.max(told)),
        };
        Some(number(progress.latest.as_ref()).map_or(written, |latest| written.min(latest)))
    }

    /// What is still to be written of a lane, in positions.
    fn lag(&self, progress: &LaneProgress) -> Option<i64> {
        Some((number(progress.latest.as_ref())? - self.written(progress)?).max(0))
    }

    /// For how long that has been waiting: in the log, as far as it was seen, or here since it was read.
    fn behind(&self, lane: &Lane, now: Instant) -> Option<Duration> {
        let written = self.progress.iter().find(|it| it.lane == *lane).and_then(|it| self.written(it));
        let in_log = self.clocks.get(lane).zip(written).map(|(clock, written)| clock.behind(now, written));
        in_log.max(self.underway.oldest(lane).map(|oldest| now.duration_since(oldest.since)))
    }

    /// As it is shown: with a trouble it only seems to run.
    fn state(&self) -> TaskState {
        match (&self.state, &self.trouble) {
            (TaskState::Running, Some(trouble)) => TaskState::Reconnecting(trouble.clone()),
            (state, _) => state.clone(),
        }
    }
}

impl Task {
    pub fn new(run: Arc<Shared>, pipeline: Arc<PipelineGraph>, value: String, stop: CancellationToken) -> Self {
        let source = pipeline.source.node.name.clone();
        let key = TaskKey { pipeline: pipeline.name.clone(), task: value.clone(), source };
        let labels = Labels { pipeline: key.pipeline.clone(), task: value.clone(), ..Labels::default() };
        let counters = TaskCounters::new(&run.registry, &labels);
        let live = Mutex::new(Live { since_ms: run.wall_clock_ms(), ..Live::default() });
        let (watches, has_trouble, applied_ms) = (Mutex::default(), AtomicBool::new(false), AtomicI64::new(0));
        let tenure = Mutex::new(Tenure::new(&stop, false));
        let owner = pipeline.buffer_of.as_ref().unwrap_or(&pipeline.name);
        let letters = run.letters.lock().entry(format!("{owner}\0{value}")).or_default().clone();
        let processes = Processes::default();
        Self { run, pipeline, value, key, counters, stop, tenure, live, watches, has_trouble, applied_ms, letters, processes }
    }

    /// The one that is, or the last.
    pub fn tenure(&self) -> Tenure {
        self.tenure.lock().clone()
    }

    pub fn set_tenure(&self, tenure: Tenure) {
        *self.tenure.lock() = tenure;
    }

    /// Whether something was stored since this was asked.
    pub fn take_advanced(&self) -> bool {
        std::mem::take(&mut self.live.lock().has_advanced)
    }

    /// A part of this task, watched while it is polled.
    pub fn watched<F: Future>(&self, what: &str, part: F) -> Watched<F> {
        let watch = Watch::new(what.to_owned());
        let mut watches = self.watches.lock();
        watches.retain(|it| it.strong_count() > 0);
        watches.push(Arc::downgrade(&watch));
        Watched::new(part, watch)
    }

    /// A part that has been in one poll for longer than two calls may take together.
    pub fn blocked_part(&self, blocked: impl Fn(&Watch) -> Duration) -> Option<(String, Duration)> {
        let limit = self.pipeline.settings.call_timeout * 2;
        let watches = self.watches.lock();
        let mut parts = watches.iter().filter_map(Weak::upgrade).map(|it| (blocked(&it), it));
        parts.find(|(blocked, _)| *blocked > limit).map(|(blocked, it)| (it.what.clone(), blocked))
    }

    /// A part blocks its thread. The task cannot end, but it is shown as what it is.
    pub fn fail_blocked(&self, what: &str, blocked: Duration) {
        if self.is_over() {
            return;
        }
        let text = format!("{what} has blocked its thread for {}s", blocked.as_secs());
        let error = Error::fatal(text).code(super::call::HANG).hint("only a restart of the process ends it");
        self.note_incident("hang", &error);
        self.stop.cancel();
        self.fail(Failure::Fatal(error));
    }

    fn note_incident(&self, kind: &str, error: &Error) {
        let message = self.run.redact(&error.to_string());
        let incident = pipeline_sdk::Incident { kind: kind.into(), message, detail: serde_json::Value::Null };
        let labels = Labels { pipeline: self.key.pipeline.clone(), task: self.value.clone(), ..Labels::default() };
        self.run.registry.incident(&labels, incident);
    }

    pub fn fail(&self, failure: Failure) {
        let (error, state): (_, fn(String) -> TaskState) = match failure {
            Failure::Policy(error) if error.code == SOURCE_HOLE => (error, TaskState::Hole),
            Failure::Policy(error) => (error, TaskState::Rejected),
            Failure::Fatal(error) | Failure::Lost(error) => (error, TaskState::Failed),
        };
        let reason = self.run.redact(&error.to_string());
        self.counters.errors.add(1);
        tracing::error!(task = %self.key, reason, "task ended");
        self.set_state(state(reason));
    }

    /// The engine's own code panicked in the task.
    pub fn fail_by_bug(&self, text: String) {
        self.fail(Failure::Fatal(Error::fatal(text).code("engine.bug").hint("please report this with the log")));
    }

    pub fn set_state(&self, state: TaskState) {
        let mut live = self.live.lock();
        if matches!(live.state, TaskState::Failed(_)) {
            // A part that blocked its thread may come back: the verdict stands.
            return;
        }
        if !matches!(state, TaskState::Stopping) {
            live.trouble = None;
        }
        if std::mem::discriminant(&live.state) != std::mem::discriminant(&state) {
            live.since_ms = self.run.wall_clock_ms();
        }
        if state == TaskState::Elsewhere {
            // How far it is, only the other process knows.
            (live.checkpoint, live.progress, live.progress_at, live.queues) = Default::default();
            live.clocks.clear();
            live.underway = Underway::default();
        }
        live.state = state;
    }

    /// An operator stopped a task that was over by itself.
    pub fn hold(&self) {
        let mut live = self.live.lock();
        live.trouble = None;
        live.since_ms = self.run.wall_clock_ms();
        live.state = TaskState::Stopped;
    }

    /// The state, and since when, in milliseconds since the epoch.
    pub fn state(&self) -> (TaskState, i64) {
        let live = self.live.lock();
        (live.state(), live.since_ms)
    }

    pub fn is_stopped(&self) -> bool {
        self.live.lock().state == TaskState::Stopped
    }

    pub fn is_over(&self) -> bool {
        self.live.lock().state.is_over()
    }

    pub fn note_lost(&self, error: &Error) {
        let reason = self.run.redact(&error.to_string());
        self.counters.errors.add(1);
        self.counters.reconnects.add(1);
        // A first start may come before what it connects to is there: nothing is lost then.
        match self.live.lock().state {
            TaskState::Running | TaskState::Stopping => tracing::warn!(task = %self.key, reason, "connection lost; trying again"),
            _ => tracing::warn!(task = %self.key, reason, "cannot start yet; trying again"),
        }
        match error.code.as_str() {
            super::call::HANG => self.note_incident("hang", error),
            super::call::PANIC => self.note_incident("panic", error),
            crate::host::process::ENDED => self.note_incident("process-ended", error),
            _ => {}
        }
        self.set_state(TaskState::Reconnecting(reason));
    }

    /// Something goes wrong that the task lives with: what was called, for one lane or for all, is called again.
    pub fn note_trouble(&self, error: &Error, lane: Option<&Lane>) {
        let reason = self.run.redact(&error.to_string());
        self.counters.errors.add(1);
        tracing::warn!(task = %self.key, lane = lane.map(Lane::as_str), reason, "trying again");
        let mut live = self.live.lock();
        if live.trouble.replace(reason).is_none() {
            live.since_ms = self.run.wall_clock_ms();
        }
        drop(live);
        self.has_trouble.store(true, Ordering::Relaxed);
    }

    /// A disk buffer is full: said once, until something was written again.
    pub fn note_full(&self, error: &Error) {
        let mut live = self.live.lock();
        if live.trouble.is_none() {
            let reason = self.run.redact(&error.to_string());
            tracing::warn!(task = %self.key, reason, "the buffer is full: the source waits");
            live.trouble = Some(reason);
            live.since_ms = self.run.wall_clock_ms();
            drop(live);
            self.has_trouble.store(true, Ordering::Relaxed);
        }
    }

    pub fn note_connected(&self, checkpoint: &Checkpoint) {
        let mut live = self.live.lock();
        live.checkpoint.clone_from(checkpoint);
        live.underway.begin(checkpoint);
    }

    pub fn note_checkpoint(&self, checkpoint: &Checkpoint) {
        let mut live = self.live.lock();
        live.checkpoint.clone_from(checkpoint);
        live.has_advanced = true;
    }

    pub fn note_progress(&self, lanes: &[LaneProgress]) {
        let now = Instant::now();
        let mut live = self.live.lock();
        live.underway.settle();
        for progress in lanes {
            if let (Some(written), Some(latest)) = (live.written(progress), number(progress.latest.as_ref())) {
                live.clocks.entry(progress.lane.clone()).or_default().sample(now, written, latest);
            }
        }
        live.clocks.retain(|lane, _| lanes.iter().any(|it| it.lane == *lane));
        live.progress = lanes.to_vec();
        live.progress_at = Some(now);
    }

    /// Before what was read is handed on.
    pub fn note_read(&self, messages: &[Message]) {
        let now = Instant::now();
        let mut live = self.live.lock();
        let Live { underway, progress, .. } = &mut *live;
        let told = |lane: &Lane| number(progress.iter().find(|it| it.lane == *lane)?.current.as_ref());
        underway.read(now, messages, told);
    }

    /// A transform lets go of what it held of these lanes: only what is stored is known to be written of them.
    pub fn note_held(&self, lanes: &[Lane]) {
        let now = Instant::now();
        let mut live = self.live.lock();
        let Live { underway, checkpoint, .. } = &mut *live;
        lanes.iter().for_each(|lane| underway.hold(now, lane, number(checkpoint.lanes.get(lane))));
    }

    /// What was read of these lanes is in queues, up to these items.
    pub(super) fn note_routed(&self, lanes: impl Iterator<Item = (Ends, Lane)>) {
        let mut live = self.live.lock();
        lanes.for_each(|(ends, lane)| live.underway.routed(&lane, ends));
    }

    pub fn note_revoked(&self, lane: &Lane) {
        self.live.lock().underway.revoke(lane);
    }

    /// A session is over: what it has not written is still to be read, and has been waiting since it was read.
    pub fn note_unwritten(&self) {
        let mut live = self.live.lock();
        live.underway.settle();
        let written: Vec<_> = live.progress.iter().map(|it| live.written(it)).collect();
        let Live { underway, progress, clocks, .. } = &mut *live;
        let mut left = underway.end();
        for (told, written) in progress.iter_mut().zip(written) {
            let Some(written) = written else { continue };
            told.current = Some(Position::from_number(written));
            if let Some(oldest) = left.remove(&told.lane) {
                clocks.entry(told.lane.clone()).or_default().began(oldest.since, written);
            }
        }
    }

    pub(super) fn note_queues(&self, queues: Vec<Arc<Queue<Item>>>) {
        self.live.lock().queues = queues;
    }

    /// Shows a message to who looks at this component.
    pub fn show(&self, component: &str, message: &Message) {
        self.run.taps.offer(&self.key.pipeline, component, &self.value, message, || self.run.wall_clock_ms());
    }

    pub fn count_read(&self, messages: &[Message]) {
        self.counters.messages_read.add(messages.len() as u64);
        self.counters.rows_read.add(messages.iter().map(Message::row_count).sum());
        self.counters.bytes_read.add(messages.iter().map(Message::byte_count).sum());
    }

    pub fn count_written(&self, messages: &[Message]) {
        if messages.is_empty() {
            return;
        }
        self.counters.batches_written.add(1);
        self.counters.messages_written.add(messages.len() as u64);
        self.counters.rows_written.add(messages.iter().map(Message::row_count).sum());
        self.counters.bytes_written.add(messages.iter().map(Message::byte_count).sum());
        self.applied_ms.store(self.run.wall_clock_ms(), Ordering::Relaxed);
        self.note_calm();
    }

    /// What was tried again worked.
    pub fn note_calm(&self) {
        if self.has_trouble.swap(false, Ordering::Relaxed) {
            let mut live = self.live.lock();
            live.trouble = None;
            live.since_ms = self.run.wall_clock_ms();
        }
    }

    /// Two ends of a replica that are one site would send everything in a circle (invariant `no-loop`).
    pub fn check_sites(&self, source: &str, sink: Option<&str>) -> Result<()> {
        if self.pipeline.is_replica() && sink.is_some_and(|sink| !sink.is_empty() && sink == source) {
            return Err(Error::fatal(format!("source and sink of `{}` are one and the same site (`{source}`): it could loop", self.pipeline.name))
                .code("engine.loop")
                .hint("a replica needs two sites; check the addresses"));
        }
        Ok(())
    }

    /// The source is not what it was when positions were stored.
    pub async fn accept_other_source(&self, why: String) -> Result<()> {
        if !self.run.options.accept_new_sources {
            return Err(Error::fatal(why).code(SOURCE_REPLACED).hint(
                "check the address; if the source was replaced on purpose, compare and repair the sites, then run once with \
                 `--accept-new-sources`",
            ));
        }
        tracing::warn!(task = %self.key, why, "positions of another source are forgotten, as asked for");
        self.run.store.commit(vec![Change::Forget { task: self.key.clone() }]).await
    }

    /// Whether everything in the buffer that it empties is durable at the sink, and that is stored.
    pub fn has_emptied_buffer(&self) -> bool {
        let Some(folder) = self.pipeline.empties() else { return true };
        let stored = self.live.lock().checkpoint.lanes.get(&Lane::new(crate::buffer::LANE)).and_then(|it| it.number);
        self.run.buffers.next(folder).is_some_and(|(first, next)| stored.map_or(first, |it| it as u64) >= next)
    }

    pub fn status(&self) -> PipelineStatus {
        let buffered = self.pipeline.fills().filter_map(|folder| self.run.buffers.held(folder));
        let buffered = buffered.reduce(|one, other| Held { rows: one.rows + other.rows, bytes: one.bytes + other.bytes }).unwrap_or_default();
        let mut live = self.live.lock();
        live.underway.settle();
        let (now, counters) = (Instant::now(), &self.counters);
        let mut queued = (0, 0);
        for queue in &live.queues {
            let held = queue.held();
            queued = (queued.0 + held.messages, queued.1 + held.bytes);
        }
        let of_plugins = |name| self.run.registry.sum_of_task(name, &self.key.pipeline, &self.value);
        let lags: Vec<i64> = live.progress.iter().filter_map(|it| live.lag(it)).collect();
        let waited = live.clocks.keys().chain(live.underway.lanes()).filter_map(|lane| live.behind(lane, now)).max();
        PipelineStatus {
            pipeline: self.key.pipeline.clone(),
            task: self.value.clone(),
            state: live.state(),
            since_ms: live.since_ms,
            counts: Counts {
                messages_read: counters.messages_read.get(),
                rows_read: counters.rows_read.get(),
                bytes_read: counters.bytes_read.get(),
                rows_written: counters.rows_written.get(),
                bytes_written: counters.bytes_written.get(),
                messages_written: counters.messages_written.get(),
                batches_written: counters.batches_written.get(),
                retries: counters.retries.get(),
                reconnects: counters.reconnects.get(),
                errors: counters.errors.get(),
                dead_letters: counters.dead_letters.get(),
                loops_suppressed: of_plugins("loops_suppressed"),
                replicated_rows: of_plugins("replicated_rows"),
                rows_left_out: of_plugins("rows_left_out"),
                process_restarts: of_plugins(RESTARTS),
                queue_messages: queued.0,
                queue_bytes: queued.1,
                buffer_rows: buffered.rows,
                buffer_bytes: buffered.bytes,
                buffer_rows_dropped: of_plugins("buffer_rows_dropped"),
                buffer_messages_skipped: of_plugins("buffer_messages_skipped"),
            },
            lag_offsets: (!lags.is_empty()).then(|| lags.iter().sum()),
            done: done(&live.progress),
            lag_seconds: waited.map(|it| it.as_secs_f64()),
            progress_seconds: live.progress_at.map(|at| now.duration_since(at).as_secs_f64()),
            last_applied_ms: Some(self.applied_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0),
            lanes: lanes(&live, now),
        }
    }
}

/// How much of all lanes was read, where they end and tell.
fn done(progress: &[LaneProgress]) -> Option<f64> {
    let mut sum = (0, 0);
    for lane in progress {
        let (oldest, latest) = (number(lane.oldest.as_ref()).unwrap_or(0), number(lane.latest.as_ref()).filter(|_| lane.ends)?);
        let current = number(lane.current.as_ref()).unwrap_or(oldest);
        sum = (sum.0 + (current - oldest).max(0), sum.1 + (latest - oldest).max(0));
    }
    (sum.1 > 0).then(|| (sum.0 as f64 / sum.1 as f64).min(1.0))
}

fn number(position: Option<&Position>) -> Option<i64> {
    position.and_then(|it| it.number)
}

fn lanes(live: &Live, now: Instant) -> Vec<LaneStatus> {
    let known = live.progress.iter().map(|it| &it.lane).chain(live.checkpoint.lanes.keys());
    let known: std::collections::BTreeSet<&Lane> = known.collect();
    let status = |lane: &Lane| {
        let progress = live.progress.iter().find(|it| it.lane == *lane);
        let stored = live.checkpoint.lanes.get(lane);
        let retention_seconds = progress.and_then(|it| it.retention_seconds);
        LaneStatus {
            lane: lane.to_string(),
            position: stored.map(ToString::to_string),
            oldest: number(progress.and_then(|it| it.oldest.as_ref())),
            current: progress.and_then(|it| live.written(it)).or(number(stored)),
            latest: number(progress.and_then(|it| it.latest.as_ref())),
            lag_offsets: progress.and_then(|it| live.lag(it)),
            slack_seconds: slack(live, lane, retention_seconds, now),
            retention_seconds,
        }
    };
    known.into_iter().map(status).collect()
}

/// After how long the log may drop what is written next, at the earliest: what came since the last look is taken to have come right
/// after it.
fn slack(live: &Live, lane: &Lane, retention_seconds: Option<i64>, now: Instant) -> Option<f64> {
    let unseen = now.duration_since(live.progress_at?);
    let behind = live.behind(lane, now).unwrap_or_default();
    Some(retention_seconds? as f64 - unseen.max(behind).as_secs_f64())
}
