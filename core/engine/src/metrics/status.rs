//! What a person sees of a run, in the terms of the command line's table.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::registry::IncidentRecord;

/// How far a task is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum TaskState {
    /// Connects for the first time.
    #[default]
    Starting,
    Running,
    /// Lost a connection or a component, with what happened; tries again.
    Reconnecting(String),
    /// Drains, flushes and stores its positions.
    Stopping,
    /// Another process has it, of several that share the tasks.
    Elsewhere,
    /// As asked for.
    Stopped,
    /// A finite source came to its end.
    Finished,
    /// Stopped by policy: the source's log no longer holds what comes next.
    Hole(String),
    /// Stopped by policy: something was rejected.
    Rejected(String),
    /// Cannot go on until a person does something.
    Failed(String),
}

impl TaskState {
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::Hole(_) | Self::Rejected(_) | Self::Failed(_))
    }

    /// What went wrong, where something did.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Reconnecting(reason) | Self::Hole(reason) | Self::Rejected(reason) | Self::Failed(reason) => Some(reason),
            _ => None,
        }
    }
}

/// What is counted of a task, since it was made, and what waits in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    pub messages_read: u64,
    pub rows_read: u64,
    pub bytes_read: u64,
    /// Of all sinks together.
    pub rows_written: u64,
    pub bytes_written: u64,
    pub messages_written: u64,
    /// Calls that wrote.
    pub batches_written: u64,
    pub retries: u64,
    pub reconnects: u64,
    pub errors: u64,
    /// Rows and changes that were kept as dead letters.
    pub dead_letters: u64,
    /// Messages and rows that a replica wrote and that were therefore not passed on.
    pub loops_suppressed: u64,
    pub replicated_rows: u64,
    /// Rows that a sink left out because their table or column is gone at the target.
    pub rows_left_out: u64,
    /// How often the process of an isolated component was started again.
    pub process_restarts: u64,
    /// Messages and bytes between source and sinks now.
    pub queue_messages: u64,
    pub queue_bytes: u64,
    /// In the disk buffers that it fills: what the sinks have not made durable yet.
    #[serde(default)]
    pub buffer_rows: u64,
    #[serde(default)]
    pub buffer_bytes: u64,
    /// Rows that did not fit a disk buffer, and messages that could not be read from a damaged one.
    #[serde(default)]
    pub buffer_rows_dropped: u64,
    #[serde(default)]
    pub buffer_messages_skipped: u64,
}

/// One task: a pipeline, or its share for one value of the source's task key.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PipelineStatus {
    pub pipeline: String,
    /// The value (a database), empty where the pipeline is not divided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    #[serde(flatten)]
    pub state: TaskState,
    /// Since when it is in this state, in milliseconds since the epoch.
    pub since_ms: i64,
    #[serde(flatten)]
    pub counts: Counts,
    /// Positions that are still to be written at every sink, all lanes together; absent where the source does not know.
    pub lag_offsets: Option<i64>,
    /// How much of a source that ends was read, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<f64>,
    /// For how long what is written next has been waiting, in the log or here. Of a source that does not know how far its log is, what
    /// was read and is not written.
    pub lag_seconds: Option<f64>,
    /// How long ago the source was last asked how far it is: what is said of lag is as old.
    pub progress_seconds: Option<f64>,
    /// When a sink last took something, in milliseconds since the epoch; absent before that.
    pub last_applied_ms: Option<i64>,
    pub lanes: Vec<LaneStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LaneStatus {
    pub lane: String,
    /// Behind which everything is durable, and stored.
    pub position: Option<String>,
    /// The oldest position that is kept, the next that is to reach every sink, and the next that the source will be written, where
    /// positions are numbers.
    pub oldest: Option<i64>,
    pub current: Option<i64>,
    pub latest: Option<i64>,
    pub lag_offsets: Option<i64>,
    /// How long the log keeps what is to reach the sinks next, as far as is known; negative where it may be gone already.
    pub slack_seconds: Option<f64>,
    /// How long the log keeps an entry, at least.
    pub retention_seconds: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceStatus {
    pub service: String,
    pub generator: bool,
    #[serde(flatten)]
    pub state: TaskState,
    /// What the service says it wrote (`rows_written`): generators do.
    pub rows_written: u64,
    /// How often its own process was started again.
    pub process_restarts: u64,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunStatus {
    pub pipelines: Vec<PipelineStatus>,
    pub services: Vec<ServiceStatus>,
    /// The most recent ones.
    pub incidents: Vec<IncidentRecord>,
}

/// Tells how long a lane is behind in time, from how far its log was at which moment.
#[derive(Debug, Default)]
pub struct LagClock {
    /// Moment and the log's end then, ascending.
    samples: VecDeque<(Instant, i64)>,
}

impl LagClock {
    /// Moments that are remembered; when there are more every other one is forgotten.
    const SAMPLES_MAX: usize = 128;

    /// The log ended at `latest` at `now`; what is before `current` is done with.
    pub fn sample(&mut self, now: Instant, current: i64, latest: i64) {
        if self.samples.back().is_none_or(|(_, last)| *last < latest) {
            self.samples.push_back((now, latest));
        }
        while self.samples.front().is_some_and(|(_, end)| *end <= current) {
            self.samples.pop_front();
        }
        if self.samples.len() > Self::SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// What comes behind `current` was seen at that moment.
    pub fn began(&mut self, at: Instant, current: i64) {
        match self.samples.front_mut() {
            Some((since, end)) if *end <= current + 1 => *since = at.min(*since),
            Some((since, _)) if *since <= at => {}
            _ => self.samples.push_front((at, current + 1)),
        }
    }

    /// For how long what comes behind `current` has been in the log, at least; zero when nothing waits.
    pub fn behind(&self, now: Instant, current: i64) -> Duration {
        let oldest = self.samples.iter().find(|(_, end)| *end > current);
        oldest.map_or(Duration::ZERO, |(since, _)| now.duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_behind_since_what_it_has_not_read_was_seen() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut clock = LagClock::default();
        clock.sample(start, 10, 10);
        assert_eq!(clock.behind(start + second, 10), Duration::ZERO);
        clock.sample(start + second, 10, 15);
        clock.sample(start + 2 * second, 12, 20);
        assert_eq!(clock.behind(start + 3 * second, 12), 2 * second);
        clock.sample(start + 3 * second, 15, 20);
        assert_eq!(clock.behind(start + 3 * second, 15), second);
        assert_eq!(clock.behind(start + 3 * second, 20), Duration::ZERO, "what is done with since the last look");
        clock.sample(start + 4 * second, 20, 20);
        assert_eq!(clock.behind(start + 9 * second, 20), Duration::ZERO);
        clock.began(start + 5 * second, 18);
        assert_eq!(clock.behind(start + 9 * second, 18), 4 * second);
        for step in 0..1_000 {
            clock.sample(start + step * second, 0, 21 + i64::from(step));
        }
        assert!(clock.samples.len() <= LagClock::SAMPLES_MAX);
    }
}
