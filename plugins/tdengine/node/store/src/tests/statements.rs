//! The error list of a real server, statement by statement.

use serde_json::{Value as Json, json};
use tdengine_wire::block::BlockView;
use tdengine_wire::value::Value;

use super::{code, open, recording, run};
use crate::{Outcome, ResultSet};

/// What is known to differ, and why.
const TEXT_DIFFERS: [&str; 3] = [
    // The node shows the literal, the server the rest of the statement.
    "insert int overflow",
    "insert unsigned negative",
    "insert ts null",
];

#[test]
fn every_statement_answers_the_recorded_code() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let prepare = [
        "create stable st(ts timestamp, a int, v varchar(4), n nchar(4)) tags(t int, tv varchar(4))",
        "create table c1 using st tags(1,\"a\")",
        "create table n1(ts timestamp, a int)",
    ];
    let mut session = run(&store, "re", &prepare);
    let mut wrong = Vec::new();
    let (mut checked, mut reads) = (0, 0);
    for line in recording("errors.jsonl") {
        let sql = line["sql"].as_str().unwrap();
        session.database = line["current_db"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        // Statements that read belong to the tests of queries; an empty text never gets here.
        if ["sel", "sho", "des", ""].contains(&sql.get(..3).unwrap_or("")) && !sql.starts_with("selec 1") {
            reads += 1;
            continue;
        }
        checked += 1;
        let got = code(&store, &mut session, sql);
        let expect = (line["code"].as_u64().unwrap() as u16, line["message"].as_str().unwrap().to_owned());
        let text_counts = !TEXT_DIFFERS.contains(&line["case"].as_str().unwrap());
        if got.0 != expect.0 || text_counts && got.1 != expect.1 {
            wrong.push(format!("{sql}\n  got    0x{:04x} {}\n  expect 0x{:04x} {}", got.0, got.1, expect.0, expect.1));
        }
    }
    assert!(wrong.is_empty(), "{} of {checked} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked > 100 && reads < 30, "{checked} {reads}");
}

/// Rows by INSERT … SELECT: codes and texts, how many rows, and what is there then.
#[test]
fn an_insert_of_a_query_answers_as_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = run(&store, "insel", &["create database insel_us precision 'us'", "create table insel_us.x (ts timestamp, a int)"]);
    let (mut wrong, lines) = (Vec::new(), recording("insert-select.jsonl"));
    for line in &lines {
        let sql = line["sql"].as_str().unwrap();
        let got = match store.execute(&mut session, sql) {
            Ok(Outcome::Update { affected }) => json!({ "sql": sql, "affected": affected }),
            Ok(Outcome::Rows(rows)) => json!({ "sql": sql, "rows": json_rows(rows) }),
            Err(error) => json!({ "sql": sql, "code": error.code, "message": error.message }),
        };
        if got != *line {
            wrong.push(format!("got    {got}\n  expect {line}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

fn json_rows(mut rows: ResultSet) -> Vec<Vec<Json>> {
    let mut out = Vec::new();
    while let Some(block) = rows.next_block().unwrap() {
        let view = BlockView::parse(&block).unwrap();
        out.extend((0..view.rows()).map(|row| view.columns().iter().map(|column| json_of(column.value(row))).collect()));
    }
    out
}

fn json_of(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => value.into(),
        // As JSON shows them: whole ones without a fraction.
        Value::Float(value) if value.fract() == 0.0 => json!(value as i64),
        Value::Float(value) => json!(value),
        Value::Double(value) if value.fract() == 0.0 => json!(value as i64),
        Value::Double(value) => json!(value),
        other => other.as_i64().map_or_else(|| other.text().into(), Json::from),
    }
}
