//! `throttle` and `delay`: transforms that wait, and so slow down what is before them.
//!
//! They wait in the call: a stop of the run ends the wait.

use std::time::{Duration, Instant};

use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Message, Output, Result, Transform, TransformConfig, units};
use schemars::JsonSchema;
use serde::Deserialize;

/// How soon a stop is seen.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// The longest wait for one message: less than what the engine takes for a component that hangs.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Lets rows and bytes pass at a rate at most.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ThrottleConfig {
    /// Rows a second.
    #[schemars(range(min = 1))]
    rows: Option<u64>,
    /// Bytes a second, of Arrow columns or frames.
    #[serde(default, with = "units::optional_bytes")]
    #[schemars(with = "Option<String>", extend("format" = "bytes"))]
    bytes: Option<u64>,
}

impl TransformConfig for ThrottleConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("throttle", Kind::Transform, "Lets rows and bytes pass at a rate at most").any_frame().blocking()
    }

    fn lint(&self) -> Vec<Error> {
        match (self.rows, self.bytes) {
            (None, None) => vec![Error::fatal("say what is let through a second: `rows`, `bytes` or both")],
            (_, Some(0)) => vec![Error::fatal("nothing would pass").path("bytes")],
            _ => Vec::new(),
        }
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Throttle { config: self, free_at: Instant::now(), context }))
    }
}

struct Throttle {
    config: ThrottleConfig,
    /// When what passed is paid for.
    free_at: Instant,
    context: Context,
}

impl Transform for Throttle {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        wait_until(self.free_at, &self.context);
        let seconds = |amount: u64, rate: Option<u64>| rate.map_or(0.0, |rate| amount as f64 / rate.max(1) as f64);
        let costs = seconds(message.row_count(), self.config.rows).max(seconds(message.byte_count(), self.config.bytes));
        if costs > WAIT_MAX.as_secs_f64() {
            let text = format!("a message of {} rows takes {costs:.0} s at this rate, more than {} s", message.row_count(), WAIT_MAX.as_secs());
            return Err(Error::fatal(text).code("throttle.large").hint("let the source make smaller messages (`batch-rows`), or raise the rate"));
        }
        self.free_at = Instant::now() + Duration::from_secs_f64(costs);
        out.push(message);
        Ok(())
    }
}

/// Passes every message on after a while.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DelayConfig {
    /// How long each message is held, 60 s at most.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    by: Duration,
}

impl TransformConfig for DelayConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("delay", Kind::Transform, "Passes every message on after a while").any_frame().blocking()
    }

    fn lint(&self) -> Vec<Error> {
        match self.by > WAIT_MAX {
            true => vec![Error::fatal("60 s at most: a longer call counts as hanging").path("by")],
            false => Vec::new(),
        }
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Delay { by: self.by, context }))
    }
}

struct Delay {
    by: Duration,
    context: Context,
}

impl Transform for Delay {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        wait_until(Instant::now() + self.by, &self.context);
        out.push(message);
        Ok(())
    }
}

fn wait_until(until: Instant, context: &Context) {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || context.is_cancelled() {
            return;
        }
        std::thread::sleep(left.min(LOOK_INTERVAL));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use pipeline_sdk::{Header, Lane, Payload, Position, Rows};

    use super::*;

    fn message(rows: i64) -> Message {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let rows = Rows::plain(RecordBatch::try_from_iter([("v", column)]).unwrap());
        Message { header: Header::new(Lane::new("1"), Position::from_number(1)), payload: Payload::Rows(rows) }
    }

    #[test]
    fn what_passes_is_paid_for_before_the_next_passes() {
        let config = ThrottleConfig { rows: Some(1_000), bytes: None };
        let mut throttle = config.build(Context::detached()).unwrap();
        let begun = Instant::now();
        let mut out = Output::default();
        for _ in 0..3 {
            throttle.apply(message(50), &mut out).unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
        assert_eq!(out.messages.len(), 3);
        let error = throttle.apply(message(100_000), &mut out).unwrap_err();
        assert!(error.to_string().contains("smaller messages"), "{error}");
    }
}
