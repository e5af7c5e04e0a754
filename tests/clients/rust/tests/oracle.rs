//! The published decoder as an oracle: raw blocks that a real server sent, read by `taos-query` and by ours, must hold the same values.
//!
//! Where it is not sound it is not asked: it knows no DECIMAL and no types newer than itself, decodes NCHAR in place (so it gets a
//! copy of the bytes, trap T15), and prints floats its own way (so numbers are compared, not texts).

use base64::Engine;
use serde_json::Value as Json;
use taos::taos_query::common::{BorrowedValue, Precision as TheirPrecision, RawBlock};
use tdengine_wire::block::{BlockView, HEADER_BYTES};
use tdengine_wire::value::Value;
use tdengine_wire::{DataType, Precision};

/// Both sides' values as one thing that can be compared exactly.
#[derive(Debug, PartialEq)]
enum Seen {
    Null,
    Bool(bool),
    Int(i128),
    Bits(u64),
    Text(String),
    Bytes(Vec<u8>),
}

fn ours(value: &Value<'_>) -> Seen {
    match value {
        Value::Null => Seen::Null,
        Value::Bool(value) => Seen::Bool(*value),
        Value::Int(value) | Value::Timestamp(value) => Seen::Int((*value).into()),
        Value::UInt(value) => Seen::Int((*value).into()),
        Value::Float(value) => Seen::Bits(value.to_bits().into()),
        Value::Double(value) => Seen::Bits(value.to_bits()),
        Value::Nchar(_) => Seen::Text(value.text().unwrap_or_default()),
        // A server may put any bytes into a VARCHAR.
        Value::Varchar(bytes) | Value::Json(bytes) | Value::Varbinary(bytes) | Value::Geometry(bytes) | Value::Blob(bytes) => Seen::Bytes(bytes.to_vec()),
        Value::Decimal(value) => Seen::Int(*value),
    }
}

fn theirs(value: &BorrowedValue<'_>) -> Seen {
    use BorrowedValue as V;
    match value {
        V::Null(_) => Seen::Null,
        V::Bool(value) => Seen::Bool(*value),
        V::TinyInt(value) => Seen::Int((*value).into()),
        V::SmallInt(value) => Seen::Int((*value).into()),
        V::Int(value) => Seen::Int((*value).into()),
        V::BigInt(value) => Seen::Int((*value).into()),
        V::UTinyInt(value) => Seen::Int((*value).into()),
        V::USmallInt(value) => Seen::Int((*value).into()),
        V::UInt(value) => Seen::Int((*value).into()),
        V::UBigInt(value) => Seen::Int((*value).into()),
        V::Timestamp(value) => Seen::Int(value.as_raw_i64().into()),
        V::Float(value) => Seen::Bits(value.to_bits().into()),
        V::Double(value) => Seen::Bits(value.to_bits()),
        V::VarChar(text) => Seen::Bytes(text.as_bytes().to_vec()),
        V::NChar(text) => Seen::Text(text.clone().into_owned()),
        V::Json(bytes) | V::VarBinary(bytes) | V::Geometry(bytes) => Seen::Bytes(bytes.to_vec()),
        other => panic!("the oracle was asked for {other:?}"),
    }
}

/// Types that the published crate reads soundly.
fn is_sound(data_type: DataType) -> bool {
    !matches!(data_type, DataType::Decimal | DataType::Decimal64 | DataType::Blob | DataType::MediumBlob)
}

/// Compares one block; how many values were equal.
fn compare(place: &str, bytes: &[u8], precision: (Precision, TheirPrecision)) -> usize {
    let Ok(view) = BlockView::parse(bytes) else { return 0 };
    if view.rows() == 0 || !view.columns().iter().all(|column| is_sound(column.column_type().data_type)) {
        return 0;
    }
    let their_block = RawBlock::parse_from_raw_block(bytes.to_vec(), precision.1);
    assert_eq!((their_block.nrows(), their_block.ncols()), (view.rows(), view.columns().len()), "{place}");
    let mut equal = 0;
    for (index, column) in view.columns().iter().enumerate() {
        for row in 0..view.rows() {
            let their_value = their_block.get_ref(row, index).expect("the block has that value");
            let (left, right) = (ours(&column.value(row)), theirs(&their_value));
            assert_eq!(left, right, "{place}: column {index} ({}), row {row}", column.column_type());
            equal += 1;
        }
    }
    equal
}

/// Every place in a frame where a block may begin: its header says its own length, and no more than one fits.
fn blocks(frame: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| frame.get(at..at + 4).map(|it| i32::from_le_bytes(it.try_into().expect("four bytes")));
    let mut found = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES <= frame.len() {
        let length = match (word(at), word(at + 4)) {
            (Some(1 | 2), Some(length)) if length as usize >= HEADER_BYTES && at + length as usize <= frame.len() => length as usize,
            _ => 0,
        };
        if length > 0 && BlockView::parse(&frame[at..at + length]).is_ok() {
            found.push(&frame[at..at + length]);
            at += length;
        } else {
            at += 1;
        }
    }
    found
}

#[test]
fn blocks_of_a_real_server_read_the_same() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recordings");
    let (mut files, mut all, mut values) = (0, 0, 0);
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names.into_iter().filter(|path| path.extension().is_some_and(|it| it == "jsonl")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let precision = match name.as_str() {
            name if name.contains("-ns") => (Precision::Nanoseconds, TheirPrecision::Nanosecond),
            name if name.contains("-us") => (Precision::Microseconds, TheirPrecision::Microsecond),
            _ => (Precision::Milliseconds, TheirPrecision::Millisecond),
        };
        files += 1;
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let frame: Json = serde_json::from_str(line).unwrap();
            let (Some("binary"), Some(text)) = (frame["kind"].as_str(), frame["base64"].as_str()) else { continue };
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            for block in blocks(&bytes) {
                all += 1;
                values += compare(&format!("{name}:{}", number + 1), block, precision);
            }
        }
    }
    println!("{values} values of {all} blocks in {files} recordings are equal");
    assert!(all > 100 && values > 1_000, "only {values} values of {all} blocks were found");
}
