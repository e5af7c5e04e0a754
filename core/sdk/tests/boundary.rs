//! The boundary with both sides in one process: what goes in comes out, panics stay in, nothing is destroyed under a call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, Float32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use pipeline_sdk::abi::glue::Runtime;
use pipeline_sdk::abi::import::{HostParts, Library};
use pipeline_sdk::context::{Host, Place};
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

/// A source that plays back what the test put under its name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Playback {
    name: String,
}

static TAPES: Mutex<BTreeMap<String, Vec<Message>>> = Mutex::new(BTreeMap::new());

impl SourceConfig for Playback {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("playback", Kind::Source, "plays messages back").frames("upper")
    }

    fn lint(&self) -> Vec<Error> {
        if self.name.is_empty() { vec![Error::fatal("a name is needed").path("name")] } else { Vec::new() }
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        let interrupt = (self.name == "waits").then(Interrupt::channel);
        Ok(Box::new(Player { name: self.name, context, interrupt }))
    }

    fn decode(header: &Header, frame: &Frame) -> Result<Vec<Message>> {
        let data = frame.data.to_ascii_uppercase().into();
        let payload = Payload::Frame(Frame { data, ..frame.clone() });
        Ok(vec![Message { header: header.clone(), payload }])
    }
}

struct Player {
    name: String,
    context: Context,
    interrupt: Option<(Interrupt, Interrupted)>,
}

#[async_trait]
impl Source for Player {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        if self.name == "refused" {
            return Err(Error::disconnected("no answer").code("test.refused").hint("start it"));
        }
        self.context.state().put("from", &from.encode())?;
        Ok(Connected { identity: Some("playback 1".into()) })
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        match self.name.as_str() {
            "panics" => panic!("as told"),
            "hangs" => std::future::pending().await,
            "waits" => {
                let (_, interrupted) = self.interrupt.as_ref().expect("it was made with it");
                let ended = tokio::time::timeout(wait, interrupted.interrupted()).await;
                assert!(ended.is_ok(), "nobody ended the wait");
                return Ok(Polled::Idle);
            }
            _ => {}
        }
        tokio::time::sleep(wait.min(Duration::from_millis(5))).await;
        let tape = TAPES.lock().unwrap().remove(&self.name);
        self.context.count("polls", 1);
        Ok(tape.map_or(Polled::End, Polled::Messages))
    }

    async fn commit(&mut self, _upto: &Checkpoint) -> Result<()> {
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let latest = Some(Position::from_number(7));
        Ok(vec![LaneProgress { lane: Lane::new("1"), oldest: None, current: None, latest, retention_seconds: Some(60), ends: true }])
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.interrupt.as_ref().map(|(interrupt, _)| interrupt.clone())
    }
}

/// A sink that hands back what was written, and rejects a message of sequence 13.
#[derive(Deserialize, JsonSchema)]
struct Catch {}

static CAUGHT: Mutex<Vec<Message>> = Mutex::new(Vec::new());

impl SinkConfig for Catch {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("catch", Kind::Sink, "keeps messages")
    }

    fn build(self, _context: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Catcher))
    }
}

struct Catcher;

#[async_trait]
impl Sink for Catcher {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        if message.header.sequence == 13 {
            return Err(Error::rejected("unlucky"));
        }
        CAUGHT.lock().unwrap().push(message.clone());
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[derive(Deserialize, JsonSchema)]
struct Wait {}

impl ServiceConfig for Wait {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("wait", Kind::Service, "waits to be stopped")
    }

    fn build(self, _context: Context) -> Result<Box<dyn Service>> {
        Ok(Box::new(Waiting))
    }
}

struct Waiting;

#[async_trait]
impl Service for Waiting {
    async fn run(self: Box<Self>, mut ready: Ready, stop: Stop) -> Result<()> {
        ready.ready();
        stop.stopped().await;
        Ok(())
    }
}

fn plugin() -> Plugin {
    Plugin::new("test", "1.2.3", "for this test").source::<Playback>().sink::<Catch>().service::<Wait>()
}

fn library() -> Library {
    let root: &'static pipeline_sdk::abi::types::Root = pipeline_sdk::root!(Runtime::None, plugin);
    // SAFETY: the root table was made by the macro.
    unsafe { Library::new(root) }.unwrap()
}

fn parts(host: &Arc<Detached>) -> HostParts {
    HostParts { host: host.clone(), log: Arc::new(|_, _, _, _| {}) }
}

fn source(name: &str) -> (Box<dyn Source>, Arc<Detached>) {
    let host = Arc::new(Detached::default());
    let config = serde_json::json!({ "name": name });
    (library().source("playback", &config, &Place::default(), parts(&host)).unwrap(), host)
}

fn message(sequence: u64, payload: Payload) -> Message {
    let mut header = Header::new(Lane::new("vgroup 2"), Position::from_number(sequence as i64 * 10));
    header.sequence = sequence;
    header.mark = Mark::Replicated { site: Some("berlin".into()) };
    header.replayed = sequence.is_multiple_of(2);
    header.events = Some((-5, 5));
    Message { header, payload }
}

fn rows() -> Payload {
    let schema = Schema::new(vec![
        Field::new("ts", DataType::Int64, false),
        Field::new("v", DataType::Float32, true)
            .with_metadata([("tdengine.type".to_owned(), "FLOAT".to_owned())]),
        Field::new("s", DataType::Utf8, true),
    ]);
    let batch = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(vec![1, 2, 3])),
            Arc::new(Float32Array::from(vec![Some(1.5), None, Some(f32::NAN)])),
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None])),
        ],
    )
    .unwrap();
    let run = |first_row, table: &str| Run {
        first_row,
        namespace: "power".into(),
        table: table.into(),
        group: "meters".into(),
        labels: "{\"site\":1}".into(),
    };
    Payload::Rows(Rows { batch, runs: vec![run(0, "d1"), run(2, "d2")] })
}

fn frame(text: &'static str) -> Payload {
    let data = bytes::Bytes::from_static(text.as_bytes());
    Payload::Frame(Frame { format: "upper".into(), data, namespace: "power".into(), rows: 3, tables: 2 })
}

fn change() -> Payload {
    Payload::Change(Change {
        kind: ChangeKind::AlterGroup,
        identity: "7/2/1".into(),
        namespace: "power".into(),
        group: Some("meters".into()),
        tables: vec!["d1".into()],
        detail: serde_json::json!({ "add": "v2", "big": u64::MAX }),
        raw: Some(Opaque { format: "raw".into(), data: bytes::Bytes::from_static(b"\0\xff") }),
    })
}

/// Compares all but arrays by value; arrays by their data (NaN is equal to itself there).
fn same(left: &Message, right: &Message) -> bool {
    left.header == right.header
        && match (&left.payload, &right.payload) {
            (Payload::Rows(l), Payload::Rows(r)) => {
                l.runs == r.runs
                    && l.batch.schema() == r.batch.schema()
                    && l.batch.columns().iter().zip(r.batch.columns()).all(|(l, r)| l.to_data() == r.to_data() || {
                        format!("{:?}", l) == format!("{:?}", r)
                    })
            }
            (Payload::Frame(l), Payload::Frame(r)) => l == r,
            (Payload::Change(l), Payload::Change(r)) => l == r,
            _ => false,
        }
}

#[tokio::test]
async fn messages_of_every_kind_come_out_of_a_source_as_they_were() {
    let tape = vec![message(1, rows()), message(2, frame("abc")), message(3, change()), message(4, rows())];
    TAPES.lock().unwrap().insert("all".into(), tape.clone());
    let (mut source, host) = source("all");
    let connected = source.connect(&Checkpoint::default()).await.unwrap();
    assert_eq!(connected.identity.as_deref(), Some("playback 1"));
    let Polled::Messages(messages) = source.next(Duration::from_millis(1)).await.unwrap() else { panic!("no messages") };
    assert_eq!(messages.len(), tape.len());
    for (got, sent) in messages.iter().zip(&tape) {
        assert!(same(got, sent), "{got:?}\n{sent:?}");
    }
    assert!(matches!(source.next(Duration::ZERO).await.unwrap(), Polled::End));
    assert_eq!(source.progress().await.unwrap()[0].latest, Some(Position::from_number(7)));
    assert_eq!(host.counters()["polls"], 2);
    assert_eq!(host.state_get(false, "from").unwrap().as_deref(), Some(&b"{}"[..]));
}

#[tokio::test]
async fn a_wait_is_ended_across_the_boundary_before_and_while_it_lasts() {
    let wait = Duration::from_secs(60);
    let (mut waiting, _) = source("waits");
    let interrupt = waiting.interrupt().expect("it says that it can be");
    let begun = std::time::Instant::now();
    interrupt.interrupt();
    assert!(matches!(waiting.next(wait).await.unwrap(), Polled::Idle));
    let other = interrupt.clone();
    let (polled, ()) = tokio::join!(waiting.next(wait), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        tokio::task::spawn_blocking(move || other.interrupt()).await.unwrap();
    });
    assert!(matches!(polled.unwrap(), Polled::Idle));
    assert!(begun.elapsed() < wait / 2);
    drop(waiting);
    // The instance lives as long as somebody may interrupt it.
    interrupt.interrupt();
    assert!(source("other").0.interrupt().is_none());
}

#[tokio::test]
async fn a_sink_tells_how_much_it_wrote_before_it_rejected() {
    let host = Arc::new(Detached::default());
    let mut sink = library().sink("catch", &serde_json::json!({}), &Place::default(), parts(&host)).unwrap();
    let batch = vec![message(11, rows()), message(12, frame("x")), message(13, change()), message(14, rows())];
    let (written, result) = sink.write_many(&batch).await;
    assert_eq!(written, 2);
    let error = result.unwrap_err();
    assert_eq!((error.reaction, error.message.as_str()), (Reaction::Rejected, "unlucky"));
    sink.write(&batch[3]).await.unwrap();
    sink.flush().await.unwrap();
    let caught = CAUGHT.lock().unwrap();
    assert_eq!(caught.len(), 3);
    assert!(same(&caught[0], &batch[0]) && same(&caught[1], &batch[1]) && same(&caught[2], &batch[3]));
}

#[tokio::test]
async fn an_error_keeps_its_reaction_code_and_hint() {
    let (mut source, _) = source("refused");
    let error = source.connect(&Checkpoint::default()).await.unwrap_err();
    assert_eq!(error, Error::disconnected("no answer").code("test.refused").hint("start it"));
}

#[tokio::test]
async fn a_panic_stays_inside_and_poisons_the_component() {
    let (mut source, _) = source("panics");
    for expected in ["as told", "in an earlier call"] {
        let error = source.next(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.code, "boundary.panic");
        assert!(error.message.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_is_abandoned_is_leaked_and_the_component_says_so() {
    let (mut source, host) = source("hangs");
    let overdue = tokio::time::timeout(Duration::from_millis(10), source.next(Duration::ZERO)).await;
    assert!(overdue.is_err());
    let error = source.next(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code, "boundary.abandoned");
    drop(source);
    // The instance still holds its host: it was not destroyed under the call.
    assert!(Arc::strong_count(&host) > 1);
}

#[tokio::test]
async fn a_destroyed_component_gives_its_host_back() {
    let (source, host) = source("all of nothing");
    drop(source);
    assert_eq!(Arc::strong_count(&host), 1);
}

#[tokio::test]
async fn a_service_says_ready_and_stops_when_told() {
    let host = Arc::new(Detached::default());
    let service = library().service("wait", &serde_json::json!({}), &Place::default(), parts(&host)).unwrap();
    let ((ready, told), (stopper, stop)) = (Ready::channel(), Stop::channel());
    let running = tokio::spawn(service.run(ready, stop));
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap().unwrap();
    stopper.send_replace(true);
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap().unwrap();
}

#[test]
fn configuration_is_checked_by_the_component_itself() {
    let library = library();
    let check = |config, message: &str| {
        let errors = library.lint(Kind::Source, "playback", &config).unwrap();
        assert!(errors.iter().any(|error| error.to_string().contains(message)), "{errors:?}");
    };
    check(serde_json::json!({ "name": "" }), "name: a name is needed");
    check(serde_json::json!({ "nam": "x" }), "unknown field `nam`");
    assert!(library.lint(Kind::Source, "playback", &serde_json::json!({ "name": "x" })).unwrap().is_empty());
    assert!(library.lint(Kind::Sink, "playback", &serde_json::json!({})).is_err());
}

#[test]
fn frames_are_decoded_without_an_instance() {
    let decoded = library().decode("playback", message(2, frame("abc"))).unwrap();
    let Payload::Frame(frame) = &decoded[0].payload else { panic!("{decoded:?}") };
    assert_eq!(&frame.data[..], b"ABC");
    assert_eq!(decoded[0].header, message(2, change()).header);
}

#[test]
fn another_major_version_or_a_short_table_does_not_load() {
    let root: &pipeline_sdk::abi::types::Root = pipeline_sdk::root!(Runtime::None, plugin);
    // SAFETY: a bitwise copy of a table of function pointers; the copies are leaked, so they live for ever.
    let copy = || Box::leak(Box::new(unsafe { std::ptr::read(root) }));
    let (wrong, short) = (copy(), copy());
    wrong.abi_major = 9;
    short.size = 16;
    for (table, expected) in [(wrong, "version 9."), (short, "16 bytes")] {
        // SAFETY: the table is a real one but for the words that are checked.
        let error = unsafe { Library::new(table) }.err().unwrap();
        assert!(error.message.contains(expected), "{error}");
    }
    // SAFETY: null is allowed.
    assert!(unsafe { Library::new(std::ptr::null()) }.is_err());
}
