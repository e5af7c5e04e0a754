//! Waits between attempts: doubling, with jitter, bounded, from a seedable source of randomness.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::config::PipelineSettings;

/// How often and how long to wait before trying again.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    delay_min: Duration,
    delay_max: Duration,
    /// 0: without end.
    attempts_max: u32,
    attempts: u32,
    random: SmallRng,
}

impl Backoff {
    pub fn reconnect(settings: &PipelineSettings, seed: u64) -> Self {
        Self::new(settings, settings.reconnect_attempts_max, seed)
    }

    pub fn retry(settings: &PipelineSettings, seed: u64) -> Self {
        Self::new(settings, settings.retry_attempts_max, seed)
    }

    fn new(settings: &PipelineSettings, attempts_max: u32, seed: u64) -> Self {
        Self {
            delay_min: settings.retry_delay_min,
            delay_max: settings.retry_delay_max,
            attempts_max,
            attempts: 0,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// The wait before the next attempt, between half and all of the doubled one; `None` when there shall be none.
    pub fn next(&mut self) -> Option<Duration> {
        if self.attempts_max != 0 && self.attempts >= self.attempts_max {
            return None;
        }
        let doubled = self.delay_min.saturating_mul(1u32.checked_shl(self.attempts.min(31)).unwrap_or(u32::MAX));
        self.attempts += 1;
        Some(doubled.min(self.delay_max).mul_f64(self.random.random_range(0.5..=1.0)))
    }

    /// What was tried worked.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_end_after_the_attempts() {
        let settings = PipelineSettings {
            retry_delay_min: Duration::from_millis(100),
            retry_delay_max: Duration::from_millis(350),
            retry_attempts_max: 4,
            ..PipelineSettings::default()
        };
        let mut backoff = Backoff::retry(&settings, 7);
        for full in [100, 200, 350, 350] {
            let wait = backoff.next().unwrap().as_millis();
            assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
        assert_eq!(backoff.next(), None);
        backoff.reset();
        assert!(backoff.next().is_some());
        let endless = PipelineSettings { reconnect_attempts_max: 0, ..settings };
        let mut backoff = Backoff::reconnect(&endless, 7);
        assert!((0..100).all(|_| backoff.next().is_some()));
    }
}
