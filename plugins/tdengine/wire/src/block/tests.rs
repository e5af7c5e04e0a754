use super::{BlockBuilder, BlockView, VERSION_QUERY};
use crate::types::{ColumnType, DataType};
use crate::value::Value;

/// The query block of PROTOCOL 17.
fn example() -> BlockBuilder {
    let types = [
        ColumnType::of(DataType::Timestamp),
        ColumnType::of(DataType::Int),
        ColumnType::varchar(16),
        ColumnType::nchar(10),
    ];
    let mut block = BlockBuilder::new(types);
    block.column(0).push_i64(1_700_000_000_000).unwrap();
    block.column(0).push_i64(1_700_000_001_000).unwrap();
    block.column(1).push_i64(1).unwrap();
    block.column(1).push_null();
    block.column(2).push_str("ab").unwrap();
    block.column(2).push_null();
    block.column(3).push_str("涛").unwrap();
    block.column(3).push_str("x").unwrap();
    block
}

pub(crate) const EXAMPLE: &str = "010000007b00000002000000040000000000008000000000000000000908000000040400000008120000000a2a0000001000\
    000008000000040000000c000000000068e5cf8b010000e86be5cf8b01000040010000000000000000000000ffffffff0200\
    6162000000000600000004009b6d000004007800000000";

#[test]
fn the_protocols_query_block() {
    let bytes = example().encode(VERSION_QUERY).unwrap();
    assert_eq!(crate::tests::hex(&bytes), EXAMPLE);
    let view = BlockView::parse(&bytes).unwrap();
    assert_eq!((view.rows(), view.columns().len(), view.as_bytes().len()), (2, 4, 123));
    let row = |row| view.columns().iter().map(|column| column.value(row)).collect::<Vec<_>>();
    let nchar = [0x9b, 0x6d, 0, 0];
    let first = [Value::Timestamp(1_700_000_000_000), Value::Int(1), Value::Varchar(b"ab"), Value::Nchar(&nchar)];
    assert_eq!(row(0), first);
    assert_eq!(row(1)[1..3], [Value::Null, Value::Null]);
    assert_eq!(view.columns().iter().map(super::ColumnView::null_count).collect::<Vec<_>>(), [0, 1, 1, 0]);
}

#[test]
fn damage_is_an_error() {
    let good = example().encode(VERSION_QUERY).unwrap();
    for cut in 0..good.len() {
        assert!(BlockView::parse(&good[..cut]).is_err(), "cut at {cut}");
    }
    let wrong = |at: usize, byte: u8, expect: &str| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let error = BlockView::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(expect), "{at}: {error}");
    };
    wrong(4, 0x7c, "block");
    wrong(8, 3, "column");
    wrong(12, 0, "at least 1");
    wrong(28, 99, "unknown column type 99");
    wrong(28, 0, "unknown column type 0");
    wrong(48, 17, "column length");
    wrong(0x53 + 7, 9, "column offset");
}

#[test]
fn builders_extend_and_clear() {
    let bytes = example().encode(VERSION_QUERY).unwrap();
    let view = BlockView::parse(&bytes).unwrap();
    let mut builder = BlockBuilder::new(view.columns().iter().map(super::ColumnView::column_type));
    for _ in 0..2 {
        builder.clear();
        for row in 0..2 {
            for (into, from) in builder.columns_mut().iter_mut().zip(view.columns()) {
                into.extend_from(from, row..row + 1).unwrap();
            }
        }
        assert_eq!(builder.encode(VERSION_QUERY).unwrap(), bytes);
    }
    builder.column(0).push_null();
    assert!(builder.encode(VERSION_QUERY).is_err());
    assert!(builder.column(0).push_bytes(&[1]).is_err());
    assert!(builder.column(2).push_bytes(&[0; 70_000]).is_err());
}
