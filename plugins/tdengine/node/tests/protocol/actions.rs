//! Newer actions, redelivery, exclusion, groups, batches of metas, stmt2, schemaless lines, and data that outlives its node.

use serde_json::{Value as Json, json};
use tdengine_node::{Config, Node};
use tdengine_wire::block::BlockBuilder;
use tdengine_wire::envelope::BinaryRequest;
use tdengine_wire::stmt2::{BindColumn, BindRows};
use tdengine_wire::{ColumnType, DataType};

use crate::client::{Client, request};
use crate::site::{Site, poll, subscription};

#[tokio::test]
async fn newer_actions_are_known() {
    let site = Site::start().await;
    let mut client = Client::open(&site.node, "/ws").await;
    assert_eq!(client.ok("check_server_status", json!({ "fqdn": null, "port": 0 })).await["status"], 2);
    let conn = client.ok("conn", json!({ "user": "root", "password": "taosdata", "db": "" })).await;
    assert_eq!(conn["version"], "3.3.6.13");
    client.ok("options_connection", json!({ "options": [{ "option": 1, "value": "Asia/Shanghai" }] })).await;
    assert_eq!(client.ok("get_connection_info", json!({ "info": 1 })).await["info"], "root");
    let reply = client.ask("nonsense", json!({})).await;
    assert_eq!((reply["code"].clone(), reply["message"].clone()), (json!(65535), json!("unknown action nonsense")));
    let reply = client.ask("options_connection", json!({ "options": [{ "option": 1, "value": "No/Where" }] })).await;
    assert_eq!(reply["code"], 65535);
}

#[tokio::test]
async fn a_lost_poll_reply_comes_again_to_who_asks_with_an_old_id() {
    let site = Site::start().await;
    let (_sql, mut consumer) = site.consumer(json!({})).await;
    site.fault(json!({ "fault": "lose-poll-reply" })).await;
    consumer.send("poll", poll(0, 0)).await;
    assert!(consumer.silent().await);
    let again = consumer.ok("poll", poll(0, 0)).await;
    assert_eq!((again["message_id"].clone(), again["message_type"].clone()), (json!(1), json!(2)));
    assert_eq!(consumer.ok("poll", poll(0, 1)).await["have_message"], false);
}

#[tokio::test]
async fn an_excluding_consumer_steps_over_what_is_marked() {
    let site = Site::start().await;
    let (mut sql, mut consumer) = site.consumer(json!({ "msg_consume_excluded": "1" })).await;
    sql.sql("create table n (ts timestamp, v int)").await;
    let metas: Vec<Json> = consumer.drain().await;
    assert_eq!(metas.len(), 2);
    sql.write_block("n", &[(1_700_000_000_000, 1)]).await;
    sql.sql("insert into n values (1700000001000, 2)").await;
    let rows = consumer.drain().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let last = &rows[0];
    let fetched = consumer.last_rows.clone();
    assert_eq!(fetched, [("n".to_owned(), 1)], "only the unmarked row of {last}");
    let position = consumer.position("t").await;
    let (_, end) = consumer.range("t").await;
    assert_eq!(position, end, "the marked row advanced the offset");
}

#[tokio::test]
async fn metas_come_in_batches_when_asked() {
    let site = Site::start().await;
    let (mut sql, mut consumer) = site.consumer(json!({ "enable_batch_meta": "1" })).await;
    sql.sql("create table c1 using st tags (1)").await;
    sql.sql("alter table c1 set tag g = 2").await;
    let message = consumer.ok("poll", poll(0, 0)).await;
    let meta = consumer.ok("fetch_json_meta", json!({ "message_id": message["message_id"] })).await;
    let metas = meta["data"]["metas"].as_array().unwrap();
    let kinds: Vec<&str> = metas.iter().map(|meta| meta["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["create", "create", "alter"]);
    assert_eq!(meta["data"]["tmq_meta_version"], "1.0");
}

#[tokio::test]
async fn only_meta_topics_leave_rows_out_and_plain_ones_changes() {
    let site = Site::start().await;
    let mut sql = site.connect().await;
    for statement in [
        "create database d vgroups 1",
        "use d",
        "create topic m only meta as database d",
        "create topic r as database d",
        "create table n (ts timestamp, v int)",
        "insert into n values (1700000000000, 1)",
    ] {
        sql.sql(statement).await;
    }
    for (topic, kind) in [("m", 2), ("r", 1)] {
        let mut consumer = Client::open(&site.node, "/rest/tmq").await;
        consumer.ok("subscribe", subscription(topic, json!({ "topics": [topic] }))).await;
        let messages = consumer.drain().await;
        assert_eq!(messages.iter().map(|message| message["message_type"].as_i64().unwrap()).collect::<Vec<_>>(), [kind]);
    }
}

#[tokio::test]
async fn lanes_are_shared_and_move_when_a_socket_is_lost() {
    let site = Site::start().await;
    let mut sql = site.connect().await;
    for statement in ["create database d vgroups 4", "create topic t with meta as database d"] {
        sql.sql(statement).await;
    }
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let mut consumer = Client::open(&site.node, "/rest/tmq").await;
        consumer.ok("subscribe", subscription("g", json!({}))).await;
        consumers.push(consumer);
    }
    assert_eq!(consumers[0].lanes("t").await.len(), 4, "what another one was given is learnt by polling");
    for consumer in &mut consumers {
        consumer.drain().await;
        assert_eq!(consumer.lanes("t").await.len(), 2);
    }
    let code = sql.ask("query", json!({ "sql": "drop topic t" })).await["code"].clone();
    assert_eq!(code, 0x03eb);
    drop(consumers.pop());
    let survivor = &mut consumers[0];
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        survivor.drain().await;
        if survivor.lanes("t").await.len() == 4 {
            return;
        }
    }
    panic!("the lanes of the lost consumer did not move");
}

/// A process that is killed while it subscribes leaves no member behind that nobody takes out.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_lost_while_it_subscribes_keeps_no_lane() {
    let site = Site::start().await;
    let mut sql = site.connect().await;
    for statement in ["create database d vgroups 2", "create topic t with meta as database d"] {
        sql.sql(statement).await;
    }
    for _ in 0..20 {
        let mut lost = Client::open(&site.node, "/rest/tmq").await;
        lost.send("subscribe", subscription("g", json!({}))).await;
    }
    let mut consumer = site.subscribe("g", json!({})).await;
    for _ in 0..100 {
        consumer.drain().await;
        if consumer.lanes("t").await.len() == 2 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a consumer that never was keeps its lanes");
}

#[tokio::test]
async fn a_statement_of_version_2_makes_its_children() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    for statement in ["create database d", "use d", "create stable st (ts timestamp, v int) tags (g int)"] {
        client.sql(statement).await;
    }
    let id = client.ok("stmt2_init", json!({ "single_stb_insert": true, "single_table_bind_once": false })).await["stmt_id"].clone();
    let text = "insert into ? using st tags (?) values (?, ?)";
    let prepared = client.ok("stmt2_prepare", json!({ "stmt_id": id, "sql": text, "get_fields": true })).await;
    let kinds: Vec<i64> =
        prepared["fields"].as_array().unwrap().iter().map(|field| field["bind_type"].as_i64().unwrap()).collect();
    assert_eq!((kinds, prepared["fields_count"].clone()), (vec![4, 2, 1, 1], json!(4)));
    let rows = [1_700_000_000_000i64, 1_700_000_000_001];
    client.bind2(id.as_u64().unwrap(), "c1", 7, &rows, &[Some(1), None]).await;
    assert_eq!(client.ok("stmt2_exec", json!({ "stmt_id": id })).await["affected"], 2);
    assert_eq!(client.ok("stmt2_close", json!({ "stmt_id": id })).await["stmt_id"], id);
    assert_eq!(client.rows("select tbname, g, v from st").await, 2);
    let query = client.ok("stmt2_init", json!({})).await["stmt_id"].clone();
    let prepared =
        client.ok("stmt2_prepare", json!({ "stmt_id": query, "sql": "select * from c1 where v = ?", "get_fields": true })).await;
    assert_eq!((prepared["fields"].clone(), prepared["fields_count"].clone()), (Json::Null, json!(1)));
}

/// Binary request 11: rows with the table's name and the tags in each.
#[tokio::test]
async fn bind_and_execute_at_once() {
    let site = Site::start().await;
    let mut client = site.database(&["create stable st (ts timestamp, v int) tags (g int)"]).await;
    let id = client.ok("stmt2_init", json!({})).await["stmt_id"].as_u64().unwrap();
    let sql = "insert into st (tbname, g, ts, v) values (?, ?, ?, ?)";
    client.ok("stmt2_prepare", json!({ "stmt_id": id, "sql": sql, "get_fields": false })).await;
    let int = |value: i32| Some(value.to_le_bytes());
    let ints = |values: [Option<[u8; 4]>; 3]| BindColumn::new(DataType::Int, values.iter().map(|it| it.as_ref().map(|it| &it[..]))).unwrap();
    let times = [1i64, 2, 3].map(|time| (1_700_000_000_000 + time).to_le_bytes());
    let names = [&b"a"[..], b"a", b"b"].map(Some);
    let fields = vec![
        BindColumn::new(DataType::Varchar, names).unwrap(),
        ints([int(1), int(1), int(2)]),
        BindColumn::new(DataType::Timestamp, times.iter().map(|time| Some(&time[..]))).unwrap(),
        ints([int(7), None, int(9)]),
    ];
    let data = BindRows { fields }.encode(2);
    client.send_binary(BinaryRequest::Stmt2BindExec { data: &data }, id).await;
    let reply = client.json().await;
    let found = (reply["code"].clone(), reply["action"].clone(), reply["stmt_id"].clone(), reply["affected"].clone());
    assert_eq!(found, (json!(0), json!("stmt2_bind_exec"), json!(id), json!(3)), "{reply}");
    assert_eq!(client.rows("select * from a where g = 1").await, 2);
    assert_eq!(client.rows("select * from b where v = 9").await, 1);
}

/// Binary requests 1 and 2 as old clients in Rust send them: no byte behind the block, and no widths of texts.
#[tokio::test]
async fn binary_binds_without_a_trailing_byte_and_widths() {
    let site = Site::start().await;
    let mut client = site.database(&["create stable st (ts timestamp, s varchar(9)) tags (g varchar(9))"]).await;
    let id = client.ok("init", json!({})).await["stmt_id"].as_u64().unwrap();
    let sql = "insert into ? using st tags (?) values (?, ?)";
    assert_eq!(client.ok("prepare", json!({ "stmt_id": id, "sql": sql })).await["is_insert"], true);
    client.ok("set_table_name", json!({ "stmt_id": id, "name": "c" })).await;
    let text = ColumnType { data_type: DataType::Varchar, bytes: 0 };
    let mut tags = BlockBuilder::new([text]);
    tags.column(0).push_str("tag").unwrap();
    client.binary(BinaryRequest::StmtSetTags { block: &tags.encode_bind().unwrap() }, id).await;
    let mut columns = BlockBuilder::new([ColumnType::of(DataType::Timestamp), text]);
    for (row, value) in [Some("text"), None].into_iter().enumerate() {
        columns.column(0).push_i64(1_700_000_000_000 + row as i64).unwrap();
        match value {
            Some(value) => columns.column(1).push_str(value).unwrap(),
            None => columns.column(1).push_null(),
        }
    }
    client.binary(BinaryRequest::StmtBind { block: &columns.encode_bind().unwrap() }, id).await;
    client.ok("add_batch", json!({ "stmt_id": id })).await;
    assert_eq!(client.ok("exec", json!({ "stmt_id": id })).await["affected"], 2);
    assert_eq!(client.rows("select * from c where g = 'tag' and s = 'text'").await, 1);
}

#[tokio::test]
async fn schemaless_lines_grow_the_super_table() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    client.sql("create database d").await;
    client.sql("use d").await;
    let insert = |data: &str| json!({ "protocol": 1, "precision": "ms", "ttl": 0, "data": data });
    let reply = client.ok("insert", insert("m,host=a v=1 1700000000000\nm,host=b v=2,w=3i 1700000000000")).await;
    assert_eq!((reply["affected_rows"].clone(), reply["total_rows"].clone()), (json!(2), json!(2)));
    client.ok("insert", insert("m,host=longer,zone=z v=1 1700000001000")).await;
    assert_eq!(client.rows("select * from m").await, 3);
    assert_eq!(client.rows("describe m").await, 5);
    let reply = client.ask("insert", insert("m,host=a v=\"text\" 1700000000000")).await;
    assert_eq!(reply["code"], 0x3002);
}

#[tokio::test]
async fn faults_drop_refuse_and_kill() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    site.fault(json!({ "fault": "answer-code", "code": 0x090c, "action": "query" })).await;
    let reply = client.ask("query", json!({ "sql": "select 1" })).await;
    assert_eq!(reply["code"], 0x090c);
    assert_eq!(client.rows("select 1").await, 1);
    site.fault(json!({ "fault": "drop-connection", "action": "query" })).await;
    client.send("query", json!({ "sql": "create database kept" })).await;
    assert!(client.lost().await);
    let mut client = site.connect().await;
    client.sql("use kept").await;
    site.fault(json!({ "fault": "kill-before-reply", "action": "query" })).await;
    client.send("query", json!({ "sql": "create table kept.t (ts timestamp, v int)" })).await;
    assert!(client.lost().await);
    assert!(site.node.killed().await.to_string().contains("injected"));
    let mut config = Config::local(site.data.path());
    site.node.stop().await;
    config.listen = "127.0.0.1:0".into();
    let node = Node::start(config).await.unwrap();
    let mut client = Client::open(&node, "/ws").await;
    client.ok("conn", json!({ "user": "root", "password": "taosdata", "db": "kept" })).await;
    assert_eq!(client.rows("describe t").await, 2, "what was appended before the kill is there");
}

#[tokio::test]
async fn rest_and_ping() {
    let site = Site::start().await;
    let addr = site.node.addr();
    assert_eq!(request(addr, "GET", "/-/ping", "", "").await.0, 200);
    let root = "Authorization: Basic cm9vdDp0YW9zZGF0YQ==\r\n";
    let reply = request(addr, "POST", "/rest/sql", root, "select server_version()").await;
    let reply: Json = serde_json::from_str(&reply.1).unwrap();
    assert_eq!((reply["code"].clone(), reply["data"][0][0].clone()), (json!(0), json!("3.3.6.13")));
    let login = request(addr, "GET", "/rest/login/root/taosdata", "", "").await.1;
    let token = serde_json::from_str::<Json>(&login).unwrap()["desc"].as_str().unwrap().to_owned();
    let header = format!("Authorization: Taosd {token}\r\n");
    assert_eq!(request(addr, "POST", "/rest/sql", &header, "select 1").await.0, 200);
    assert_eq!(request(addr, "POST", "/rest/sql", "Authorization: Taosd other\r\n", "select 1").await.0, 401);
}

#[tokio::test]
async fn two_nodes_do_not_share_a_folder_or_a_port() {
    let site = Site::start().await;
    let config = Config::local(site.data.path());
    assert!(Node::start(config).await.unwrap_err().to_string().contains("data"));
    let other = tempfile::tempdir().unwrap();
    let config = Config { listen: site.node.addr().to_string(), ..Config::local(other.path()) };
    assert!(Node::start(config).await.unwrap_err().to_string().contains("listen"));
}
