//! How fast a source is read: so many rows and bytes a second, with some ahead after a pause.

use std::time::Duration;

use pipeline_sdk::Message;
use tokio::time::Instant;

use crate::config::Throttle;

/// Keeps the moment until which everything that was read is paid for.
pub(super) struct Meter {
    limits: Throttle,
    paid_until: Instant,
}

impl Meter {
    pub fn new(limits: Throttle) -> Self {
        let now = Instant::now();
        Self { paid_until: now.checked_sub(limits.burst).unwrap_or(now), limits }
    }

    /// Takes what was read; when the source may be read again. What was not used in the last `burst` may be used at once.
    pub fn read(&mut self, messages: &[Message]) -> Instant {
        let rows: u64 = messages.iter().map(Message::row_count).sum();
        let bytes: u64 = messages.iter().map(Message::byte_count).sum();
        let now = Instant::now();
        let oldest = now.checked_sub(self.limits.burst).unwrap_or(now);
        self.paid_until = self.paid_until.max(oldest) + self.cost(rows, bytes);
        self.paid_until
    }

    fn cost(&self, rows: u64, bytes: u64) -> Duration {
        /// Longer than any run: an amount that would take more is not counted in full.
        const COST_MAX_SECONDS: f64 = 1e8;
        let seconds = |amount: u64, rate: Option<u64>| rate.map_or(0.0, |rate| amount as f64 / rate.max(1) as f64);
        Duration::from_secs_f64(seconds(rows, self.limits.rows).max(seconds(bytes, self.limits.bytes)).min(COST_MAX_SECONDS))
    }
}
