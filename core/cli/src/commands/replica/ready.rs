//! `pipeline replica ready`: whether a fail-over now would lose nothing.

use std::time::Duration;

use comfy_table::{Cell, Color};
use jiff::Timestamp;
use pipeline_engine::config::units::parse_duration;
use pipeline_service::api::{Task, TaskStatus as Status};
use serde::Serialize;

use super::rows::{Row, colored, print, seconds, text};
use super::service::{Asked, task_name};
use crate::error::{CommandError, CommandResult};
use crate::output::Output;

/// What a source told of its log longer ago than this and --max-lag says nothing of now. An idle one is asked every 8 s, and may take 5.
const PROGRESS_AGE_MAX: Duration = Duration::from_secs(20);

/// Tell whether a fail-over now would lose nothing: exit code 0 if so, else 1
///
/// Ready is a replica whose tasks all run, whose sources told lately how far they are, and whose lag is within --max-lag. Everything
/// written longer ago than that is at the other side then.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The replica; all where none is named
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// How far behind a task may be
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| parse_duration(text), default_value = "5s")]
    max_lag: Duration,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica ready
  pipeline replica ready k3f9xa --max-lag 1s && switch-over.sh";

/// One task.
#[derive(Debug, PartialEq, Serialize)]
struct ReadyRow {
    replica: String,
    task: String,
    database: String,
    ready: bool,
    lag_seconds: Option<f64>,
    /// Empty where it is ready.
    reason: String,
}

impl Row for ReadyRow {
    fn columns() -> Vec<&'static str> {
        vec!["replica", "task", "database", "ready", "lag_seconds", "reason"]
    }

    fn cells(&self) -> Vec<Cell> {
        let ready = if self.ready { colored("yes", Color::Green) } else { colored("no", Color::Red) };
        vec![text(&self.replica), text(&self.task), text(&self.database), ready, seconds(self.lag_seconds), Cell::new(&self.reason)]
    }
}

impl Args {
    pub async fn run(self, output: &Output) -> CommandResult {
        let service = self.asked.service.connect().await?;
        let seen = service.look().await?;
        let tasks = seen.tasks_of(self.id.as_slice(), output)?;
        let mut rows: Vec<ReadyRow> = tasks.iter().map(|task| judge(task, self.max_lag, Timestamp::now())).collect();
        for id in seen.replicas(self.id.as_deref())? {
            if !tasks.iter().any(|task| task.file == id) {
                let reason = "it has no task: nothing is replicated".into();
                rows.push(ReadyRow { replica: id, task: String::new(), database: String::new(), ready: false, lag_seconds: None, reason });
            }
        }
        print(&rows, self.asked.json, output);
        let not_ready = rows.iter().filter(|row| !row.ready).count();
        match (rows.len(), not_ready) {
            (0, _) => Err(CommandError::failed("there is no replica").hint("`pipeline replica start` makes one")),
            (_, 0) => Ok(()),
            (all, count) => {
                let error = CommandError::failed(format!("a fail-over now could lose data: {count} of {all} tasks are not ready"));
                Err(error.hint("the reasons stand with the tasks; `pipeline replica status` says more"))
            }
        }
    }
}

/// For how long a sink has taken nothing although something waits for it.
fn stuck(task: &Task, now: Timestamp) -> Option<Duration> {
    if task.counts.queue_messages == 0 {
        return None;
    }
    let since = task.last_applied.as_deref().unwrap_or(&task.since).parse::<Timestamp>().ok()?;
    Some(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

/// Of a task that another service has, which did not tell how it is.
fn elsewhere(task: &Task) -> String {
    let reason = task.reason.as_deref().unwrap_or("another service has it");
    match task.service.as_ref().map(|service| &service.address) {
        None => reason.to_owned(),
        Some(Some(address)) => format!("{reason}: ask it (`--address {address} --token-file FILE`)"),
        Some(None) => format!("{reason}: ask it on its machine"),
    }
}

/// Whether all that the source wrote longer ago than `max_lag` is at the sink.
fn judge(task: &Task, max_lag: Duration, now: Timestamp) -> ReadyRow {
    let why = task.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut reasons = Vec::new();
    let is_lately = task.progress_seconds.is_some_and(|age| age <= PROGRESS_AGE_MAX.max(max_lag).as_secs_f64());
    match task.status {
        Status::Running => {}
        Status::Hole => reasons.push(format!("entries of the log were lost before they were read{why}")),
        Status::Finished => reasons.push("the source came to its end".into()),
        Status::Starting => reasons.push("it has not caught up since its start".into()),
        Status::Interrupted => reasons.push(format!("it is interrupted{why}")),
        Status::Elsewhere => reasons.push(elsewhere(task)),
        Status::Stopped | Status::Rejected | Status::Failed => reasons.push(format!("it is stopped{why}")),
    }
    if task.status == Status::Running {
        match task.progress_seconds {
            None => reasons.push("the source has not told yet how far it is".into()),
            Some(age) if !is_lately => {
                reasons.push(format!("the source has not told for {age:.0} s how far it is"));
            }
            Some(_) => {}
        }
        if let Some(stuck) = stuck(task, now).filter(|stuck| *stuck > max_lag) {
            reasons.push(format!("{} messages wait for the sink, which took none for {} s", task.counts.queue_messages, stuck.as_secs()));
        }
        match task.lag_seconds {
            None => reasons.push("its lag is not known".into()),
            Some(lag) if lag > max_lag.as_secs_f64() => {
                let offsets = task.lag_offsets.map(|lag| format!(" ({lag} entries)")).unwrap_or_default();
                reasons.push(format!("it is {lag:.1} s behind{offsets}"));
            }
            Some(_) => {}
        }
    }
    ReadyRow {
        replica: task.file.clone(),
        task: task_name(task),
        database: task.value.clone(),
        ready: reasons.is_empty(),
        lag_seconds: task.lag_seconds.filter(|_| is_lately),
        reason: reasons.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_only_what_would_lose_nothing() {
        let task = |more: serde_json::Value| -> Task {
            let mut task = serde_json::json!({
                "file": "plant", "pipeline": "plant", "value": "power", "source": "a", "sink": "b", "replica": true,
                "status": "running", "since": "2026-01-01T00:00:00Z", "lag-seconds": 0.5, "progress-seconds": 1.0,
                "last-applied": "2026-01-01T00:00:50Z", "lanes": [],
            });
            for counter in [
                "messages-read", "rows-read", "bytes-read", "messages-written", "rows-written", "bytes-written",
                "batches-written", "retries", "reconnects", "errors", "dead-letters", "loops-suppressed",
                "replicated-rows", "rows-left-out", "process-restarts", "queue-messages", "queue-bytes",
            ] {
                task[counter] = 0.into();
            }
            task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(task).unwrap()
        };
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        for (more, reason) in [
            (serde_json::json!({}), ""),
            (serde_json::json!({ "lag-seconds": 5.5, "lag-offsets": 7 }), "it is 5.5 s behind (7 entries)"),
            (serde_json::json!({ "lag-seconds": null }), "its lag is not known"),
            (serde_json::json!({ "progress-seconds": 21.0 }), "has not told for 21 s"),
            (serde_json::json!({ "progress-seconds": null }), "has not told yet"),
            (serde_json::json!({ "queue-messages": 3 }), "3 messages wait for the sink, which took none for 10 s"),
            (serde_json::json!({ "queue-messages": 3, "last-applied": "2026-01-01T00:00:58Z" }), ""),
            (serde_json::json!({ "status": "stopped" }), "it is stopped"),
            (serde_json::json!({ "status": "hole", "reason": "cut" }), "lost before they were read: cut"),
            (serde_json::json!({ "status": "interrupted", "reason": "gone" }), "it is interrupted: gone"),
            (serde_json::json!({ "status": "interrupted", "reason": "away", "progress-seconds": 60.0 }), "it is interrupted: away"),
            (serde_json::json!({ "status": "starting" }), "not caught up"),
            (serde_json::json!({ "status": "elsewhere", "reason": "no service has it yet" }), "no service has it yet"),
            (
                serde_json::json!({ "status": "elsewhere", "reason": "service m/1 has it", "service": { "name": "m/1" } }),
                "service m/1 has it: ask it on its machine",
            ),
            (
                serde_json::json!({ "status": "elsewhere", "reason": "it has it", "service": { "name": "m/1", "address": "m:8080" } }),
                "it has it: ask it (`--address m:8080 --token-file FILE`)",
            ),
        ] {
            let row = judge(&task(more.clone()), Duration::from_secs(5), now);
            assert_eq!(row.ready, reason.is_empty(), "{more}: {row:?}");
            assert!(row.reason.contains(reason), "{more}: {row:?}");
            // What was told long ago is no lag.
            let is_told = more.get("progress-seconds").is_none() && more.get("lag-seconds").is_none_or(|lag| !lag.is_null());
            assert_eq!(row.lag_seconds.is_some(), is_told, "{more}: {row:?}");
        }
    }
}
