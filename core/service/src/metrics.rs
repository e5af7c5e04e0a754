//! `/metrics`: everything that is counted, as Prometheus reads it (text format 0.0.4).
//!
//! A counter `rows` of the registry is `pipeline_rows_total`; what a status derives (lag, slack, queues) comes beside it. Labels:
//! `file`, `pipeline`, `component`, `database` (the task's value) and `lane`, each where there is one.

use std::collections::BTreeMap;
use std::fmt::Write;

use pipeline_engine::metrics::{Labels, PipelineStatus, Sample, TaskState};

use crate::supervisor::Supervisor;
use crate::tasks::statuses;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
}

/// Lines by name, as a name's lines must stand together.
#[derive(Default)]
struct Page(BTreeMap<String, (Kind, String)>);

impl Page {
    fn add(&mut self, kind: Kind, name: &str, labels: &[(&str, &str)], value: f64) {
        let (_, lines) = self.0.entry(name.to_owned()).or_insert_with(|| (kind, String::new()));
        let labels = labels.iter().filter(|(_, value)| !value.is_empty());
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        // Writing to a string cannot fail.
        let _ = match labels.is_empty() {
            true => writeln!(lines, "{name} {value}"),
            false => writeln!(lines, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn render(&self) -> String {
        let mut page = String::new();
        for (name, (kind, lines)) in &self.0 {
            let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
            let _ = write!(page, "# TYPE {name} {kind}\n{lines}");
        }
        page
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Letters, digits and `_`.
fn plain(name: &str) -> String {
    let name = name.strip_prefix("engine_").unwrap_or(name);
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

impl Supervisor {
    /// The whole page.
    pub fn metrics(&self) -> String {
        let mut page = Page::default();
        page.add(Kind::Gauge, "pipeline_start_time_seconds", &[], self.started_ms() as f64 / 1_000.0);
        for file in self.managed() {
            let Some(running) = file.live.lock().running.clone() else { continue };
            let (counters, gauges) = running.registry().snapshot();
            for Sample { name, labels, value } in counters {
                page.add(Kind::Counter, &format!("pipeline_{}_total", plain(&name)), &labelled(&file.id, &labels), value);
            }
            for Sample { name, labels, value } in gauges {
                page.add(Kind::Gauge, &format!("pipeline_{}", plain(&name)), &labelled(&file.id, &labels), value);
            }
            statuses(&running).iter().for_each(|task| add_task(&mut page, &file.id, task));
        }
        page.render()
    }
}

fn labelled<'a>(file: &'a str, labels: &'a Labels) -> [(&'a str, &'a str); 5] {
    [
        ("file", file),
        ("pipeline", &labels.pipeline),
        ("component", &labels.component),
        ("database", &labels.task),
        ("lane", labels.lane.as_deref().unwrap_or_default()),
    ]
}

fn add_task(page: &mut Page, file: &str, task: &PipelineStatus) {
    let of_task = [("file", file), ("pipeline", &task.pipeline), ("database", &task.task)];
    let mut gauge = |name: &str, value: f64| page.add(Kind::Gauge, name, &of_task, value);
    gauge("pipeline_task_up", f64::from(u8::from(task.state == TaskState::Running)));
    gauge("pipeline_queue_messages", task.counts.queue_messages as f64);
    gauge("pipeline_queue_bytes", task.counts.queue_bytes as f64);
    gauge("pipeline_buffer_rows", task.counts.buffer_rows as f64);
    gauge("pipeline_buffer_bytes", task.counts.buffer_bytes as f64);
    if let Some(seconds) = task.lag_seconds {
        gauge("pipeline_lag_seconds", seconds);
    }
    for lane in &task.lanes {
        let of_lane = [of_task[0], of_task[1], of_task[2], ("lane", lane.lane.as_str())];
        if let Some(offsets) = lane.lag_offsets {
            page.add(Kind::Gauge, "pipeline_lag_offsets", &of_lane, offsets as f64);
        }
        if let Some(seconds) = lane.slack_seconds {
            page.add(Kind::Gauge, "pipeline_slack_seconds", &of_lane, seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_name_stand_together_and_values_are_escaped() {
        let mut page = Page::default();
        let labels = Labels { pipeline: "a\"b".into(), task: "db\\1".into(), ..Labels::default() };
        page.add(Kind::Counter, "pipeline_rows_read_total", &labelled("f", &labels), 3.0);
        page.add(Kind::Gauge, "pipeline_lag_seconds", &[], 0.5);
        page.add(Kind::Counter, "pipeline_rows_read_total", &[("file", "g")], 4.0);
        let expected = "# TYPE pipeline_lag_seconds gauge\npipeline_lag_seconds 0.5\n# TYPE pipeline_rows_read_total counter\n\
             pipeline_rows_read_total{file=\"f\",pipeline=\"a\\\"b\",database=\"db\\\\1\"} 3\npipeline_rows_read_total{file=\"g\"} 4\n";
        assert_eq!(page.render(), expected);
        assert_eq!(plain("engine_rows_read"), "rows_read");
    }
}
