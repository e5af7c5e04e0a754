//! The life of a task in this process: tenures, and the sessions in them.
//!
//! Where nobody shares there is one tenure, until the task is stopped. Where several processes share, a task waits until its lane is
//! this process's ([`super::share`]), and is stopped when that is in doubt: first gracefully, then as it is. What was stored in an
//! earlier tenure is forgotten then, as another process may have gone beyond it: the source begins where its other end says,
//! and everything that is in its log by then may have been written (invariant `no-regress`).

use std::sync::{Arc, OnceLock};

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

/// A time in which a task is this process's. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tenure {
    /// Ends sessions gracefully.
    pub halt: CancellationToken,
    /// Ends them as they are.
    pub cut: CancellationToken,
    /// How far each lane's log reached when the tenure began; empty where nobody shares, or it is not known yet.
    pub before: Arc<OnceLock<Checkpoint>>,
}

impl Tenure {
    pub fn new(stop: &CancellationToken) -> Self {
        Self { halt: stop.child_token(), cut: CancellationToken::new(), before: Arc::default() }
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
        match self.run.store.desired(&self.key) {
            Ok(None) => {}
            Ok(Some(_)) => return self.set_state(TaskState::Stopped),
            Err(error) => return self.fail(Failure::Fatal(error)),
        }
        let Some(share) = self.run.options.share.clone() else {
            self.run_sessions(&mut control).await;
            return;
        };
        loop {
            match self.begin_tenure(&share).await {
                Ok(true) => {}
                Ok(false) => return self.set_state(TaskState::Stopped),
                Err(error) => return self.fail(Failure::Fatal(error)),
            }
            let tenure = self.tenure();
            let is_over = tokio::select! {
                is_over = self.run_sessions(&mut control) => is_over,
                // It only tells them to end.
                () = tenure.end_in_doubt(&share, &self) => unreachable!("it waits for ever"),
            };
            if is_over {
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
                tokio::select! {
                    biased;
                    () = share.admitted(&self.key) => return,
                    () = share.doubtful(&self.key) => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(false),
            () = admitted => {}
        }
        self.run.store.commit(vec![Change::HandOver { task: self.key.clone() }]).await?;
        self.set_tenure(Tenure::new(&self.stop));
        tracing::info!(task = %self.key, "the task is taken here");
        Ok(true)
    }

    /// Runs sessions until one ends for good, or the tenure is over. Whether the task is over.
    async fn run_sessions(self: &Arc<Self>, control: &mut mpsc::Receiver<Control>) -> bool {
        let (settings, tenure) = (&self.pipeline.settings, self.tenure());
        let mut reconnects = Backoff::reconnect(settings, self.run.seed());
        let mut restarts = Backoff::retry(settings, self.run.seed());
        let mut source = None;
        loop {
            // Not dropped when the run stops: the session sees the stop itself.
            let end = Session::run(self, &mut source, control).await;
            let is_let_go = tenure.halt.is_cancelled() && !self.stop.is_cancelled();
            let error = match end {
                End::Stopped | End::Failed(_) if is_let_go => return false,
                End::Stopped => break self.set_state(TaskState::Stopped),
                End::Finished => break self.set_state(TaskState::Finished),
                End::Failed(Failure::Lost(error)) => error,
                End::Failed(failure) => break self.fail(failure),
            };
            if self.take_advanced() {
                reconnects.reset();
                restarts.reset();
            }
            let backoff = if is_broken(&error) { &mut restarts } else { &mut reconnects };
            let Some(delay) = backoff.next() else {
                let attempts = backoff.attempts();
                break self.fail(Failure::Fatal(error.context(format!("gave up after {attempts} attempts"))));
            };
            self.note_lost(&error);
            tokio::select! {
                biased;
                () = tokio::time::sleep(delay) => {}
                () = tenure.halt.cancelled() => match self.stop.is_cancelled() {
                    true => break self.set_state(TaskState::Stopped),
                    false => return false,
                },
            }
        }
        true
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
