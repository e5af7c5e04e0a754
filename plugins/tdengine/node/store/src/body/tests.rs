//! Bodies byte by byte as a real server sent them (recordings c3-meta, c7-meta-special; head of 8 bytes left out).

use std::sync::Arc;

use tdengine_wire::meta::Meta;
use tdengine_wire::types::flags;
use tdengine_wire::value::nchar_bytes;
use tdengine_wire::{ColumnType, DataType, Field};

use super::*;
use crate::schema::{TagValues, tag_flags};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn st1() -> Stable {
    let columns = vec![
        Field::new("ts", ColumnType::of(DataType::Timestamp), 1),
        Field::new("a", ColumnType::of(DataType::Int), 2),
    ];
    let tag = Field { flags: tag_flags(0), ..Field::new("t", ColumnType::of(DataType::Int), 3) };
    Stable {
        name: "st1".into(),
        suid: i64::from_le_bytes(hex("a1ce6ee7b7b08d11").try_into().unwrap()),
        created_ms: 0,
        columns: Arc::new(Schema::of_columns(columns)),
        tags: Arc::new(Schema::of_tags(vec![tag])),
        next_id: 4,
        comment: None,
        indexes: Vec::new(),
    }
}

fn child(name: &str, uid: &str, time: &str, tags: TagValues) -> TableMeta {
    let word = |text: &str| i64::from_le_bytes(hex(text).try_into().unwrap());
    let (uid, created_ms) = (word(uid), word(time));
    let body = TableBody::Child { suid: st1().suid, tags: Arc::new(tags) };
    TableMeta { uid, name: name.into(), created_ms, ttl_days: 0, comment: None, body }
}

#[test]
fn create_stable() {
    let expect = "3a000000 0473743100 a1ce6ee7b7b08d11 00 0402 0901100203747300 04010804026100 0202 04020806027400
        00000000 00 01 0402 0202010002 0402010001";
    assert_eq!(Meta::CreateStable(stable(&st1(), 0, None)).encode().unwrap(), hex(expect));
}

#[test]
fn alter_stable_keeps_the_text() {
    let check = |kind: AlterKind, sql: &str, expect: &str| {
        let bytes = alter_request("rc3", "st", &kind, sql).encode();
        let tail = [&(sql.len() as i32).to_le_bytes()[..], &[sql.len() as u8], sql.as_bytes()].concat();
        let head = hex(&format!("09 312e7263332e737400 {expect}"));
        assert_eq!(bytes[4..], [head, tail].concat(), "{sql}");
        assert_eq!(bytes[..4], ((bytes.len() - 4) as i32).to_le_bytes());
    };
    let add = ColumnSpec {
        name: "e".into(),
        column_type: ColumnType::of(DataType::Int),
        primary_key: false,
        compression: Default::default(),
    };
    check(AlterKind::AddColumn(add), "alter stable st add column e int", "05 01000000 04 04000000 026500 0000000000000000");
    let modify = AlterKind::ModifyColumn { name: "v".into(), column_type: ColumnType::varchar(20) };
    let sql = "alter stable st modify column v varchar(20)";
    check(modify, sql, "07 01000000 08 16000000 027600 0000000000000000");
    let compress = crate::ddl::Compression { compress: Some(2), ..Default::default() };
    let compress = AlterKind::CompressColumn { name: "a".into(), compression: compress };
    let sql = "alter stable st modify column a compress 'zlib'";
    check(compress, sql, "0d 01000000 00 00020000 026100 0000000000000000");
    let rename = AlterKind::RenameTag { from: "tx".into(), to: "ty".into() };
    let expect = "03 02000000 00 00000000 03747800 00 00000000 03747900 0000000000000000";
    check(rename, "alter stable st rename tag tx ty", expect);
    let comment = AlterKind::Options { ttl_days: None, comment: Some("new".into()) };
    check(comment, "alter stable st comment 'new'", "09 00000000 00000000 03000000 046e657700");
}

fn created(request: CreateTable) -> Vec<u8> {
    Meta::CreateTables { tables: vec![request], source: 0, rest: Vec::new() }.encode().unwrap()
}

#[test]
fn create_tables_of_both_kinds() {
    let mut tags = TagValues::default();
    tags.0.insert(3, 5i32.to_le_bytes().to_vec());
    let mut meta = child("c5", "c403f0b57c205d53", "b35fcb07a2010000", tags);
    (meta.ttl_days, meta.comment) = (5, Some("child".into()));
    let request = create_table(&meta, Some(&st1()), &["t".to_owned()], false).unwrap();
    let expect = "55000000 02 4f000000 00 03633500 c403f0b57c205d53 b35fcb07a2010000 05000000 02
        05000000 066368696c6400 0473743100 01 a1ce6ee7b7b08d11 10 00 1000 0100 01000000 00 060405000000
        01000000 027400 00000000 00";
    assert_eq!(created(request), hex(expect));

    let key = Field { flags: flags::SMA | flags::PRIMARY_KEY, ..Field::new("k", ColumnType::varchar(10), 2) };
    let columns = vec![
        Field::new("ts", ColumnType::of(DataType::Timestamp), 1),
        key,
        Field::new("a", ColumnType::of(DataType::Int), 3),
        Field::new("v", ColumnType::varchar(8), 4),
    ];
    let body = TableBody::Normal { columns: Arc::new(Schema::of_columns(columns)), next_id: 5 };
    let meta = child("nt", "be0390b57c205d53", "e059cb07a2010000", TagValues::default());
    let meta = TableMeta { ttl_days: 100, comment: Some("nt".into()), body, ..meta };
    let request = create_table(&meta, None, &[], false).unwrap();
    let expect = "61000000 02 5b000000 00 036e7400 be0390b57c205d53 e059cb07a2010000 64000000 03 02000000 036e7400
        0802 0901100203747300 08051804026b00 04010806026100 08011408027600 00000000
        0800 0202010002 04020100ff 0602010001 08020100ff 00";
    assert_eq!(created(request), hex(expect));
}

#[test]
fn tag_blobs() {
    let field = |id: i16, column_type: ColumnType| Field { flags: 0, ..Field::new("x", column_type, id) };
    let fields = [
        field(7, ColumnType::of(DataType::Int)),
        field(8, ColumnType::varchar(8)),
        field(9, ColumnType::nchar(8)),
        field(10, ColumnType::of(DataType::BigInt)),
    ];
    let mut tags = TagValues::default();
    assert_eq!(tag_blob(&fields, &tags).unwrap().encode().unwrap(), hex("00 0900 0000 01000000"));
    tags.0.insert(7, 1i32.to_le_bytes().to_vec());
    tags.0.insert(8, b"x".to_vec());
    tags.0.insert(9, nchar_bytes("涛"));
    tags.0.insert(10, 9_007_199_254_740_993i64.to_le_bytes().to_vec());
    let expect = "00 2800 0400 01000000 00060a11 0e0401000000 10080178 120a049b6d0000 14050100000000002000";
    assert_eq!(tag_blob(&fields, &tags).unwrap().encode().unwrap(), hex(expect));

    let mut tags = TagValues::default();
    tags.0.insert(3, br#"{"a":9007199254740993,"b":"x y","c":true}"#.to_vec());
    let expect = "40 2e00 0300 01000000 000c1d 026100 07 0000000000004043 026200 0a 0c 780000002000000079000000
        026300 01 01";
    let blob = tag_blob(&[field(3, ColumnType::of(DataType::Json))], &tags).unwrap();
    assert_eq!(blob.encode().unwrap(), hex(expect));
}
