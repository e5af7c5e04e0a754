//! Moments and choices of a test, from a seed that it prints.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The sequence of a seed: splitmix64, so that a seed means the same everywhere.
pub struct Random {
    pub seed: u64,
    state: u64,
}

impl Random {
    /// The seed in `PIPELINE_SEED`, else one of the clock.
    pub fn from_environment() -> Self {
        let given = std::env::var("PIPELINE_SEED")
            .ok()
            .map(|text| text.parse().expect("PIPELINE_SEED is a whole number"));
        let of_clock = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("a clock behind 1970")
                .as_millis() as u64
        };
        let seed = given.unwrap_or_else(of_clock);
        Self { seed, state: seed }
    }

    /// From 0, less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// Less than `limit_ms`, in ms.
    pub fn moment(&mut self, limit_ms: u64) -> Duration {
        Duration::from_millis(self.below(limit_ms))
    }
}
