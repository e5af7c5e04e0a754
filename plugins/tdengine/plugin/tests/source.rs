//! The source against an embedded node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pipeline_sdk::{Checkpoint, LaneProgress, Payload, Polled, Reaction, SOURCE_HOLE, Source};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod scene;

use scene::Scene;

/// Between two changes: less than a poll of the second consumer lasts, so it always brings something.
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const LASTS: Duration = Duration::from_secs(20);
/// How long anything may take that must happen.
const SOON: Duration = Duration::from_secs(60);
/// Polls that find nothing before a source has nothing more.
const QUIET_POLLS: usize = 10;
/// How old may be what is told of a lane.
const AGE_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_told_while_changes_come_all_the_time() {
    let scene = Scene::start(&[
        "create database power vgroups 1 wal_retention_period 3600",
        "create stable power.meters (ts timestamp, v int) tags (t int)",
    ])
    .await;
    let mut source = scene.source("one", "power").await;
    let begun = Instant::now();
    let mut ends = vec![(begun, 0)];
    let mut number = 0;
    loop {
        number += 1;
        scene.sql.exec(&format!("create table power.d{number} using power.meters tags ({number})")).await.unwrap();
        scene.sql.exec(&format!("insert into power.d{number} values (now, 1)")).await.unwrap();
        let changed = Instant::now();
        while changed.elapsed() < CHANGE_INTERVAL {
            source.next(Duration::from_millis(10)).await.unwrap();
        }
        let lanes = source.progress().await.unwrap();
        let of_changes = lanes.iter().find(|lane| lane.lane.as_str().ends_with(".meta")).unwrap();
        let (current, latest) = places(of_changes);
        ends.push((Instant::now(), latest));
        if begun.elapsed() > LASTS {
            let reached = ends.iter().rev().find(|(_, end)| *end <= current).unwrap().0;
            assert!(reached.elapsed() < AGE_MAX, "told to be at {current}, where the log ended {:?} ago: {ends:?}", reached.elapsed());
            return;
        }
    }
}

fn places(lane: &LaneProgress) -> (i64, i64) {
    let number = |position: &Option<pipeline_sdk::Position>| position.as_ref().and_then(|it| it.number).unwrap();
    (number(&lane.current), number(&lane.latest))
}

/// Rows of each message: those that are wanted, and what comes until nothing does for a while. The checkpoint moves along, and never back.
async fn read(source: &mut Box<dyn Source>, at: &mut Checkpoint, wanted: u64) -> Vec<u64> {
    let deadline = Instant::now() + SOON;
    let (mut rows, mut quiet) = (Vec::<u64>::new(), 0);
    while quiet < QUIET_POLLS {
        match source.next(Duration::from_millis(50)).await.unwrap() {
            Polled::Messages(messages) => {
                for message in messages {
                    let (lane, position) = (message.header.lane.clone(), message.header.position.clone());
                    let before = at.lanes.insert(lane, position.clone());
                    assert!(before.is_none_or(|before| before.number < position.number), "it came before: {message:?}");
                    if let Payload::Frame(frame) = &message.payload {
                        rows.extend((frame.rows > 0).then_some(frame.rows));
                    }
                }
                quiet = 0;
            }
            _ if rows.iter().sum::<u64>() < wanted && Instant::now() < deadline => {}
            _ => quiet += 1,
        }
    }
    rows
}

async fn arm(admin: SocketAddr, fault: &str) {
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let request = format!(
        "POST /faults HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{fault}",
        fault.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 2"), "{reply}");
}

/// Seen on a real pair: behind a seek came the answer to a poll of before it, and its rows, which were at the other site for long, were written
/// there again as if they were new.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_before_a_seek_is_not_read_again() {
    let scene = Scene::start_with(
        &[
            "create database power vgroups 1 wal_retention_period 3600",
            "create table power.t (ts timestamp, v int)",
            "insert into power.t values (1700000000000, 1) (1700000000001, 2) (1700000000002, 3)",
        ],
        |config| config.admin = Some("127.0.0.1:0".into()),
    )
    .await;
    let mut at = Checkpoint::default();
    let mut source = scene.source("p", "power").await;
    assert_eq!(read(&mut source, &mut at, 3).await, [3]);
    drop(source);
    scene.sql.exec("insert into power.t values (1700000000003, 4) (1700000000004, 5)").await.unwrap();
    arm(scene.node.admin_addr().unwrap(), r#"{ "fault": "answer-after-seek" }"#).await;
    let mut source = scene.source_at("p", "power", &at).await;
    assert_eq!(read(&mut source, &mut at, 2).await, [2]);
    scene.sql.exec("insert into power.t values (1700000000005, 6)").await.unwrap();
    assert_eq!(read(&mut source, &mut at, 1).await, [1]);
}

/// While nothing is written, only where the logs end is asked for; what is written then shows in the next answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_at_rest_tells_of_what_is_written_then() {
    let scene = Scene::start(&[
        "create database power vgroups 1 wal_retention_period 3600",
        "create table power.t (ts timestamp, v int)",
        "insert into power.t values (1700000000000, 1)",
    ])
    .await;
    let mut at = Checkpoint::default();
    let mut source = scene.source("p", "power").await;
    assert_eq!(read(&mut source, &mut at, 1).await, [1]);
    let mut ends = Vec::new();
    for turn in 1..=4 {
        // The second answer finds that nothing was written since the first, and the third begins at rest.
        let (begun, mut equal) = (Instant::now(), 0);
        while equal < 3 {
            assert!(begun.elapsed() < SOON, "turn {turn}: the lanes do not come to rest");
            assert!(read(&mut source, &mut at, 0).await.is_empty());
            let lanes = source.progress().await.unwrap();
            equal = if lanes.iter().all(|lane| places(lane).0 == places(lane).1) { equal + 1 } else { 0 };
            ends.push(places(&lanes[0]).1);
        }
        scene.sql.exec(&format!("insert into power.t values ({}, {turn})", 1_700_000_000_000_i64 + turn)).await.unwrap();
        let behind = source.progress().await.unwrap();
        assert!(behind.iter().all(|lane| places(lane).1 > ends[ends.len() - 1]), "turn {turn}: {behind:?}, before it {ends:?}");
        assert_eq!(read(&mut source, &mut at, 1).await, [1]);
    }
}

/// Servers of 3.3.6 gather as many rows as they are asked for; older ones do not know the question.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_gathered_into_larger_messages() {
    const STATEMENTS: i64 = 10;
    const ROWS: i64 = 1_000;
    for (version, settings, expect) in [
        ("3.3.6.13", json!({}), &[5_000_u64, 5_000][..]),
        ("3.3.6.13", json!({ "min-poll-rows": 8_000 }), &[8_000, 2_000]),
        ("3.3.0.1", json!({ "min-poll-rows": 8_000 }), &[5_000, 5_000]),
    ] {
        let made = ["create database power vgroups 1 wal_retention_period 3600", "create table power.t (ts timestamp, v int)"];
        let scene = Scene::start_with(&made, |config| config.version = version.into()).await;
        for statement in 0..STATEMENTS {
            let rows: String = (0..ROWS).map(|row| format!("({}, 1)", 1_780_000_000_000 + statement * ROWS + row)).collect();
            scene.sql.exec(&format!("insert into power.t values {rows}")).await.unwrap();
        }
        let mut source = scene.configured("p", "power", settings.clone());
        source.connect(&Checkpoint::default()).await.unwrap();
        assert_eq!(read(&mut source, &mut Checkpoint::default(), expect.iter().sum()).await, expect, "{version}, {settings}");
    }
}

/// Seen on a real pair, from afar: the small database of the proofs keeps all that were ever made, and none was found in time behind them.
#[tokio::test(flavor = "multi_thread")]
async fn proofs_of_before_are_not_read_again() {
    let made = ["create database power vgroups 1 wal_retention_period 3600", "create table power.t (ts timestamp, v int)"];
    let scene = Scene::start_with(&made, |config| config.admin = Some("127.0.0.1:0".into())).await;
    drop(scene.source("p", "power").await);
    for proof in 0..400 {
        scene.sql.exec(&format!("alter table pipeline_canary.one comment 'of before: {proof}'")).await.unwrap();
    }
    // All of them would take 20 s, and 15 s are given.
    arm(scene.node.admin_addr().unwrap(), r#"{ "fault": "delay-reply", "action": "fetch_raw", "milliseconds": 50 }"#).await;
    let mut source = scene.configured("p", "power", json!({}));
    source.connect(&Checkpoint::default()).await.unwrap();
}

/// The other site was away, so that nothing was read, and retention went on: what is gone is not stepped over (FACTS F40), and what was fetched
/// before is handed out.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_while_it_is_not_read_has_a_hole() {
    const TABLES: usize = 16;
    for is_unread_cut in [true, false] {
        let made = ["create database power vgroups 1 wal_retention_period 3600"];
        let scene = Scene::start_with(&made, |config| config.admin = Some("127.0.0.1:0".into())).await;
        for table in 0..TABLES {
            scene.sql.exec(&format!("create table power.t{table} (ts timestamp, v int)")).await.unwrap();
            scene.sql.exec("flush database power").await.unwrap();
        }
        let mut source = scene.source("p", "power").await;
        let (mut at, mut found) = (Checkpoint::default(), 0);
        while found == 0 {
            found += tables(source.next(Duration::from_millis(50)).await.unwrap(), found, &mut at);
        }
        let lanes = source.progress().await.unwrap();
        let read_by_both = lanes.iter().map(|lane| places(lane).0).min().unwrap();
        let below = if is_unread_cut { places(&lanes[0]).1 } else { read_by_both };
        let vgroup = lanes[0].lane.as_str();
        let cut = format!(r#"{{ "fault": "truncate-wal", "vgroup": {vgroup}, "below": {below} }}"#);
        arm(scene.node.admin_addr().unwrap(), &cut).await;
        source.progress().await.unwrap();
        let begun = Instant::now();
        let lost = loop {
            assert!(begun.elapsed() < LASTS, "only {found} tables came");
            match source.next(Duration::from_millis(50)).await {
                Ok(polled) => found += tables(polled, found, &mut at),
                Err(error) => break Some(error),
            }
            if found == TABLES {
                break None;
            }
        };
        assert_eq!(lost.map(|error| error.reaction), is_unread_cut.then_some(Reaction::Disconnected), "of {found} tables");
        if is_unread_cut {
            let error = source.connect(&at).await.unwrap_err();
            assert_eq!((error.reaction, error.code.as_ref()), (Reaction::Rejected, SOURCE_HOLE), "{error}");
        }
    }
}

/// How many tables were made, where these are the ones that come next.
fn tables(polled: Polled, next: usize, at: &mut Checkpoint) -> usize {
    let Polled::Messages(messages) = polled else { return 0 };
    let mut count = 0;
    for message in messages {
        at.lanes.insert(message.header.lane.clone(), message.header.position.clone());
        let Payload::Change(change) = &message.payload else { continue };
        assert_eq!(change.tables.iter().map(|table| table.to_string()).collect::<Vec<_>>(), [format!("t{}", next + count)]);
        count += 1;
    }
    count
}

/// The engine says how often, and when for the last time: who goes on without its state begins there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_committed_is_committed_at_once() {
    let scene = Scene::start(&[
        "create database power vgroups 1 wal_retention_period 3600",
        "create table power.t (ts timestamp, v int)",
        "insert into power.t values (1700000000000, 1)",
    ])
    .await;
    let mut at = Checkpoint::default();
    let mut source = scene.source("p", "power").await;
    assert_eq!(read(&mut source, &mut at, 1).await, [1]);
    source.commit(&at).await.unwrap();
    scene.sql.exec("insert into power.t values (1700000000001, 2)").await.unwrap();
    assert_eq!(read(&mut source, &mut at, 1).await, [1]);
    source.commit(&at).await.unwrap();
    drop(source);
    let mut source = scene.source("p", "power").await;
    assert!(read(&mut source, &mut Checkpoint::default(), 0).await.is_empty());
}

/// What was made of a message needs a look at the site, which refuses it for a moment: by then the consumer has the message no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_not_lost_where_a_look_at_the_site_fails() {
    const TABLES: usize = 5;
    for action in ["binary_query", "fetch_raw", "position"] {
        let made = ["create database power vgroups 1 wal_retention_period 3600"];
        let scene = Scene::start_with(&made, |config| config.admin = Some("127.0.0.1:0".into())).await;
        for table in 0..TABLES {
            scene.sql.exec(&format!("create table power.t{table} (ts timestamp, v int)")).await.unwrap();
        }
        let (mut at, mut found) = (Checkpoint::default(), 0);
        let mut source = scene.source("p", "power").await;
        // Conflicting transactions: it may succeed in a moment.
        let fault = json!({ "fault": "answer-code", "code": 0x03d3, "action": action });
        arm(scene.node.admin_addr().unwrap(), &fault.to_string()).await;
        let mut lost = 0;
        while found < TABLES {
            match source.next(Duration::from_millis(50)).await {
                Ok(polled) => found += tables(polled, found, &mut at),
                Err(error) if error.reaction == Reaction::Retry => {}
                Err(error) => {
                    assert_eq!(error.reaction, Reaction::Disconnected, "{error}");
                    source.connect(&at).await.unwrap();
                    lost += 1;
                }
            }
        }
        assert_eq!(lost, 1, "{action}");
    }
}

/// A server puts values of tags into JSON as they are: bytes that are no UTF-8, from a client over libtaos, would end the connection again and
/// again. So it is not asked for changes of tables.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_tables_are_read_without_the_servers_json() {
    let made = [
        "create database power vgroups 1 wal_retention_period 3600",
        "create stable power.meters (ts timestamp, v int) tags (site varchar(20))",
        "create table power.n (ts timestamp, v int)",
    ];
    let scene = Scene::start_with(&made, |config| config.admin = Some("127.0.0.1:0".into())).await;
    let mut source = scene.source("p", "power").await;
    read(&mut source, &mut Checkpoint::default(), 0).await;
    arm(scene.node.admin_addr().unwrap(), r#"{ "fault": "refuse-action", "action": "fetch_json_meta" }"#).await;
    let changes = [
        ("create table power.d using power.meters tags ('berlin')", json!({ "type": "create", "tableName": "d" })),
        ("alter table power.d set tag site = 'köln'", json!({ "alterType": 4, "colName": "site", "colValue": "\"köln\"" })),
        ("alter table power.n add column w int", json!({ "alterType": 5, "tableName": "n", "colName": "w", "colType": 4 })),
        ("drop table power.d", json!({ "type": "drop", "tableNameList": ["d"] })),
    ];
    for (statement, expect) in changes {
        scene.sql.exec(statement).await.unwrap();
        let change = loop {
            let Polled::Messages(messages) = source.next(Duration::from_millis(50)).await.unwrap() else { continue };
            if let Some(Payload::Change(change)) = messages.into_iter().map(|message| message.payload).next() {
                break change;
            }
        };
        for (key, value) in expect.as_object().unwrap() {
            assert_eq!(&change.detail[key], value, "{statement}: {}", change.detail);
        }
    }
}
