//! Rows of the tables, as people and as scripts see them: a column's name is the JSON key.

use comfy_table::{Cell, CellAlignment, Color};
use serde::Serialize;

use crate::output::{Output, table_of, table_text};

/// One row of a table.
pub trait Row: Serialize {
    /// Names of the columns; the same are the keys.
    fn columns() -> Vec<&'static str>;
    fn cells(&self) -> Vec<Cell>;
}

/// Prints rows as a table or as an array of objects.
pub fn print<R: Row>(rows: &[R], json: bool, output: &Output) {
    match json {
        true => output.json(&rows),
        false => output.pages(&render(rows)),
    }
}

pub fn render<R: Row>(rows: &[R]) -> String {
    let mut table = table_of(&R::columns());
    for row in rows {
        table.add_row(row.cells());
    }
    table_text(&table)
}

/// Text of a person's; `-` where there is none.
pub fn text(text: &str) -> Cell {
    Cell::new(if text.is_empty() { "-" } else { text })
}

/// A number, to the right; `-` where it is not known.
pub fn number(number: Option<impl ToString>) -> Cell {
    Cell::new(number.map_or_else(|| "-".into(), |number| number.to_string())).set_alignment(CellAlignment::Right)
}

/// Seconds as `0.3`.
pub fn seconds(seconds: Option<f64>) -> Cell {
    number(seconds.map(|seconds| format!("{seconds:.1}")))
}

/// Green is well, yellow is not yet, red needs a person.
pub fn colored(text: &str, color: Color) -> Cell {
    Cell::new(text).fg(color)
}
