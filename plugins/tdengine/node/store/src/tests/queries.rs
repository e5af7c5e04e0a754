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

#[test]
fn reading_statements_answer_the_recorded_code() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let prepare = [
        "create stable st(ts timestamp, a int, v varchar(4), n nchar(4)) tags(t int, tv varchar(4))",
        "create table c1 using st tags(1,\"a\")",
        "create table n1(ts timestamp, a int)",
    ];
    let mut session = super::run(&store, "re", &prepare);
    let (mut checked, mut wrong) = (0, Vec::new());
    for line in super::recording("errors.jsonl") {
        let sql = line["sql"].as_str().unwrap();
        if !["sel", "sho", "des"].contains(&sql.get(..3).unwrap_or("")) {
            continue;
        }
        checked += 1;
        session.database = line["current_db"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        let got = super::code(&store, &mut session, sql);
        let expected = (line["code"].as_u64().unwrap() as u16, line["message"].as_str().unwrap().to_owned());
        if got != expected {
            wrong.push(format!("{sql}\n  expect {expected:?}\n  got    {got:?}"));
        }
    }
    assert!(wrong.is_empty() && checked > 10, "{} of {checked} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn windows_of_many_rows_add_up() {
    /// Where a window of three seconds begins.
    const EPOCH: i64 = 1_700_000_001_000;
    assert_eq!(EPOCH % 3_000, 0);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = super::run(&store, "q", &["create stable m(ts timestamp, v int, d double) tags(n int)"]);
    for table in 0..3 {
        // Every seventh value is NULL; more rows than a run or a block holds.
        let row = |at: i64| match at % 7 {
            0 => format!("({}, null, null)", EPOCH + at),
            _ => format!("({}, {}, 0.5)", EPOCH + at, at - 9_000),
        };
        let rows: String = (0..20_000).map(row).collect();
        store.execute(&mut session, &format!("insert into t{table} using m tags({table}) values{rows}")).unwrap();
    }
    let answer = ask(
        &store,
        &mut session,
        "select _wstart, tbname, count(*), count(v), sum(v), sum(v + 0), min(v), max(v), first(v), last(ts), sum(d) from m \
         where n > 0 partition by tbname interval(3s) order by tbname, _wstart",
    );
    let mut expected = Vec::new();
    for table in 1..3 {
        for window in 0..7i64 {
            let times = window * 3_000..20_000.min(window * 3_000 + 3_000);
            let values: Vec<i64> = times.clone().filter(|at| at % 7 != 0).map(|at| at - 9_000).collect();
            let (sum, count) = (values.iter().sum::<i64>(), values.len());
            let (first, last) = (values[0], values[count - 1]);
            expected.push(format!(
                "{} | t{table} | {} | {count} | {sum} | {sum} | {first} | {last} | {first} | {} | {}",
                EPOCH + times.start,
                times.end - times.start,
                EPOCH + times.end - 1,
                count as f64 / 2.0
            ));
        }
    }
    assert_eq!(answer.rows, expected);
}

/// FACTS F55: what exists and what does not.
#[test]
fn functions_that_a_server_has_and_has_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = super::run(&store, "q", &[
        "create table n(ts timestamp, v int, b bool, s varchar(4))",
        "insert into n values(1700000000000, 3, true, 'ab')",
    ]);
    let mut code = |sql: &str| super::code(&store, &mut session, sql);
    for function in ["count", "sum", "avg", "min", "max", "first", "last", "last_row", "spread", "stddev", "hyperloglog", "mode"] {
        assert_eq!(code(&format!("select {function}(v) from n")).0, 0, "{function}");
    }
    for expression in ["first(s)", "last(b)", "last_row(ts)", "md5(s)", "length(s)", "char_length(s)", "cast(v as bigint)", "v & 1", "v | 1"] {
        assert_eq!(code(&format!("select {expression} from n")).0, 0, "{expression}");
    }
    for function in ["sha1", "sha2", "crc32", "hash", "ascii", "hex", "replace", "mod", "bit_xor", "group_concat", "cluster_id"] {
        assert_eq!(code(&format!("select {function}(s) from n")), (0x0374, "Func not exists".to_owned()), "{function}");
    }
    for function in ["min", "max", "sum"] {
        for column in ["ts", "b", "s"] {
            let expect = (0x2802, format!("Invalid parameter data type : {function}"));
            assert_eq!(code(&format!("select {function}({column}) from n")), expect, "{column}");
        }
    }
    assert_ne!(code("select count(distinct v) from n").0, 0);
}

/// FACTS F57.
#[test]
fn sums_wrap_and_arithmetic_goes_through_doubles() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = super::run(&store, "q", &["create table n(ts timestamp, b bigint, u bigint unsigned)"]);
    let insert = "insert into n values(1700000000000, 9223372036854775807, 18446744073709551615)\
                  (1700000000001, 9223372036854775807, 18446744073709551615)";
    store.execute(&mut session, insert).unwrap();
    let mut first = |expression: &str| ask(&store, &mut session, &format!("select {expression} from n limit 1")).rows.remove(0);
    assert_eq!(first("sum(b), sum(u)"), format!("-2 | {}", u64::MAX - 1));
    assert_eq!(first("9007199254740993 % 10"), "2");
    assert_eq!(first("9007199254740993 & 9007199254740993, 9007199254740992 | 1"), "9007199254740993 | 9007199254740993");
    assert_eq!(first("cast('abc' as int)"), "0");
}
