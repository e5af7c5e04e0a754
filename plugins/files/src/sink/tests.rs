//! The sink into a folder, with ends of every kind.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use pipeline_sdk::{Header, Lane, Position, Rows, SinkConfig};
use serde_json::json;

use super::*;

fn batch(range: std::ops::Range<i64>) -> RecordBatch {
    let texts: Vec<String> = range.clone().map(|n| format!("t{}", n % 2)).collect();
    let columns: Vec<(&str, ArrayRef)> =
        vec![("n", Arc::new(Int64Array::from_iter_values(range))), ("s", Arc::new(StringArray::from(texts)))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Ten rows; its position is behind them.
fn message(begin: i64) -> Message {
    let header = Header::new(Lane::new("a"), Position::from_number(begin + 10));
    Message { header, payload: Payload::Rows(Rows::plain(batch(begin..begin + 10))) }
}

fn sink(folder: &Path, name: &str, more: serde_json::Value, context: &Context) -> Files {
    let mut config = json!({ "path": folder.join(name) });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: FilesSinkConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.lint(), Vec::new());
    Files::new(config, context.clone()).unwrap()
}

/// Values of `n` in all files of a name, read by the source.
async fn numbers(folder: &Path, pattern: &str) -> Vec<i64> {
    use pipeline_sdk::{Checkpoint, Polled, Source, SourceConfig};
    let config = json!({ "path": folder.join(pattern) });
    let config: crate::source::FilesSourceConfig = serde_json::from_value(config).unwrap();
    let mut source: Box<dyn Source> = config.build(Context::detached()).unwrap();
    source.connect(&Checkpoint::default()).await.unwrap();
    let mut numbers = Vec::new();
    while let Polled::Messages(messages) = source.next(std::time::Duration::ZERO).await.unwrap() {
        for message in messages {
            let Payload::Rows(rows) = message.payload else { panic!("rows") };
            let column = rows.batch.column_by_name("n").unwrap().as_any().downcast_ref::<Int64Array>().unwrap().clone();
            numbers.extend(column.values().iter().copied());
        }
    }
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_and_doubles_nothing() {
    for name in ["r.csv", "r.ndjson", "r.parquet", "r.arrow"] {
        let (folder, context) = (tempfile::tempdir().unwrap(), Context::detached());
        let mut stored = 0;
        for round in 0..4 {
            let mut sink = sink(folder.path(), name, json!({ "roll-bytes": "300B" }), &context);
            sink.connect().await.unwrap();
            // What was flushed but not stored by the engine comes again, as the same messages.
            let begin = stored;
            for step in 0..4 {
                sink.write(&message(begin + step * 10)).await.unwrap();
                if step == 1 {
                    stored = begin + 10;
                    sink.flush().await.unwrap();
                }
            }
            match round {
                3 => {
                    sink.flush().await.unwrap();
                    stored = begin + 40;
                    drop(sink);
                }
                // Killed: nothing of it runs any more, but its lock is gone.
                _ => leak(sink),
            }
        }
        let pattern = name.replace('.', "*.");
        assert_eq!(numbers(folder.path(), &pattern).await, (0..stored).collect::<Vec<_>>(), "{name}");
        assert_eq!(names(&folder.path().join(format!(".{name}.parts"))), ["journal.json", "lock"], "{name}: nothing is left");
    }
}

/// Ends a sink as a kill does.
fn leak(mut sink: Files) {
    sink.lock = None;
    std::mem::forget(sink);
}

#[tokio::test]
async fn files_are_divided_rolled_and_never_overwritten() {
    let (folder, context) = (tempfile::tempdir().unwrap(), Context::detached());
    let mut sink_of = sink(folder.path(), "r.csv", json!({ "partition": ["s"], "open-files-max": 1 }), &context);
    sink_of.connect().await.unwrap();
    sink_of.write(&message(0)).await.unwrap();
    assert_eq!(names(folder.path()), Vec::<String>::new(), "nothing shows before it is whole");
    sink_of.flush().await.unwrap();
    drop(sink_of);
    assert_eq!(names(folder.path()), ["s=t0", "s=t1"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("s=t1/r.csv")).unwrap(), "n,s\n1,t1\n3,t1\n5,t1\n7,t1\n9,t1\n");
    // The same positions with another state are other rows.
    let mut other = sink(folder.path(), "r.csv", json!({ "roll-age": "0s" }), &Context::detached());
    other.connect().await.unwrap();
    for begin in [0, 10] {
        other.write(&message(begin)).await.unwrap();
        other.flush().await.unwrap();
    }
    assert_eq!(names(folder.path()), ["r-2.csv", "r.csv", "s=t0", "s=t1"]);
    let mut second = sink(folder.path(), "r.csv", json!({}), &context);
    let error = second.connect().await.unwrap_err();
    assert!(error.to_string().contains("written by another sink"), "{error}");
}

#[tokio::test]
async fn another_shape_begins_another_file() {
    let (folder, context) = (tempfile::tempdir().unwrap(), Context::detached());
    let mut sink = sink(folder.path(), "r.parquet", json!({}), &context);
    sink.connect().await.unwrap();
    sink.write(&message(0)).await.unwrap();
    let mut other = message(10);
    other.payload = Payload::Rows(Rows::plain(batch(10..20).project(&[0]).unwrap()));
    sink.write(&other).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);
    assert_eq!(names(folder.path()), ["r-2.parquet", "r.parquet"]);
    assert_eq!(numbers(folder.path(), "r*.parquet").await, (0..20).collect::<Vec<_>>());
}
