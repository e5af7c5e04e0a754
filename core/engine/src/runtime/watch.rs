//! Notices a component that blocks its thread: such a call cannot be timed out, only seen from outside.
//!
//! Every part of a task is polled within a [`Watch`]; a monitor looks at all of them. What blocks is reported and its task shown as
//! failed; the thread itself is lost to the component until it returns.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::run::Pipelines;

/// How often the monitor looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Since when a part has been in one poll. The wall's time, not tokio's: a thread that blocks stops tokio's.
pub(super) struct Watch {
    pub what: String,
    epoch: Instant,
    /// Milliseconds after the epoch, plus one; zero while it is not polled.
    since: AtomicU64,
}

impl Watch {
    pub fn new(what: String) -> Arc<Self> {
        Arc::new(Self { what, epoch: Instant::now(), since: AtomicU64::new(0) })
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64 + 1
    }

    /// For how long the part has been in one poll.
    fn blocked(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.now().saturating_sub(since)),
        }
    }
}

/// A part of a task that is watched.
pub(super) struct Watched<F> {
    part: Pin<Box<F>>,
    watch: Arc<Watch>,
}

impl<F> Watched<F> {
    pub fn new(part: F, watch: Arc<Watch>) -> Self {
        Self { part: Box::pin(part), watch }
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.watch.since.store(self.watch.now(), Ordering::Relaxed);
        let polled = self.part.as_mut().poll(context);
        self.watch.since.store(0, Ordering::Relaxed);
        polled
    }
}

/// Looks at every task's parts until the run stops.
pub(super) async fn monitor(stop: CancellationToken, pipelines: Pipelines) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let pipelines = pipelines.lock().clone();
        for task in pipelines.iter().flat_map(|pipeline| pipeline.tasks()) {
            if let Some((what, blocked)) = task.blocked_part(Watch::blocked) {
                task.fail_blocked(&what, blocked);
            }
        }
    }
}
