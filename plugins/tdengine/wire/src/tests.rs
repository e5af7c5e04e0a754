//! Helpers of the crate's tests: hexadecimal, and random columns for proptest.

use std::fmt::Write;

use proptest::prelude::*;

use crate::block::BlockBuilder;
use crate::types::{ColumnType, DataType};

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A column type of any kind with a plausible width.
pub(crate) fn any_column_type() -> impl Strategy<Value = ColumnType> {
    (0..DataType::ALL.len(), 1u32..300, 1u8..=38, 0u8..=18).prop_map(|(index, capacity, precision, scale)| {
        match DataType::ALL[index] {
            DataType::Decimal => ColumnType::decimal(precision.max(19), scale),
            DataType::Decimal64 => ColumnType::decimal(precision.clamp(1, 18), scale.min(precision.clamp(1, 18))),
            data_type => ColumnType::sized(data_type, capacity),
        }
    })
}

/// Bytes of one value of this type.
pub(crate) fn any_value(data_type: DataType) -> BoxedStrategy<Vec<u8>> {
    match data_type {
        DataType::Bool => prop_oneof![Just(vec![0]), Just(vec![1])].boxed(),
        DataType::Varchar | DataType::Json => ".{0,12}".prop_map(String::into_bytes).boxed(),
        DataType::Nchar => ".{0,12}".prop_map(|text: String| crate::value::nchar_bytes(&text)).boxed(),
        _ => match data_type.width() {
            Some(width) => prop::collection::vec(any::<u8>(), width).boxed(),
            None => prop::collection::vec(any::<u8>(), 0..40).boxed(),
        },
    }
}

/// A block of 1 to 40 rows and 1 to 6 columns of any types.
pub(crate) fn any_block() -> impl Strategy<Value = BlockBuilder> {
    (prop::collection::vec(any_column_type(), 1..6), 1usize..40).prop_flat_map(|(types, rows)| {
        let columns: Vec<_> = types
            .iter()
            .map(|column| prop::collection::vec(prop::option::of(any_value(column.data_type)), rows))
            .collect();
        columns.prop_map(move |columns| {
            let mut block = BlockBuilder::new(types.iter().copied());
            for (into, values) in block.columns_mut().iter_mut().zip(columns) {
                for value in values {
                    match value {
                        None => into.push_null(),
                        Some(value) => into.push_bytes(&value).unwrap(),
                    }
                }
            }
            block
        })
    })
}

/// Changes some bytes: places are taken modulo the length.
pub(crate) fn mutate(bytes: &mut Vec<u8>, changes: &[(usize, u8)], cut: usize) {
    for (at, byte) in changes {
        let length = bytes.len().max(1);
        if let Some(place) = bytes.get_mut(at % length) {
            *place = *byte;
        }
    }
    bytes.truncate(bytes.len() - cut.min(bytes.len()));
}

/// Arguments for [`mutate`].
pub(crate) fn any_damage() -> impl Strategy<Value = (Vec<(usize, u8)>, usize)> {
    let byte = prop_oneof![any::<u8>(), Just(0xff), Just(0x80), Just(0x7f), Just(0)];
    (prop::collection::vec((0usize..4096, byte), 1..6), prop_oneof![4 => Just(0usize), 1 => 0usize..64])
}
