//! What leaves an entry in the log and what does not (FACTS F12–F15, F18, F20, F24, F59–F61, F64).

use super::{entries, open, recording, run};
use crate::{EntryKind, Store};

fn kinds(store: &Store, from: usize) -> Vec<String> {
    let shown = |entry: &crate::Entry| match &entry.kind {
        EntryKind::Marker => "marker".to_owned(),
        EntryKind::Meta { raw_type, source, .. } => format!("{raw_type}/{source}"),
        EntryKind::Submit(tables) => {
            let table = |table: &crate::SubmitTable| {
                let create = if table.create.is_some() { "+" } else { "" };
                let columns: Vec<&str> = table.fields.iter().map(|field| field.name.as_str()).collect();
                format!("{create}{}({})", table.table, columns.join(" "))
            };
            tables.iter().map(table).collect::<Vec<_>>().join(" ")
        }
    };
    entries(store, "d")[from..].iter().map(shown).collect()
}

#[test]
fn statements_leave_the_entries_that_a_real_server_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let create = "create stable st(ts timestamp, a int, v varchar(8)) tags(t int)";
    run(&store, "d", &[create, "create table c1 using st tags(1)", "create table nt(ts timestamp, a int)"]);
    let mut seen = 0;
    let mut check = |sql: &str, expect: &[&str]| {
        run(&store, "d", &[sql]);
        let kinds = kinds(&store, seen);
        seen += kinds.len();
        assert_eq!(kinds, expect, "{sql}");
    };
    check("flush database d", &["marker", "531/0", "515/0", "515/0"]);
    check("create stable if not exists st(ts timestamp, b int) tags(u int)", &[]);
    check("drop table if exists nosuch", &[]);
    check("create table if not exists c1 using st tags(7)", &["515/0"]);
    check("create table if not exists nt(ts timestamp, a int)", &["515/0"]);
    check("alter table c1 set tag t=1", &["517/0"]);
    check("alter table c1 comment 'x'", &["517/0"]);
    check("delete from c1 where ts < 1000", &["579/0"]);
    check("delete from st", &["579/0"]);
    check("insert into c1 using st tags(9) values(1700000000000,1,'a')", &["+c1(ts a v)"]);
    check("insert into c1(ts,a) values(1700000000001,null) nt values(1700000000000,1)", &["c1(ts a) nt(ts a)"]);
    check("insert into st(tbname,ts,v,t) values('c2',1700000000000,'x',2)('c1',1700000000002,'y',1)", &["+c2(ts v) +c1(ts v)"]);
    check("alter stable st add column e int /* pipeline:v1:x */", &["533/0"]);
    check("drop table if exists nosuch, c2", &["519/0"]);
    check("drop stable st", &["535/0"]);
    check("alter table nt ttl 3", &["517/0"]);
    assert_eq!(super::rows(&store, "d", "nt"), ["1700000000000,1"]);
}

/// FACTS F15: one that is there already is in the entry, too.
#[test]
fn a_creation_of_several_names_those_that_are_there() {
    use tdengine_wire::meta::{Meta, RawMeta};
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(&store, "d", &[
        "create stable st(ts timestamp, a int) tags(t int)",
        "create table c1 using st tags(1)",
        "create table if not exists c1 using st tags(7) c2 using st tags(2)",
    ]);
    let EntryKind::Meta { raw_type, body, .. } = entries(&store, "d").pop().unwrap().kind else { panic!("a creation") };
    let Meta::CreateTables { tables, .. } = RawMeta::decode(raw_type, &body).unwrap().meta else { panic!("a creation") };
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!((names, super::tags(&store, "d", "c1")), (vec!["c1", "c2"], "1".to_owned()));
}

#[test]
fn alter_text_comments_and_narrowed_deletes_are_in_the_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let token = "/* pipeline:v1:origin */";
    run(&store, "d", &[
        "create stable st(ts timestamp, a int) tags(t int)",
        "create table c1 using st tags(1) c2 using st tags(2)",
        "insert into c1 values(1000000000000,1)(1700000000000,2)(1700000000005,3) c2 values(1700000000003,1)",
    ].map(|sql| if sql.starts_with("insert") { "alter database d keep 36500" } else { sql }));
    run(&store, "d", &[
        "insert into c1 values(1000000000000,1)(1700000000000,2)(1700000000005,3) c2 values(1700000000003,1)",
        &format!("alter stable st add column e int {token}"),
        "alter table c1 comment 'pipeline:v1:token'",
        "delete from st where ts > 1600000000000 and t = 1",
    ]);
    let bodies: Vec<Vec<u8>> = entries(&store, "d")
        .into_iter()
        .filter_map(|entry| if let EntryKind::Meta { body, .. } = entry.kind { Some(body.to_vec()) } else { None })
        .collect();
    let holds = |body: &[u8], text: &[u8]| body.windows(text.len()).any(|window| window == text);
    assert!(holds(&bodies[2], token.as_bytes()));
    assert!(holds(&bodies[3], b"pipeline:v1:token"));
    let delete = bodies.last().unwrap();
    assert_eq!(i32::from_le_bytes(delete[..4].try_into().unwrap()) as usize, delete.len());
    let uid = store.table("d", "c1").unwrap().uid;
    let range = [&[2][..], &uid.to_le_bytes(), &1_700_000_000_000i64.to_le_bytes(), &1_700_000_000_005i64.to_le_bytes(), &[4]];
    assert!(holds(delete, &range.concat()), "{delete:x?}");
    assert_eq!(super::rows(&store, "d", "c1"), ["1000000000000,1,NULL"]);
    assert_eq!(super::rows(&store, "d", "c2"), ["1700000000003,1,NULL"]);
}

/// What the messages of a recording look like: types and lengths of meta bodies.
type Shape = Vec<(u16, usize)>;

/// Meta bodies that a recording's server sent.
fn recorded_shape(name: &str) -> Shape {
    let frames = recording(name).into_iter().filter(|frame| frame["dir"] == "s2c");
    let shape = |bytes: Vec<u8>| {
        let head = bytes.get(32..38)?;
        let (length, raw_type) = (i32::from_le_bytes(head[..4].try_into().unwrap()), u16::from_le_bytes([head[4], head[5]]));
        (raw_type > 500 && raw_type < 600).then_some((raw_type, length as usize))
    };
    frames.filter_map(|frame| shape(super::binary(&frame)?)).collect()
}

/// Meta bodies of a database of the store.
fn shape(store: &Store, database: &str) -> Shape {
    let meta = |entry: crate::Entry| match entry.kind {
        EntryKind::Meta { raw_type, body, .. } => Some((raw_type, body.len())),
        _ => None,
    };
    entries(store, database).into_iter().filter_map(meta).collect()
}

/// The 45 statements of the recording leave bodies of the same types and lengths; bytes differ in ids and times alone.
#[test]
fn recorded_meta_is_reproduced() {
    let dir = tempfile::tempdir().unwrap();
    let version = crate::ServerVersion::V3_3_0_1;
    let store = Store::open(crate::StoreConfig { version, ..super::config(dir.path()) }).unwrap();
    let mut session = run(&store, "rc3", &[]);
    for frame in recording("c3-meta.jsonl").iter().filter(|frame| frame["kind"] == "sql") {
        let (sql, code) = frame["text"].as_str().unwrap().split_once("\n-> code 0x").unwrap();
        // Indexes are no part of the node's SQL; they leave no meta.
        if sql.contains(" index ") {
            continue;
        }
        let answer = super::code(&store, &mut session, sql);
        assert_eq!(format!("{:04x}", answer.0), code[..4], "{sql}");
    }
    assert_eq!(shape(&store, "rc3"), recorded_shape("c3-meta.jsonl"));
}
