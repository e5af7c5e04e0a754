//! The status of a run as a table for a terminal and as structured lines for a log.

use std::collections::HashMap;
use std::time::Duration;

use comfy_table::CellAlignment;
use pipeline_engine::metrics::{PipelineStatus, TaskState};

use crate::output::{table, table_text};

/// Remembers what was counted before, for rates.
#[derive(Debug, Default)]
pub struct Rates {
    rows: HashMap<(String, String), u64>,
    at: Duration,
}

/// One task with its rate.
#[derive(Clone, Debug)]
pub struct Row {
    pub status: PipelineStatus,
    pub rows_per_second: f64,
}

impl Rates {
    /// Rates since the last call; `now` is the time since the run started.
    pub fn rows(&mut self, pipelines: Vec<PipelineStatus>, now: Duration) -> Vec<Row> {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        let mut rate = |status: PipelineStatus| {
            let key = (status.pipeline.clone(), status.task.clone());
            let before = self.rows.insert(key, status.counts.rows_written).unwrap_or(0);
            let new = status.counts.rows_written.saturating_sub(before) as f64;
            Row { status, rows_per_second: if seconds > 0.0 { new / seconds } else { 0.0 } }
        };
        pipelines.into_iter().map(&mut rate).collect()
    }
}

/// Tasks that are not over and are meant, the interrupted ones first, with what interrupts them; all that are not over where none
/// is meant.
pub fn waits(mut pipelines: Vec<PipelineStatus>, is_meant: &dyn Fn(&PipelineStatus) -> bool) -> Vec<String> {
    pipelines.retain(|it| !it.state.is_over());
    if pipelines.iter().any(is_meant) {
        pipelines.retain(is_meant);
    }
    pipelines.sort_by_key(|it| it.state.reason().is_none());
    let named = pipelines.iter().map(|it| {
        let name = if it.task.is_empty() { it.pipeline.clone() } else { format!("{}/{}", it.pipeline, it.task) };
        match it.state.reason() {
            Some(reason) => format!("{name} ({reason})"),
            None => name,
        }
    });
    named.collect()
}

/// Whether something is known to be still to be read or written.
pub fn is_behind(status: &PipelineStatus) -> bool {
    status.state != TaskState::Running || status.counts.queue_messages > 0 || status.lag_offsets.is_some_and(|lag| lag > 0)
}

/// The table of all tasks, and below it what went wrong.
pub fn render(rows: &[Row]) -> String {
    render_as(rows, usize::MAX, 2, thousands)
}

/// The same within a terminal's columns: narrower gaps, rounded numbers, names cut, as far as it must.
pub fn render_within(rows: &[Row], columns: usize) -> String {
    /// Longest names, from one try to the next.
    const NAME_LENGTHS: [usize; 5] = [40, 24, 16, 12, 8];
    let fits = |text: &String| text.lines().take(rows.len() + 1).all(|line| line.chars().count() <= columns);
    let tries = std::iter::once(render(rows)).chain(NAME_LENGTHS.map(|length| render_as(rows, length, 1, rounded)));
    let mut narrowest = String::new();
    for text in tries {
        if fits(&text) {
            return text;
        }
        narrowest = text;
    }
    narrowest
}

fn render_as(rows: &[Row], name_length: usize, gap: u16, number: fn(u64) -> String) -> String {
    let header = ["PIPELINE", "TASK", "STATE", "ROWS", "BYTES", "ROWS/S", "LAG S", "LAG", "RETRIES", "LOOPS"];
    let mut out = table(header);
    for row in rows {
        let status = &row.status;
        out.add_row([
            cut(&status.pipeline, name_length),
            cut(&status.task, name_length),
            state(&status.state).to_owned(),
            number(status.counts.rows_written),
            bytes(status.counts.bytes_written),
            number(row.rows_per_second.round() as u64),
            status.lag_seconds.map_or_else(|| "-".into(), |lag| format!("{lag:.1}")),
            status.lag_offsets.map_or_else(|| "-".into(), |lag| number(lag.unsigned_abs())),
            number(status.counts.retries + status.counts.reconnects),
            number(status.counts.loops_suppressed),
        ]);
    }
    for column in out.column_iter_mut() {
        column.set_padding((0, gap));
    }
    for column in out.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table_text(&out);
    for row in rows.iter().filter(|row| row.status.state == TaskState::Running) {
        if let Some(done) = row.status.done {
            text.push_str(&format!("\n{} {}", bar(done), task_name(&row.status)));
        }
    }
    for row in rows.iter().filter(|row| row.status.counts.buffer_rows > 0 || row.status.counts.buffer_rows_dropped > 0) {
        let counts = &row.status.counts;
        let dropped = if counts.buffer_rows_dropped > 0 { format!(", {} dropped", number(counts.buffer_rows_dropped)) } else { String::new() };
        text.push_str(&format!("\n{}: {} rows ({}) in disk buffers{dropped}", task_name(&row.status), number(counts.buffer_rows), bytes(counts.buffer_bytes)));
    }
    for row in rows {
        if let Some(reason) = row.status.state.reason() {
            text.push_str(&format!("\n{}: {reason}", task_name(&row.status)));
        }
    }
    text
}

fn cut(name: &str, length: usize) -> String {
    if name.chars().count() <= length {
        return name.to_owned();
    }
    name.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

/// `[#####---------------]  25 %`
fn bar(done: f64) -> String {
    const CELLS: usize = 20;
    let full = ((done * CELLS as f64) as usize).min(CELLS);
    format!("[{}{}] {:3.0} %", "#".repeat(full), "-".repeat(CELLS - full), (done * 100.0).floor())
}

/// One structured line a task.
pub fn log(rows: &[Row]) {
    for Row { status, rows_per_second } in rows {
        tracing::info!(
            pipeline = status.pipeline,
            task = status.task,
            state = state(&status.state),
            rows = status.counts.rows_written,
            bytes = status.counts.bytes_written,
            rows_per_second = rows_per_second.round() as u64,
            done = status.done,
            lag_seconds = status.lag_seconds,
            lag_offsets = status.lag_offsets,
            retries = status.counts.retries,
            reconnects = status.counts.reconnects,
            loops_suppressed = status.counts.loops_suppressed,
            dead_letters = status.counts.dead_letters,
            buffer_rows = status.counts.buffer_rows,
            buffer_bytes = status.counts.buffer_bytes,
            buffer_rows_dropped = status.counts.buffer_rows_dropped,
            "status"
        );
    }
}

pub fn task_name(status: &PipelineStatus) -> String {
    if status.task.is_empty() { status.pipeline.clone() } else { format!("{}/{}", status.pipeline, status.task) }
}

fn state(state: &TaskState) -> &'static str {
    match state {
        TaskState::Starting => "starting",
        TaskState::Running => "running",
        TaskState::Reconnecting(_) => "reconnecting",
        TaskState::Stopping => "stopping",
        TaskState::Elsewhere => "elsewhere",
        TaskState::Stopped => "stopped",
        TaskState::Finished => "finished",
        TaskState::Hole(_) => "hole",
        TaskState::Rejected(_) => "rejected",
        TaskState::Failed(_) => "failed",
    }
}

/// `1,234,567`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `999,999`, then `1.2M`, `1.2G`
fn rounded(number: u64) -> String {
    match number {
        0..1_000_000 => thousands(number),
        1_000_000..1_000_000_000 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{:.1}G", number as f64 / 1e9),
    }
}

/// `12.3 MiB`
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_engine::metrics::Counts;

    #[test]
    fn what_is_waited_for_is_told() {
        let status = |name: &str, state: TaskState, lag_offsets| PipelineStatus {
            pipeline: "p".into(),
            task: name.into(),
            state,
            lag_offsets,
            ..PipelineStatus::default()
        };
        let quiet = status("quiet", TaskState::Running, Some(0));
        let all = vec![
            quiet.clone(),
            status("behind", TaskState::Running, Some(2)),
            status("away", TaskState::Reconnecting("gone".into()), None),
            status("over", TaskState::Finished, None),
        ];
        assert_eq!(waits(all, &is_behind), ["p/away (gone)", "p/behind"]);
        assert_eq!(waits(vec![quiet], &is_behind), ["p/quiet"]);
    }

    #[test]
    fn numbers_for_people() {
        let check = |number, expected: &str| assert_eq!(thousands(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(12_345_678, "12,345,678");
        let check = |number, expected: &str| assert_eq!(bytes(number), expected);
        check(1_023, "1023 B");
        check(1_536, "1.5 KiB");
        check(u64::MAX, "16777216.0 TiB");
    }

    #[test]
    fn the_table_shows_rates_lags_and_reasons() {
        let status = |rows, state| PipelineStatus {
            pipeline: "a-to-b".into(),
            task: "power".into(),
            state,
            counts: Counts {
                rows_written: rows,
                bytes_written: rows * 16,
                retries: 1,
                reconnects: 2,
                loops_suppressed: 7,
                ..Counts::default()
            },
            lag_seconds: Some(0.26),
            lag_offsets: Some(1_500),
            ..PipelineStatus::default()
        };
        let other = PipelineStatus { pipeline: "b-to-a".into(), ..PipelineStatus::default() };
        let mut rates = Rates::default();
        rates.rows(vec![status(1_000, TaskState::Running)], Duration::from_secs(1));
        let reading = PipelineStatus { done: Some(0.25), ..status(0, TaskState::Running) };
        let text = render(&[Row { status: reading, rows_per_second: 0.0 }]);
        assert!(text.ends_with("\n[#####---------------]  25 % a-to-b/power"), "{text}");
        let failed = TaskState::Failed("no answer".into());
        let rows = rates.rows(vec![status(4_000, failed), other], Duration::from_secs(3));
        let expected = "\
PIPELINE  TASK   STATE      ROWS     BYTES  ROWS/S  LAG S    LAG  RETRIES  LOOPS
a-to-b    power  failed    4,000  62.5 KiB   1,500    0.3  1,500        3      7
b-to-a           starting      0       0 B       0      -      -        0      0
a-to-b/power: no answer";
        assert_eq!(render(&rows), expected);
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let status = PipelineStatus {
            pipeline: "shanghai-to-berlin".into(),
            task: "power-of-the-plant".into(),
            state: TaskState::Running,
            counts: Counts {
                rows_written: 12_345_678_901,
                bytes_written: 1 << 40,
                retries: 12,
                loops_suppressed: 1_234,
                ..Counts::default()
            },
            lag_seconds: Some(12.3),
            lag_offsets: Some(1_234_567),
            ..PipelineStatus::default()
        };
        let rows = [Row { status, rows_per_second: 1_234_567.0 }];
        for columns in [80, 100, 120, 200] {
            let text = render_within(&rows, columns);
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}:\n{text}");
            assert!(text.contains("running") && text.contains("LOOPS"), "{text}");
        }
        let expected = "\
PIPELINE     TASK         STATE    ROWS   BYTES ROWS/S LAG S  LAG RETRIES LOOPS
shanghai-to… power-of-th… running 12.3G 1.0 TiB   1.2M  12.3 1.2M      12 1,234";
        assert_eq!(render_within(&rows, 80), expected);
        assert!(render_within(&rows, 200).contains("12,345,678,901"));
    }
}
