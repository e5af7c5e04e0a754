//! What crosses to a component's process and back is what it was, and what is none of ours is refused.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array};
use arrow::datatypes::{Field, Int32Type, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use pipeline_sdk::{Change, ChangeKind, Frame, Header, Lane, Mark, Message, Opaque, Payload, Position, Reaction, Result, Rows, Run};

use super::frame::{Codec, Packet, Word, joined, split};

/// Two ends of one direction.
struct Ends {
    from: Codec,
    to: Codec,
}

impl Ends {
    fn new(limit: u64) -> Self {
        Self { from: Codec::new(limit), to: Codec::new(limit) }
    }

    fn send(&mut self, word: Word, number: u64, text: &[u8], messages: &[Message]) -> Result<Packet> {
        let bytes = self.from.encode(word, number, text, messages)?.concat();
        self.read(&bytes)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Packet> {
        let (packet, left) = self.read_some(bytes)?;
        assert_eq!(left, 0, "bytes behind the packet");
        Ok(packet)
    }

    /// The packet, and how many bytes are behind it.
    fn read_some(&mut self, mut bytes: &[u8]) -> Result<(Packet, usize)> {
        let mut incoming = self.to.incoming();
        while let Some(length) = incoming.wants() {
            let (next, rest) = bytes.split_at_checked(length).ok_or_else(|| pipeline_sdk::Error::fatal("cut off"))?;
            incoming.take(next.to_vec(), &mut self.to)?;
            bytes = rest;
        }
        Ok((incoming.whole(), bytes.len()))
    }
}

fn message(payload: Payload) -> Message {
    let position = Position { bytes: vec![0, 255, 7].into(), number: Some(-7), display: Some("file:3".into()) };
    let header = Header { sequence: 9, ends_position: false, replayed: true, replayed_rows: 3, events: Some((-1, 2)), ..Header::new(Lane::new("é 2"), position) };
    Message { header, payload }
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> Message {
    let run = |first_row, table: &str| Run { first_row, namespace: "power".into(), table: table.into(), group: "meters".into(), labels: "{\"a\":1}".into() };
    message(Payload::Rows(Rows { batch: RecordBatch::try_from_iter(columns).unwrap(), runs: vec![run(0, "d1"), run(2, "d2")] }))
}

fn samples() -> Vec<Message> {
    let texts = |values: Vec<&str>| -> ArrayRef { Arc::new(values.into_iter().collect::<DictionaryArray<Int32Type>>()) };
    let numbers = |values: std::ops::Range<i64>| -> ArrayRef { Arc::new(Int64Array::from_iter_values(values)) };
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(5))).unwrap();
    let field = Field::new("v", arrow::datatypes::DataType::Int32, false).with_metadata([("k".to_owned(), "v".to_owned())]);
    let marked = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(Int32Array::from(vec![1; 20_000]))]).unwrap();
    let mut replicated = message(Payload::Frame(Frame { format: "f".into(), data: vec![7; 70_000].into(), namespace: "n".into(), rows: 3, tables: 2 }));
    replicated.header.mark = Mark::Replicated { site: Some("cluster".into()) };
    replicated.header.position = Position::default();
    let change = Change {
        kind: ChangeKind::Delete,
        identity: "i".into(),
        namespace: "n".into(),
        group: Some("g".into()),
        tables: vec!["t".into()],
        detail: serde_json::json!({ "from": 1 }),
        raw: Some(Opaque { format: "raw".into(), data: vec![1, 2].into() }),
    };
    let mut unknown = message(Payload::Change(Change { raw: None, group: None, ..change.clone() }));
    unknown.header.mark = Mark::Replicated { site: None };
    vec![
        rows(vec![("n", numbers(0..4)), ("t", texts(vec!["a", "b", "a", "c"]))]),
        rows(vec![("n", numbers(4..6)), ("t", texts(vec!["x", "y"]))]),
        rows(vec![("n", numbers(0..0)), ("t", texts(vec![]))]),
        rows(vec![("n", numbers(0..900).slice(300, 500))]),
        message(Payload::Rows(Rows::plain(none.clone()))),
        message(Payload::Rows(Rows::plain(none))),
        message(Payload::Rows(Rows::plain(marked))),
        replicated,
        message(Payload::Frame(Frame { format: "f".into(), data: bytes::Bytes::new(), namespace: "".into(), rows: 0, tables: 0 })),
        message(Payload::Change(change)),
        unknown,
    ]
}

#[track_caller]
fn assert_same(got: &[Message], wanted: &[Message]) {
    assert_eq!(got.len(), wanted.len());
    for (got, wanted) in got.iter().zip(wanted) {
        assert_eq!(got.header, wanted.header);
        match (&got.payload, &wanted.payload) {
            (Payload::Rows(got), Payload::Rows(wanted)) => {
                assert_eq!((&got.batch, &got.runs), (&wanted.batch, &wanted.runs));
                assert_eq!(got.batch.schema(), wanted.batch.schema());
            }
            (Payload::Change(got), Payload::Change(wanted)) => assert_eq!(got, wanted),
            (Payload::Frame(got), Payload::Frame(wanted)) => assert_eq!(got, wanted),
            (got, wanted) => panic!("{got:?} instead of {wanted:?}"),
        }
    }
}

#[test]
fn messages_come_out_as_they_went_in() {
    let (mut ends, samples) = (Ends::new(1 << 20), samples());
    // Schemas go once, and again when they were forgotten.
    for _ in 0..2 {
        let packet = ends.send(Word::Write, 7, b"text", &samples).unwrap();
        assert_eq!((packet.word, packet.number, &packet.text[..]), (Word::Write, 7, &b"text"[..]));
        assert_same(&packet.messages, &samples);
    }
    for columns in 1..300 {
        let name = |index: usize| format!("c{index}");
        let names: Vec<String> = (0..columns).map(name).collect();
        let wide = rows(names.iter().map(|name| (name.as_str(), Arc::new(Int64Array::from(vec![1])) as ArrayRef)).collect());
        assert_same(&ends.send(Word::Apply, 0, &[], std::slice::from_ref(&wide)).unwrap().messages, &[wide]);
    }
    assert_same(&ends.send(Word::Apply, 0, &[], &samples).unwrap().messages, &samples);
    let empty = ends.send(Word::Idle, 0, &[], &[]).unwrap();
    assert!(empty.text.is_empty() && empty.messages.is_empty());
}

#[test]
fn what_is_too_large_is_rejected_and_the_connection_goes_on() {
    let (mut ends, samples) = (Ends::new(4_096), samples());
    for (text, message) in [(vec![0; 5_000], &samples[0]), (vec![], &samples[7]), (vec![], &samples[6])] {
        let error = ends.send(Word::Write, 0, &text, std::slice::from_ref(message)).err().unwrap();
        assert_eq!(error.reaction, Reaction::Rejected, "{error}");
        assert!(error.hint.unwrap().contains("frame-bytes-max"));
        assert_same(&ends.send(Word::Write, 0, &[], &samples[..2]).unwrap().messages, &samples[..2]);
    }
    // What another end with a larger limit sent is not read.
    let large = Codec::new(1 << 20).encode(Word::Write, 0, &[], &samples[7..8]).unwrap().concat();
    assert!(ends.read(&large).err().unwrap().message.contains("more than the limit"));
}

/// The other end is a process that may do anything: whatever bytes come, it is an error and no panic.
#[test]
fn bytes_of_any_kind_are_an_error() {
    let whole = Ends::new(1 << 20).from.encode(Word::Write, 0, b"text", &samples()[..4]).unwrap().concat();
    for at in (0..whole.len().min(3_000)).step_by(7) {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            // A changed byte of a value is no error; that it does not panic is what counts.
            let _ = std::panic::catch_unwind(|| Ends::new(1 << 20).read_some(&bytes)).expect("no panic");
        }
    }
}

#[test]
fn texts_are_joined_and_split() {
    let text = joined(&[b"a", b"", b"cde"]);
    assert_eq!(split::<3>(&text).unwrap(), [&b"a"[..], b"", b"cde"]);
    assert!(split::<4>(&text).is_err() && split::<1>(&text[..4]).is_err());
}
