//! The life of a task in this process: tenures, and the sessions in them.
//!
//! Where nobody shares there is one tenure, until the task is stopped. Where several processes share, a task waits until its lane is
//! this process's ([`super::share`]), and is stopped when that is in doubt: first gracefully, then as it is. What was stored in an
//! earlier tenure is forgotten then, as another process may have gone beyond it: the source begins where its other end says. Where the
//! one before let go of the task with everything written and committed ([`HandOvers`](super::share::HandOvers)) that is all; otherwise
//! everything that is in the log by then may have been written (invariant `no-regress`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pipeline_sdk::{Checkpoint, Error, Lane, Position, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::call::{Failure, is_broken};
use super::session::{End, Session};
use super::share::Share;
use super::task::{Control, Task};
use crate::metrics::TaskState;
use crate::state::{Change, Intent};

/// Between two tries to tell the others that a task is here.
const TAKE_INTERVAL: Duration = Duration::from_secs(1);

/// A time in which a task is this process's. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tenure {
    /// Ends sessions gracefully.
    pub halt: CancellationToken,
    /// Ends them as they are.
    pub cut: CancellationToken,
    /// How far each lane's log reached when the tenure began; empty where nobody shares, or it is not known yet.
    pub before: Arc<OnceLock<Checkpoint>>,
    /// Nothing is written that is not committed at the source.
    pub is_handed_over: bool,
}

/// How the sessions of a tenure ended.
struct Ended {
    /// The task is over, for good or until it is started again.
    is_over: bool,
    /// As of [`End::Stopped`].
    is_committed: bool,
}

impl Tenure {
    pub fn new(stop: &CancellationToken, is_handed_over: bool) -> Self {
        Self { halt: stop.child_token(), cut: CancellationToken::new(), before: Arc::default(), is_handed_over }
    }

    /// What a sink may have written by the intent that is stored, and by what another process may have done.
    pub fn widened(&self, mut intent: Intent) -> Intent {
        let reaches = |stored: Option<&Position>, end: &Position| match (stored.and_then(|it| it.number), end.number) {
            (Some(stored), Some(end)) => stored >= end,
            _ => false,
        };
        for (lane, end) in self.before.get().into_iter().flat_map(|before| &before.lanes) {
            if !reaches(intent.upto.lanes.get(lane), end) {
                intent.upto.lanes.insert(lane.clone(), end.clone());
                // Of rows that another process wrote nothing is known.
                intent.rows.remove(lane);
            }
        }
        intent
    }

    /// The lane is in doubt: first a graceful end, then none.
    async fn end_in_doubt(&self, share: &Share, task: &Task) {
        share.doubtful(&task.key).await;
        tracing::warn!(task = %task.key, "it is no longer sure that this process has the task: it is stopped here");
        self.halt.cancel();
        tokio::time::sleep(share.settle()).await;
        self.cut.cancel();
        std::future::pending().await
    }
}

/// Why something was not done for a task that is another process's by now.
pub(super) fn not_ours() -> Failure {
    Failure::Lost(Error::disconnected("another process may have the task by now").code("engine.lease"))
}

impl Task {
    /// Runs until it is over for good.
    pub async fn supervise(self: Arc<Self>, control: mpsc::Receiver<Control>) {
        self.clone().live(control).await;
        self.processes.end().await;
    }

    async fn live(self: Arc<Self>, mut control: mpsc::Receiver<Control>) {
        match self.run.store.is_stopped(&self.key) {
            Ok(false) => {}
            Ok(true) => return self.set_state(TaskState::Stopped),
            Err(error) => return self.fail(Failure::Fatal(error)),
        }
        let Some(share) = self.run.options.share.clone() else {
            self.run_sessions(&mut control).await;
            return;
        };
        loop {
            match self.begin_tenure(&share).await {
                Ok(true) => {}
                Ok(false) => {
                    self.set_state(TaskState::Stopped);
                    // It may be under way to tell that the task is here.
                    return self.release(false).await;
                }
                Err(error) => return self.fail(Failure::Fatal(error)),
            }
            let tenure = self.tenure();
            let ended = tokio::select! {
                ended = self.run_sessions(&mut control) => ended,
                // It only tells them to end.
                () = tenure.end_in_doubt(&share, &self) => unreachable!("it waits for ever"),
            };
            // What ended by itself is still this process's, to show why.
            if ended.is_committed || self.is_stopped() {
                self.release(ended.is_committed).await;
            }
            if ended.is_over {
                return;
            }
            tracing::info!(task = %self.key, "the task was let go");
        }
    }

    /// Waits until the task is this process's; `false` when it is stopped.
    async fn begin_tenure(&self, share: &Share) -> Result<bool> {
        let admitted = async {
            loop {
                self.set_state(TaskState::Elsewhere);
                share.given(&self.key).await;
                self.set_state(TaskState::Starting);
                let taken = async {
                    share.admitted(&self.key).await;
                    self.take().await
                };
                tokio::select! {
                    biased;
                    is_handed_over = taken => return is_handed_over,
                    () = share.doubtful(&self.key) => {}
                }
            }
        };
        let is_handed_over = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(false),
            is_handed_over = admitted => is_handed_over,
        };
        self.run.store.commit(vec![Change::HandOver { task: self.key.clone() }]).await?;
        self.set_tenure(Tenure::new(&self.stop, is_handed_over));
        tracing::info!(task = %self.key, is_handed_over, "the task is taken here");
        Ok(true)
    }

    /// Tells the others that the task is here; whether the one before handed it over.
    async fn take(&self) -> bool {
        let Some(hand_overs) = &self.run.options.hand_overs else { return false };
        loop {
            match hand_overs.take(&self.key).await {
                Ok(is_handed_over) => return is_handed_over,
                Err(error) => tracing::warn!(task = %self.key, %error, "the task is not begun: others cannot be told that it is here"),
            }
            tokio::time::sleep(TAKE_INTERVAL).await;
        }
    }

    /// Tells the others that the task is nobody's, and the next one whether something is left. Untold, it compares what it need not.
    pub async fn release(&self, is_done: bool) {
        let (Some(hand_overs), Some(share)) = (&self.run.options.hand_overs, &self.run.options.share) else { return };
        // Where the site that tasks are shared by is away an end would wait for it, task by task.
        if !is_done && share.held().is_empty() {
            return;
        }
        if let Err(error) = hand_overs.release(&self.key, is_done).await {
            tracing::warn!(task = %self.key, %error, "others cannot be told that the task was let go");
        }
    }

    /// Runs sessions until one ends for good, or the tenure is over.
    async fn run_sessions(self: &Arc<Self>, control: &mut mpsc::Receiver<Control>) -> Ended {
        let (settings, tenure) = (&self.pipeline.settings, self.tenure());
        let mut reconnects = Backoff::reconnect(settings, self.run.seed());
        let mut restarts = Backoff::retry(settings, self.run.seed());
        let mut source = None;
        let is_committed = loop {
            // Not dropped when the run stops: the session sees the stop itself.
            let end = Session::run(self, &mut source, control).await;
            let is_let_go = tenure.halt.is_cancelled() && !self.stop.is_cancelled();
            let error = match end {
                End::Stopped { is_committed } if is_let_go => return Ended { is_over: false, is_committed },
                End::Failed(_) if is_let_go => return Ended { is_over: false, is_committed: false },
                End::Stopped { is_committed } => {
                    self.set_state(TaskState::Stopped);
                    break is_committed;
                }
                End::Finished => {
                    self.set_state(TaskState::Finished);
                    break false;
                }
                End::Failed(Failure::Lost(error)) => error,
                End::Failed(failure) => {
                    self.fail(failure);
                    break false;
                }
            };
            if self.take_advanced() {
                reconnects.reset();
                restarts.reset();
            }
            let backoff = if is_broken(&error) { &mut restarts } else { &mut reconnects };
            let Some(delay) = backoff.next() else {
                let attempts = backoff.attempts();
                self.fail(Failure::Fatal(error.context(format!("gave up after {attempts} attempts"))));
                break false;
            };
            self.note_lost(&error);
            tokio::select! {
                biased;
                () = tokio::time::sleep(delay) => {}
                () = tenure.halt.cancelled() => {
                    let is_over = self.stop.is_cancelled();
                    if is_over {
                        self.set_state(TaskState::Stopped);
                    }
                    return Ended { is_over, is_committed: false };
                }
            }
        };
        Ended { is_over: true, is_committed }
    }

    /// Checked before everything that leaves this process.
    ///
    /// # Errors
    /// The task may be another process's by now.
    pub fn fence(&self) -> Result<(), Failure> {
        match &self.run.options.share {
            Some(share) if !share.may_write(&self.key) => Err(not_ours()),
            _ => Ok(()),
        }
    }
}

/// The ends of the logs.
pub(super) fn ends_of(progress: Vec<pipeline_sdk::LaneProgress>) -> Checkpoint {
    let ends = progress.into_iter().filter_map(|it| Some((it.lane, it.latest?)));
    Checkpoint { lanes: ends.collect::<std::collections::BTreeMap<Lane, Position>>() }
}
