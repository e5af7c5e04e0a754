//! `pipeline replica status`: every task, how it is, and why.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use comfy_table::{Cell, Color};
use pipeline_service::api::{Task, TaskStatus as Status};
use serde::Serialize;

use super::rows::{Row, colored, number, print, render, seconds, text};
use super::service::{Service, Asked, once_each, task_name};
use crate::error::{CommandError, CommandResult};
use crate::output::{Output, is_terminal};
use crate::status::thousands;

/// Between two looks of --watch, and between the two that a rate takes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Show the tasks of replicas: one a database and direction
///
/// A status is `starting`, `running`, `interrupted` (something failed and is tried again), `stopped` (by a person, or for a reason
/// that needs one), `hole` (the log was cut before it was read), or `elsewhere` (another service has it, of several that share the
/// tasks). The note says why and since when.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Replicas; all where none is named
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Show it again every second, until Ctrl-C
    #[arg(short, long, conflicts_with = "json")]
    watch: bool,
    /// With rows, rows a second, how far behind, and when something was applied last; takes a second
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica status
  pipeline replica status k3f9xa -v
  pipeline replica status --watch
  pipeline replica status --json | jq '.[] | select(.status != \"running\")'";

/// A row of the table.
#[derive(Debug, PartialEq, Serialize)]
pub struct StatusRow {
    pub replica: String,
    pub task: String,
    pub source: String,
    pub sink: String,
    pub database: String,
    pub status: &'static str,
    pub note: String,
}

/// The same with -v.
#[derive(Debug, PartialEq, Serialize)]
struct VerboseRow {
    #[serde(flatten)]
    row: StatusRow,
    rows: u64,
    /// Rows a second.
    rate: f64,
    lag_seconds: Option<f64>,
    /// RFC 3339.
    last_applied: Option<String>,
}

impl StatusRow {
    pub fn new(task: &Task) -> Self {
        let (status, why) = status_of(task);
        let since = (!why.is_empty()).then(|| format!("{why}; since {}", task.since));
        let place = task.service.as_ref().filter(|_| task.status != Status::Elsewhere).map(|service| format!("in service {service}"));
        Self {
            replica: task.file.clone(),
            task: task_name(task),
            source: task.source.clone(),
            sink: task.sink.clone(),
            database: task.value.clone(),
            status,
            note: [place, since].into_iter().flatten().collect::<Vec<_>>().join("; "),
        }
    }
}

/// The word for a task's status, and what is behind it.
fn status_of(task: &Task) -> (&'static str, String) {
    let why = task.reason.clone().unwrap_or_default();
    match task.status {
        Status::Starting => ("starting", why),
        Status::Running => ("running", why),
        Status::Interrupted => ("interrupted", why),
        Status::Hole => ("hole", why),
        Status::Elsewhere => ("elsewhere", why),
        Status::Stopped => ("stopped", why),
        Status::Finished => ("stopped", "the source came to its end".into()),
        Status::Rejected | Status::Failed => ("stopped", why),
    }
}

impl Row for StatusRow {
    fn columns() -> Vec<&'static str> {
        vec!["replica", "task", "source", "sink", "database", "status", "note"]
    }

    fn cells(&self) -> Vec<Cell> {
        let color = match self.status {
            "running" => Color::Green,
            "hole" => Color::Red,
            "stopped" if !self.note.is_empty() => Color::Red,
            _ => Color::Yellow,
        };
        let mut cells: Vec<Cell> =
            [&self.replica, &self.task, &self.source, &self.sink, &self.database].map(|it| text(it)).into();
        cells.extend([colored(self.status, color), Cell::new(&self.note)]);
        cells
    }
}

impl Row for VerboseRow {
    fn columns() -> Vec<&'static str> {
        [StatusRow::columns(), vec!["rows", "rate", "lag_seconds", "last_applied"]].concat()
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = self.row.cells();
        cells.extend([
            number(Some(thousands(self.rows))),
            number(Some(thousands(self.rate.round() as u64))),
            seconds(self.lag_seconds),
            text(self.last_applied.as_deref().unwrap_or_default()),
        ]);
        cells
    }
}

impl Args {
    pub async fn run(self, output: &Output) -> CommandResult {
        once_each("replica", &self.ids)?;
        let service = self.asked.service.connect().await?;
        if self.watch {
            return self.watch(&service, output).await;
        }
        let tasks = self.tasks(&service, output).await?;
        if !self.verbose {
            print(&tasks.iter().map(StatusRow::new).collect::<Vec<_>>(), self.asked.json, output);
            return Ok(());
        }
        let mut rates = Rates::default();
        rates.rows(&tasks);
        tokio::time::sleep(WATCH_INTERVAL).await;
        print(&rates.rows(&self.tasks(&service, output).await?), self.asked.json, output);
        Ok(())
    }

    async fn tasks(&self, service: &Service, output: &Output) -> Result<Vec<Task>, CommandError> {
        service.look().await?.tasks_of(&self.ids, output)
    }

    async fn watch(&self, service: &Service, output: &Output) -> CommandResult {
        let mut rates = Rates::default();
        loop {
            let tasks = self.tasks(service, output).await?;
            let text = match self.verbose {
                true => render(&rates.rows(&tasks)),
                false => render(&tasks.iter().map(StatusRow::new).collect::<Vec<_>>()),
            };
            match is_terminal() {
                true => output.live(&text),
                false => output.line(&text),
            }
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
        }
    }
}

/// Remembers what was counted before.
#[derive(Default)]
struct Rates {
    rows: HashMap<String, u64>,
    at: Option<Instant>,
}

impl Rates {
    fn rows(&mut self, tasks: &[Task]) -> Vec<VerboseRow> {
        let now = Instant::now();
        let seconds = self.at.replace(now).map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        let mut row = |task: &Task| {
            let written = task.counts.rows_written;
            let before = self.rows.insert(format!("{} {}", task.file, task_name(task)), written);
            // Counters begin anew where a task does.
            let new = before.map_or(0, |before| written.saturating_sub(before));
            VerboseRow {
                row: StatusRow::new(task),
                rows: written,
                rate: if seconds > 0.0 { new as f64 / seconds } else { 0.0 },
                lag_seconds: task.lag_seconds,
                last_applied: task.last_applied.clone(),
            }
        };
        tasks.iter().map(&mut row).collect()
    }
}
