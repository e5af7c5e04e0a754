//! Threads of the data plane: those of tasks and services.
//!
//! They are not those that the API, signals and the monitor live on: whatever a component does to its thread, these answer. They are
//! in groups of few: each time that a thread of a group gets work while another has none, both wake, and a message that goes from thread
//! to thread costs more than what is done with it. A library has threads of its own for what waits, so that a group takes half of the
//! cores. A component that blocks its thread holds up what shares it.

use std::io::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Groups that there are once there are as many tasks.
const GROUPS_MAX: usize = 4;
/// Threads of a group: a task has a reader, a chain of transforms, and a writer a lane.
const GROUP_THREADS_MAX: usize = 4;

/// Runtimes for tasks, made as they are needed. Its drop waits for nothing.
#[derive(Default)]
pub struct Threads {
    groups: Mutex<Vec<Group>>,
}

struct Group {
    runtime: Runtime,
    /// Held by everything that runs here.
    used: Arc<()>,
}

impl Group {
    fn new() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).clamp(1, GROUP_THREADS_MAX);
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("pipeline-task").enable_all().build()?;
        Ok(Self { runtime, used: Arc::default() })
    }

    fn load(&self) -> usize {
        Arc::strong_count(&self.used)
    }
}

impl Threads {
    /// Runs `part`, and what it starts, in the group that has the least to do; in the caller's runtime where the system gives no threads.
    pub(super) fn spawn<T: Send + 'static>(&self, part: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let mut groups = self.groups.lock();
        let is_idle = |group: &Group| group.load() == 1;
        if groups.len() < GROUPS_MAX && !groups.iter().any(is_idle) {
            match Group::new() {
                Ok(group) => groups.push(group),
                Err(error) => tracing::warn!(%error, "the system gives no further threads for tasks"),
            }
        }
        let Some(group) = groups.iter().min_by_key(|group| group.load()) else { return tokio::spawn(part) };
        let used = group.used.clone();
        group.runtime.spawn(async move {
            let _used = used;
            part.await
        })
    }

    /// Ends all of them, waiting for what is in a call for so long at most.
    pub fn shutdown(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for group in self.take() {
            group.runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    fn take(&self) -> Vec<Group> {
        std::mem::take(&mut *self.groups.lock())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.take().into_iter().for_each(|group| group.runtime.shutdown_background());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What blocks one group's threads leaves the others alone.
    #[tokio::test]
    async fn tasks_are_spread_and_a_group_that_is_blocked_holds_up_no_other() {
        let threads = Threads::default();
        let (release, blocked) = mpsc::channel::<()>();
        let stuck = threads.spawn(async move { blocked.recv().is_err() });
        let others: Vec<_> = (1..GROUPS_MAX).map(|number| threads.spawn(async move { number })).collect();
        for (number, other) in (1..).zip(others) {
            assert_eq!(other.await.unwrap(), number);
        }
        assert!(threads.groups.lock().len() <= GROUPS_MAX && !stuck.is_finished());
        drop(release);
        assert!(stuck.await.unwrap());
        // One that has nothing to do is used again.
        let before = threads.groups.lock().len();
        threads.spawn(async {}).await.unwrap();
        assert_eq!(threads.groups.lock().len(), before);
        tokio::task::spawn_blocking(move || threads.shutdown(Duration::from_secs(1))).await.unwrap();
    }
}
