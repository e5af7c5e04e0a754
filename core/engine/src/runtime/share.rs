//! Which tasks this process may run where several processes share them.
//!
//! Tasks fall onto lanes, and an engine outside deals the lanes out among the processes that live. A lane is *held* while it was
//! proved to be this process's less than [`Terms::lease`] ago, by the clock of this process alone, counted from when the proof was
//! asked for. Guarantees: nothing is written, flushed or committed for a task whose lane is not held; and a lane that comes to this
//! process is used only once a former holder's lease is over by the same count, so that no two write at a time, whatever the one
//! before does not know yet. A session that outlives its lease is told by [`Share::overrun`]: only the end of the process ends what
//! such a one has under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_sdk::Result;
use pipeline_sdk::site::{HeldLane, Holding};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::state::TaskKey;

/// The times that all processes which share must keep alike.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a proof lets a task write.
    pub lease: Duration,
    /// Without a new proof for so long, tasks are stopped.
    pub doubt: Duration,
    /// What a task may take to write what it has read, once it is in doubt.
    pub settle: Duration,
    /// What a new holder waits beyond the lease of the one before: clocks run unequally, and a request may be on the wire.
    pub grace: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(8), doubt: seconds(4), settle: seconds(2), grace: seconds(1) }
    }
}

/// What processes that share leave for each other about a task: the next holder knows how the one before let go of it.
#[async_trait]
pub trait HandOvers: Send + Sync {
    /// This process has the task from now on: known to all once this returns. Whether the one before let go of it by
    /// [`HandOvers::release`] with nothing left to do.
    async fn take(&self, task: &TaskKey) -> Result<bool>;

    /// This process lets go of the task, where it took it. `is_done` hands it over: all that was read is written, and committed at the
    /// source.
    async fn release(&self, task: &TaskKey, is_done: bool) -> Result<()>;
}

/// What is known of the lanes, for all tasks of a process.
pub struct Share {
    terms: Terms,
    lanes: watch::Sender<Lanes>,
    /// Sessions under way, and their lanes.
    active: Mutex<BTreeMap<u64, (TaskKey, String)>>,
    last_active: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Lanes {
    all: Vec<String>,
    held: BTreeMap<String, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// When it was first known to be this process's.
    since: Instant,
    /// When the last proof was asked for.
    proved: Instant,
}

/// A session under way.
pub(super) struct Active {
    share: Arc<Share>,
    id: u64,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.share.active.lock().remove(&self.id);
    }
}

impl Share {
    pub fn new(terms: Terms) -> Arc<Self> {
        let lanes = watch::Sender::new(Lanes::default());
        Arc::new(Self { terms, lanes, active: Mutex::default(), last_active: AtomicU64::new(0) })
    }

    /// Takes an answer: all lanes that there are, and those that were this process's at some moment later than `before_ms` before
    /// `asked`.
    pub fn told(&self, holding: Holding, asked: Instant) {
        let Holding { lanes: mut all, held } = holding;
        all.sort();
        all.dedup();
        let now = Instant::now();
        self.lanes.send_modify(|lanes| {
            if lanes.all != all {
                // Tasks fall onto others now: nobody goes on before all know.
                *lanes = Lanes { all, held: BTreeMap::new() };
            }
            lanes.held.retain(|_, it| now < it.proved + self.terms.lease);
            for HeldLane { lane, before_ms } in held {
                let Some(proved) = asked.checked_sub(Duration::from_millis(before_ms)) else { continue };
                if now < proved + self.terms.lease && lanes.all.contains(&lane) {
                    let held = lanes.held.entry(lane).or_insert(Held { since: now, proved });
                    held.proved = held.proved.max(proved);
                }
            }
        });
    }

    /// Lanes held now.
    pub fn held(&self) -> Vec<String> {
        let (now, lanes) = (Instant::now(), self.lanes.borrow());
        let is_held = |held: &Held| now < held.proved + self.terms.lease;
        lanes.held.iter().filter(|(_, held)| is_held(held)).map(|(lane, _)| lane.clone()).collect()
    }

    /// A task whose session goes on though its lease is over.
    pub fn overrun(&self) -> Option<TaskKey> {
        let (now, lanes) = (Instant::now(), self.lanes.borrow());
        let is_over = |lane: &String| lanes.held.get(lane).is_none_or(|held| now >= held.proved + self.terms.lease);
        self.active.lock().values().find(|(_, lane)| is_over(lane)).map(|(task, _)| task.clone())
    }

    pub(super) fn may_write(&self, task: &TaskKey) -> bool {
        let lanes = self.lanes.borrow();
        lanes.of(task).is_some_and(|held| Instant::now() < held.proved + self.terms.lease)
    }

    pub(super) fn settle(&self) -> Duration {
        self.terms.settle
    }

    /// A session begins.
    pub(super) fn enter(self: &Arc<Self>, task: &TaskKey) -> Option<Active> {
        let lane = self.lanes.borrow().lane_of(task)?.to_owned();
        let id = self.last_active.fetch_add(1, Ordering::Relaxed);
        self.active.lock().insert(id, (task.clone(), lane));
        Some(Active { share: self.clone(), id })
    }

    /// Waits until the task's lane is known to be this process's.
    pub(super) async fn given(&self, task: &TaskKey) {
        self.reach(|lanes, now| lanes.of(task).filter(|held| now < held.proved + self.terms.doubt).map(|held| held.since)).await;
    }

    /// Waits until the task may be run here.
    pub(super) async fn admitted(&self, task: &TaskKey) {
        let wait = self.terms.lease + self.terms.grace;
        self.reach(|lanes, now| match lanes.of(task) {
            Some(held) if now < held.proved + self.terms.doubt => Some(held.since + wait),
            _ => None,
        })
        .await;
    }

    /// Waits until it is no longer sure that the task may go on here.
    pub(super) async fn doubtful(&self, task: &TaskKey) {
        self.reach(|lanes, now| Some(lanes.of(task).map_or(now, |held| held.proved + self.terms.doubt))).await;
    }

    /// Waits until the moment that `when` tells of what is known by then.
    async fn reach(&self, when: impl Fn(&Lanes, Instant) -> Option<Instant>) {
        let mut changes = self.lanes.subscribe();
        loop {
            let now = Instant::now();
            let due = when(&changes.borrow_and_update(), now);
            if due.is_some_and(|due| due <= now) {
                return;
            }
            tokio::select! {
                // The sender lives as long as this does.
                _ = changes.changed() => {}
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            }
        }
    }
}

impl Lanes {
    /// Tasks of one value fall together, so that both directions of a replica see each other's changes; see `docs/decisions/0007`.
    fn lane_of(&self, task: &TaskKey) -> Option<&str> {
        let name = if task.task.is_empty() { &task.pipeline } else { &task.task };
        let count = self.all.len().max(1);
        self.all.get(crc32fast::hash(name.as_bytes()) as usize % count).map(String::as_str)
    }

    fn of(&self, task: &TaskKey) -> Option<&Held> {
        self.held.get(self.lane_of(task)?)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn key(value: &str) -> TaskKey {
        TaskKey { pipeline: "p".into(), task: value.into(), source: "s".into() }
    }

    fn holding(lanes: &[String], held: &[String]) -> Holding {
        let held = held.iter().map(|lane| HeldLane { lane: lane.clone(), before_ms: 0 });
        Holding { lanes: lanes.to_vec(), held: held.collect() }
    }

    async fn is_reached(moment: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(Duration::ZERO, pin!(moment)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_is_used_after_a_former_lease_and_until_its_own_is_over() {
        let (terms, task) = (Terms::default(), key("power"));
        let share = Share::new(terms);
        let lanes = vec!["1".to_owned()];
        let wait = async |duration| tokio::time::sleep(duration).await;
        assert!(!share.may_write(&task) && !is_reached(share.admitted(&task)).await, "nothing is known");
        let begun = Instant::now();
        while begun.elapsed() < terms.lease + terms.grace {
            assert!(!is_reached(share.admitted(&task)).await, "{:?} after the first proof", begun.elapsed());
            share.told(holding(&lanes, &lanes), Instant::now());
            wait(Duration::from_secs(1)).await;
        }
        assert!(is_reached(share.admitted(&task)).await && !is_reached(share.doubtful(&task)).await);
        let active = share.enter(&task);
        // A proof counts from when it was asked for.
        let asked = Instant::now();
        wait(terms.doubt).await;
        share.told(holding(&lanes, &lanes), asked);
        assert!(share.may_write(&task) && is_reached(share.doubtful(&task)).await && !is_reached(share.admitted(&task)).await);
        share.told(holding(&lanes, &[]), Instant::now());
        wait(terms.lease - terms.doubt).await;
        assert!(!share.may_write(&task) && share.held().is_empty());
        assert_eq!(share.overrun(), Some(task.clone()));
        drop(active);
        assert_eq!(share.overrun(), None);
        share.told(holding(&lanes, &lanes), Instant::now());
        assert!(!is_reached(share.admitted(&task)).await, "another may have had it meanwhile: from the beginning");
    }

    #[tokio::test(start_paused = true)]
    async fn other_lanes_than_before_begin_anew_and_one_value_is_on_one_lane() {
        let share = Share::new(Terms { lease: Duration::from_secs(3), ..Terms::default() });
        let lanes: Vec<String> = (0..8).map(|lane| lane.to_string()).collect();
        share.told(holding(&lanes, &lanes), Instant::now());
        let all = || (0..100).map(|value| key(&value.to_string())).collect::<Vec<_>>();
        assert!(all().iter().all(|task| share.may_write(task)));
        let other = TaskKey { pipeline: "q".into(), ..key("5") };
        assert_eq!(share.lanes.borrow().lane_of(&key("5")), share.lanes.borrow().lane_of(&other));
        let mut used: Vec<String> = all().iter().map(|task| share.lanes.borrow().lane_of(task).unwrap().to_owned()).collect();
        used.sort();
        used.dedup();
        assert_eq!(used, lanes, "a hundred tasks use every lane");
        share.told(holding(&lanes[..4], &[]), Instant::now());
        assert!(!all().iter().any(|task| share.may_write(task)));
    }
}
