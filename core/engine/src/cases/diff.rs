//! What was expected and what came, row by row.

use arrow::array::{Array, AsArray, RecordBatch};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::rows::{batch_json, holds};
use super::{Expected, Row};
use crate::config::value::{Data, Span};
use crate::graph::toml_value;

/// Columns that a dead letter has beside the row's own.
const REASON_COLUMNS: [&str; 4] = ["_error", "_component", "_lane", "_position"];
/// Rows beyond which lines are compared by their place alone.
const ALIGNED_ROWS_MAX: usize = 1_000;

/// One row of a difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "line", content = "row")]
pub enum Line {
    /// As expected.
    Same(String),
    /// Expected, and did not come.
    Missing(String),
    /// Came, and was not expected.
    Unexpected(String),
}

/// Why a case failed, in one respect.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What the file expected.
    pub span: Span,
    pub message: String,
    pub lines: Vec<Line>,
}

/// Rows that came, one after the other.
pub(super) struct Came<'a> {
    rows: Vec<(&'a RecordBatch, usize)>,
}

impl<'a> Came<'a> {
    pub fn new(batches: &'a [RecordBatch]) -> Self {
        Self { rows: batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row))).collect() }
    }

    fn text(&self, index: usize) -> String {
        let (batch, row) = self.rows[index];
        let json = batch_json(&batch.slice(row, 1), 1).pop().unwrap_or_default();
        row_text(batch, &json)
    }
}

/// `{ id = 1, code = 200 }`, columns in their order.
fn row_text(batch: &RecordBatch, row: &Map<String, Json>) -> String {
    let schema = batch.schema();
    let cells: Vec<String> = schema.fields().iter().filter_map(|it| Some(format!("{} = {}", it.name(), row.get(it.name())?))).collect();
    if cells.is_empty() { "{}".into() } else { format!("{{ {} }}", cells.join(", ")) }
}

/// Compares what a sink got.
pub(super) fn of_sink(expected: &Expected, came: &[RecordBatch]) -> Vec<Difference> {
    let all = Came::new(came);
    let what = format!("sink `{}`", expected.sink);
    let mut found: Vec<Difference> = of_rows(&what, &expected.span, &expected.rows, &all, is_row).into_iter().collect();
    for (name, wanted, span) in &expected.types {
        for batch in came {
            let message = match batch.schema().field_with_name(name) {
                Ok(field) if field.data_type() == wanted => continue,
                Ok(field) => format!("{what}: column `{name}` is {}, expected {wanted}", field.data_type()),
                Err(_) => format!("{what}: there is no column `{name}`, expected {wanted}"),
            };
            found.push(Difference { span: span.clone(), message, lines: Vec::new() });
            break;
        }
    }
    found
}

/// Compares what was rejected.
pub(super) fn of_rejected(expected: &[Row], span: &Span, came: &[RecordBatch]) -> Option<Difference> {
    of_rows("rejected", span, expected, &Came::new(came), is_rejected)
}

fn of_rows(
    what: &str,
    span: &Span,
    expected: &[Row],
    came: &Came<'_>,
    is_same: impl Fn(&Row, &RecordBatch, usize) -> bool,
) -> Option<Difference> {
    let equal = |wanted: usize, got: usize| is_same(&expected[wanted], came.rows[got].0, came.rows[got].1);
    let count = (expected.len(), came.rows.len());
    if count.0 == count.1 && (0..count.0).all(|index| equal(index, index)) {
        return None;
    }
    let text = |index: usize| {
        let cells: Vec<String> = expected[index].columns.entries.iter().map(|it| format!("{} = {}", it.key, toml_value(&it.value))).collect();
        if cells.is_empty() { "{}".into() } else { format!("{{ {} }}", cells.join(", ")) }
    };
    let mut first_missing = None;
    let mut lines = Vec::new();
    for step in aligned(count, equal) {
        lines.push(match step {
            (Some(wanted), Some(_)) => Line::Same(text(wanted)),
            (Some(wanted), None) => {
                first_missing.get_or_insert(wanted);
                Line::Missing(text(wanted))
            }
            (None, Some(got)) => Line::Unexpected(came.text(got)),
            (None, None) => continue,
        });
    }
    let rows = |count: usize| if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
    let message = match count.0 == count.1 {
        true => format!("{what}: other rows came than expected"),
        false => format!("{what}: {} expected, {} came", rows(count.0), rows(count.1)),
    };
    let span = first_missing.map_or_else(|| span.clone(), |index: usize| expected[index].span.clone());
    Some(Difference { span, message, lines })
}

/// Expected and got rows side by side, with as many pairs of equal ones as there can be in their order.
fn aligned((wanted, got): (usize, usize), equal: impl Fn(usize, usize) -> bool) -> Vec<(Option<usize>, Option<usize>)> {
    if wanted.max(got) > ALIGNED_ROWS_MAX {
        let pair = |index: usize| match index < wanted && index < got && equal(index, index) {
            true => vec![(Some(index), Some(index))],
            false => vec![((index < wanted).then_some(index), None), (None, (index < got).then_some(index))],
        };
        return (0..wanted.max(got)).flat_map(pair).collect();
    }
    let is_equal: Vec<Vec<bool>> = (0..wanted).map(|w| (0..got).map(|g| equal(w, g)).collect()).collect();
    // The longest common part behind each pair of places.
    let mut longest = vec![vec![0usize; got + 1]; wanted + 1];
    for w in (0..wanted).rev() {
        for g in (0..got).rev() {
            longest[w][g] = if is_equal[w][g] { longest[w + 1][g + 1] + 1 } else { longest[w + 1][g].max(longest[w][g + 1]) };
        }
    }
    let (mut w, mut g, mut steps) = (0, 0, Vec::new());
    while w < wanted || g < got {
        if w < wanted && g < got && is_equal[w][g] {
            steps.push((Some(w), Some(g)));
            (w, g) = (w + 1, g + 1);
        } else if w < wanted && (g == got || longest[w + 1][g] >= longest[w][g + 1]) {
            steps.push((Some(w), None));
            w += 1;
        } else {
            steps.push((None, Some(g)));
            g += 1;
        }
    }
    steps
}

/// Every column is as expected, and nothing else has a value.
fn is_row(expected: &Row, batch: &RecordBatch, row: usize) -> bool {
    agrees(expected, batch, row, |_| false)
}

/// The same; of the reason only what is expected is looked at.
fn is_rejected(expected: &Row, batch: &RecordBatch, row: usize) -> bool {
    let reason = expected.columns.get("_error").map(|it| &it.data);
    let holds_reason = match (reason, batch.column_by_name("_error").and_then(|it| it.as_string_opt::<i32>())) {
        (Some(Data::Text(text)), Some(column)) => column.value(row).contains(&text.value),
        (None, _) => true,
        _ => false,
    };
    holds_reason && agrees(expected, batch, row, |name| name == "_error" || REASON_COLUMNS.contains(&name) && expected.columns.get(name).is_none())
}

fn agrees(expected: &Row, batch: &RecordBatch, row: usize, is_left_out: impl Fn(&str) -> bool) -> bool {
    let schema = batch.schema();
    let has_wanted = expected.columns.entries.iter().filter(|it| !is_left_out(&it.key)).all(|entry| {
        batch.column_by_name(&entry.key).is_some_and(|column| holds(column, row, &entry.value))
    });
    let is_known = |name: &str| is_left_out(name) || expected.columns.get(name).is_some();
    has_wanted && schema.fields().iter().zip(batch.columns()).all(|(field, column)| is_known(field.name()) || column.is_null(row))
}
