//! The statements of PROTOCOL 13.1, all of them, and what clients send that cannot be run here (PROTOCOL 14).

use serde_json::{Value as Json, json};
use tdengine_wire::DataType;
use tdengine_wire::block::BlockView;
use tdengine_wire::envelope::BinaryRequest;

use crate::client::Client;
use crate::site::{Site, poll, subscription};

/// In order: later ones need earlier ones.
const STATEMENTS: &str = "
create database if not exists d vgroups 2 precision 'ms' buffer 256 keep 3650 duration 10 replica 1 wal_retention_period 3600
use d
alter database d keep 3650
create stable if not exists s (ts timestamp, v int, w varchar(8)) tags (g int, h nchar(4)) comment 'x'
create table k (ts timestamp, k int primary key, v int) comment 'x' ttl 10
create table if not exists a using s tags (1, 'a') b using s (g) tags (2)
alter stable s add column x double
alter stable s modify column w varchar(16)
alter stable s drop column x
alter stable s add tag i int
alter stable s rename tag i j
alter stable s modify tag h nchar(8)
alter stable s drop tag j
alter table a set tag g = 7
alter table k add column u int
alter table k rename column u z
insert into a values (now, 1, 'it''s') (now+1s, -1, \"a\\\"b\") b (ts, v) values ('2026-01-01 00:00:00.000', NULL) c using s tags (3, null) values (1780000000000, 2, null)
insert into d.k (ts, k, v) values (now - 1d, 1, 1) (today, 2, 2)
insert into s (tbname, ts, v, g) values ('e', '2026-01-01T00:00:00+08:00', 4, 5)
select * from s
select tbname, g, h, v as `V` from d.s where ts > 0 and g in (1, 2, 3, 7) and v between -5 and 5 or w like 'a%' and not w is null order by ts desc limit 2 offset 1
select count(*), count(v), first(v), last(v), last_row(v), min(v), max(v), sum(v), avg(v) from s
select g, count(*) from s group by g
select tbname, count(*) from s partition by tbname
select _wstart, count(*) from s where ts > 0 and ts < now interval(1d)
select distinct g from s
create topic if not exists t1 with meta as database d
create topic t2 only meta as database d
create topic t3 as stable s where g > 1
create topic t4 as select ts, v from s where v > 0
show topics
show databases
show user databases
show tables
show stables
show d.tables
show d.stables
show vgroups
show d.vgroups
show consumers
show subscriptions
show dnodes
show variables
show create table a
show create stable s
show create database d
describe s
desc a
show table tags from s
show tags from a
select * from information_schema.ins_databases
select * from information_schema.ins_tables where db_name = 'd'
select * from information_schema.ins_stables where db_name = 'd'
select * from information_schema.ins_columns where db_name = 'd'
select * from information_schema.ins_tags where db_name = 'd'
select * from information_schema.ins_topics
select * from information_schema.ins_vgroups
select * from information_schema.ins_cluster
select * from information_schema.ins_dnodes
select * from information_schema.ins_subscriptions
select * from information_schema.ins_views
select * from information_schema.ins_users
select * from performance_schema.perf_consumers
drop consumer group if exists g on t1
delete from a where ts > 1790000000000
delete from s where ts < 0 and g = 1
flush database d
trim database d
kill connection 1
drop topic if exists t4
drop topic t3
drop topic t2
drop topic t1
drop table if exists nosuch, a
drop table b
drop stable if exists s
select 1; select 2
drop database if exists d
drop database if exists d;
";

#[tokio::test]
async fn every_statement_of_the_list_is_known() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    for statement in STATEMENTS.lines().filter(|line| !line.is_empty()) {
        let reply = client.ask("query", json!({ "sql": statement })).await;
        assert_eq!(reply["code"], 0, "{statement}: {reply}");
        if reply["is_update"] == false {
            client.send("free_result", json!({ "id": reply["id"] })).await;
        }
    }
}

/// The first row of a query: names, types, and texts.
async fn first_row(client: &mut Client, sql: &str) -> (Vec<String>, Vec<u8>, Vec<Option<String>>) {
    client.send_binary(BinaryRequest::Query { sql }, 0).await;
    let reply = client.json().await;
    assert_eq!((reply["code"].clone(), reply["action"].clone()), (json!(0), json!("binary_query")), "{sql}: {reply}");
    let list = |key: &str| reply[key].as_array().unwrap().clone();
    let names = list("fields_names").iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let types = list("fields_types").iter().map(|code| code.as_u64().unwrap() as u8).collect();
    let id = reply["id"].as_u64().unwrap();
    let mut row = Vec::new();
    while let Some(block) = client.next_block(id).await {
        let view = BlockView::parse(&block).unwrap();
        let value = |column: &tdengine_wire::block::ColumnView<'_>| {
            let value = column.value(0);
            value.as_i64().map(|number| number.to_string()).or_else(|| value.text())
        };
        row = view.columns().iter().map(value).collect();
    }
    (names, types, row)
}

/// What any client asks first.
#[tokio::test]
async fn questions_of_clients_that_connect() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    let text = |text: &str| Some(text.to_owned());
    for (sql, name, data_type, value) in [
        ("select server_version()", "server_version()", DataType::Varchar, text("3.3.6.13")),
        ("select server_version()  as version", "version", DataType::Varchar, text("3.3.6.13")),
        ("select client_version()", "client_version()", DataType::Varchar, text("3.3.6.13")),
        ("select server_status()", "server_status()", DataType::Int, text("1")),
        ("select database()", "database()", DataType::Varchar, None),
        ("select 1", "1", DataType::BigInt, text("1")),
        ("show cluster alive", "status", DataType::Int, text("1")),
    ] {
        let found = first_row(&mut client, sql).await;
        assert_eq!(found, (vec![name.to_owned()], vec![data_type.code()], vec![value]), "{sql}");
    }
    let user = first_row(&mut client, "select current_user()").await.2;
    assert!(user[0].as_deref().unwrap().starts_with("root"), "{user:?}");
    assert_eq!(first_row(&mut client, "select now").await.1, [DataType::Timestamp.code()]);
    assert_eq!(first_row(&mut client, "show grants").await.2[0], text("community"));
    let edition = first_row(&mut client, "select version, (expire_time < now) from information_schema.ins_cluster").await;
    assert_eq!(edition.2[0], text("community"));
    client.sql("use information_schema").await;
    assert_eq!(first_row(&mut client, "select database()").await.2, [text("information_schema")]);
    // FACTS F54.
    let clusters = [first_row(&mut client, "select id from information_schema.ins_cluster").await, first_row(&mut client, "show cluster").await];
    assert_eq!((clusters[0].2[0].clone(), clusters[0].1[0]), (clusters[1].2[0].clone(), DataType::BigInt.code()));
    assert_eq!(client.code("select cluster_id()").await, (0x0374, "Func not exists".into()));
}

/// `@tdengine/websocket` 3.5 cannot be had here: what its source sends (PROTOCOL 14), frame by frame.
#[tokio::test]
async fn what_the_node_client_sends() {
    let site = Site::start().await;
    let mut client = Client::open(&site.node, "/ws").await;
    client.ok("conn", json!({ "user": "root", "password": "taosdata", "db": "" })).await;
    let version = client.ok("version", json!({})).await["version"].as_str().unwrap().to_owned();
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts.as_slice() >= [3, 3, 2, 0].as_slice(), "it refuses older ones");
    client.ok("query", json!({ "sql": "create database d vgroups 1" })).await;
    client.ok("query", json!({ "sql": "use d" })).await;
    let options = json!([{ "option": 3, "value": "app" }, { "option": 2, "value": null }, { "option": 1, "value": "Asia/Shanghai" }]);
    client.ok("options_connection", json!({ "options": options })).await;
    client.ok("query", json!({ "sql": "create stable s (ts timestamp, v int) tags (g int)" })).await;
    let id = client.ok("stmt2_init", json!({ "single_stb_insert": true, "single_table_bind_once": true })).await["stmt_id"].clone();
    let text = "insert into ? using s tags (?) values (?, ?)";
    client.ok("stmt2_prepare", json!({ "stmt_id": id, "sql": text, "get_fields": true })).await;
    client.bind2(id.as_u64().unwrap(), "c", 1, &[1_780_000_000_000], &[Some(5)]).await;
    assert_eq!(client.ok("stmt2_exec", json!({ "stmt_id": id })).await["affected"], 1);
    client.ok("stmt2_close", json!({ "stmt_id": id })).await;
    let line = json!({ "protocol": 1, "precision": "ms", "ttl": 0, "data": "m,a=b v=1 1780000000000", "table_name_key": null });
    client.ok("insert", line).await;
    assert_eq!(first_row(&mut client, "select v from s").await.2, [Some("5".to_owned())]);
    client.ok("query", json!({ "sql": "create topic t as database d" })).await;
    let mut consumer = Client::open(&site.node, "/rest/tmq").await;
    let config = json!({ "min.poll.rows": "100", "msg.enable.batchmeta": "0" });
    let more = json!({ "session_timeout_ms": "12000", "max_poll_interval_ms": "300000", "tz": "Asia/Shanghai", "config": config });
    consumer.ok("subscribe", subscription("g", more)).await;
    let polled = consumer.ok("poll", poll(0, 0)).await;
    assert_eq!(polled["message_type"], 1);
    let rows = consumer.blocks(&polled["message_id"]).await;
    assert_eq!(rows.iter().map(|(_, rows)| rows).sum::<i64>(), 2);
    consumer.ok("commit", json!({ "message_id": polled["message_id"] })).await;
    consumer.ok("unsubscribe", json!({})).await;
}

/// The published crate `taos-ws` 0.12.3 (PROTOCOL 14): `version`, `conn` under id 0, statements in binary and in JSON, its polls without
/// an id, and its two ways to read a message.
#[tokio::test]
async fn what_the_published_crate_sends() {
    let site = Site::start().await;
    let mut client = Client::open(&site.node, "/ws").await;
    client.send_text(r#"{"action":"version"}"#).await;
    assert_eq!(client.json().await["version"], "3.3.6.13");
    client.send_text(r#"{"action":"conn","args":{"req_id":0,"user":"root","password":"taosdata","db":""}}"#).await;
    assert_eq!(client.json().await["req_id"], 0);
    for sql in ["create database d vgroups 1", "use d", "create table n (ts timestamp, v int)", "create topic t as database d"] {
        client.sql(sql).await;
    }
    assert_eq!(client.sql("insert into n values (1780000000000, 1)").await["affected_rows"], 1);
    assert_eq!(first_row(&mut client, "select v from n").await.2, [Some("1".to_owned())]);
    let mut consumer = Client::open(&site.node, "/rest/tmq").await;
    let mut args = subscription("g", json!({ "offset_seek": null, "snapshot_enable": "false" }));
    args.as_object_mut().unwrap().remove("client_id");
    consumer.ok("subscribe", args).await;
    let polled = consumer.ok("poll", json!({ "blocking_time": 0 })).await;
    let id = &polled["message_id"];
    let request = |action: &str| format!(r#"{{"action":"{action}","args":{{"req_id":77,"message_id":{id}}}}}"#);
    consumer.send_text(&request("fetch")).await;
    assert_eq!((&consumer.json().await["table_name"], &polled["topic"]), (&json!("n"), &json!("t")));
    consumer.send_text(&request("fetch_block")).await;
    let bytes = consumer.bytes().await;
    let reply = tdengine_wire::envelope::BlockReply::decode_tmq(&bytes).unwrap();
    assert_eq!((reply.req_id, reply.id), (Some(77), id.as_u64().unwrap()));
    assert_eq!(BlockView::parse(reply.block).unwrap().rows(), 1);
    let raw = consumer.raw(id).await;
    assert_eq!(raw.0, 2);
    assert_eq!(client.write_raw(raw.0, &raw.1).await, (0, String::new()));
    consumer.ok("commit", json!({ "message_id": id })).await;
    let vgroup = polled["vgroup_id"].clone();
    consumer.ok("seek", json!({ "topic": "t", "vgroup_id": vgroup, "offset": 0 })).await;
    consumer.ok("unsubscribe", json!({})).await;
}

/// FACTS F52.
#[tokio::test]
async fn names_in_quotes_keep_their_case_and_may_be_odd() {
    let site = Site::start().await;
    let mut client = site.database(&["create stable s (ts timestamp, v int) tags (g int)"]).await;
    for name in ["Aa", "sp ace", "quo\"te", "se;mi", "back\\slash", "new\nline", "ta\tb", "🦀", "涛思"] {
        client.sql(&format!("create table `{name}` using s tags (1)")).await;
        client.sql(&format!("insert into `{name}` values (1780000000000, 1)")).await;
        assert_eq!(client.rows(&format!("select * from `{name}`")).await, 1, "{name:?}");
    }
    client.sql("create table aa using s tags (1)").await;
    assert_eq!(client.rows("select * from AA").await, 0, "unquoted names are folded");
    client.sql("create table q (`tbname` timestamp, `_rowts` int, `a.b` int, `a\"b` int, `Up` int)").await;
    client.sql("insert into q (`tbname`, `a.b`, `Up`) values (1780000000000, 1, 2)").await;
    for (sql, code, text) in [
        ("create table `a.b` using s tags (1)", 0x2617, "The table name cannot contain '.'"),
        ("create table `a.b` (ts timestamp, v int)", 0x2617, "The table name cannot contain '.'"),
        ("create stable `a.b` (ts timestamp, v int) tags (g int)", 0x2617, "The table name cannot contain '.'"),
        ("create database `a.b`", 0x2617, "The database name cannot contain '.'"),
        ("create table r (ts timestamp, tbname int)", 0x2600, "syntax error near \"tbname int)\""),
        ("create table r (ts timestamp, _rowts int)", 0x2600, "syntax error near \"_rowts int)\""),
        ("alter stable s add column _c0 int", 0x2600, "syntax error near \"_c0 int\""),
        ("alter table q rename column `Up` tbname", 0x2600, "syntax error near \"tbname\""),
        ("insert into q (tbname, up) values (1780000000000, 2)", 0x2602, "Invalid column name: up"),
    ] {
        assert_eq!(client.code(sql).await, (code, text.to_owned()), "{sql}");
    }
    let long = |length: usize| "x".repeat(length);
    for (length, create, insert) in [(190, 0, 0), (191, 0, 0), (192, 0, 0x0200), (193, 0x2617, 0)] {
        assert_eq!(client.code(&format!("create table {} using s tags (1)", long(length))).await.0, create, "{length}");
        if create == 0 {
            let found = client.code(&format!("insert into {} values (1780000000000, 1)", long(length))).await;
            assert_eq!((found.0, found.1.as_str()), (insert, if insert == 0 { "" } else { "name too long" }), "{length}");
        }
    }
}

/// FACTS F53: the statement that is shown makes the same database again.
#[tokio::test]
async fn a_database_is_made_again_from_what_is_shown_of_it() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    client.sql("create database d vgroups 3 precision 'us' keep 100,200,300 duration 5 wal_level 2 wal_retention_period 77 table_prefix 2").await;
    let shown = first_row(&mut client, "show create database d").await.2[1].clone().unwrap();
    client.sql("drop database d").await;
    client.sql(&shown).await;
    assert_eq!(first_row(&mut client, "show create database d").await.2[1].as_deref(), Some(shown.as_str()));
    assert_eq!(client.code("create database e stt_trigger 2").await.0, 0x2619);
}

/// FACTS F48a: an adapter as old as 3.3.0.1 knows no binary statements.
#[tokio::test]
async fn an_old_adapter_knows_statements_in_json_alone() {
    let site = Site::with(|config| config.version = "3.3.0.0".into()).await;
    let mut client = site.connect().await;
    for request in [BinaryRequest::Query { sql: "select 1" }, BinaryRequest::FetchBlock] {
        client.send_binary(request, 1).await;
        let reply = client.json().await;
        assert_eq!((reply["code"].clone(), reply["message"].clone(), reply["action"].clone()), (json!(0xffff), json!("unknown action unknown"), json!("unknown")));
    }
    assert_eq!(client.rows("select 1").await, 1);
    assert_eq!(client.sql("create database d").await.get("fields_precisions"), None);
    let newer = Site::start().await;
    let mut client = newer.connect().await;
    assert_eq!(client.sql("create database d").await.get("fields_precisions"), Some(&Json::Null));
    assert_eq!(client.sql("select 1").await["fields_precisions"], json!([0]));
}
