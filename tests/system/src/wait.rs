//! Waiting for what must come.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(30);

/// Waits until something is so.
///
/// # Panics
/// It did not come within `limit`: says `what`, and what `shown` tells by then.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool, shown: impl FnOnce() -> String) {
    let deadline = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}\n{}", shown());
        std::thread::sleep(LOOK_INTERVAL);
    }
}
