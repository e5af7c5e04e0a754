//! The filter as the engine meets it: through the plugin's root table.

use std::sync::Arc;

use pipeline_sdk::abi::glue::Runtime;
use pipeline_sdk::abi::import::{HostParts, Library};
use pipeline_sdk::context::Place;
use pipeline_sdk::describe::{COMPARES_REPLAYS, MARKS_WRITES, TELLS_REPLICATED};
use pipeline_sdk::*;

fn library() -> Library {
    let root: &'static pipeline_sdk::abi::types::Root =
        pipeline_sdk::root!(Runtime::None, pipeline_loop_mark::plugin);
    // SAFETY: the root table was made by the macro.
    unsafe { Library::new(root) }.unwrap()
}

fn message(sequence: u64, mark: Mark, payload: Payload) -> Message {
    let mut header = Header::new(Lane::new("2"), Position::from_number(sequence as i64));
    header.sequence = sequence;
    header.mark = mark;
    header.replayed = true;
    Message { header, payload }
}

fn frame() -> Payload {
    let data = bytes::Bytes::from_static(&[0, 255, 1]);
    Payload::Frame(Frame { format: "of no one known".into(), data, namespace: "power".into(), rows: 3, tables: 1 })
}

fn change() -> Payload {
    Payload::Change(Change {
        kind: ChangeKind::DropTable,
        identity: "7/drop".into(),
        namespace: "power".into(),
        group: None,
        tables: vec!["d1".into()],
        detail: serde_json::Value::Null,
        raw: None,
    })
}

#[test]
fn local_passes_untouched_replicated_is_dropped_and_both_are_counted() {
    let host = Arc::new(Detached::default());
    let parts = HostParts { host: host.clone(), log: Arc::new(|_, _, _, _| {}) };
    let config = serde_json::json!({});
    let mut filter = library().transform("loop-mark", &config, &Place::default(), parts).unwrap();
    let told = |site: &str| Mark::Replicated { site: Some(site.into()) };
    let went_in = [
        message(1, Mark::Local, frame()),
        message(2, Mark::Replicated { site: None }, frame()),
        message(3, told("berlin"), change()),
        message(4, Mark::Local, change()),
        message(5, told(""), frame()),
    ];
    let mut out = Output::default();
    for message in &went_in {
        filter.apply(message.clone(), &mut out).unwrap();
    }
    filter.barrier(&mut out).unwrap();

    let [first, second] = &out.messages[..] else { panic!("{:?}", out.messages) };
    for (got, sent) in [(first, &went_in[0]), (second, &went_in[3])] {
        assert_eq!(got.header, sent.header);
        match (&got.payload, &sent.payload) {
            (Payload::Frame(got), Payload::Frame(sent)) => assert_eq!(got, sent),
            (Payload::Change(got), Payload::Change(sent)) => assert_eq!(got, sent),
            other => panic!("{other:?}"),
        }
    }
    let expected =
        [("local_passed", 2), ("loops_suppressed", 3), ("replicated_dropped", 3), ("replicated_rows", 6)];
    assert_eq!(host.counters(), expected.map(|(name, count)| (name.into(), count)).into());
}

#[test]
fn it_says_what_a_pipeline_needs_so_that_it_cannot_loop() {
    let description = library().describe().unwrap();
    let [filter] = &description.components[..] else { panic!("{description:?}") };
    let required: Vec<_> = filter.requires.iter().map(|need| (need.of, need.capability.as_str())).collect();
    let expected = [(Kind::Source, TELLS_REPLICATED), (Kind::Sink, MARKS_WRITES), (Kind::Sink, COMPARES_REPLAYS)];
    assert_eq!(required, expected);
    assert!(filter.requires.iter().all(|need| need.reason.len() > 40), "an operator reads the reason");
    assert!(filter.any_frame, "frames pass without being decoded");
}

#[test]
fn an_unknown_key_is_an_error() {
    let lint = |config| library().lint(Kind::Transform, "loop-mark", &config).unwrap();
    assert!(lint(serde_json::json!({})).is_empty());
    let errors = lint(serde_json::json!({ "column": "_origin" }));
    assert!(errors.iter().any(|error| error.to_string().contains("unknown field `column`")), "{errors:?}");
}
