//! What consumers see (PROTOCOL 6, 10; FACTS F6, F10, F11, F38–F45, F59, F66).

use std::time::Duration;

use serde_json::{Value as Json, json};
use tdengine_wire::block::BlockView;
use tdengine_wire::meta::kind;
use tdengine_wire::tmq::DataView;

use crate::client::{Client, code_of};
use crate::site::{Site, poll, subscription};

const T0: i64 = 1_700_000_000_000;

/// Raw types of what a consumer gets, in order.
async fn raw_types(consumer: &mut Client) -> Vec<u16> {
    let mut types = Vec::new();
    loop {
        let polled = consumer.ok("poll", poll(0, types.len() as u64)).await;
        if polled["have_message"] == false {
            return types;
        }
        types.push(consumer.raw(&polled["message_id"]).await.0);
    }
}

async fn committed(consumer: &mut Client, vgroup: i64) -> Json {
    let lane = json!({ "topic_vgroup_ids": [{ "topic": "t", "vgroup_id": vgroup }] });
    consumer.ok("committed", lane).await["committed"][0].clone()
}

/// A cell of each row of a query, as text.
async fn texts(sql: &mut Client, query: &str) -> Vec<Vec<Option<String>>> {
    let id = sql.sql(query).await["id"].as_u64().unwrap();
    let mut rows = Vec::new();
    while let Some(block) = sql.next_block(id).await {
        let view = BlockView::parse(&block).unwrap();
        let text = |column: &tdengine_wire::block::ColumnView<'_>, row| {
            let value = column.value(row);
            value.as_i64().map(|number| number.to_string()).or_else(|| value.text())
        };
        rows.extend((0..view.rows()).map(|row| view.columns().iter().map(|column| text(column, row)).collect::<Vec<_>>()));
    }
    rows
}

/// PROTOCOL 6.2: at the beginning of a poll, once the interval is over, what was handed out before it.
#[tokio::test]
async fn auto_commit_stores_what_was_handed_out_when_the_client_comes_back() {
    let site = Site::start().await;
    let (_sql, mut consumer) = site.consumer(json!({ "auto_commit": "true", "auto_commit_interval_ms": "1" })).await;
    let vgroup = consumer.lanes("t").await[0].0;
    consumer.ok("poll", poll(0, 0)).await;
    assert_eq!(committed(&mut consumer, vgroup).await, -2_147_467_247);
    let position = consumer.position("t").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    consumer.ok("poll", poll(0, 1)).await;
    assert_eq!(committed(&mut consumer, vgroup).await, position);
}

#[tokio::test]
async fn nothing_committed_and_reset_none_is_an_error_of_newer_servers_alone() {
    for (site, expect) in [(Site::start().await, (0x0A0D, "TQ no committed offset")), (Site::recorded().await, (0, ""))] {
        let (_sql, mut consumer) = site.consumer(json!({ "offset_rest": "none" })).await;
        let reply = consumer.ask("poll", poll(0, 0)).await;
        assert_eq!(code_of(&reply), (expect.0, expect.1.to_owned()), "{reply}");
        let vgroup = consumer.lanes("t").await[0].0;
        consumer.ok("seek", json!({ "topic": "t", "vgroup_id": vgroup, "offset": 0 })).await;
        let polled = [consumer.ok("poll", poll(0, 0)).await, consumer.ok("poll", poll(0, 0)).await];
        assert!(polled.iter().any(|reply| reply["have_message"] == true), "{polled:?}");
    }
}

/// FACTS F41: until the old member is given up.
#[tokio::test]
async fn the_next_consumer_waits_for_the_lanes_of_a_lost_one() {
    let site = Site::with(|config| {
        config.version = "3.3.0.1".into();
        config.member_lost_ms = 2_000;
    })
    .await;
    let (_sql, mut first) = site.consumer(json!({})).await;
    first.ok("poll", poll(0, 0)).await;
    let vgroup = first.lanes("t").await[0].0;
    drop(first);
    let mut next = site.subscribe("g", json!({})).await;
    assert!(next.lanes("t").await.is_empty());
    let lane = json!({ "topic_vgroup_ids": [{ "topic": "t", "vgroup_id": vgroup }] });
    assert_eq!(code_of(&next.ask("committed", lane).await), (0x4008, "VgId does not belong to this consumer".into()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while next.drain().await.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "what was not committed comes again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(next.lanes("t").await.len(), 1);
}

/// FACTS F45 and F4: three subscriptions that the recorded server never answers, one of them for good.
#[tokio::test]
async fn some_subscriptions_are_never_answered() {
    let site = Site::recorded().await;
    let (mut sql, consumer) = site.consumer(json!({})).await;
    drop(consumer);
    for args in [json!({ "topics": [] }), json!({ "msg_consume_excluded": 1 }), json!({ "group_id": "a:b" })] {
        let mut consumer = Client::open(&site.node, "/rest/tmq").await;
        consumer.send("subscribe", subscription("g", args.clone())).await;
        assert!(consumer.silent().await, "{args}");
    }
    assert_eq!(sql.code("drop topic t").await, (0x03EB, "Topic subscribed cannot be dropped".into()));
    let consumers = texts(&mut sql, "select consumer_group, status from performance_schema.perf_consumers").await;
    assert!(consumers.contains(&vec![Some("a:b".into()), Some("rebalancing".into())]), "{consumers:?}");
}

/// FACTS F38.
#[tokio::test]
async fn where_a_group_stands_is_listed_once_its_member_left() {
    let site = Site::start().await;
    let (mut sql, mut consumer) = site.consumer(json!({})).await;
    sql.sql("create table n (ts timestamp, v int)").await;
    sql.sql(&format!("insert into n values ({T0}, 1) ({}, 2)", T0 + 1)).await;
    consumer.drain().await;
    consumer.ok("commit", json!({ "message_id": 3 })).await;
    let query = "select topic_name, consumer_group, consumer_id, `offset`, `rows` from information_schema.ins_subscriptions";
    let listed = texts(&mut sql, query).await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(listed, [vec![text("t"), text("g"), text("0x1"), None, None]]);
    let position = consumer.position("t").await;
    consumer.ok("unsubscribe", json!({})).await;
    let listed = texts(&mut sql, query).await;
    let end = listed[0][3].as_deref().unwrap().rsplit_once('/').unwrap().1.to_owned();
    assert_eq!(listed, [vec![text("t"), text("g"), None, Some(format!("wal:{position}/{end}")), text("2")]]);
    assert!(end.parse::<i64>().unwrap() >= position);
    sql.sql("drop consumer group g on t").await;
    assert!(texts(&mut sql, query).await.is_empty());
}

/// FACTS F59.
#[tokio::test]
async fn consumers_that_come_and_go_and_commits_are_entries() {
    let site = Site::start().await;
    let (_sql, mut consumer) = site.consumer(json!({})).await;
    let end = consumer.range("t").await.1;
    let mut other = site.subscribe("other", json!({})).await;
    assert_eq!(consumer.range("t").await.1, end + 1);
    other.ok("poll", poll(0, 0)).await;
    for _ in 0..2 {
        other.ok("commit", json!({ "message_id": 1 })).await;
    }
    assert_eq!(consumer.range("t").await.1, end + 2, "the same commit again is none");
    other.ok("unsubscribe", json!({})).await;
    assert_eq!(consumer.range("t").await.1, end + 3);
    assert_eq!(raw_types(&mut consumer).await, [kind::CREATE_STABLE], "nothing of it is delivered");
}

/// PROTOCOL 6.6 and 8: projected rows, a schema, and no table.
#[tokio::test]
async fn a_topic_that_selects_gives_rows_without_tables() {
    let site = Site::start().await;
    let mut sql = site.database(&["create stable st (ts timestamp, v int, s varchar(4)) tags (g int)"]).await;
    sql.sql("create topic t as select v, ts from st where v > 1").await;
    sql.sql(&format!("insert into c using st tags (1) values ({T0}, 1, 'a') ({}, 2, 'b')", T0 + 1)).await;
    let mut consumer = site.subscribe("g", json!({})).await;
    let polled = consumer.ok("poll", poll(0, 0)).await;
    assert_eq!(polled["message_type"], 1);
    let (raw_type, body) = consumer.raw(&polled["message_id"]).await;
    let view = DataView::parse(&body).unwrap();
    assert_eq!((raw_type, view.with_schema(), view.with_table_name()), (2, true, false));
    let entry = view.blocks().next().unwrap().unwrap();
    let names: Vec<String> = entry.fields.unwrap().to_vec().unwrap().into_iter().map(|field| field.name).collect();
    assert_eq!((names, entry.table, entry.header.rows), (vec!["v".to_owned(), "ts".into()], None, 1));
    let fetched = consumer.ok("fetch", json!({ "message_id": polled["message_id"] })).await;
    assert_eq!((fetched["table_name"].clone(), fetched["fields_names"].clone()), (json!(""), json!(["v", "ts"])));
    assert_eq!(consumer.ok("poll", poll(0, 1)).await["have_message"], false, "changes of schema are not for it");
}

#[tokio::test]
async fn a_topic_of_a_super_table_gives_that_ones_children_alone() {
    let site = Site::start().await;
    let mut sql = site.database(&["create stable st (ts timestamp, v int) tags (g int)"]).await;
    sql.sql("create topic t with meta as stable st where g > 1").await;
    for statement in ["create table n (ts timestamp, v int)", "create stable other (ts timestamp, v int) tags (g int)"] {
        sql.sql(statement).await;
    }
    sql.sql(&format!("insert into a using st tags (1) values ({T0}, 1) b using st tags (2) values ({T0}, 2) n values ({T0}, 3)")).await;
    let mut consumer = site.subscribe("g", json!({})).await;
    consumer.drain().await;
    assert_eq!(consumer.last_rows, [("b".to_owned(), 1)]);
}

/// FACTS F10, F66: schemaless growth is marked, so only a plain consumer is told; `ONLY META` brings rows that make their table.
#[tokio::test]
async fn schemaless_growth_is_hidden_from_who_excludes_and_shown_by_only_meta() {
    let site = Site::start().await;
    let mut sql = site.database(&["create topic t with meta as database d", "create topic m only meta as database d"]).await;
    let insert = |line: &str| json!({ "protocol": 1, "precision": "ms", "ttl": 7, "data": line });
    sql.ok("insert", insert(&format!("w,city=a temp=1.5 {T0}"))).await;
    sql.ok("insert", insert(&format!("w,city=a,zone=z temp=2.5 {}", T0 + 1))).await;
    let mut excluding = site.subscribe("g", json!({ "msg_consume_excluded": "1" })).await;
    let mut plain = site.subscribe("p", json!({})).await;
    let mut only = site.subscribe("m", json!({ "topics": ["m"] })).await;
    let (create, alter, made) = (kind::CREATE_STABLE, kind::ALTER_STABLE, 4);
    assert_eq!(raw_types(&mut excluding).await, [create, made], "FACTS F48b: the creation is delivered");
    assert_eq!(raw_types(&mut plain).await, [create, made, alter, made]);
    assert_eq!(raw_types(&mut only).await, [create, made, alter, made]);
    let ttl = texts(&mut sql, "select distinct `ttl` from information_schema.ins_tables where db_name = 'd'").await;
    assert_eq!(ttl, [vec![Some("7".to_owned())]]);
    sql.sql("alter stable w add column more int").await;
    assert_eq!(raw_types(&mut site.subscribe("h", json!({ "msg_consume_excluded": "1" })).await).await, [create, made, alter]);
}

/// FACTS F6, F63; PROTOCOL 10.1, 10.2.
#[tokio::test]
async fn raw_changes_are_marked_and_what_a_user_does_to_them_later_is_not() {
    let source = Site::start().await;
    let (mut sql, mut consumer) = source.consumer(json!({})).await;
    sql.sql("create table c using st tags (1)").await;
    sql.sql("alter table c set tag g = 2").await;
    sql.sql(&format!("insert into c values ({T0}, 1, 'a')")).await;
    sql.sql("delete from c").await;
    sql.sql("drop table c").await;
    let mut entries = Vec::new();
    loop {
        let polled = consumer.ok("poll", poll(0, entries.len() as u64)).await;
        if polled["have_message"] == false {
            break;
        }
        entries.push(consumer.raw(&polled["message_id"]).await);
    }
    let types: Vec<u16> = entries.iter().map(|(raw_type, _)| *raw_type).collect();
    let dropped_rows_are_never_delivered = [531, 515, 517, 579, 519];
    assert_eq!(types, dropped_rows_are_never_delivered, "FACTS F11");
    for (strict, expect) in [(false, vec![519, 533]), (true, vec![533])] {
        let target = Site::with(|config| config.mode = if strict { tdengine_node::Mode::Strict } else { tdengine_node::Mode::Faithful }).await;
        let mut sql = target.database(&["create topic t with meta as database d"]).await;
        for (raw_type, body) in &entries {
            assert_eq!(sql.write_raw(*raw_type, body).await, (0, String::new()), "{raw_type}");
        }
        sql.sql("alter stable st add column more int").await;
        let mut excluding = target.subscribe("g", json!({ "msg_consume_excluded": "1" })).await;
        assert_eq!(raw_types(&mut excluding).await, expect, "drops carry no mark but in strict mode (FACTS F7)");
        let mut plain = target.subscribe("p", json!({})).await;
        assert_eq!(raw_types(&mut plain).await, [531, 515, 517, 579, 519, 533]);
    }
}

/// PROTOCOL 6.6: `min.poll.rows` ends a run of rows, and so does a change.
#[tokio::test]
async fn a_run_of_rows_ends_when_it_is_long_enough_and_before_a_change() {
    let site = Site::start().await;
    let (mut sql, mut consumer) = site.consumer(json!({ "config": { "min.poll.rows": "3" } })).await;
    sql.sql("create table n (ts timestamp, v int)").await;
    for row in 0..4 {
        sql.sql(&format!("insert into n values ({}, 1)", T0 + row)).await;
    }
    sql.sql("alter table n add column w int").await;
    sql.sql(&format!("insert into n values ({}, 1, 1)", T0 + 9)).await;
    let mut found = Vec::new();
    for message in 0..6u64 {
        let polled = consumer.ok("poll", poll(0, message)).await;
        found.push(match polled["message_type"].as_i64().unwrap() {
            1 => consumer.blocks(&polled["message_id"]).await.iter().map(|(_, rows)| rows).sum::<i64>(),
            _ => 0,
        });
    }
    assert_eq!(found, [0, 0, 3, 1, 0, 1]);
    assert_eq!(consumer.ok("poll", poll(0, 6)).await["have_message"], false);
}

/// FACTS F67: ids are not used again.
#[tokio::test]
async fn a_column_made_again_under_its_name_has_another_id() {
    let site = Site::start().await;
    let mut sql = site.database(&["create topic t as database d", "create stable st (ts timestamp, a int, b int) tags (g int)"]).await;
    sql.sql(&format!("insert into c using st tags (1) values ({T0}, 1, 1)")).await;
    sql.sql("alter stable st drop column b").await;
    sql.sql("alter stable st add column b int").await;
    sql.sql(&format!("insert into c values ({}, 1, 1)", T0 + 1)).await;
    let mut consumer = site.subscribe("g", json!({})).await;
    let polled = consumer.ok("poll", poll(0, 0)).await;
    let (_, body) = consumer.raw(&polled["message_id"]).await;
    let ids: Vec<Vec<i16>> = DataView::parse(&body)
        .unwrap()
        .blocks()
        .map(|entry| entry.unwrap().fields.unwrap().to_vec().unwrap().iter().map(|field| field.id).collect())
        .collect();
    assert_eq!(ids, [[1, 2, 3], [1, 2, 5]]);
}
