//! Threads of a scope that go on until they are told to stop.

use std::sync::atomic::{AtomicBool, Ordering};

/// A failure ends the writers as well: a scope waits for its threads.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
