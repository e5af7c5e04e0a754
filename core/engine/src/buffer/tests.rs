//! The files of a buffer: what goes in comes out in order, whatever a crash or a disk did to its end; damage is seen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use pipeline_sdk::{Change, ChangeKind, Frame, Header, Lane, Mark, Message, Opaque, Payload, Position, Rows, Run};

use super::log::{Appended, Log, Mark as Place, Read};
use super::{record, segment};
use crate::config::{Buffer, BufferType, Fsync, OnCorrupt, WhenFull};

fn settings(max: u64) -> Buffer {
    Buffer { kind: BufferType::Disk, max: Some(max), when_full: WhenFull::Block, fsync: Fsync::Never, on_corrupt: OnCorrupt::Stop, ..Buffer::default() }
}

/// A message whose rows hold `number`, with about so many bytes.
fn message(number: i64, bytes: usize) -> Message {
    let columns: [(&str, ArrayRef); 2] = [
        ("v", Arc::new(Int64Array::from(vec![number, -number]))),
        ("text", Arc::new(StringArray::from(vec!["x".repeat(bytes), String::new()]))),
    ];
    let rows = Rows::plain(RecordBatch::try_from_iter(columns).unwrap());
    Message { header: Header::new(Lane::new("a"), Position::from_number(number)), payload: Payload::Rows(rows) }
}

fn number(message: &Message) -> i64 {
    let Payload::Rows(rows) = &message.payload else { panic!("rows") };
    rows.batch.column(0).as_primitive::<Int64Type>().value(0)
}

fn fill(log: &Log, numbers: std::ops::Range<i64>, bytes: usize) {
    for number in numbers {
        assert_eq!(log.append(&message(number, bytes)).unwrap(), Appended::Done, "{number}");
    }
    log.sync().unwrap();
}

/// Everything from a place on: numbers, with the negative count of what is lost where something is damaged.
fn read(log: &Log, mut at: Place) -> (Vec<i64>, Place) {
    let mut found = Vec::new();
    loop {
        at = match log.read(&at).unwrap() {
            Read::Nothing => return (found, at),
            Read::Record { payload, behind } => {
                found.push(number(&record::decode(&payload, &Lane::new("buffer")).unwrap()));
                behind
            }
            Read::Damaged { lost, behind, .. } => {
                found.push(-(lost as i64));
                behind
            }
        };
    }
}

fn all(log: &Log) -> Vec<i64> {
    read(log, log.seek(log.ends().0).unwrap()).0
}

fn files(folder: &Path) -> Vec<PathBuf> {
    segment::list(folder).unwrap().iter().map(|it| it.path(folder)).collect()
}

#[test]
fn every_payload_reads_back_as_it_was() {
    let mut rows = message(1, 3);
    rows.header.events = Some((-5, 7));
    rows.header.mark = Mark::Replicated { site: Some("b".into()) };
    if let Payload::Rows(rows) = &mut rows.payload {
        let run = |first_row, table: &str| Run { first_row, table: table.into(), namespace: "n".into(), group: "g".into(), labels: "{}".into() };
        rows.runs = vec![run(0, "t"), run(1, "u")];
    }
    let frame = Frame { format: "f".into(), data: vec![1, 2, 3].into(), namespace: "n".into(), rows: 9, tables: 2 };
    let raw = Some(Opaque { format: "raw".into(), data: vec![0, 255].into() });
    let change = Change { kind: ChangeKind::Delete, identity: "i".into(), namespace: "n".into(), group: Some("g".into()), tables: vec!["t".into()], detail: serde_json::json!({ "a": 1 }), raw };
    let with = |payload| Message { header: rows.header.clone(), payload };
    for message in [rows.clone(), with(Payload::Frame(frame)), with(Payload::Change(change))] {
        let bytes = record::encode(&message, 41, 100).unwrap();
        let numbers = record::numbers(&bytes).unwrap();
        assert_eq!((numbers.sequence, numbers.rows_behind), (41, 100 + message.row_count()));
        let back = record::decode(&bytes, &Lane::new("buffer")).unwrap();
        assert_eq!((back.header.position.number, &back.header.mark, back.header.events), (Some(42), &message.header.mark, message.header.events));
        match (&back.payload, &message.payload) {
            (Payload::Rows(one), Payload::Rows(other)) => assert_eq!((&one.batch, &one.runs), (&other.batch, &other.runs)),
            (Payload::Frame(one), Payload::Frame(other)) => assert_eq!(one, other),
            (Payload::Change(one), Payload::Change(other)) => assert_eq!(one, other),
            _ => panic!("another kind came back"),
        }
    }
}

#[test]
fn what_a_crash_cut_off_is_cut_and_everything_before_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), &settings(10 << 20)).unwrap();
    fill(&log, 0..20, 10);
    let before = std::fs::metadata(&files(folder.path())[0]).unwrap().len();
    fill(&log, 20..21, 10);
    let identity = log.identity.clone();
    drop(log);
    let path = files(folder.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let cuts = (before..whole.len() as u64).step_by(23).chain([whole.len() as u64 - 1, whole.len() as u64]);
    for length in cuts {
        std::fs::write(&path, &whole[..length as usize]).unwrap();
        let log = Log::open(folder.path(), &settings(10 << 20)).unwrap();
        let count = if length == whole.len() as u64 { 21 } else { 20 };
        assert_eq!(log.identity, identity);
        assert_eq!(all(&log), (0..count).collect::<Vec<_>>(), "{length} of {}", whole.len());
        // What comes then stands where it belongs.
        fill(&log, count..count + 2, 10);
        assert_eq!(all(&log), (0..count + 2).collect::<Vec<_>>());
    }
    // A file that was made and nothing more.
    std::fs::write(&path, &whole[..3]).unwrap();
    assert_eq!(all(&Log::open(folder.path(), &settings(10 << 20)).unwrap()), Vec::<i64>::new());
    std::fs::write(&path, b"another format of a later version").unwrap();
    assert_eq!(Log::open(folder.path(), &settings(10 << 20)).err().unwrap().code, "buffer.format");
}

#[test]
fn damage_in_the_middle_is_seen_wherever_it_is_and_costs_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), &settings(10 << 20)).unwrap();
    fill(&log, 1..10, 10);
    drop(log);
    let path = files(folder.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    // The record of 5 begins behind four equal ones.
    let length = (whole.len() - segment::MAGIC.len()) / 9;
    let begin = segment::MAGIC.len() + 4 * length;
    for at in (0..length).step_by(7) {
        let mut damaged = whole.clone();
        damaged[begin + at] ^= 0x5a;
        std::fs::write(&path, &damaged).unwrap();
        let log = Log::open(folder.path(), &settings(10 << 20)).unwrap();
        assert_eq!(all(&log), [1, 2, 3, 4, -1, 6, 7, 8, 9], "byte {at}");
        fill(&log, 10..11, 10);
        assert_eq!(all(&log), [1, 2, 3, 4, -1, 6, 7, 8, 9, 10], "byte {at}");
    }
}

#[test]
fn files_are_bounded_deleted_when_done_and_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let max = 1 << 20;
    let log = Log::open(folder.path(), &settings(max)).unwrap();
    let size = || files(folder.path()).iter().map(|it| std::fs::metadata(it).unwrap().len()).sum::<u64>();
    let mut count = 0;
    while log.append(&message(count, 10_000)).unwrap() == Appended::Done {
        count += 1;
    }
    assert!((80..105).contains(&count) && size() <= max && files(folder.path()).len() > 4, "{count} messages, {} bytes", size());
    assert_eq!(log.held().rows, 2 * count as u64);
    assert!(log.held().bytes > max * 9 / 10);
    assert_eq!(log.append(&message(0, 2 << 20)).unwrap_err().code, "buffer.large");
    // Half of it is done: as much fits again.
    let mut at = log.seek(0).unwrap();
    for _ in 0..count / 2 {
        let Read::Record { behind, .. } = log.read(&at).unwrap() else { panic!("a record") };
        at = behind;
    }
    log.release(at);
    assert_eq!(log.held().rows, 2 * (count - count / 2) as u64);
    assert!(size() < max * 2 / 3);
    fill(&log, count..count + count / 3, 10_000);
    assert!(size() <= max);
    drop(log);
    // Another process goes on where this one was.
    let log = Log::open(folder.path(), &settings(max)).unwrap();
    let (numbers, end) = read(&log, log.seek(count as u64 / 2).unwrap());
    assert_eq!(numbers, (count / 2..count + count / 3).collect::<Vec<_>>());
    assert_eq!(end.sequence, log.ends().1);
    log.release(end);
    assert_eq!((log.held().rows, log.held().bytes), (0, 0));
    // What is read takes no more room than the rest of the file that it is in.
    fill(&log, 0..count * 3 / 4, 10_000);
    assert_eq!(read(&log, end).0, (0..count * 3 / 4).collect::<Vec<_>>());
    // Positions behind the end, as a machine leaves them that lost what was never synced.
    let end = log.seek(10_000).unwrap();
    fill(&log, 7..8, 10);
    assert_eq!((read(&log, end).0, log.ends().1), (vec![7], 10_001));
}
