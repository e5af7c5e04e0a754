//! Recorded conversations, replayed: the fields of each reply and the rows of each block.

use tdengine_wire::block::BlockView;

use super::{open, rows_of, shown_row};
use crate::tests::{binary, recording, run};
use crate::{Session, Store};

/// What a reply said and its blocks brought.
struct Recorded {
    sql: String,
    code: u64,
    fields: Vec<(String, u64, i64)>,
    precision: u64,
    rows: Vec<String>,
}

/// The queries of a recording with their answers, in order.
fn conversation(name: &str) -> Vec<Recorded> {
    let mut asked: Vec<(u64, String)> = Vec::new();
    let mut answered: Vec<Recorded> = Vec::new();
    for frame in recording(name) {
        let to_server = frame["dir"] == "c2s";
        if let (Some(bytes), true) = (binary(&frame), to_server) {
            // Request id, result id, action, version, length, statement (PROTOCOL 3).
            if bytes.len() > 30 && bytes[16] == 6 {
                let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                asked.push((id, String::from_utf8(bytes[30..].to_vec()).unwrap()));
            }
        } else if let Some(bytes) = binary(&frame) {
            if let (Some(block), Some(last)) = (block_of(&bytes), answered.last_mut()) {
                let view = BlockView::parse(block).unwrap();
                last.rows.extend((0..view.rows()).map(|row| shown_row(view.columns(), row)));
            }
        } else if let (false, Some(text)) = (to_server, frame["text"].as_str()) {
            let Ok(reply) = serde_json::from_str::<serde_json::Value>(text) else { continue };
            if reply["action"] != "binary_query" {
                continue;
            }
            let Some((_, sql)) = asked.iter().rfind(|(id, _)| Some(*id) == reply["req_id"].as_u64()) else { continue };
            let list = |name: &str| reply[name].as_array().cloned().unwrap_or_default();
            let (types, lengths) = (list("fields_types"), list("fields_lengths"));
            let field = |(at, name): (usize, &serde_json::Value)| {
                (name.as_str().unwrap().to_owned(), types[at].as_u64().unwrap(), lengths[at].as_i64().unwrap())
            };
            let fields = list("fields_names").iter().enumerate().map(field).collect();
            let code = reply["code"].as_u64().unwrap();
            let precision = reply["precision"].as_u64().unwrap_or(0);
            answered.push(Recorded { sql: sql.clone(), code, fields, precision, rows: Vec::new() });
        }
    }
    answered
}

/// The block in a reply to action 7 (PROTOCOL 3.1); `None` at the end of a result.
fn block_of(reply: &[u8]) -> Option<&[u8]> {
    let message = u32::from_le_bytes(reply.get(38..42)?.try_into().ok()?) as usize;
    let rest = reply.get(42 + message + 8..)?;
    if reply[..8] != [0xff; 8] || rest[0] == 1 {
        return None;
    }
    let length = u32::from_le_bytes(rest.get(1..5)?.try_into().ok()?) as usize;
    rest.get(5..5 + length)
}

/// Replays the queries of a recording; of `fields_only` the rows depend on what else the server held.
fn check(store: &Store, session: &mut Session, name: &str, fields_only: &[&str]) {
    let mut wrong = Vec::new();
    let conversation = conversation(name);
    assert!(!conversation.is_empty(), "{name}");
    for recorded in &conversation {
        if recorded.fields.is_empty() {
            let code = u64::from(crate::tests::code(store, session, &recorded.sql).0);
            if code != recorded.code {
                wrong.push(format!("{}\n  expect {:#06x}\n  got    {code:#06x}", recorded.sql, recorded.code));
            }
            continue;
        }
        let mut result = match rows_of(store, session, &recorded.sql) {
            Ok(result) => result,
            Err(error) => {
                wrong.push(format!("{}\n  got    {error}", recorded.sql));
                continue;
            }
        };
        let field = |field: &crate::ResultField| {
            let of = field.column_type;
            // A real server shows the host that a user comes from, whose name is as long as it is.
            if field.name == "current_user()" {
                return (field.name.clone(), 8, "root@vm".len() as i64);
            }
            (field.name.clone(), u64::from(of.data_type.code()), i64::from(of.query_length()))
        };
        let fields: Vec<_> = result.fields.iter().map(field).collect();
        if (&fields, u64::from(result.precision.code())) != (&recorded.fields, recorded.precision) {
            wrong.push(format!("{}\n  expect {:?}\n  got    {fields:?}", recorded.sql, recorded.fields));
        }
        let mut rows = Vec::new();
        while let Some(block) = result.next_block().unwrap() {
            let view = BlockView::parse(&block).unwrap();
            rows.extend((0..view.rows()).map(|row| shown_row(view.columns(), row)));
        }
        let mut expected = recorded.rows.clone();
        if !recorded.sql.contains("order by") && !recorded.sql.contains("from big") {
            expected.sort();
            rows.sort();
        }
        if !fields_only.iter().any(|part| recorded.sql.contains(part)) && rows != expected {
            wrong.push(format!("{}\n  expect {:#?}\n  got    {rows:#?}", recorded.sql, expected));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {} differ:\n{}", wrong.len(), conversation.len(), wrong.join("\n"));
}

const TYPES: &str = "b bool, i8 tinyint, i16 smallint, i32 int, i64 bigint, u8 tinyint unsigned, u16 smallint unsigned, \
                     u32 int unsigned, u64 bigint unsigned, f float, d double, vc varchar(40), nc nchar(20), \
                     vb varbinary(20), g geometry(64), ts2 timestamp";
const TAGS: &str = "tb bool, t8 tinyint, t16 smallint, t32 int, t64 bigint, tu8 tinyint unsigned, tu16 smallint unsigned, \
                    tu32 int unsigned, tu64 bigint unsigned, tf float, td double, tvc varchar(40), tnc nchar(20), \
                    tvb varbinary(20), tg geometry(64), tts timestamp";

/// The database that the b recordings read, in one of the three precisions.
fn prepare(store: &Store, precision: &str) -> Session {
    let database = format!("rb_{precision}");
    let mut session = Session::new("root");
    store.execute(&mut session, &format!("create database {database} precision '{precision}' vgroups 1")).unwrap();
    let zeros = match precision {
        "ms" => "",
        "us" => "000",
        _ => "000000",
    };
    let first = |more: i64| format!("{}", format!("1700000000000{zeros}").parse::<i64>().unwrap() + more);
    let statements = [
        format!("create stable st(ts timestamp, {TYPES}) tags({TAGS})"),
        format!(
            "create table c1 using st tags(true, -128, -32768, -2147483648, -9223372036854775808, 255, 65535, 4294967295, \
             18446744073709551615, 1.5, -2.5, 'tag \\'q\\' \"dq\" 涛', ' 涛思 ', '\\xDEADBEEF', 'POINT(1 2)', {})",
            first(0)
        ),
        "create table c2 using st tags(null, null, null, null, null, null, null, null, null, null, null, null, null, null, \
         null, null)"
            .to_owned(),
        "create stable sj(ts timestamp, v int) tags(j json)".to_owned(),
        "create table j1 using sj tags('{\"a\":1,\"b\":\"涛\",\"c\":null,\"d\":true,\"e\":1.5}')".to_owned(),
        "create table j2 using sj tags(null)".to_owned(),
        format!("insert into j1 values({}, 1) j2 values({}, 2)", first(0), first(1)),
        "create table big(ts timestamp, v tinyint)".to_owned(),
        format!(
            "insert into c1 values({}, false, -128, -32768, -2147483648, -9223372036854775808, 0, 0, 0, 0, -3.4028234663852886e38, \
             -1.7976931348623157e308, '', '', '', 'POINT(0 0)', 0)({}, true, 127, 32767, 2147483647, 9223372036854775807, 255, \
             65535, 4294967295, 18446744073709551615, 3.4028234663852886e38, 1.7976931348623157e308, \
             '0123456789012345678901234567890123456789', '涛思数据🚀', '\\x00FF10', 'LINESTRING(0 0, 1 1)', {})({}, null, null, \
             null, null, null, null, null, null, null, null, null, null, null, null, null, null)({}, true, 0, 0, 0, 0, 0, 0, 0, \
             0, 0.1, 0.1, 'it\\'s \\\\ \\n \"x\" 😀', 'é ü ß', 'a', 'POINT(-1.5 1000)', -1)",
            first(0),
            first(1),
            first(0),
            first(2),
            first(3)
        ),
        format!("insert into c2(ts, i32, vc) values({}, 1, 'partial')", first(10)),
    ];
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    run(store, &database, &statements)
}

#[test]
fn every_type_in_every_precision() {
    for precision in ["ms", "us", "ns"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut session = prepare(&store, precision);
        check(&store, &mut session, &format!("b1-types-{precision}.jsonl"), &[]);
    }
}

#[test]
fn many_rows_in_several_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = prepare(&store, "ms");
    let rows: String = (0..10_000).map(|row| format!("({}, {})", 1_700_000_000_000i64 + row, row % 100)).collect();
    store.execute(&mut session, &format!("insert into big values{rows}")).unwrap();
    check(&store, &mut session, "b3-multiblock.jsonl", &[]);
}

#[test]
fn what_clients_ask_at_their_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for precision in ["us", "ns"] {
        prepare(&store, precision);
    }
    let mut session = prepare(&store, "ms");
    let fields_only = [
        "now()", "current_user()", "alive", "databases", "vgroups", "dnodes", "show cluster", "select * from information_schema.ins_cluster",
        "topics", "consumers", "subscriptions", "ins_stables", "ins_tables",
    ];
    check(&store, &mut session, "b4-client-queries.jsonl", &fields_only);
}

#[test]
fn what_jdbc_asks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    check(&store, &mut Session::new("root"), "f4-jdbc-query.jsonl", &["ins_databases"]);
}
