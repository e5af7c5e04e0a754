//! The sink of a replica between two embedded nodes.

use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::context::Place;
use pipeline_sdk::describe::MARKS_WRITES;
use pipeline_sdk::{ChangeKind, Context, Detached, Message, Payload, Polled, Reaction, Sink, SinkConfig, Source};
use pipeline_tdengine::sink::TdengineConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod scene;

use scene::{Scene, address, config};

const T0: i64 = 1_780_000_000_000;
/// A server hands out entries of its log together until they have as many rows: so each of these is a message.
const ROWS: i64 = 4_200;
const COALESCED: &str = "messages_coalesced";

/// A statement that writes `value` to the same rows of a table each time; times that do not grow for an odd one.
fn rows_of(table: &str, value: i64) -> String {
    let rows = (0..ROWS).map(|row| if value % 2 == 0 { row } else { ROWS - 1 - row });
    let text: String = rows.map(|row| format!("({}, {value}, null)", T0 + row)).collect();
    format!("insert into power.{table} values {text}")
}

/// Both nodes with a super table and a table; the messages of rows, as many as told, that are read at the first when `statements` ran there.
async fn scenes(statements: &[String], expect: usize) -> (Scene, Scene, Vec<Message>) {
    let database = "create database power vgroups 1 wal_retention_period 3600";
    let made = ["create stable power.meters (ts timestamp, v int, s varchar(8)) tags (t int)", "create table power.d1 using power.meters tags (1)"];
    let (from, to) = (Scene::start(&[database]).await, Scene::start(&[database]).await);
    let mut source = from.source("one", "power").await;
    for statement in made {
        from.sql.exec(statement).await.unwrap();
        to.sql.exec(statement).await.unwrap();
    }
    for statement in statements {
        from.sql.exec(statement).await.unwrap();
    }
    let messages = read(&mut source, expect, |payload| matches!(payload, Payload::Frame(frame) if frame.rows > 0)).await;
    (from, to, messages)
}

/// So many messages of those that are wanted.
async fn read(source: &mut Box<dyn Source>, expect: usize, is_wanted: impl Fn(&Payload) -> bool) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < expect {
        if let Polled::Messages(came) = source.next(Duration::from_millis(200)).await.unwrap() {
            messages.extend(came.into_iter().filter(|message| is_wanted(&message.payload)));
        }
    }
    messages
}

/// A connected sink of one lane, and what it counts.
async fn sink(to: &Scene, settings: serde_json::Value) -> (Box<dyn Sink>, Arc<Detached>) {
    let config: TdengineConfig = config(json!({ "dsn": address(&to.node) }), settings);
    let place = Place {
        pipeline: "one".into(),
        negotiated: [MARKS_WRITES.to_owned()].into(),
        source_identity: Some("1".into()),
        ..Place::default()
    };
    let host = Arc::new(Detached::default());
    let mut sink = config.build(Context::new(place, host.clone())).unwrap();
    sink.connect().await.unwrap();
    (sink, host)
}

async fn texts(scene: &Scene, sql: &str) -> Vec<Vec<Option<String>>> {
    scene.sql.query(sql).await.unwrap().texts().unwrap()
}

/// Values of `d1`, and how many rows have each.
const VALUES: &str = "select v, count(*) from power.d1 group by v";

#[tokio::test(flavor = "multi_thread")]
async fn the_last_value_of_rows_that_are_written_together_stands() {
    let statements: Vec<String> = (0..6).map(|value| rows_of("d1", value)).collect();
    let (from, to, messages) = scenes(&statements, 6).await;
    for (settings, expect) in [(json!({}), 6), (json!({ "coalesce-bytes-max": 0 }), 0), (json!({ "coalesce-bytes-max": 350_000 }), 5)] {
        to.sql.exec("delete from power.d1").await.unwrap();
        let (mut sink, host) = sink(&to, settings.clone()).await;
        let (done, result) = sink.write_many(&messages).await;
        result.unwrap();
        let coalesced = host.counters().get(COALESCED).copied().unwrap_or_default();
        assert_eq!((done, coalesced), (6, expect), "{settings}, {:?}", messages.iter().map(Message::byte_count).collect::<Vec<_>>());
        assert_eq!(texts(&to, VALUES).await, texts(&from, VALUES).await, "{settings}");
        assert_eq!(texts(&to, VALUES).await, [[Some("5".into()), Some(ROWS.to_string())]], "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_does_not_fit_each_goes_its_own_way() {
    let make = "create table power.d2 using power.meters tags (2)".to_owned();
    let (_from, to, messages) = scenes(&[make, rows_of("d1", 1), rows_of("d2", 2), rows_of("d1", 3)], 3).await;
    // Between two sites, rows of a table that is not there are left out: it was dropped.
    let (mut sink, host) = sink(&to, json!({})).await;
    let (done, result) = sink.write_many(&messages).await;
    result.unwrap();
    assert_eq!(done, 3);
    let counters = host.counters();
    assert_eq!((counters.get(COALESCED), counters["rows_left_out"]), (None, ROWS as u64));
    assert_eq!(texts(&to, VALUES).await, [[Some("3".into()), Some(ROWS.to_string())]]);
}

/// Each table is an entry of the log; at the other site they are looked up and made at once, but for what must be made alone.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_wait_are_made_together() {
    const CHILDREN: usize = 20;
    let database = "create database power vgroups 1 wal_retention_period 3600";
    let (from, to) = (Scene::start(&[database]).await, Scene::start(&[database]).await);
    let mut source = from.source("one", "power").await;
    from.sql.exec("create stable power.meters (ts timestamp, v int) tags (t int)").await.unwrap();
    for child in 0..CHILDREN {
        from.sql.exec(&format!("create table power.d{child} using power.meters tags ({child})")).await.unwrap();
    }
    for statement in [
        "create table power.n (ts timestamp, v int)",
        "drop table power.d0",
        "create table power.d0 using power.meters tags (100)",
        "create table power.here (ts timestamp, v int)",
        "create table power.d100 using power.meters tags (7)",
    ] {
        from.sql.exec(statement).await.unwrap();
    }
    to.sql.exec("create table power.here (ts timestamp, v int, own int)").await.unwrap();
    // The super table, the children, and one for each of the statements.
    let messages = read(&mut source, 1 + CHILDREN + 5, |payload| matches!(payload, Payload::Change(_))).await;
    let (mut sink, host) = sink(&to, json!({})).await;
    let (done, result) = sink.write_many(&messages).await;
    result.unwrap();
    assert_eq!(done, messages.len());
    // All but the super table and the drop.
    assert_eq!(host.counters()[COALESCED], messages.len() as u64 - 2);
    let tags = "select tbname, t from power.meters order by tbname";
    let tables = "select table_name, `columns` from information_schema.ins_tables where db_name = 'power' and table_name <> 'here' order by table_name";
    for sql in ["select distinct tbname, t from power.meters order by tbname", tables, tags] {
        assert_eq!(texts(&to, sql).await, texts(&from, sql).await, "{sql}");
    }
    assert_eq!(texts(&to, "select count(*) from information_schema.ins_tables where db_name = 'power'").await, [[Some((CHILDREN + 3).to_string())]]);
    // Once more, as after a crash: they are there.
    let applied = host.counters()["changes_applied"];
    let (done, result) = sink.write_many(&messages[..1 + CHILDREN]).await;
    result.unwrap();
    assert_eq!((done, host.counters()["changes_applied"]), (1 + CHILDREN, applied));
}

/// Seed 34976: rows meet a table that its user made anew since the sink last looked, as who tries again after a conflict does.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_made_anew_is_looked_at_again() {
    let make = "create table power.n (ts timestamp, v int, s varchar(8))";
    let (_from, to, messages) = scenes(&[make.to_owned(), rows_of("n", 1), rows_of("n", 2), rows_of("n", 3), rows_of("n", 4)], 4).await;
    for together in [1, 4] {
        to.sql.exec("drop table if exists power.n").await.unwrap();
        to.sql.exec("create table power.n (ts timestamp, v int, s int)").await.unwrap();
        let (mut sink, _) = sink(&to, json!({})).await;
        let (done, result) = sink.write_many(&messages[..together]).await;
        assert_eq!((done, &*result.unwrap_err().code), (0, "tdengine.conflict"));
        to.sql.exec("drop table power.n").await.unwrap();
        to.sql.exec(make).await.unwrap();
        let (done, result) = sink.write_many(&messages[..together]).await;
        result.unwrap();
        assert_eq!(done, together);
        let rows = [[Some(together.to_string()), Some(ROWS.to_string())]];
        assert_eq!(texts(&to, "select v, count(*) from power.n group by v").await, rows);
    }
}

const DATABASE: &str = "create database power vgroups 1 wal_retention_period 3600";

/// What changed at the first, an entry of its log for each statement.
async fn changes(from: &Scene, source: &mut Box<dyn Source>, statements: &[&str]) -> Vec<Message> {
    for statement in statements {
        from.sql.exec(statement).await.unwrap();
    }
    read(source, statements.len(), |payload| matches!(payload, Payload::Change(_))).await
}

/// The next request to the node is answered with the code.
async fn answer_once(to: &Scene, code: u32) {
    let body = json!({ "fault": "answer-code", "code": code, "times": 1 }).to_string();
    let mut admin = tokio::net::TcpStream::connect(to.node.admin_addr().unwrap()).await.unwrap();
    let length = body.len();
    let request = format!("POST /faults HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    admin.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    admin.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

fn parked_told(host: &Detached) -> usize {
    host.incidents().iter().filter(|incident| incident.kind == "parked-change").count()
}

async fn names(scene: &Scene, table: &str) -> Vec<String> {
    texts(scene, &format!("describe power.{table}")).await.into_iter().filter_map(|row| row.into_iter().next()?).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_change_is_kept_until_it_is_done() {
    let from = Scene::start(&[DATABASE]).await;
    let to = Scene::start_with(&[DATABASE], |config| config.admin = Some("127.0.0.1:0".into())).await;
    let mut source = from.source("one", "power").await;
    let statements = ["create stable power.s (ts timestamp, a int, b int) tags (t int)", "alter stable power.s drop column b"];
    let messages = changes(&from, &mut source, &statements).await;
    let (mut sink, host) = sink(&to, json!({ "parked-interval": "1ms" })).await;
    sink.write(&messages[0]).await.unwrap();
    to.sql.exec("create topic own as select ts, b from power.s").await.unwrap();
    sink.write(&messages[1]).await.unwrap();
    assert_eq!(parked_told(&host), 1);
    to.sql.exec("drop topic own").await.unwrap();
    // The user may not, for now.
    tokio::time::sleep(Duration::from_millis(5)).await;
    answer_once(&to, 0x0303).await;
    sink.flush().await.unwrap();
    assert_eq!((parked_told(&host), names(&to, "s").await.len()), (2, 4));
    // The server starts anew behind its adapter.
    tokio::time::sleep(Duration::from_millis(5)).await;
    answer_once(&to, 0x0020).await;
    assert_eq!(sink.flush().await.unwrap_err().reaction, Reaction::Disconnected);
    sink.connect().await.unwrap();
    sink.write(&messages[1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    sink.flush().await.unwrap();
    assert_eq!(names(&to, "s").await, ["ts", "a", "t"]);
    assert_eq!(parked_told(&host), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_again_is_not_lost_to_a_parked_change() {
    let (from, to) = (Scene::start(&[DATABASE]).await, Scene::start(&[DATABASE]).await);
    let mut source = from.source("one", "power").await;
    let make = "create stable power.s (ts timestamp, a int, b int) tags (t int)";
    let messages = changes(&from, &mut source, &[make, "create table power.n (ts timestamp, x int, y int)"]).await;
    let (mut sink, host) = sink(&to, json!({ "parked-interval": "1ms" })).await;
    assert_eq!(sink.write_many(&messages).await.0, 2);
    let pairs = [
        ("alter stable power.s drop column b", "alter stable power.s add column b int", "s", "b"),
        ("alter table power.n drop column y", "alter table power.n add column y int", "n", "y"),
        ("drop stable power.s", make, "s", "b"),
        ("drop table power.n", "create table power.n (ts timestamp, x int, y int)", "n", "y"),
    ];
    for (take, again, table, column) in pairs {
        let told = parked_told(&host);
        to.sql.exec(&format!("create topic own as select ts, {column} from power.{table}")).await.unwrap();
        for message in changes(&from, &mut source, &[take, again]).await {
            sink.write(&message).await.unwrap();
        }
        to.sql.exec("drop topic own").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        sink.flush().await.unwrap();
        assert!(names(&to, table).await.contains(&column.to_owned()), "{take}");
        let told = parked_told(&host) - told;
        assert!(told == 2 || (told == 0 && take.starts_with("drop table")), "{take}: {:?}", host.incidents());
    }
    let comments = "select stable_name from information_schema.ins_stables where db_name = 'power' and table_comment <> ''";
    assert_eq!(texts(&to, comments).await.len(), 0, "what stays has no token of a drop");
}

/// Written raw at first, it is raw later: a reader there that leaves out what is marked does not see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_change_does_not_come_back() {
    let (from, to) = (Scene::start(&[DATABASE]).await, Scene::start(&[DATABASE]).await);
    let (mut source, mut back) = (from.source("one", "power").await, to.source("one", "power").await);
    let statements = ["create table power.n (ts timestamp, x int, y int)", "alter table power.n drop column y"];
    let messages = changes(&from, &mut source, &statements).await;
    let (mut sink, _) = sink(&to, json!({ "parked-interval": "1ms" })).await;
    sink.write(&messages[0]).await.unwrap();
    to.sql.exec("create topic own as select ts, y from power.n").await.unwrap();
    sink.write(&messages[1]).await.unwrap();
    to.sql.exec("drop topic own").await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    sink.flush().await.unwrap();
    assert_eq!(names(&to, "n").await, ["ts", "x"]);
    to.sql.exec("create table power.last (ts timestamp, v int)").await.unwrap();
    let came = read(&mut back, 1, |payload| matches!(payload, Payload::Change(_))).await;
    assert!(matches!(&came[0].payload, Payload::Change(change) if change.kind == ChangeKind::CreateTable), "{came:?}");
}

/// Among three sites a super table may come another way than its children: they wait, as their rows would.
#[tokio::test(flavor = "multi_thread")]
async fn changes_wait_for_what_comes_another_way() {
    let (from, to) = (Scene::start(&[DATABASE]).await, Scene::start(&[DATABASE]).await);
    let mut source = from.source("one", "power").await;
    let make = ["create stable power.s (ts timestamp, a int) tags (t int)", "create table power.d1 using power.s tags (1)"];
    let mut messages = changes(&from, &mut source, &make).await;
    from.sql.exec("insert into power.d1 values (1780000000000, 1)").await.unwrap();
    let later = ["alter table power.d1 set tag t = 2", "delete from power.d1", "create table power.d2 using power.s tags (2)"];
    messages.extend(changes(&from, &mut source, &later).await);
    let (mut sink, host) = sink(&to, json!({ "missing-table": "wait", "announce-timeout": "1h" })).await;
    for message in &messages[1..] {
        let (done, result) = sink.write_many(std::slice::from_ref(message)).await;
        let error = result.unwrap_err();
        assert_eq!((done, error.reaction, &*error.code), (0, Reaction::Retry, "tdengine.missing-table"), "{error}");
    }
    to.sql.exec(make[0]).await.unwrap();
    let (done, result) = sink.write_many(&messages[1..]).await;
    result.unwrap();
    assert_eq!((done, host.counters().get("changes_left_out")), (4, None));
    let tags = "select table_name, tag_value from information_schema.ins_tags where db_name = 'power' order by table_name";
    assert_eq!(texts(&to, tags).await, texts(&from, tags).await);
}

/// They do not wait for ever, nor for what was waited for in vain before.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_what_never_comes_are_left_out() {
    let (from, to) = (Scene::start(&[DATABASE]).await, Scene::start(&[DATABASE]).await);
    let mut source = from.source("one", "power").await;
    let statements = [
        "create stable power.s (ts timestamp, a int) tags (t int)",
        "create table power.d1 using power.s tags (1)",
        "create table power.d2 using power.s tags (2)",
    ];
    let messages = changes(&from, &mut source, &statements).await;
    let (mut sink, host) = sink(&to, json!({ "missing-table": "wait", "announce-timeout": "10ms" })).await;
    assert_eq!(sink.write(&messages[1]).await.unwrap_err().reaction, Reaction::Retry);
    sink.write(&messages[1]).await.unwrap();
    sink.write(&messages[2]).await.unwrap();
    assert_eq!(host.counters()["changes_left_out"], 2);
    // Known to be dropped, it is not waited for.
    let dropped = changes(&from, &mut source, &["drop stable power.s"]).await;
    let (mut sink, _) = self::sink(&to, json!({ "missing-table": "wait", "announce-timeout": "1h" })).await;
    sink.write(&dropped[0]).await.unwrap();
    sink.write(&messages[1]).await.unwrap();
}

/// Where the ids of tags may differ a child is made by a statement, which is text; a tag's bytes need not be.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_no_text_is_set_as_it_is() {
    let (from, to) = (Scene::start(&[DATABASE]).await, Scene::start(&[DATABASE]).await);
    let mut source = from.source("one", "power").await;
    let statements = [
        "create stable power.s (ts timestamp, a int) tags (t varchar(8), u varchar(8))",
        "create table power.d1 using power.s tags ('good', 'evil')",
    ];
    let mut messages = changes(&from, &mut source, &statements).await;
    let Payload::Change(change) = &mut messages[1].payload else { panic!() };
    let raw = change.raw.as_mut().unwrap();
    let mut bytes = raw.data.to_vec();
    let at = bytes.windows(4).position(|text| text == b"evil").unwrap();
    bytes[at] = 0xff;
    raw.data = bytes.into();
    let (mut sink, host) = sink(&to, json!({})).await;
    sink.write(&messages[0]).await.unwrap();
    to.sql.exec("alter stable power.s add column own int").await.unwrap();
    sink.write(&messages[1]).await.unwrap();
    to.sql.exec("insert into power.d1 (ts, a) values (1780000000000, 1)").await.unwrap();
    let stored = to.sql.query("select t, u from power.s").await.unwrap();
    let block = tdengine_wire::block::BlockView::parse(&stored.blocks[0]).unwrap();
    let tags: Vec<_> = block.columns().iter().map(|column| column.bytes(0).unwrap()).collect();
    assert_eq!(tags, [b"good".as_slice(), b"\xffvil"]);
    assert_eq!(host.counters().get("values_left_out"), None);
}
