//! The store as its users see it, against what a real server was recorded to do.

mod concurrency;
mod entries;
mod queries;
mod raw;
mod recovery;
mod retention;
mod statements;

use std::path::Path;

use base64::Engine as _;
use tdengine_wire::value::Value;

use crate::schema::TableKind;
use crate::{Entry, Mode, Outcome, Session, Store, StoreConfig};

/// A store with one vgroup a database, as the recordings have it.
fn config(dir: &Path) -> StoreConfig {
    StoreConfig { vgroups: 1, ..StoreConfig::new(dir) }
}

fn open(dir: &Path) -> Store {
    Store::open(config(dir)).unwrap()
}

fn strict(dir: &Path) -> Store {
    Store::open(StoreConfig { mode: Mode::Strict, ..config(dir) }).unwrap()
}

/// Runs statements in a database that must succeed.
fn run(store: &Store, database: &str, statements: &[&str]) -> Session {
    let mut session = Session::new("root");
    if store.database(database).is_err() {
        store.execute(&mut session, &format!("create database `{database}`")).unwrap();
    }
    session.database = Some(database.to_owned());
    for sql in statements {
        let outcome = store.execute(&mut session, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(matches!(outcome, Outcome::Update { .. }));
    }
    session
}

/// Code of a statement, 0 for success.
fn code(store: &Store, session: &mut Session, sql: &str) -> (u16, String) {
    match store.execute(session, sql) {
        Ok(_) => (0, String::new()),
        Err(error) => (error.code, error.message),
    }
}

fn shown(value: Value<'_>) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Bool(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Double(value) => format!("{value:?}"),
        other => other.as_i64().map(|number| number.to_string()).or_else(|| other.text()).unwrap_or_else(|| format!("{other:?}")),
    }
}

/// The rows of a table as text, in the order of its columns.
fn rows(store: &Store, database: &str, table: &str) -> Vec<String> {
    let schema = store.describe(database, table).unwrap();
    let Some(found) = store.table(database, table) else { return Vec::new() };
    let mut out = Vec::new();
    for run in found.rows.scan(&schema.columns).unwrap().iter() {
        let view = run.view().unwrap();
        for row in 0..view.rows() {
            let value = |id| run.column(&view, id).map_or(Value::Null, |column| column.value(row));
            let values: Vec<String> = schema.columns.fields.iter().map(|field| shown(value(field.id))).collect();
            out.push(values.join(","));
        }
    }
    out
}

/// The tags of a child as text.
fn tags(store: &Store, database: &str, table: &str) -> String {
    let schema = store.describe(database, table).unwrap();
    assert_eq!(schema.kind, TableKind::Child);
    let meta = store.table(database, table).unwrap().meta();
    let values = schema.tags.fields.iter().map(|field| shown(meta.tags().unwrap().value(field)));
    values.collect::<Vec<_>>().join(",")
}

/// Every entry of a database with one vgroup.
fn entries(store: &Store, database: &str) -> Vec<Entry> {
    let vgroup = store.database(database).unwrap().vgroups[0];
    store.read_wal(vgroup, 0, usize::MAX).unwrap()
}

/// The frames of a recording.
fn recording(name: &str) -> Vec<serde_json::Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../tests/recordings").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn binary(frame: &serde_json::Value) -> Option<Vec<u8>> {
    Some(base64::engine::general_purpose::STANDARD.decode(frame["base64"].as_str()?).unwrap())
}
