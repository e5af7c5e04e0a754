//! Every code of PROTOCOL 15 with its text: where it is due, and as a fault.

use serde_json::json;
use tdengine_wire::tmq::{DataBuilder, Offset};

use crate::client::{Client, code_of};
use crate::site::{Site, poll, subscription};

/// Code, text, and whether the node comes to it by itself. The text of the first group is a server's own; statements say more of some.
const CODES: [(u64, &str, bool); 60] = [
    (0x000B, "Unable to establish connection", true),
    (0x0100, "Operation not supported", true),
    (0x0115, "Invalid message", true),
    (0x0118, "Invalid parameters", true),
    (0x012C, "Operation timeout", false),
    (0x0200, "Invalid operation", true),
    (0x0303, "Insufficient privilege for operation", false),
    (0x0351, "Invalid user", true),
    (0x0357, "Authentication failure", true),
    (0x0360, "STable already exists", true),
    (0x0362, "STable not exist", true),
    (0x0369, "Tag already exists", true),
    (0x036A, "Tag does not exist", true),
    (0x036B, "Column already exists", true),
    (0x036C, "Column does not exist", false),
    (0x0381, "Database already exists", true),
    (0x0383, "Invalid database name", true),
    (0x0388, "Database not exist", true),
    (0x03C4, "Field used by topic", true),
    (0x03E0, "Topic already exists", true),
    (0x03E1, "Topic not exist", true),
    (0x03E6, "Consumer not exist", false),
    (0x03EA, "Consumer not ready", false),
    (0x03EB, "Topic subscribed cannot be dropped", true),
    (0x03EC, "Consumer group being used by some consumer", true),
    (0x03ED, "Topic must be dropped first", true),
    (0x0503, "Vnode is closed or removed", true),
    (0x0603, "Table already exists", true),
    (0x060B, "Timestamp data out of range", true),
    (0x0618, "Table not exists", false),
    (0x090C, "Sync leader is unreachable", false),
    (0x0A0D, "TQ no committed offset", true),
    (0x1005, "WAL log not exist", false),
    (0x2600, "syntax error near", true),
    (0x2602, "Invalid column name", true),
    (0x2603, "Table does not exist", true),
    (0x260D, "Tags number not matched", true),
    (0x2616, "Database not specified", true),
    (0x2617, "Invalid identifier name", true),
    (0x2642, "Invalid varbinary/binary/nchar column/tag length", true),
    (0x2643, "Invalid number of tag columns", true),
    (0x2644, "Permission denied or target object not exist", false),
    (0x2653, "Value too long for column/tag", true),
    (0x2662, "Fail to get table info", true),
    (0x3000, "Invalid line protocol type", true),
    (0x3001, "Invalid timestamp precision type", false),
    (0x3002, "Invalid data format", true),
    (0x4000, "Invalid message", false),
    (0x4001, "Consumer mismatch", true),
    (0x4002, "Consumer closed", false),
    (0x4003, "Consumer error, to see log", false),
    (0x4004, "Topic num out of range", true),
    (0x4005, "Group num out of range 100", false),
    (0x4006, "Can not operate in snapshot mode", false),
    (0x4007, "Offset out of range", true),
    (0x4008, "VgId does not belong to this consumer", true),
    (0x4009, "Topic does not belong to this consumer", true),
    (0x4010, "Assignment or poll interface need to be called first", true),
    (0x4011, "No committed info", false),
    (0x4012, "Same committed value", false),
];

#[tokio::test]
async fn every_code_is_answered_with_its_text_when_a_fault_asks_for_it() {
    let site = Site::start().await;
    let mut sql = site.connect().await;
    let mut consumer = Client::open(&site.node, "/rest/tmq").await;
    for (code, text, _) in CODES {
        site.fault(json!({ "fault": "answer-code", "code": code, "times": 2 })).await;
        assert_eq!(sql.code("select 1").await, (code, text.to_owned()));
        assert_eq!(code_of(&consumer.ask("poll", poll(0, 0)).await), (code, text.to_owned()));
        assert_eq!(sql.code("select 1").await.0, 0);
    }
}

/// What was answered, to be compared with the list.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    fn check(&mut self, what: &str, found: (u64, String), expect: (u64, &str)) {
        assert_eq!(found, (expect.0, expect.1.to_owned()), "{what}");
        self.0.push(expect.0);
    }
}

#[tokio::test]
async fn every_code_that_a_node_can_come_to_is_answered_where_it_is_due() {
    let mut seen = Seen::default();
    let site = Site::with(|config| config.topics_max = 3).await;
    statements(&site, &mut seen).await;
    connections(&site, &mut seen).await;
    consumers(&site, &mut seen).await;
    let due = CODES.iter().filter(|(.., is_due)| *is_due).map(|(code, ..)| *code);
    let missing: Vec<u64> = due.filter(|code| !seen.0.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:x?}");
}

async fn statements(site: &Site, seen: &mut Seen) {
    let made = [
        "create stable st (ts timestamp, v int, s varchar(4)) tags (g int, h int)",
        "create table c using st tags (1, 2)",
        "create table n (ts timestamp, v int)",
        "create topic used as select ts, v from st",
        "create topic t with meta as database d",
    ];
    let mut sql = site.database(&made).await;
    let many: String = (0..129).map(|tag| format!("t{tag} int,")).collect();
    let many = format!("create stable x (ts timestamp, v int) tags ({})", many.trim_end_matches(','));
    let long = "x".repeat(193);
    let long = (format!("create table {long} (ts timestamp, v int)"), format!("Invalid identifier name: {long} (ts timestamp, v int)"));
    for (statement, code, text) in [
        ("selec 1", 0x2600, "syntax error near \"selec 1\""),
        ("select nosuch from n", 0x2602, "Invalid column name: nosuch"),
        ("insert into nosuch values (now, 1)", 0x2603, "Table does not exist"),
        ("create table c2 using st tags (1)", 0x260D, "Tags number not matched"),
        (long.0.as_str(), 0x2617, long.1.as_str()),
        ("create table x (ts timestamp, a varchar(70000))", 0x2642, "Invalid column length for var length type"),
        (many.as_str(), 0x2643, "Invalid number of tag columns"),
        ("insert into c values (now, 1, 'abcde')", 0x2653, "Value too long for column/tag: s"),
        ("select * from nosuch", 0x2662, "Fail to get table info, error: Table does not exist"),
        ("insert into n values ('1970-01-01 00:00:00', 1)", 0x060B, "Timestamp data out of range"),
        ("select v from n where s match v", 0x2602, "Invalid column name: s"),
        ("select * from c where s match s", 0x0100, "Operation not supported"),
        ("insert into c (v) values (1)", 0x0200, "Primary timestamp column should not be null"),
        ("create table information_schema.x (ts timestamp, v int)", 0x0503, "Vnode is closed or removed"),
        ("create database d", 0x0381, "Database already exists"),
        ("create database information_schema", 0x0383, "Invalid database name"),
        ("use nosuch", 0x0388, "Database not exist"),
        ("create stable st (ts timestamp, v int) tags (g int)", 0x0360, "STable already exists"),
        ("drop stable nosuch", 0x0362, "STable not exist"),
        ("alter stable st add tag g int", 0x0369, "Tag already exists"),
        ("alter stable st rename tag x y", 0x036A, "Tag does not exist"),
        ("alter stable st add column v int", 0x036B, "Column already exists"),
        ("create table n (ts timestamp, v int)", 0x0603, "Table already exists"),
        ("alter stable st drop column v", 0x03C4, "Field used by topic"),
        ("create topic t with meta as database d", 0x03E0, "Topic already exists"),
        ("drop topic nosuch", 0x03E1, "Topic not exist"),
        ("drop database d", 0x03ED, "Topic must be dropped first"),
    ] {
        seen.check(statement, sql.code(statement).await, (code, text));
    }
    sql.sql("create topic third as database d").await;
    let fourth = sql.code("create topic fourth as database d").await;
    seen.check("a topic more", fourth, (0x4004, "Topic num out of range"));
    let vgroup = site.node.store().database("d").unwrap().vgroups[0];
    site.fault(json!({ "fault": "freeze-vgroup", "vgroup": vgroup })).await;
    let frozen = sql.code("insert into n values (now, 1)").await;
    seen.check("frozen", frozen, (0x000B, "Unable to establish connection"));
    site.without_faults().await;
}

async fn connections(site: &Site, seen: &mut Seen) {
    let mut client = Client::open(&site.node, "/ws").await;
    let mut login = async |user: &str, password: &str, db: &str| {
        code_of(&client.ask("conn", json!({ "user": user, "password": password, "db": db })).await)
    };
    seen.check("user", login("nobody", "x", "").await, (0x0351, "Invalid user"));
    seen.check("password", login("root", "x", "").await, (0x0357, "Authentication failure"));
    seen.check("database", login("root", "taosdata", "nosuch").await, (0x0388, "Database not exist"));
    let mut sql = site.connect().await;
    seen.check("no database", sql.code("select * from n").await, (0x2616, "Database not specified"));
    seen.check("no database, raw", sql.write_raw(2, b"x").await, (0x2616, "Database not specified"));
    sql.sql("use d").await;
    seen.check("garbage", sql.write_raw(2, b"garbage").await, (0x0115, "Invalid message"));
    seen.check("garbage", sql.write_raw(515, b"garbage").await, (0x0115, "Invalid message"));
    let empty = DataBuilder::new(&Offset::Log(0), &Offset::Log(1)).finish();
    seen.check("a type that is none", sql.write_raw(77, &empty).await, (0x0118, "Invalid parameters"));
    let mut insert = async |protocol: i32, data: &str| {
        code_of(&sql.ask("insert", json!({ "protocol": protocol, "precision": "ms", "ttl": 0, "data": data })).await)
    };
    seen.check("protocol", insert(9, "m v=1").await, (0x3000, "protocol invalidate"));
    seen.check("data", insert(1, "m v=text 1700000000000").await, (0x3002, "Invalid data format"));
}

async fn consumers(site: &Site, seen: &mut Seen) {
    let mut sql = site.connect().await;
    let mut consumer = Client::open(&site.node, "/rest/tmq").await;
    let unknown = subscription("g", json!({ "topics": ["nosuch"] }));
    seen.check("topic", code_of(&consumer.ask("subscribe", unknown).await), (0x03E1, "Topic not exist"));
    consumer.ok("subscribe", subscription("g", json!({ "max_poll_interval_ms": "3000" }))).await;
    let vgroup = site.node.store().database("d").unwrap().vgroups[0];
    let lane = |topic: &str, vgroup: i32, offset: i64| json!({ "topic": topic, "vgroup_id": vgroup, "offset": offset });
    let early = code_of(&consumer.ask("seek", lane("t", vgroup, 0)).await);
    seen.check("early", early, (0x4010, "Assignment or poll interface need to be called first"));
    consumer.ok("poll", poll(0, 0)).await;
    for action in ["seek", "commit_offset"] {
        let found = code_of(&consumer.ask(action, lane("t", vgroup, 1 << 40)).await);
        seen.check(action, found, (0x4007, "Offset out of range"));
        let found = code_of(&consumer.ask(action, lane("t", 9_999, 0)).await);
        seen.check(action, found, (0x4008, "VgId does not belong to this consumer"));
        let found = code_of(&consumer.ask(action, lane("other", vgroup, 0)).await);
        seen.check(action, found, (0x4009, "Topic does not belong to this consumer"));
    }
    let never = consumer.ok("committed", json!({ "topic_vgroup_ids": [{ "topic": "t", "vgroup_id": vgroup }] })).await;
    assert_eq!(never["committed"][0].as_i64().unwrap() as u32, 0x8000_4011, "a value and no error");
    consumer.ok("commit", json!({ "message_id": 1 })).await;
    seen.check("topic", sql.code("drop topic t").await, (0x03EB, "Topic subscribed cannot be dropped"));
    let used = sql.code("drop consumer group g on t").await;
    seen.check("group", used, (0x03EC, "Consumer group being used by some consumer"));
    tokio::time::sleep(std::time::Duration::from_millis(3_500)).await;
    let late = code_of(&consumer.ask("poll", poll(0, 1)).await);
    seen.check("a silent member", late, (0x4001, "Consumer mismatch"));
    let mut none = site.subscribe("none", json!({ "offset_rest": "none" })).await;
    let nothing = code_of(&none.ask("poll", poll(0, 0)).await);
    seen.check("reset none", nothing, (0x0A0D, "TQ no committed offset"));
}
