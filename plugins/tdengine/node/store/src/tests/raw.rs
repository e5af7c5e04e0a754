//! Raw writes against the recordings of a real server (d1–d4).

use std::path::Path;

use super::{binary, open, recording, rows, run, strict, tags};
use crate::{RawField, Session, Store};

/// A request of a client in a recording, as the store sees it.
enum Request {
    Sql(String),
    Raw { raw_type: u16, body: Vec<u8> },
    Block { table: String, fields: Option<Vec<RawField>>, block: Vec<u8> },
    Other,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn request(bytes: &[u8]) -> Request {
    match bytes[16] {
        6 => Request::Sql(String::from_utf8(bytes[30..].to_vec()).unwrap()),
        3 => {
            let length = word(bytes, 24) as usize;
            let raw_type = u16::from_le_bytes([bytes[28], bytes[29]]);
            Request::Raw { raw_type, body: bytes[30..30 + length].to_vec() }
        }
        action @ (4 | 5) => {
            let name = usize::from(u16::from_le_bytes([bytes[28], bytes[29]]));
            let table = String::from_utf8(bytes[30..30 + name].to_vec()).unwrap();
            let rest = &bytes[30 + name..];
            let (block, fields) = rest.split_at(word(rest, 4) as usize);
            let field = |field: &[u8]| {
                let name = field[..65].split(|byte| *byte == 0).next().unwrap();
                let name = String::from_utf8(name.to_vec()).unwrap();
                RawField { name, data_type: field[65], bytes: word(field, 68) as i32 }
            };
            let fields = (action == 5).then(|| fields.chunks_exact(72).map(field).collect());
            Request::Block { table, fields, block: block.to_vec() }
        }
        _ => Request::Other,
    }
}

/// Replays the requests of a recording and compares the code of every reply that is not about reading. Answers what the
/// store has read at the same places as the recording's client, to be compared with the rows there.
fn replay(store: &Store, name: &str, session: &mut Session) -> usize {
    let frames = recording(name);
    let (mut checked, mut wrong) = (0, Vec::new());
    let mut pending = None;
    for frame in &frames {
        if frame["dir"] == "c2s" && frame["kind"] == "binary" {
            let parsed = request(&binary(frame).unwrap());
            let note = frame["note"].as_str().unwrap_or_default().to_owned();
            pending = match parsed {
                Request::Sql(sql) if sql.starts_with("select") || sql.starts_with("show") || sql.starts_with("desc") => None,
                Request::Sql(sql) => Some((super::code(store, session, &sql).0, sql)),
                Request::Raw { raw_type, body } => {
                    let result = store.apply_raw(session, raw_type, &body);
                    Some((result.err().map_or(0, |error| error.code), format!("raw {raw_type} {note}")))
                }
                Request::Block { table, fields, block } => {
                    let result = store.write_raw_block(session, &table, fields.as_deref(), &block);
                    Some((result.err().map_or(0, |error| error.code), format!("block {note}")))
                }
                Request::Other => None,
            };
        } else if frame["dir"] == "s2c" && let Some((code, what)) = pending.take() {
            let reply: serde_json::Value = serde_json::from_str(frame["text"].as_str().unwrap()).unwrap();
            checked += 1;
            if u64::from(code) != reply["code"].as_u64().unwrap() {
                wrong.push(format!("{what}: got 0x{code:04x}, recorded {}", reply["message"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    checked
}

#[test]
fn raw_messages_of_another_cluster_apply() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(&store, "rd", &[]);
    let mut session = Session::new("root");
    assert!(replay(&store, "d1-write-raw.jsonl", &mut session) >= 12);
    assert_eq!(rows(&store, "rd", "nt").len(), 1);
    assert_eq!(tags(&store, "rd", "c1"), "11,x");
    let stable = store.describe("rd", "st").unwrap();
    let names: Vec<&str> = stable.columns.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!((names, stable.columns.version), (vec!["ts", "a", "v", "d", "e"], 2));
    // Everything but the drop carries the mark.
    for entry in super::entries(&store, "rd") {
        match entry.kind {
            crate::EntryKind::Meta { raw_type, source, .. } => assert_eq!(source, if raw_type == 519 { 0 } else { 8 }),
            crate::EntryKind::Submit(tables) => assert!(tables.iter().all(|table| table.flags & 8 != 0)),
            crate::EntryKind::Marker => {}
        }
    }
}

#[test]
fn raw_rows_meet_targets_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = run(&store, "rd", &[]);
    store.execute(&mut session, "create database rdus precision 'us'").unwrap();
    assert!(replay(&store, "d2-write-raw-errors.jsonl", &mut session) > 30);
}

#[test]
fn raw_blocks_by_position_and_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(&store, "rd", &["create stable st(ts timestamp, a int, v varchar(8), d double) tags(g int)"]);
    let mut session = Session::new("root");
    assert!(replay(&store, "d3-write-block.jsonl", &mut session) > 30);
}

/// PROTOCOL 3, FACTS F26: the following column gets the unknown one's values, or the write is refused.
#[test]
fn an_unknown_name_shifts_what_follows_or_is_refused() {
    use tdengine_wire::block::{BlockBuilder, VERSION_TMQ};
    use tdengine_wire::{ColumnType, DataType};
    let types = [ColumnType::of(DataType::Timestamp), ColumnType::of(DataType::Int), ColumnType::of(DataType::Int)];
    let mut block = BlockBuilder::new(types);
    block.column(0).push_i64(1_700_000_000_000).unwrap();
    block.column(1).push_i64(7).unwrap();
    block.column(2).push_i64(8).unwrap();
    let block = block.encode(VERSION_TMQ).unwrap();
    let field = |(name, column): (&str, ColumnType)| RawField { name: name.into(), data_type: column.data_type.code(), bytes: column.bytes };
    let fields: Vec<RawField> = ["ts", "zz", "a"].into_iter().zip(types).map(field).collect();
    for (make, expect) in [(open as fn(&Path) -> Store, Ok(1)), (strict, Err(0x2602))] {
        let dir = tempfile::tempdir().unwrap();
        let (store, session) = copy_of(dir.path(), make);
        run(&store, "d", &["create table n(ts timestamp, a int, b int)"]);
        let written = store.write_raw_block(&session, "n", Some(&fields), &block);
        assert_eq!(written.map_err(|error| error.code), expect);
        let shifted: &[&str] = if expect.is_ok() { &["1700000000000,7,NULL"] } else { &[] };
        assert_eq!(rows(&store, "d", "n"), shifted);
    }
}

#[test]
fn raw_rows_that_bring_their_table() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = run(&store, "e17", &[]);
    assert!(replay(&store, "d4-write-metadata.jsonl", &mut session) > 20);
}

/// The first raw message of this type in a recording.
fn message(name: &str, wanted: u16, skip: usize) -> Vec<u8> {
    let frames = recording(name);
    let requests = frames.iter().filter(|frame| frame["dir"] == "c2s").filter_map(binary);
    let mut raw = requests.filter_map(|bytes| match request(&bytes) {
        Request::Raw { raw_type, body } if raw_type == wanted => Some(body),
        _ => None,
    });
    raw.nth(skip).unwrap()
}

fn copy_of(dir: &Path, store: fn(&Path) -> Store) -> (Store, Session) {
    let store = store(dir);
    let session = run(&store, "d", &[]);
    (store, session)
}

#[test]
fn a_tag_of_another_type_is_refused_as_the_server_dies() {
    let body = message("d4-write-metadata.jsonl", 4, 0);
    for (make, expect) in [(open as fn(&Path) -> Store, 0x0020), (strict, 0x0118)] {
        let dir = tempfile::tempdir().unwrap();
        let (store, session) = copy_of(dir.path(), make);
        run(&store, "d", &["create stable st(ts timestamp,a int,v varchar(8)) tags(g varchar(8))"]);
        assert_eq!(store.apply_raw(&session, 4, &body).unwrap_err().code, expect);
        assert!(store.table("d", "c1").is_none());
    }
}

/// FACTS F67: A adds lvl then zone, B zone then lvl.
#[test]
fn tags_in_another_order_land_in_the_wrong_place() {
    let create = "create stable st(ts timestamp, a int) tags(g int)";
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = copy_of(dir.path(), open);
    run(&source, "d", &[create, "alter stable st add tag lvl int", "alter stable st add tag zone int"]);
    run(&source, "d", &["create table c1 using st tags(1,2,3)", "insert into c2 using st tags(1,2,3) values(1700000000000,1)"]);
    let mut create_table = None;
    let mut auto_create = None;
    for entry in super::entries(&source, "d") {
        match entry.kind {
            crate::EntryKind::Meta { raw_type: 515, body, .. } => create_table = Some(body),
            crate::EntryKind::Submit(tables) => auto_create = tables[0].create.clone(),
            _ => {}
        }
    }
    let target = |make: fn(&Path) -> Store| {
        let dir = tempfile::tempdir().unwrap();
        let (store, session) = copy_of(dir.path(), make);
        run(&store, "d", &[create, "alter stable st add tag zone int", "alter stable st add tag lvl int"]);
        store.apply_raw(&session, 515, &create_table.clone().unwrap()).unwrap();
        tags(&store, "d", "c1")
    };
    assert_eq!(target(open), "1,NULL,2");
    assert_eq!(target(strict), "1,3,2");
    let swapped = tdengine_wire::meta::CreateTable::decode(&auto_create.unwrap()).unwrap();
    let tdengine_wire::meta::TableBody::Child { tags, .. } = swapped.body else { panic!("a child") };
    let keys: Vec<_> = tags.entries.into_iter().map(|tag| tag.key).collect();
    assert_eq!(keys, [3, 4, 5].map(tdengine_wire::meta::TagKey::Id));
}

/// FACTS F9 and PROTOCOL 10.4.
#[test]
fn raw_alter_works_in_one_direction_only() {
    let (create, alter) = (message("d1-write-raw.jsonl", 531, 1), message("d1-write-raw.jsonl", 533, 0));
    let dir = tempfile::tempdir().unwrap();
    let (store, mut session) = copy_of(dir.path(), open);
    // Unknown here and no longer at version 1: ignored.
    store.apply_raw(&session, 533, &alter).unwrap();
    assert!(store.stable("d", "st").is_none());
    run(&store, "d", &["create stable st(ts timestamp, a int, v varchar(8), d double) tags(g int, s varchar(8))"]);
    for (raw_type, body) in [(531, &create), (533, &alter)] {
        store.apply_raw(&session, raw_type, body).unwrap();
        assert_eq!(store.describe("d", "st").unwrap().columns.version, 1);
    }
    store.execute(&mut session, "drop stable st").unwrap();
    store.apply_raw(&session, 531, &create).unwrap();
    store.apply_raw(&session, 533, &alter).unwrap();
    store.apply_raw(&session, 533, &alter).unwrap();
    assert_eq!(store.describe("d", "st").unwrap().columns.version, 2);
    let vgroup = store.database("d").unwrap().vgroups[0];
    let end = store.wal_range(vgroup).unwrap().1;
    store.apply_raw(&session, 533, &alter).unwrap();
    assert_eq!(store.wal_range(vgroup).unwrap().1, end);
}

/// PROTOCOL 10.4: the first change may be of any version, later ones come one by one.
#[test]
fn raw_alters_come_one_version_at_a_time_but_for_the_first() {
    use tdengine_wire::meta::{Meta, RawMeta};
    let (create, alter) = (message("d1-write-raw.jsonl", 531, 1), message("d1-write-raw.jsonl", 533, 0));
    let dir = tempfile::tempdir().unwrap();
    let (store, session) = copy_of(dir.path(), open);
    store.apply_raw(&session, 531, &create).unwrap();
    let Meta::AlterStable(stable) = RawMeta::decode(533, &alter).unwrap().meta else { panic!("an alter") };
    for (columns, tags, expect) in [(4, 1, 0), (6, 1, 0x03C6), (5, 1, 0), (5, 3, 0), (5, 5, 0x03C6), (6, 4, 0x03C6), (5, 4, 0)] {
        let changed = tdengine_wire::meta::Stable { column_version: columns, tag_version: tags, ..stable.clone() };
        let (raw_type, body) = RawMeta { vgroup_id: 2, meta: Meta::AlterStable(changed) }.encode().unwrap();
        let found = store.apply_raw(&session, raw_type, &body).err();
        let expect = (expect != 0).then(|| crate::ServerError::new(expect, "Invalid schema version"));
        assert_eq!(found, expect, "columns {columns}, tags {tags}");
    }
    let schema = store.describe("d", "st").unwrap();
    assert_eq!((schema.columns.version, schema.tags.version), (5, 4));
}

/// FACTS F68 and F17.
#[test]
fn raw_deletes_are_cut_and_forget_tags() {
    let (table, column) = ("t".repeat(160), "c".repeat(34));
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = copy_of(dir.path(), open);
    let create = format!("create table {table}({column} timestamp, a int)");
    let fill = |table: &str| (0..8).fold(format!("insert into {table} values"), |sql, row| sql + &format!("({},1)", 1_700_000_000_000i64 + row));
    let delete = format!("delete from {table} where {column} >= 1700000000000 and {column} <= 1700000000001");
    run(&source, "d", &[&create, &fill(&table), &delete]);
    let body_of = |store: &Store| {
        let last = super::entries(store, "d").pop().unwrap();
        let crate::EntryKind::Meta { raw_type: 579, body, .. } = last.kind else { panic!("a deletion") };
        body
    };
    let body = body_of(&source);
    let dir = tempfile::tempdir().unwrap();
    let (target, session) = copy_of(dir.path(), open);
    run(&target, "d", &[&create, &fill(&table)]);
    let outcome = target.apply_raw(&session, 579, &body);
    // The text ends inside the second condition: a syntax error or a wider range, never the range of the source.
    assert_ne!(outcome, Ok(2));
    let dir = tempfile::tempdir().unwrap();
    let (target, session) = copy_of(dir.path(), strict);
    run(&target, "d", &[&create, &fill(&table)]);
    assert_eq!(target.apply_raw(&session, 579, &body).unwrap_err().code, 0x0118);

    let make = ["create stable st(ts timestamp, a int) tags(t int)", "create table c1 using st tags(1) c2 using st tags(2)"];
    run(&source, "d", &make);
    run(&source, "d", &[&fill("c1"), &fill("c2"), "delete from st where ts < 1700000000002 and t = 1"]);
    let body = body_of(&source);
    let dir = tempfile::tempdir().unwrap();
    let (target, session) = copy_of(dir.path(), open);
    run(&target, "d", &make);
    run(&target, "d", &[&fill("c1"), &fill("c2")]);
    assert_eq!(target.apply_raw(&session, 579, &body), Ok(4));
    assert_eq!((rows(&source, "d", "c2").len(), rows(&target, "d", "c2").len()), (8, 6));
}

/// Codes as a server 3.3.0.1 answered raw changes (517): the statement of the same kind has others.
#[test]
fn raw_changes_of_tables_are_refused_with_the_codes_of_a_vnode() {
    use tdengine_wire::meta::{AlterTable, Meta, RawMeta, TableAction};
    use tdengine_wire::{ColumnType, DataType};
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let made = ["create stable s (ts timestamp, v int) tags (t int)", "create table c using s tags (1)"];
    let session = run(&store, "d", &[made[0], made[1], "create table n (ts timestamp, x int, w varchar(30))"]);
    let (x, y, w, u) = ("x".to_owned(), "y".to_owned(), "w".to_owned(), "u".to_owned());
    let (int, varchar, bytes) = (DataType::Int, DataType::Varchar, ColumnType::varchar(20).bytes);
    for (table, action, expect) in [
        ("c", TableAction::SetTag { name: u, data_type: varchar, value: Some(b"x".to_vec()) }, 0x0526),
        ("c", TableAction::SetTag { name: "t".into(), data_type: int, value: None }, 0),
        ("n", TableAction::AddColumn { name: x.clone(), data_type: int, flags: 1, bytes: 4, compression: None }, 0x0525),
        ("n", TableAction::DropColumn { name: y.clone() }, 0x0526),
        ("n", TableAction::RenameColumn { name: y.clone(), new_name: "z".into() }, 0x0526),
        ("n", TableAction::ModifyColumn { name: y.clone(), data_type: varchar, bytes }, 0x0526),
        ("n", TableAction::ModifyColumn { name: w, data_type: varchar, bytes }, 0x0524),
        ("n", TableAction::RenameColumn { name: x, new_name: y }, 0),
        ("missing", TableAction::DropColumn { name: "z".into() }, 0),
    ] {
        let what = format!("{table}: {action:?}");
        let alter = AlterTable { name: table.into(), column_id: 0, action, time_ms: 1, source: 0, rest: Vec::new() };
        let (raw_type, body) = RawMeta { vgroup_id: 2, meta: Meta::AlterTable(alter) }.encode().unwrap();
        let found = store.apply_raw(&session, raw_type, &body).err().map_or(0, |error| error.code);
        assert_eq!(found, expect, "{what}: {found:#06x}");
    }
}
