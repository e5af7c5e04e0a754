//! The behaviour list of PROTOCOL 13.3, item by item; keep-alive (11) is in `transport`.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tdengine_wire::block::BlockView;
use tdengine_wire::envelope::BinaryRequest;

use crate::client::{Client, code_of};
use crate::site::{Site, poll, subscription};

const T0: i64 = 1_700_000_000_000;

/// `n` rows of a table `(ts, v)` in one statement.
fn rows(table: &str, first: i64, n: i64) -> String {
    (first..first + n).fold(format!("insert into {table} values"), |sql, row| sql + &format!("({},{row})", T0 + row))
}

// 1

#[tokio::test]
async fn replies_come_in_the_order_in_which_they_are_ready() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    site.fault(json!({ "fault": "delay-reply", "action": "get_current_db", "milliseconds": 300, "times": 1 })).await;
    client.send("get_current_db", json!({})).await;
    client.send("version", json!({})).await;
    let actions = [client.json().await["action"].clone(), client.json().await["action"].clone()];
    assert_eq!(actions, [json!("version"), json!("get_current_db")]);
}

#[tokio::test]
async fn a_statement_serves_one_request_at_a_time() {
    const REQUESTS: i64 = 50;
    let site = Site::start().await;
    let mut client = site.database(&["create table n (ts timestamp, v int)"]).await;
    let id = client.ok("init", json!({})).await["stmt_id"].clone();
    client.ok("prepare", json!({ "stmt_id": id, "sql": "insert into n values (?, ?)" })).await;
    for row in 0..REQUESTS {
        client.send("bind", json!({ "stmt_id": id, "columns": [[T0 + row], [row]] })).await;
    }
    for _ in 0..REQUESTS {
        assert_eq!(client.json().await["code"], 0);
    }
    client.ok("add_batch", json!({ "stmt_id": id })).await;
    assert_eq!(client.ok("exec", json!({ "stmt_id": id })).await["affected"], REQUESTS);
}

/// FACTS F41: each of several polls takes a message of its own, whichever comes first.
#[tokio::test]
async fn polls_of_a_consumer_are_worked_on_one_after_another() {
    let site = Site::recorded().await;
    let (mut sql, mut consumer) = site.consumer(json!({})).await;
    sql.sql("create table n (ts timestamp, v int)").await;
    sql.sql(&rows("n", 0, 1)).await;
    for _ in 0..3 {
        consumer.send("poll", json!({ "blocking_time": 500 })).await;
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        let reply = consumer.json().await;
        assert_eq!((reply["code"].clone(), reply["have_message"].clone()), (json!(0), json!(true)), "{reply}");
        ids.push(reply["message_id"].as_i64().unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

// 2

#[tokio::test]
async fn every_reply_has_the_five_keys_and_the_id_of_its_request() {
    let site = Site::start().await;
    let mut sql = site.connect().await;
    let mut consumer = Client::open(&site.node, "/rest/tmq").await;
    for id in [0, 1, u64::MAX, 18_250_284_034_228_092_929] {
        let check = async |client: &mut Client, action: &str, args: &str, code: u64| {
            client.send_text(&format!(r#"{{"action":"{action}","args":{{"req_id":{id}{args}}}}}"#)).await;
            let reply = client.json().await;
            assert_eq!(code_of(&reply).0, code, "{reply}");
            assert_eq!((reply["action"].as_str(), reply["req_id"].as_u64()), (Some(action), Some(id)), "{reply}");
            assert!(reply["timing"].is_u64() && (code == 0) == (reply["message"] == ""), "{reply}");
            reply
        };
        check(&mut sql, "version", "", 0).await;
        check(&mut sql, "query", r#","sql":"select 1""#, 0).await;
        check(&mut sql, "query", r#","sql":"selec 1""#, 0x2600).await;
        check(&mut sql, "nonsense", "", 0xffff).await;
        check(&mut sql, "fetch", r#","id":"x""#, 0xffff).await;
        check(&mut consumer, "version", "", 0).await;
        check(&mut consumer, "poll", "", 0xffff).await;
        // What the decoder of crate 0.12.3 has no default for (PROTOCOL 1.3).
        assert_eq!(check(&mut sql, "prepare", r#","stmt_id":9,"sql":"x""#, 0xffff).await["is_insert"], false);
        assert_eq!(check(&mut sql, "exec", r#","stmt_id":9"#, 0xffff).await["stmt_id"], 9);
        assert_eq!(check(&mut consumer, "fetch_json_meta", r#","message_id":3"#, 0xffff).await["data"], Json::Null);
        assert_eq!(check(&mut consumer, "fetch", r#","message_id":3"#, 0xffff).await["message_id"], 3);
        assert_eq!(check(&mut consumer, "committed", r#","topic_vgroup_ids":[]"#, 0xffff).await["committed"], json!([]));
        assert_eq!(check(&mut consumer, "position", r#","topic_vgroup_ids":[]"#, 0xffff).await["position"], json!([]));
        check(&mut consumer, "seek", r#","topic":"t","vgroup_id":1,"offset":0"#, 0xffff).await;
        check(&mut consumer, "commit_offset", r#","topic":"t","vgroup_id":1,"offset":0"#, 0xffff).await;
    }
}

/// PROTOCOL 1.4.
#[tokio::test]
async fn texts_of_the_protocols_own_errors() {
    let site = Site::start().await;
    let (mut sql, mut consumer) = site.consumer(json!({})).await;
    sql.send_text(r#"{"args":{"req_id":7}}"#).await;
    let reply = sql.json().await;
    assert_eq!((code_of(&reply), &reply["req_id"]), ((0xffff, "request no action".into()), &json!(7)));
    let unread = sql.ask("query", json!({ "sql": 1 })).await;
    assert_eq!(code_of(&unread), (0xffff, "unmarshal query request error".into()));
    sql.send_binary(BinaryRequest::Query { sql: "" }, 0).await;
    assert_eq!(code_of(&sql.json().await), (0xffff, "message length is too short".into()));
    for (text, code) in [("select 1", 0), ("selec 1", 0x2600)] {
        sql.send_binary(BinaryRequest::ValidateSql { sql: text }, 0).await;
        let reply = sql.json().await;
        assert_eq!((&reply["action"], &reply["result_code"]), (&json!("validate_sql"), &json!(code)), "{reply}");
    }
    consumer.ok("poll", poll(0, 0)).await;
    let other = consumer.ask("fetch_block", json!({ "message_id": 9 })).await;
    assert_eq!((code_of(&other), &other["message_id"]), ((0xffff, "message is nil".into()), &json!(9)));
}

// 3

#[tokio::test]
async fn conn_comes_first_and_once() {
    let site = Site::start().await;
    let mut client = Client::open(&site.node, "/ws").await;
    client.ok("version", json!({})).await;
    client.ok("check_server_status", json!({})).await;
    for action in ["query", "get_current_db", "init", "insert", "stmt2_init", "nonsense"] {
        client.send(action, json!({ "sql": "select 1" })).await;
        let reply = client.json().await;
        assert_eq!((code_of(&reply), &reply["req_id"]), ((0xffff, "server not connected".into()), &json!(0)), "{action}");
    }
    client.send_binary(BinaryRequest::Query { sql: "select 1" }, 0).await;
    assert_eq!(code_of(&client.json().await), (0xffff, "server not connected".into()));
    let root = json!({ "user": "root", "password": "taosdata", "db": "" });
    client.ok("conn", root.clone()).await;
    assert_eq!(code_of(&client.ask("conn", root).await), (0xffff, "duplicate connections".into()));
    assert_eq!(client.rows("select 1").await, 1);
}

// 4

#[tokio::test]
async fn results_are_numbered_from_1_freed_at_their_end_and_bounded() {
    let site = Site::with(|config| config.limits.results_per_connection = 2).await;
    let mut client = site.connect().await;
    assert_eq!(client.sql("select 1").await["id"], 1);
    assert_eq!(client.sql("create database d").await["id"], 0, "an update has none");
    assert_eq!(client.sql("select 1").await["id"], 2);
    let (code, text) = client.code("select 1").await;
    assert!(code == 0xffff && text.contains("limits.results-per-connection"), "{text}");
    assert!(client.next_block(1).await.is_some() && client.next_block(1).await.is_none());
    assert_eq!(client.block_error(1).await, (0xffff, "result is nil".into()));
    client.send("free_result", json!({ "id": 2 })).await;
    client.send("free_result", json!({ "id": 77 })).await;
    assert!(client.silent().await, "freeing is not answered");
    assert_eq!(client.block_error(2).await, (0xffff, "result is nil".into()));
    assert_eq!(client.sql("select 1").await["id"], 3);
    let mut other = site.connect().await;
    assert_eq!(other.sql("select 1").await["id"], 1, "ids are a connection's");
    assert_eq!(code_of(&other.ask("fetch_block", json!({ "id": 1 })).await), (0xffff, "block is nil".into()));
}

// 5

#[tokio::test]
async fn blocks_have_4096_rows_or_a_mebibyte_at_most_and_are_never_empty() {
    const MEBIBYTE: usize = 1 << 20;
    const TEXT: usize = 16_000;
    let site = Site::start().await;
    let mut client = site.database(&["create table n (ts timestamp, v int)", "create table w (ts timestamp, s varchar(16000))"]).await;
    client.sql(&rows("n", 0, 5_000)).await;
    let texts = (0..100).fold("insert into w values".to_owned(), |sql, row| sql + &format!("({},'{}')", T0 + row, "x".repeat(TEXT)));
    client.sql(&texts).await;
    let mut blocks = async |sql: &str| {
        let id = client.sql(sql).await["id"].as_u64().unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = client.next_block(id).await {
            blocks.push((BlockView::parse(&block).unwrap().rows(), block.len()));
        }
        blocks
    };
    let plain: Vec<usize> = blocks("select * from n").await.into_iter().map(|(rows, _)| rows).collect();
    assert_eq!(plain.iter().sum::<usize>(), 5_000);
    assert!(plain.iter().all(|rows| (1..=4_096).contains(rows)), "{plain:?}");
    let wide = blocks("select * from w").await;
    assert_eq!(wide.iter().map(|(rows, _)| rows).sum::<usize>(), 100);
    assert!(wide.len() > 1 && wide.iter().all(|(_, bytes)| *bytes < MEBIBYTE + 2 * TEXT), "{wide:?}");
    assert!(blocks("select * from n where v < 0").await.is_empty(), "the end comes at once");
}

// 6

/// FACTS F43: a server does not wake a waiting poll; this one can be told to.
#[tokio::test]
async fn a_poll_waits_its_blocking_time_and_is_woken_only_if_the_configuration_says_so() {
    const BLOCKING_MS: u64 = 600;
    /// On a loaded machine rows may come behind the poll, or before it: one try in which they came while it waited is enough.
    const TRIES: i64 = 5;
    for wakes in [false, true] {
        let site = Site::with(|config| config.poll_wakes = wakes).await;
        let (mut sql, mut consumer) = site.consumer(json!({})).await;
        sql.sql("create table n (ts timestamp, v int)").await;
        assert_eq!(consumer.drain().await.len(), 2);
        let (mut last, mut tries, mut is_as_told) = (2, Vec::new(), false);
        for row in 0..TRIES {
            let begun = Instant::now();
            consumer.send("poll", poll(BLOCKING_MS, last)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            sql.sql(&rows("n", row, 1)).await;
            let mut reply = consumer.json().await;
            let (waited, has_message) = (begun.elapsed(), reply["have_message"] == true);
            if !has_message {
                reply = consumer.ok("poll", poll(BLOCKING_MS, last)).await;
            }
            assert_eq!(reply["have_message"], true, "{reply}");
            last = reply["message_id"].as_u64().unwrap();
            tries.push((waited, has_message));
            is_as_told = has_message && (waited < Duration::from_millis(BLOCKING_MS)) == wakes;
            if is_as_told {
                break;
            }
        }
        assert!(is_as_told, "wakes: {wakes}, {tries:?}");
        let begun = Instant::now();
        let nothing = consumer.ok("poll", poll(100, last)).await;
        assert!(begun.elapsed() >= Duration::from_millis(100));
        let empty = json!({ "have_message": false, "topic": "", "database": "", "vgroup_id": 0, "message_type": 0, "message_id": 0, "offset": 0 });
        let of_poll = |key: &&String| empty.get(*key).is_some();
        let found: serde_json::Map<_, _> = nothing.as_object().unwrap().iter().filter(|(key, _)| of_poll(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(Json::Object(found), empty);
    }
}

// 7

#[tokio::test]
async fn a_message_is_held_until_the_next_one_or_the_end_of_the_subscription() {
    let site = Site::recorded().await;
    let (mut sql, mut consumer) = site.consumer(json!({})).await;
    sql.sql("create table n (ts timestamp, v int)").await;
    sql.sql(&rows("n", 0, 1)).await;
    let id = |of: u64| json!({ "message_id": of });
    let fetch = async |consumer: &mut Client, of: u64| code_of(&consumer.ask("fetch", id(of)).await);
    assert_eq!(consumer.ok("poll", poll(0, 0)).await["message_type"], 2);
    assert_eq!(fetch(&mut consumer, 1).await, (0xffff, "message type is not data".into()));
    assert_eq!(consumer.ok("fetch_json_meta", id(1)).await["data"]["tableName"], "st");
    assert_eq!(consumer.ok("poll", poll(0, 1)).await["message_id"], 2);
    assert_eq!(fetch(&mut consumer, 1).await, (0xffff, "message ID are not equal".into()));
    assert_eq!(consumer.ok("poll", poll(0, 2)).await["message_type"], 1);
    assert_eq!(consumer.ok("poll", poll(0, 3)).await["have_message"], false);
    assert_eq!(fetch(&mut consumer, 3).await.0, 0, "a poll that found nothing frees nothing");
    assert_eq!(consumer.ok("fetch", id(3)).await["completed"], true);
    let twice = consumer.ask("subscribe", subscription("g", json!({}))).await;
    assert_eq!(code_of(&twice), (0xffff, "tmq should have unsubscribed first".into()));
    consumer.ok("unsubscribe", json!({})).await;
    assert_eq!(fetch(&mut consumer, 3).await, (0xffff, "message has been freed".into()));
    assert_eq!(consumer.ok("poll", poll(0, 3)).await["have_message"], false, "FACTS F44");
    consumer.ok("subscribe", subscription("g", json!({}))).await;
    assert_eq!(consumer.ok("poll", poll(0, 0)).await["message_id"], 1);
}

// 8

#[tokio::test]
async fn a_message_mixes_tables_and_columns_unless_a_client_needs_one_block() {
    let statements = ["insert into n (ts, v) values (1700000000000, 1) m values (1700000000000, 2)", "insert into n (ts) values (1700000000001)"];
    for (parts, expect) in [(4_096, vec![vec![("n", 1), ("m", 1), ("n", 1)]]), (1, vec![vec![("n", 1), ("m", 1)], vec![("n", 1)]])] {
        let site = Site::with(|config| config.limits.message_parts = parts).await;
        let mut sql = site.database(&["create topic t as database d"]).await;
        for table in ["n", "m"] {
            sql.sql(&format!("create table {table} (ts timestamp, v int)")).await;
        }
        for statement in statements {
            sql.sql(statement).await;
        }
        let mut consumer = site.subscribe("g", json!({})).await;
        let mut found = Vec::new();
        for message in 0..expect.len() as u64 {
            let polled = consumer.ok("poll", poll(0, message)).await;
            found.push(consumer.blocks(&polled["message_id"]).await);
        }
        let expect: Vec<Vec<(String, i64)>> =
            expect.into_iter().map(|blocks| blocks.into_iter().map(|(table, rows)| (table.to_owned(), rows)).collect()).collect();
        assert_eq!(found, expect, "{parts}");
        assert_eq!(consumer.ok("poll", poll(0, expect.len() as u64)).await["have_message"], false);
    }
}

// 9

#[tokio::test]
async fn metas_are_exact_and_single_unless_batches_are_asked_for() {
    let site = Site::start().await;
    let (mut sql, mut consumer) = site.consumer(json!({})).await;
    sql.sql("create stable big (ts timestamp, v int) tags (b bigint, u bigint unsigned)").await;
    sql.sql("create table c using big tags (9007199254740993, 18446744073709551615)").await;
    let mut last = Json::Null;
    for message in 0..3 {
        let polled = consumer.ok("poll", poll(0, message)).await;
        last = consumer.ok("fetch_json_meta", json!({ "message_id": polled["message_id"] })).await["data"].clone();
        assert!(last.get("metas").is_none(), "{last}");
    }
    let values: Vec<&Json> = last["tags"].as_array().unwrap().iter().map(|tag| &tag["value"]).collect();
    assert_eq!(values, [&json!(9_007_199_254_740_993i64), &json!(u64::MAX)]);
}

// 10

#[tokio::test]
async fn exclusion_is_asked_for_in_either_spelling_and_for_one_consumer_alone() {
    let site = Site::start().await;
    let mut sql = site.database(&["create topic t as database d", "create table n (ts timestamp, v int)"]).await;
    sql.write_block("n", &[(T0, 1)]).await;
    sql.write_block_by_position("n", (T0 + 1, 2)).await;
    sql.sql(&rows("n", 2, 1)).await;
    for (args, rows) in [
        (json!({ "msg_consume_excluded": "1" }), 1),
        (json!({ "config": { "msg.consume.excluded": "1" } }), 1),
        (json!({}), 3),
    ] {
        let mut consumer = site.subscribe(&format!("g{rows}{}", args.to_string().len()), args.clone()).await;
        consumer.drain().await;
        assert_eq!(consumer.last_rows.iter().map(|(_, rows)| rows).sum::<i64>(), rows, "{args}");
    }
    let mut consumer = Client::open(&site.node, "/rest/tmq").await;
    let unknown = consumer.ask("subscribe", subscription("g", json!({ "config": { "no.such.key": "1" } }))).await;
    assert_eq!(code_of(&unknown), (0x0118, "unknown configuration key: no.such.key".into()));
}

// 12; kill-before-reply, drop-connection, answer-code and lose-poll-reply are in `actions`, delay-reply above.

#[tokio::test]
async fn an_action_is_refused_by_name() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    site.fault(json!({ "fault": "refuse-action", "action": "stmt2_init" })).await;
    assert_eq!(code_of(&client.ask("stmt2_init", json!({})).await), (0xffff, "unknown action stmt2_init".into()));
    client.ok("init", json!({})).await;
}

#[tokio::test]
async fn a_delivery_is_doubled() {
    let site = Site::start().await;
    let (_sql, mut consumer) = site.consumer(json!({})).await;
    consumer.ok("poll", poll(0, 0)).await;
    site.fault(json!({ "fault": "duplicate-delivery" })).await;
    let again = consumer.ok("poll", poll(0, 1)).await;
    assert_eq!((again["message_id"].clone(), again["message_type"].clone()), (json!(2), json!(2)));
    assert_eq!(consumer.ok("poll", poll(0, 2)).await["have_message"], false);
}

#[tokio::test]
async fn a_frozen_vgroup_takes_nothing_and_gives_nothing() {
    let site = Site::start().await;
    let (mut sql, mut consumer) = site.consumer(json!({})).await;
    sql.sql("create table n (ts timestamp, v int)").await;
    let vgroup = consumer.lanes("t").await[0].0;
    site.fault(json!({ "fault": "freeze-vgroup", "vgroup": vgroup })).await;
    assert_eq!(sql.code(&rows("n", 0, 1)).await, (0x000B, "Unable to establish connection".into()));
    assert_eq!(consumer.ok("poll", poll(0, 0)).await["have_message"], false);
    site.without_faults().await;
    sql.sql(&rows("n", 0, 1)).await;
    assert_eq!(consumer.drain().await.len(), 3);
}

/// FACTS F40: a consumer whose offset is below what is kept goes on without a word, and `poll.offset` still shows where it was.
#[tokio::test]
async fn a_log_is_cut_below_committed_offsets() {
    let site = Site::recorded().await;
    let (mut sql, mut consumer) = site.consumer(json!({})).await;
    sql.sql("create table n (ts timestamp, v int)").await;
    consumer.drain().await;
    consumer.ok("commit", json!({ "message_id": 2 })).await;
    consumer.ok("unsubscribe", json!({})).await;
    for row in 0..4 {
        sql.sql(&rows("n", row, 1)).await;
        sql.sql("flush database d").await;
    }
    consumer.ok("subscribe", subscription("g", json!({}))).await;
    let (vgroup, begin, end) = consumer.lanes("t").await[0];
    assert_eq!(begin, 0);
    site.fault(json!({ "fault": "truncate-wal", "vgroup": vgroup, "below": end - 2 })).await;
    let lane = json!({ "topic_vgroup_ids": [{ "topic": "t", "vgroup_id": vgroup }] });
    let committed = consumer.ok("committed", lane).await["committed"][0].as_i64().unwrap();
    let (_, begin, _) = consumer.lanes("t").await[0];
    assert!(committed < begin, "a gap shows before the first poll: {committed} {begin}");
    let polled = consumer.ok("poll", poll(0, 0)).await;
    assert_eq!((polled["have_message"].clone(), polled["offset"].as_i64().unwrap()), (json!(true), committed));
    let blocks = consumer.blocks(&polled["message_id"]).await;
    assert_eq!(blocks.iter().map(|(_, rows)| rows).sum::<i64>(), 1, "three of four rows are gone");
}

#[tokio::test]
async fn a_disk_is_full_until_the_fault_goes() {
    let site = Site::start().await;
    let mut sql = site.database(&["create table n (ts timestamp, v int)"]).await;
    site.fault(json!({ "fault": "cap-disk", "bytes": 10 })).await;
    assert_eq!(sql.code(&rows("n", 0, 1)).await, (0x012B, "Out of disk space".into()));
    site.without_faults().await;
    sql.sql(&rows("n", 0, 1)).await;
    assert_eq!(sql.rows("select * from n").await, 1);
}
