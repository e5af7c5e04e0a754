//! `pipeline replica diff`: how far each lane of each task is, in offsets of the source's log.

use comfy_table::{Cell, Color};
use pipeline_service::api::{Lane, Task};
use serde::Serialize;

use super::rows::{Row, number, print, text};
use super::service::{Asked, Chosen};
use crate::error::CommandResult;
use crate::output::Output;

/// Of the time for which the log is kept: with less left a person should look, with less than the other one at once.
const SLACK_LOW: f64 = 1.0 / 3.0;
const SLACK_SHORT: f64 = 0.1;

/// Show how far replicas are: what of each log is still to be written at the other site, and how long it is kept
///
/// Offsets are entries of the log, not rows; some are nobody's rows. `diff` is latest minus current. `oldest` is the first that is
/// still kept: were it above `current`, entries would be lost (a hole); `slack` says how many seconds there are until that may be.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica diff
  pipeline replica diff k3f9xa power
  pipeline replica diff --json | jq 'map(.diff) | add'";

/// A row of the table: one lane of one task.
#[derive(Debug, PartialEq, Serialize)]
struct DiffRow {
    replica: String,
    database: String,
    source: String,
    sink: String,
    vgroup_id: LaneId,
    current: Option<i64>,
    latest: Option<i64>,
    diff: Option<i64>,
    oldest: Option<i64>,
    /// Seconds.
    slack: Option<f64>,
    /// How long the log is kept, in seconds.
    #[serde(skip)]
    retention: Option<i64>,
}

/// A number where the lane's name is one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
enum LaneId {
    Number(i64),
    Name(String),
}

impl DiffRow {
    fn new(task: &Task, lane: &Lane) -> Self {
        let name = log_of(&lane.lane);
        Self {
            replica: task.file.clone(),
            database: task.value.clone(),
            source: task.source.clone(),
            sink: task.sink.clone(),
            vgroup_id: name.parse().map_or_else(|_| LaneId::Name(name.to_owned()), LaneId::Number),
            current: lane.current,
            latest: lane.latest,
            diff: lane.lag_offsets,
            oldest: lane.oldest,
            slack: lane.slack_seconds,
            retention: lane.retention_seconds,
        }
    }

    /// Another reader of the same log: what the slower one has read counts.
    fn merge(&mut self, other: Self) {
        self.current = least(self.current, other.current);
        self.latest = self.latest.max(other.latest);
        self.diff = self.diff.max(other.diff);
        self.oldest = self.oldest.max(other.oldest);
        self.slack = least(self.slack, other.slack);
        self.retention = least(self.retention, other.retention);
    }
}

/// Of what is left of the time for which a log is kept; `None` where there is enough, or where that time is not known.
fn slack_color(slack: Option<f64>, retention: Option<i64>) -> Option<Color> {
    let left = slack? / retention? as f64;
    match left {
        left if left < SLACK_SHORT => Some(Color::Red),
        left if left < SLACK_LOW => Some(Color::Yellow),
        _ => None,
    }
}

/// The log that a lane reads: `2` of `2` and of `2.meta`, its second reader.
fn log_of(lane: &str) -> &str {
    lane.split_once('.').map_or(lane, |(log, _)| log)
}

fn least<T: PartialOrd>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other < one { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// One row a log, a task's in the order of their ids.
fn rows(tasks: &[Task]) -> Vec<DiffRow> {
    let mut rows: Vec<DiffRow> = Vec::new();
    for task in tasks {
        let first = rows.len();
        for lane in &task.lanes {
            let row = DiffRow::new(task, lane);
            match rows[first..].iter_mut().find(|it| it.vgroup_id == row.vgroup_id) {
                Some(found) => found.merge(row),
                None => rows.push(row),
            }
        }
        rows[first..].sort_by(|one, other| one.vgroup_id.cmp(&other.vgroup_id));
    }
    rows
}

impl Row for DiffRow {
    fn columns() -> Vec<&'static str> {
        vec!["replica", "database", "source", "sink", "vgroup_id", "current", "latest", "diff", "oldest", "slack"]
    }

    fn cells(&self) -> Vec<Cell> {
        let lane = match &self.vgroup_id {
            LaneId::Number(id) => id.to_string(),
            LaneId::Name(name) => name.clone(),
        };
        let slack = number(self.slack.map(|seconds| format!("{seconds:.0}")));
        vec![
            text(&self.replica),
            text(&self.database),
            text(&self.source),
            text(&self.sink),
            number(Some(lane)),
            number(self.current),
            number(self.latest),
            number(self.diff),
            number(self.oldest),
            match slack_color(self.slack, self.retention) {
                Some(color) => slack.fg(color),
                None => slack,
            },
        ]
    }
}

impl Args {
    pub async fn run(self, output: &Output) -> CommandResult {
        let service = self.asked.service.connect().await?;
        let seen = service.look().await?;
        seen.chosen(&self.chosen)?;
        let mut tasks = seen.tasks_of(self.chosen.id.as_slice(), output)?;
        tasks.retain(|task| self.chosen.databases.is_empty() || self.chosen.databases.contains(&task.value));
        print(&rows(&tasks), self.asked.json, output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_is_judged_by_how_long_the_log_is_kept() {
        let check = |slack: f64, retention, expect| assert_eq!(slack_color(Some(slack), retention), expect, "{slack} of {retention:?}");
        check(3_599.0, Some(3_600), None);
        check(1_000.0, Some(3_600), Some(Color::Yellow));
        check(300.0, Some(3_600), Some(Color::Red));
        check(-5.0, Some(3_600), Some(Color::Red));
        check(5.0, None, None);
    }
}
