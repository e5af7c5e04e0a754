//! Queries against what a real server answered: columns with types and lengths, rows, codes and texts.

mod recorded;

use tdengine_wire::block::{BlockView, ColumnView};
use tdengine_wire::value::Value;

use super::config;
use crate::{Outcome, ResultSet, ServerError, ServerVersion, Session, Store, StoreConfig};

/// Statements, then queries with their answers; its head says how it was made.
const ANSWERS: &str = include_str!("queries/answers.txt");

/// Columns and rows of an answer as text.
#[derive(Debug, PartialEq)]
struct Answer {
    columns: String,
    rows: Vec<String>,
}

/// A store that says the version of the server that was asked.
fn open(dir: &std::path::Path) -> Store {
    Store::open(StoreConfig { version: ServerVersion::V3_3_0_1, ..config(dir) }).unwrap()
}

fn rows_of(store: &Store, session: &mut Session, sql: &str) -> Result<ResultSet, ServerError> {
    match store.execute(session, sql)? {
        Outcome::Rows(rows) => Ok(rows),
        Outcome::Update { .. } => panic!("{sql} answers no rows"),
    }
}

fn ask(store: &Store, session: &mut Session, sql: &str) -> Answer {
    let mut result = match rows_of(store, session, sql) {
        Ok(result) => result,
        Err(error) => {
            return Answer { columns: format!("error 0x{:04x} {}", error.code, error.message), rows: Vec::new() };
        }
    };
    let column = |field: &crate::ResultField| {
        format!("{}:{}:{}", field.name, field.column_type.data_type.name(), field.column_type.query_length())
    };
    let columns = result.fields.iter().map(column).collect::<Vec<_>>().join(" ");
    let mut rows = Vec::new();
    while let Some(block) = result.next_block().unwrap() {
        let view = BlockView::parse(&block).unwrap();
        assert!((1..=4096).contains(&view.rows()));
        rows.extend((0..view.rows()).map(|row| shown_row(view.columns(), row)));
    }
    Answer { columns, rows }
}

fn shown_row(columns: &[ColumnView<'_>], row: usize) -> String {
    columns.iter().map(|column| shown(column.value(row))).collect::<Vec<_>>().join(" | ")
}

fn shown(value: Value<'_>) -> String {
    match value {
        Value::Float(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        // The last digit depends on the order of additions.
        Value::Double(value) => format!("{value:.12e}").parse::<f64>().unwrap().to_string(),
        other => super::shown(other),
    }
}

/// The answer in the file, its doubles shown alike.
fn expected(columns: &str, rows: Vec<&str>) -> Answer {
    let double = |cell: &str| match cell.parse::<f64>() {
        Ok(value) if cell.contains('.') => format!("{value:.12e}").parse::<f64>().unwrap().to_string(),
        _ => cell.to_owned(),
    };
    let row = |row: &str| row.split(" | ").map(double).collect::<Vec<_>>().join(" | ");
    Answer { columns: columns.to_owned(), rows: rows.into_iter().map(row).collect() }
}

#[test]
fn queries_answer_as_a_real_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = super::run(&store, "q", &[]);
    let (mut same, mut wrong) = (0, Vec::new());
    let mut lines = ANSWERS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let Some((sql, columns)) = line.split_once(" => ") else {
            store.execute(&mut session, line).unwrap_or_else(|error| panic!("{line}: {error}"));
            continue;
        };
        let mut rows = Vec::new();
        while let Some(row) = lines.next_if(|line| line.starts_with("  ")) {
            rows.push(&row[2..]);
        }
        let mut expected = expected(columns, rows);
        let mut got = ask(&store, &mut session, sql);
        if !sql.contains("order by") {
            expected.rows.sort();
            got.rows.sort();
        }
        if got == expected {
            same += 1;
        } else {
            wrong.push(format!("{sql}\n  expect {expected:?}\n  got    {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), wrong.len() + same, wrong.join("\n"));
    assert!(same > 150, "{same}");
}
