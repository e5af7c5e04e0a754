//! The source's side of a session: the one place that calls the source.
//!
//! It reads on while what it read is still being written (one message ahead at least, the source's `buffer` at most), and carries
//! out commands between two reads: no call is dropped half-way.

use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{Checkpoint, Interrupt, Lane, LaneProgress, Message, Polled, Reaction, Result, Source};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::call::{Failure, call, is_broken};
use super::queue::{Queue, Weight};
use super::task::Task;
use super::throttle::Meter;
use crate::config::Freshness;

/// Waits of an adaptive source: the first one after data, and the longest.
const IDLE_WAIT_MIN: Duration = Duration::from_millis(10);
const IDLE_WAIT_MAX: Duration = Duration::from_millis(1_000);
/// The longest of a source that can be interrupted and that may take this `IDLE_WAIT_MAX`: it brings what comes within that.
const INTERRUPTIBLE_WAIT_MAX: Duration = PROGRESS_INTERVAL_MAX;
/// The longest of a source whose other end waits for commits: they are told between two reads.
const PROMPT_WAIT_MAX: Duration = Duration::from_millis(100);
/// A wait ends on a grid of this part of it, where that is not finer than timers are.
const WAIT_GRID: u32 = 8;
const WAIT_GRID_MIN: Duration = Duration::from_millis(10);
/// How often at most the source is asked how far it is: while it brings something or lags, and after a while without.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_secs(1);
const PROGRESS_INTERVAL_MAX: Duration = Duration::from_secs(16);
/// A source that cannot tell how far it is counts as caught up after this long without anything new.
const QUIET: Duration = Duration::from_secs(2);
/// Commands that wait for the reader.
pub(super) const COMMANDS_MAX: usize = 16;

pub(super) enum Command {
    Commit { upto: Checkpoint, done: Option<oneshot::Sender<()>> },
    /// Tell when everything was read that is in the log now.
    CatchUp,
    /// Read no more.
    Pause,
}

pub(super) enum Event {
    Messages(Vec<Message>),
    Lanes { assigned: Vec<Lane>, revoked: Vec<Lane> },
    /// Everything that was in the log at [`Command::CatchUp`] was sent before this.
    CaughtUp,
    /// Nothing comes after this: as told.
    Paused,
    /// Nothing comes after this: the source is done.
    End,
    /// Nothing comes after this.
    Failed(Failure),
}

impl Event {
    fn weight(&self) -> Weight {
        match self {
            Self::Messages(messages) => Weight {
                messages: messages.len() as u64,
                bytes: messages.iter().map(Message::byte_count).sum(),
                ..Weight::default()
            },
            _ => Weight { messages: 1, ..Weight::default() },
        }
    }
}

/// How long a read waits: from the first after data, twice as long each time that nothing comes.
struct Pace {
    wait: Duration,
    wait_min: Duration,
    wait_max: Duration,
}

impl Pace {
    fn new(freshness: Freshness, is_prompt: bool, is_interruptible: bool) -> Self {
        let (wait_min, wait_max) = match freshness {
            Freshness::Fixed(wait) => (wait, wait),
            Freshness::Adaptive if is_prompt => (IDLE_WAIT_MIN, PROMPT_WAIT_MAX),
            Freshness::Adaptive => (IDLE_WAIT_MIN, IDLE_WAIT_MAX),
        };
        let is_long = is_interruptible && wait_max >= IDLE_WAIT_MAX;
        let wait_max = if is_long { wait_max.max(INTERRUPTIBLE_WAIT_MAX) } else { wait_max };
        Self { wait: wait_min, wait_min, wait_max }
    }

    /// The wait that begins this long after the epoch, where something else is to be done after about `limit`.
    fn wait(&self, begins: Duration, limit: Duration) -> Duration {
        let mut wait = self.wait;
        while wait > self.wait_min && wait > limit + wait / WAIT_GRID {
            wait = (wait / 2).max(self.wait_min);
        }
        on_grid(begins, wait)
    }

    fn found(&mut self, anything: bool) {
        self.wait = if anything { self.wait_min } else { (self.wait * 2).min(self.wait_max) };
    }
}

/// The wait, shorter by less than a part of it so that it ends together with others of its length.
fn on_grid(begins: Duration, wait: Duration) -> Duration {
    let grid = wait / WAIT_GRID;
    if grid < WAIT_GRID_MIN {
        return wait;
    }
    let over = (begins + wait).as_nanos() % grid.as_nanos();
    wait - Duration::from_nanos(u64::try_from(over).unwrap_or(0))
}

/// Waiting for the end that the log had.
struct Target {
    lanes: Vec<LaneProgress>,
    quiet_since: Instant,
}

pub(super) struct Reader {
    task: Arc<Task>,
    source: Box<dyn Source>,
    events: Arc<Queue<Event>>,
    commands: mpsc::Receiver<Command>,
    interrupt: Option<Interrupt>,
    /// Came while the source was read, and ended its wait.
    urgent: Option<Command>,
    pace: Pace,
    meter: Option<Meter>,
    target: Option<Target>,
    progress_at: Instant,
    progress_interval: Duration,
    is_paused: bool,
    is_broken: bool,
}

impl Reader {
    pub fn new(task: Arc<Task>, source: Box<dyn Source>, events: Arc<Queue<Event>>, commands: mpsc::Receiver<Command>) -> Self {
        let node = &task.pipeline.source.node;
        let interrupt = source.interrupt();
        let pace = Pace::new(node.settings.freshness, node.description.prompt_commit, interrupt.is_some());
        let (progress_at, progress_interval) = (Instant::now(), PROGRESS_INTERVAL_MIN);
        let meter = task.pipeline.source.node.settings.throttle.clone().map(Meter::new);
        Self {
            task,
            source,
            events,
            commands,
            interrupt,
            urgent: None,
            pace,
            meter,
            target: None,
            progress_at,
            progress_interval,
            is_paused: false,
            is_broken: false,
        }
    }

    /// Reads until told to stop, or the source cannot go on. Returns the source where it can be connected again.
    pub async fn run(mut self) -> Option<Box<dyn Source>> {
        match self.read().await {
            Ok(()) => {}
            Err(failure) => {
                if let Failure::Lost(error) = &failure {
                    self.is_broken = is_broken(error);
                }
                self.emit(Event::Failed(failure)).await;
            }
        }
        (!self.is_broken).then_some(self.source)
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let mut retries = Backoff::retry(&self.task.pipeline.settings, self.task.run.seed());
        loop {
            self.carry_out_waiting().await?;
            if self.is_paused {
                // Commits may still come; when nobody can send any more, it is over.
                let Some(command) = self.commands.recv().await else { return Ok(()) };
                self.carry_out(command).await?;
                continue;
            }
            let begun = Instant::now();
            let look = (self.progress_at + self.progress_interval).saturating_duration_since(begun);
            let wait = self.pace.wait(begun.duration_since(self.task.run.options.epoch), look);
            let polled = match self.next(wait).await {
                Err(error) if error.reaction == Reaction::Retry => {
                    self.task.counters.retries.add(1);
                    let Some(delay) = retries.next() else {
                        let attempts = retries.attempts();
                        return Err(Failure::Fatal(error.context(format!("gave up after {attempts} attempts"))));
                    };
                    tokio::time::sleep(delay).await;
                    continue;
                }
                polled => polled.map_err(Failure::of)?,
            };
            retries.reset();
            if self.polled(polled, begun, wait).await? {
                return Ok(());
            }
            // Calls that are ready at once, one after the other, are no call that blocks its thread: the monitor sees that here.
            if self.task.pipeline.source.node.description.blocking {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads. A command that comes meanwhile ends the wait of a source that can be interrupted.
    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let limit = wait + self.task.pipeline.settings.call_timeout;
        let next = call("the source's read", limit, self.source.next(wait));
        let Some(interrupt) = &self.interrupt else { return next.await };
        tokio::pin!(next);
        self.urgent = tokio::select! {
            biased;
            polled = &mut next => return polled,
            // None can come any more: the session is over.
            command = self.commands.recv() => command,
        };
        interrupt.interrupt();
        next.await
    }

    /// Whether it was the last.
    async fn polled(&mut self, polled: Polled, begun: Instant, wait: Duration) -> Result<bool, Failure> {
        let is_idle = matches!(polled, Polled::Idle);
        self.pace.found(!is_idle);
        if !is_idle {
            self.progress_interval = PROGRESS_INTERVAL_MIN;
        }
        match polled {
            Polled::Messages(messages) => {
                if let Some(target) = &mut self.target {
                    target.quiet_since = Instant::now();
                }
                self.task.count_read(&messages);
                self.task.note_read(&messages);
                let paid = self.meter.as_mut().map(|meter| meter.read(&messages));
                self.deliver(Event::Messages(messages)).await?;
                if let Some(paid) = paid {
                    self.wait_paid(paid).await?;
                }
            }
            Polled::Lanes { assigned, revoked } => self.deliver(Event::Lanes { assigned, revoked }).await?,
            Polled::End => {
                // What was known of it before its last messages would be all that is ever shown.
                self.progress().await?;
                self.emit(Event::End).await;
                self.is_paused = true;
            }
            Polled::Idle => {}
        }
        self.look(is_idle).await?;
        if is_idle && self.urgent.is_none() {
            // A source that returns at once when it has nothing must not spin.
            let pause = if self.interrupt.is_some() { wait.min(IDLE_WAIT_MAX) } else { wait };
            self.pause_until(begun + pause).await?;
        }
        Ok(false)
    }

    /// Asks how far the source is, now and then; tells when it is where it was to get.
    async fn look(&mut self, is_idle: bool) -> Result<(), Failure> {
        let now = Instant::now();
        // A wait for it may have ended a part of it earlier, on the grid.
        let is_due = now + self.progress_interval / WAIT_GRID >= self.progress_at + self.progress_interval;
        if !(is_due || (is_idle && self.target.is_some())) {
            return Ok(());
        }
        let lanes = self.progress().await?;
        let Some(target) = &self.target else { return Ok(()) };
        let is_there = target.lanes.iter().all(|goal| {
            let current = lanes.iter().find(|it| it.lane == goal.lane).and_then(|it| it.current.as_ref()?.number);
            match (current, goal.latest.as_ref().and_then(|it| it.number)) {
                (Some(current), Some(latest)) => current >= latest,
                _ => false,
            }
        });
        let is_quiet = now.duration_since(target.quiet_since) >= QUIET;
        if is_idle && (is_there && !target.lanes.is_empty() || is_quiet) {
            self.target = None;
            self.deliver(Event::CaughtUp).await?;
        }
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>, Failure> {
        let limit = self.task.pipeline.settings.call_timeout;
        let lanes = call("the source's progress", limit, self.source.progress()).await.map_err(Failure::of)?;
        self.progress_at = Instant::now();
        let lags = lanes.iter().any(|lane| match (&lane.current, &lane.latest) {
            (Some(current), Some(latest)) => current.number < latest.number,
            _ => false,
        });
        self.progress_interval = if lags { PROGRESS_INTERVAL_MIN } else { (self.progress_interval * 2).min(PROGRESS_INTERVAL_MAX) };
        self.task.note_progress(&lanes);
        Ok(lanes)
    }

    async fn carry_out_waiting(&mut self) -> Result<(), Failure> {
        while let Some(command) = self.urgent.take().or_else(|| self.commands.try_recv().ok()) {
            self.carry_out(command).await?;
        }
        if self.commands.is_closed() && self.commands.is_empty() {
            self.is_paused = true;
        }
        Ok(())
    }

    async fn carry_out(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Commit { upto, done } => {
                self.task.fence()?;
                let limit = self.task.pipeline.settings.call_timeout;
                call("the source's commit", limit, self.source.commit(&upto)).await.map_err(Failure::of)?;
                if let Some(done) = done {
                    // Nobody waits any more when the run is ended at once.
                    let _ = done.send(());
                }
            }
            Command::CatchUp => {
                let lanes = self.progress().await?;
                self.target = Some(Target { lanes, quiet_since: Instant::now() });
                self.pace.found(true);
            }
            Command::Pause => {
                if !std::mem::replace(&mut self.is_paused, true) {
                    self.emit(Event::Paused).await;
                }
            }
        }
        Ok(())
    }

    /// Hands an event on; while there is no room, commands are carried out, and how far the source is, is still asked: it is when
    /// nothing is taken that what waits matters.
    async fn deliver(&mut self, event: Event) -> Result<(), Failure> {
        let (events, weight) = (self.events.clone(), event.weight());
        let push = events.push(event, weight);
        tokio::pin!(push);
        loop {
            tokio::select! {
                biased;
                pushed = &mut push => {
                    // A closed queue means that the session is over.
                    self.is_paused |= pushed.is_err();
                    return Ok(());
                }
                Some(command) = self.commands.recv() => match command {
                    // It would wait for room itself; that nothing comes after it is kept by doing it later.
                    Command::Pause => {
                        let _ = push.await;
                        return self.carry_out(Command::Pause).await;
                    }
                    command => Box::pin(self.carry_out(command)).await?,
                },
                () = tokio::time::sleep_until(self.progress_at + self.progress_interval) => {
                    if let Err(failure) = Box::pin(self.progress()).await {
                        // What was read before is handed on, as ever.
                        let _ = push.await;
                        return Err(failure);
                    }
                }
            }
        }
    }

    async fn emit(&mut self, event: Event) {
        let weight = event.weight();
        // A closed queue means that the session is over.
        let _ = self.events.push(event, weight).await;
    }

    /// Waits until what was read is paid for; how far the source is, is still asked.
    async fn wait_paid(&mut self, paid: Instant) -> Result<(), Failure> {
        while !self.is_paused && Instant::now() < paid {
            self.pause_until(paid.min(Instant::now() + PROGRESS_INTERVAL_MIN)).await?;
            self.look(false).await?;
        }
        Ok(())
    }

    /// Stays till then, or until told to pause, and carries out commands.
    async fn pause_until(&mut self, until: Instant) -> Result<(), Failure> {
        while !self.is_paused {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return Ok(()),
                command = self.commands.recv() => match command {
                    Some(command) => self.carry_out(command).await?,
                    None => self.is_paused = true,
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_that_begin_at_any_time_end_together() {
        let ms = Duration::from_millis;
        let ends: std::collections::BTreeSet<_> = (0..125).map(|begins| ms(begins) + on_grid(ms(begins), ms(1_000))).collect();
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [ms(1_000)]);
        for begins in (0..1_000).map(ms) {
            assert!((ms(876)..=ms(1_000)).contains(&on_grid(begins, ms(1_000))), "{begins:?}");
            assert_eq!(on_grid(begins, ms(50)), ms(50));
        }
    }
}
