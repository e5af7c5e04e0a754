//! Running a checked graph.
//!
//! A [`Running`] has services and pipelines; a pipeline has tasks, one for each value of its source's task key; a task lives
//! through sessions, each from a checkpoint until a connection is lost. In a session the source has a reader, each sink a worker a
//! lane, and a keeper stores what is durable; bounded queues join them. What a component does wrong ends its task at most
//! (invariant `contained`).

mod backoff;
mod batch;
mod call;
mod component;
mod isolation;
mod keeper;
mod letter;
mod orders;
mod pipeline;
mod queue;
mod reader;
mod replays;
mod run;
mod service;
mod session;
mod share;
mod tap;
mod task;
mod tenure;
mod threads;
mod throttle;
mod transform;
mod underway;
mod watch;
mod worker;
#[cfg(test)]
mod tests;

pub use orders::{Reloaded, TaskName};
pub use pipeline::ALL_VALUES;
pub use run::{Clock, Engine, RunEnd, RunOptions, Running};
pub use share::{HandOvers, Share, Terms};
pub use threads::Threads;
pub use tap::{Seen, SeenColumn, SeenKind, TAP_BYTES_MAX, TAP_MESSAGES_MAX, TAP_ROWS_DEFAULT, TAPS_MAX, Tap, TapQuery};

use tokio::task::JoinHandle;

/// Starts a part of a task; one whose component blocks its thread gets a thread of its own.
fn spawn<T: Send + 'static>(is_blocking: bool, part: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    if is_blocking {
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(part))
    } else {
        tokio::spawn(part)
    }
}
