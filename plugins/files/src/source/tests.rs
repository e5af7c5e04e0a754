//! The source over files in a folder.

use std::io::Write;

use pipeline_sdk::SourceConfig;
use serde_json::json;

use super::*;

struct Reading {
    source: Box<dyn Source>,
    checkpoint: Checkpoint,
}

impl Reading {
    async fn new(config: serde_json::Value, from: &Checkpoint) -> Result<Self> {
        let config: FilesSourceConfig = serde_json::from_value(config).unwrap();
        assert_eq!(config.lint(), Vec::new());
        let mut source = config.build(Context::detached())?;
        source.connect(from).await?;
        Ok(Self { source, checkpoint: from.clone() })
    }

    /// Batches until nothing comes.
    async fn rest(&mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        loop {
            match self.source.next(Duration::ZERO).await? {
                Polled::Messages(messages) => {
                    for message in messages {
                        self.checkpoint.lanes.insert(message.header.lane, message.header.position);
                        let Payload::Rows(rows) = message.payload else { panic!("files hold rows") };
                        batches.push(rows.batch);
                    }
                }
                Polled::Lanes { .. } => {}
                Polled::Idle | Polled::End => return Ok(batches),
            }
        }
    }

    async fn count(&mut self) -> usize {
        self.rest().await.unwrap().iter().map(RecordBatch::num_rows).sum()
    }
}

fn lines(range: std::ops::Range<u32>, json: bool) -> String {
    let line = |n| if json { format!("{{\"n\":{n},\"s\":\"text, {n}\"}}\n") } else { format!("{n},\"text, {n}\"\n") };
    range.map(line).collect()
}

#[tokio::test]
async fn every_format_resumes_at_every_batch() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), format!("n,s\n{}", lines(0..95, false))).unwrap();
    std::fs::write(folder.path().join("a.ndjson"), lines(0..95, true)).unwrap();
    let whole = {
        let path = folder.path().join("a.csv");
        let batches = Reading::new(json!({ "path": path }), &Checkpoint::default()).await.unwrap().rest().await.unwrap();
        assert_eq!(batches.len(), 1);
        batches[0].clone()
    };
    let mut parquet = parquet::arrow::ArrowWriter::try_new(File::create(folder.path().join("a.parquet")).unwrap(), whole.schema(), None).unwrap();
    let mut arrow = arrow_ipc::writer::FileWriter::try_new(File::create(folder.path().join("a.arrow")).unwrap(), &whole.schema()).unwrap();
    let mut stream = arrow_ipc::writer::StreamWriter::try_new(File::create(folder.path().join("a.arrows")).unwrap(), &whole.schema()).unwrap();
    for start in (0..95).step_by(10) {
        let part = whole.slice(start, 10.min(95 - start));
        parquet.write(&part).unwrap();
        parquet.flush().unwrap();
        arrow.write(&part).unwrap();
        stream.write(&part).unwrap();
    }
    parquet.close().unwrap();
    arrow.finish().unwrap();
    stream.finish().unwrap();
    for name in ["a.csv", "a.ndjson", "a.parquet", "a.arrow", "a.arrows"] {
        let config = json!({ "path": folder.path().join(name), "batch-rows": 10 });
        let mut reading = Reading::new(config.clone(), &Checkpoint::default()).await.unwrap();
        let mut positions = vec![(0, Checkpoint::default())];
        loop {
            let Polled::Messages(messages) = reading.source.next(Duration::ZERO).await.unwrap() else { break };
            for message in messages {
                let rows = positions.last().unwrap().0 + message.row_count() as usize;
                positions.push((rows, Checkpoint { lanes: [(message.header.lane, message.header.position)].into() }));
            }
        }
        assert_eq!(positions.len(), 11, "{name}");
        for (before, from) in &positions {
            let rest = Reading::new(config.clone(), from).await.unwrap().rest().await.unwrap();
            let rows: usize = rest.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(before + rows, 95, "{name}");
            if let Some(first) = rest.first() {
                let expected = whole.slice(*before, first.num_rows());
                assert_eq!(first.column_by_name("s").unwrap(), expected.column_by_name("s").unwrap(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_appended_and_rotated_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.csv");
    let append = |path: &Path, text: &str| {
        std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let config = json!({ "path": folder.path().join("*.csv"), "follow": true });
    let mut reading = Reading::new(config.clone(), &Checkpoint::default()).await.unwrap();
    assert_eq!(reading.count().await, 0);
    append(&path, "n,s\n1,a\n2,\"b");
    reading = Reading::new(config.clone(), &Checkpoint::default()).await.unwrap();
    assert_eq!(reading.count().await, 1, "a line that is not whole waits");
    append(&path, "\nb\"\n3,c");
    assert_eq!(reading.count().await, 1);
    let before = reading.checkpoint.clone();
    append(&path, "\n");
    std::fs::rename(&path, folder.path().join("app.csv.1")).unwrap();
    append(&path, "n,s\n4,d\n");
    assert_eq!(reading.count().await, 1, "the rest of what was rotated away comes first");
    assert_eq!(reading.count().await, 1);
    // The same after a restart in between.
    let mut again = Reading::new(config.clone(), &before).await.unwrap();
    assert_eq!(again.count().await + again.count().await, 2);
    let numbers: Vec<_> = [&before, &again.checkpoint].map(|it| it.lanes.values().next().unwrap().number.unwrap()).into();
    assert!(numbers[0] < numbers[1], "positions grow: {numbers:?}");
    std::fs::write(&path, "n,s\n").unwrap();
    assert_eq!(again.count().await, 0);
    append(&path, "5,e\n");
    assert_eq!(again.count().await, 1, "a file that was cut is read from its start");
}

#[tokio::test]
async fn bad_input_is_told_with_file_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |name: &str, content: &[u8], config: serde_json::Value, expected: &[&str]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut all = json!({ "path": path });
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let error = match Reading::new(all, &Checkpoint::default()).await {
            Ok(mut reading) => reading.rest().await.unwrap_err(),
            Err(error) => error,
        };
        for part in expected.iter().chain([&name]) {
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
    };
    check("ragged.csv", b"a,b\n1,2\n3\n4,5\n", json!({}), &["line 3", "expected 2 got 1", "`delimiter`"]).await;
    check("torn.csv", b"a,b\n1,2\n3", json!({}), &["line 3", "cut off"]).await;
    check("quote.csv", b"a,b\n1,2\n3,\"4\n5,6\n", json!({}), &["row at byte 8", "a quote", "no end", "cut off"]).await;
    check("utf8.csv", b"a,b\n1,2\n3,\xff\n", json!({}), &["line 3", "UTF-8"]).await;
    check("utf8.ndjson", b"{\"a\":\"b\"}\n{\"a\":\"\xff\"}\n", json!({}), &["UTF-8"]).await;
    check("two-lines.ndjson", b"{\"a\":1}\n{\"a\":\n2}\n", json!({}), &["does not tell its columns"]).await;
    check("type.csv", b"a\n1\nx\n", json!({ "columns": { "a": "int" } }), &["'x'", "line 3"]).await;
    check("fraction.ndjson", b"{\"a\":1}\n{\"a\":2.5}\n", json!({ "columns": { "a": "int" } }), &["Int64 cannot hold 2.5"]).await;
    check("torn.ndjson", b"{\"a\":1}\n{\"a\":", json!({}), &["cut off"]).await;
    check("open.parquet", b"PAR1....................", json!({}), &["no whole Parquet file", "still being written"]).await;
    check("open.arrow", b"ARROW1\0\0............", json!({}), &["no whole Arrow file"]).await;
    check("no.such.kind", b"x", json!({}), &["does not tell its format"]).await;
    let error = Reading::new(json!({ "path": folder.path().join("none*.csv") }), &Checkpoint::default()).await.err().unwrap();
    assert!(error.to_string().contains("nothing matches"), "{error}");
}

#[tokio::test]
async fn a_position_of_another_version_or_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "a\n1\n2\n").unwrap();
    let config = json!({ "path": path });
    let mut reading = Reading::new(config.clone(), &Checkpoint::default()).await.unwrap();
    assert_eq!(reading.count().await, 2);
    let stored = reading.checkpoint.clone();
    let foreign = |bytes: &'static str| {
        let position = Position { bytes: bytes.as_bytes().into(), ..Position::default() };
        Checkpoint { lanes: [(lane_of(&path), position)].into() }
    };
    for from in [foreign("{\"version\":2,\"at\":1,\"base\":0,\"file\":[0,0],\"head\":[0,0]}"), foreign("\0\0\0\0\0\0\0\0")] {
        let error = Reading::new(config.clone(), &from).await.err().unwrap();
        assert!(error.code == SOURCE_REPLACED && error.to_string().contains("a.csv"), "{error}");
    }
    std::fs::write(&path, "b\n1\n2\n3\n").unwrap();
    let error = Reading::new(config.clone(), &stored).await.err().unwrap();
    assert!(error.code == SOURCE_REPLACED && error.to_string().contains("a.csv"), "{error}");
}

/// Rows with texts over several lines, and what they are.
fn rows_over_lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{n},\"line one of {n}\nand \"\"two\"\",\n\",{}\n", n % 7)).collect()
}

/// What the column `s` holds.
fn texts(batches: &[RecordBatch]) -> Vec<String> {
    use arrow::array::AsArray;
    let of = |batch: &RecordBatch| batch.column_by_name("s").unwrap().as_string::<i32>().iter().map(|it| it.unwrap().to_owned()).collect::<Vec<_>>();
    batches.iter().flat_map(of).collect()
}

#[tokio::test]
async fn however_many_threads_make_them_rows_come_in_order_and_from_every_position() {
    const ROWS: u32 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let csv = format!("n,s,m\n{}", rows_over_lines(0..ROWS));
    let json = |n| format!("{{\"n\":{n},\"s\":\"line one of {n}\\nand \\\"two\\\",\\n\",\"m\":{}}}\n", n % 7);
    std::fs::write(folder.path().join("a.csv"), &csv).unwrap();
    std::fs::write(folder.path().join("a.ndjson"), (0..ROWS).map(json).collect::<String>()).unwrap();
    let expected: Vec<String> = (0..ROWS).map(|n| format!("line one of {n}\nand \"two\",\n")).collect();
    let mut chains = Vec::new();
    for (name, threads) in [("a.csv", 1), ("a.csv", 2), ("a.csv", 5), ("a.ndjson", 1), ("a.ndjson", 4)] {
        let config = json!({ "path": folder.path().join(name), "block-bytes": "4KiB", "ahead-bytes-max": "64KiB", "threads": threads });
        let mut reading = Reading::new(config.clone(), &Checkpoint::default()).await.unwrap();
        let (mut found, mut chain) = (Vec::new(), vec![(0, Checkpoint::default())]);
        while let Polled::Messages(messages) = reading.source.next(Duration::ZERO).await.unwrap() {
            for message in messages {
                let Payload::Rows(rows) = message.payload else { panic!("rows") };
                found.extend(texts(&[rows.batch]));
                chain.push((found.len(), Checkpoint { lanes: [(message.header.lane, message.header.position)].into() }));
            }
        }
        assert_eq!(found, expected, "{name} with {threads} threads");
        assert!(chain.len() > 9, "{name}: one message is one block");
        for (before, from) in &chain {
            let rest = Reading::new(config.clone(), from).await.unwrap().rest().await.unwrap();
            assert_eq!(texts(&rest), expected[*before..], "{name} with {threads} threads from {before}");
        }
        chains.push((name, chain));
    }
    let numbers = |chain: &[(usize, Checkpoint)]| chain.iter().map(|(_, it)| it.lanes.values().next().and_then(|it| it.number)).collect::<Vec<_>>();
    for (name, chain) in &chains {
        let first = chains.iter().find(|(it, _)| it == name).unwrap();
        assert_eq!(numbers(chain), numbers(&first.1), "{name}: positions do not depend on threads");
    }
}

#[tokio::test]
async fn what_is_before_a_bad_line_comes_first_and_nothing_comes_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    let good = rows_over_lines(0..500);
    std::fs::write(&path, format!("n,s,m\n{good}500,ragged\n{}", rows_over_lines(501..900))).unwrap();
    for threads in [1, 4] {
        let config = json!({ "path": path, "block-bytes": "4KiB", "threads": threads });
        let mut reading = Reading::new(config.clone(), &Checkpoint::default()).await.unwrap();
        let (mut rows, mut last) = (0, Checkpoint::default());
        let error = loop {
            match reading.source.next(Duration::ZERO).await {
                Ok(Polled::Messages(messages)) => {
                    for message in messages {
                        rows += message.row_count();
                        last.lanes.insert(message.header.lane, message.header.position);
                    }
                }
                Ok(_) => panic!("no error"),
                Err(error) => break error,
            }
        };
        // A header, three lines a row.
        let told = |error: &Error| error.to_string().contains("a.csv: line 1502: ") && error.to_string().contains("expected 3 got 2");
        assert!(told(&error), "{error}");
        assert!((400..=500).contains(&rows), "{rows} rows");
        assert!(told(&reading.source.next(Duration::ZERO).await.unwrap_err()), "nothing is passed over");
        let error = Reading::new(config, &last).await.unwrap().rest().await.unwrap_err();
        assert!(told(&error), "read on from {last:?}: {error}");
    }
}

#[tokio::test]
async fn what_grows_is_read_by_many_threads_to_its_last_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    let text = format!("n,s,m\n{}", rows_over_lines(0..600));
    let config = json!({ "path": path, "follow": true, "block-bytes": "4KiB", "threads": 4 });
    std::fs::write(&path, "").unwrap();
    let mut reading = Reading::new(config, &Checkpoint::default()).await.unwrap();
    let mut found = Vec::new();
    for part in text.as_bytes().chunks(9_973) {
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(part).unwrap();
        // One that waits tells nothing new.
        while let batches = reading.rest().await.unwrap()
            && !batches.is_empty()
        {
            found.extend(texts(&batches));
        }
    }
    let expected: Vec<String> = (0..600).map(|n| format!("line one of {n}\nand \"two\",\n")).collect();
    assert_eq!(found, expected);
    assert_eq!(reading.checkpoint.lanes.values().next().unwrap().number, Some(text.len() as i64));
}
