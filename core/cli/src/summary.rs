//! What a run came to: what generators wrote, what pipelines moved, what the sites hold now and whether they are equal.

use std::time::Duration;

use comfy_table::CellAlignment;
use pipeline_engine::config::units::format_duration;
use pipeline_engine::metrics::RunStatus;
use pipeline_engine::runtime::RunEnd;
use pipeline_replica::{Comparison, DIFFERENCES_SHOWN_MAX};
use serde::Serialize;

use crate::output::{table, table_text};
use crate::status::{Rates, render, thousands};

/// Everything of one file's run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    pub file: String,
    pub seconds: f64,
    #[serde(flatten)]
    pub status: RunStatus,
    /// Absent where sites were not compared: the run did not come to its end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparisons: Option<Vec<Comparison>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites_are_equal: Option<bool>,
    pub end: RunEnd,
}

impl Summary {
    pub fn render(&self) -> String {
        let run = Duration::from_millis((self.seconds * 10.0).round() as u64 * 100);
        let mut parts = vec![format!("{}: ran {}", self.file, format_duration(run))];
        parts.extend(self.generators());
        if !self.status.pipelines.is_empty() {
            let whole = Duration::from_secs_f64(self.seconds);
            parts.push(render(&Rates::default().rows(self.status.pipelines.clone(), whole)));
        }
        parts.extend(self.comparisons.iter().flatten().flat_map(content));
        let mut ends = Vec::new();
        if let Some(equal) = self.sites_are_equal {
            ends.push(format!("sites are equal: {}", if equal { "yes" } else { "no" }));
        }
        if !self.end.is_drained {
            ends.push("not everything that was read is written; it is read again at the next start".into());
        }
        let dead: u64 = self.status.pipelines.iter().map(|it| it.counts.dead_letters).sum();
        if dead > 0 {
            ends.push(format!("dead letters: {}", thousands(dead)));
        }
        if !ends.is_empty() {
            parts.push(ends.join("\n"));
        }
        parts.join("\n\n")
    }

    fn generators(&self) -> Option<String> {
        let mut rows = table(["GENERATOR", "ROWS WRITTEN"]);
        for service in self.status.services.iter().filter(|service| service.generator) {
            rows.add_row([service.service.clone(), thousands(service.rows_written)]);
        }
        if rows.is_empty() {
            return None;
        }
        rows.column_mut(1)?.set_cell_alignment(CellAlignment::Right);
        Some(table_text(&rows))
    }
}

/// What each site holds, and what differs.
fn content(comparison: &Comparison) -> Vec<String> {
    let mut rows = table(["SITE", "DATABASE", "TABLES", "ROWS"]);
    for database in &comparison.databases {
        for site in &database.sites {
            rows.add_row([
                site.site.clone(),
                site.renamed.clone().unwrap_or_else(|| database.database.clone()),
                thousands(site.tables as u64),
                thousands(site.rows),
            ]);
        }
    }
    for column in rows.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut parts = vec![table_text(&rows)];
    for database in comparison.databases.iter().filter(|it| it.difference_count > 0) {
        let mut lines: Vec<String> =
            database.differences.iter().map(|it| format!("{}.{}: {}", database.database, it.table, it.what)).collect();
        if database.difference_count > DIFFERENCES_SHOWN_MAX {
            lines.push(format!("… and {} more", database.difference_count - database.differences.len()));
        }
        parts.push(lines.join("\n"));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_engine::metrics::{Counts, PipelineStatus, ServiceStatus, TaskState};
    use pipeline_replica::{DatabaseComparison, Difference, SiteContent};

    #[test]
    fn a_summary_says_who_wrote_what_and_whether_sites_are_equal() {
        let generator = |name: &str, rows| ServiceStatus {
            service: name.into(),
            generator: true,
            state: TaskState::Stopped,
            rows_written: rows,
            process_restarts: 0,
        };
        let site = |name: &str, rows| SiteContent { site: name.into(), renamed: None, tables: 2, rows };
        let database = DatabaseComparison {
            database: "power".into(),
            sites: vec![site("a", 1_500), site("b", 1_499)],
            difference_count: 1,
            differences: vec![Difference { table: "d1".into(), what: "a has 2 rows, b has 1 rows".into() }],
        };
        let pipeline = PipelineStatus {
            pipeline: "a-to-b".into(),
            state: TaskState::Stopped,
            counts: Counts { rows_written: 2_000, loops_suppressed: 3, ..Counts::default() },
            ..PipelineStatus::default()
        };
        let summary = Summary {
            file: "q.toml".into(),
            seconds: 20.04,
            status: RunStatus {
                pipelines: vec![pipeline],
                services: vec![generator("meters-a", 1_000), generator("meters-b", 500)],
                incidents: Vec::new(),
            },
            comparisons: Some(vec![Comparison { replica: "plant".into(), databases: vec![database] }]),
            sites_are_equal: Some(false),
            end: RunEnd { is_drained: true, ..RunEnd::default() },
        };
        let expected = "\
q.toml: ran 20s

GENERATOR  ROWS WRITTEN
meters-a          1,000
meters-b            500

PIPELINE  TASK  STATE     ROWS  BYTES  ROWS/S  LAG S  LAG  RETRIES  LOOPS
a-to-b          stopped  2,000    0 B     100      -    -        0      3

SITE  DATABASE  TABLES   ROWS
a     power          2  1,500
b     power          2  1,499

power.d1: a has 2 rows, b has 1 rows

sites are equal: no";
        assert_eq!(summary.render(), expected);
    }
}
