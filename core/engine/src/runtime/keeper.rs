//! Acknowledgement is data: which positions are durable, stored, and told to the source, in this order.
//!
//! A barrier of a lane is complete when every sink that was sent anything has flushed. Positions of complete barriers are stored,
//! and only what is stored is committed upstream (invariant `committed-after-durable`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{Checkpoint, Lane, Position};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::call::Failure;
use super::reader::Command;
use super::task::Task;
use crate::state::Change;

/// Notices that wait for the keeper; who sends more waits.
pub(super) const NOTICES_MAX: usize = 1_024;

pub(super) enum Notice {
    /// A barrier goes into a lane; `waiting` sinks will flush for it.
    Begun { lane: Lane, barrier: u64, position: Position, waiting: usize },
    /// Every lane's part of the barrier was announced.
    Announced(u64),
    /// A sink flushed everything of these lanes up to the barrier.
    Flushed { lanes: Arc<[(Lane, Position)]>, barrier: u64 },
    /// What is under way in the lane will never be flushed.
    Revoked(Lane),
    /// Tell the source now, and then this sender.
    Commit(oneshot::Sender<()>),
}

/// The highest barrier up to which everything is stored.
pub(super) type Settled = watch::Receiver<u64>;

struct Pending {
    barrier: u64,
    position: Position,
    waiting: usize,
}

pub(super) struct Keeper {
    task: Arc<Task>,
    identity: String,
    checkpoint: Checkpoint,
    lanes: BTreeMap<Lane, VecDeque<Pending>>,
    /// The highest barrier announced.
    begun: u64,
    is_changed: bool,
    is_committed: bool,
    committed_at: Instant,
    notices: mpsc::Receiver<Notice>,
    settled: watch::Sender<u64>,
    commands: mpsc::Sender<Command>,
    failures: mpsc::UnboundedSender<Failure>,
}

/// Where a keeper reports to.
pub(super) struct KeeperEnds {
    pub notices: mpsc::Receiver<Notice>,
    pub settled: watch::Sender<u64>,
    pub commands: mpsc::Sender<Command>,
    pub failures: mpsc::UnboundedSender<Failure>,
}

impl Keeper {
    pub fn new(task: Arc<Task>, identity: String, checkpoint: Checkpoint, ends: KeeperEnds) -> Self {
        let KeeperEnds { notices, settled, commands, failures } = ends;
        Self {
            task,
            identity,
            checkpoint,
            lanes: BTreeMap::new(),
            begun: 0,
            is_changed: false,
            is_committed: true,
            committed_at: Instant::now(),
            notices,
            settled,
            commands,
            failures,
        }
    }

    /// Ends when nobody can send notices any more, or a position cannot be stored.
    pub async fn run(mut self) {
        let is_prompt = self.task.pipeline.source.node.description.prompt_commit;
        let interval = if is_prompt { Duration::ZERO } else { self.task.pipeline.settings.commit_interval };
        loop {
            let due = self.committed_at + interval;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due), if !self.is_committed => self.commit(None).await,
                notice = self.notices.recv() => {
                    let Some(notice) = notice else { return };
                    let mut told = self.note(notice);
                    while let Ok(notice) = self.notices.try_recv() {
                        told.extend(self.note(notice));
                    }
                    if let Err(error) = self.store().await {
                        // The session is over when nobody listens.
                        let _ = self.failures.send(Failure::Fatal(error));
                        return;
                    }
                    for done in told {
                        self.commit(Some(done)).await;
                    }
                }
            }
        }
    }

    fn note(&mut self, notice: Notice) -> Vec<oneshot::Sender<()>> {
        match notice {
            Notice::Begun { lane, barrier, position, waiting } => {
                self.lanes.entry(lane.clone()).or_default().push_back(Pending { barrier, position, waiting });
                self.advance(&lane);
            }
            Notice::Announced(barrier) => self.begun = self.begun.max(barrier),
            Notice::Flushed { lanes, barrier } => {
                for (lane, _) in lanes.iter() {
                    let pending = self.lanes.get_mut(lane).into_iter().flatten();
                    if let Some(pending) = pending.into_iter().find(|it| it.barrier == barrier) {
                        pending.waiting = pending.waiting.saturating_sub(1);
                    }
                    self.advance(lane);
                }
            }
            Notice::Revoked(lane) => {
                self.lanes.remove(&lane);
            }
            Notice::Commit(done) => return vec![done],
        }
        Vec::new()
    }

    /// Moves a lane's position over its complete barriers, in order.
    fn advance(&mut self, lane: &Lane) {
        let Some(pending) = self.lanes.get_mut(lane) else { return };
        while pending.front().is_some_and(|it| it.waiting == 0) {
            if let Some(complete) = pending.pop_front() {
                let before = self.checkpoint.lanes.insert(lane.clone(), complete.position.clone());
                self.is_changed |= before.as_ref() != Some(&complete.position);
            }
        }
    }

    async fn store(&mut self) -> pipeline_sdk::Result<()> {
        if std::mem::take(&mut self.is_changed) {
            let (task, identity) = (self.task.key.clone(), self.identity.clone());
            let checkpoint = self.checkpoint.clone();
            self.task.run.store.commit(vec![Change::Checkpoint { task, identity, checkpoint }]).await?;
            self.task.note_checkpoint(&self.checkpoint);
            self.is_committed = false;
        }
        let unsettled = self.lanes.values().flatten().map(|it| it.barrier).min();
        // Nobody waits for it when the session is over.
        let _ = self.settled.send(unsettled.map_or(self.begun, |barrier| barrier.saturating_sub(1)));
        Ok(())
    }

    async fn commit(&mut self, done: Option<oneshot::Sender<()>>) {
        self.is_committed = true;
        self.committed_at = Instant::now();
        // The source is gone when nobody listens; the position is stored, and is told to it when it is back.
        let _ = self.commands.send(Command::Commit { upto: self.checkpoint.clone(), done }).await;
    }
}
