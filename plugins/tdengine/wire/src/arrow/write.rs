//! Arrow → raw block.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType as ArrowType, Decimal128Type, Field as ArrowField, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::{KEY_BYTES, KEY_TYPE};
use crate::block::{BlockBuilder, ColumnBuilder};
use crate::error::{Result, WireError};
use crate::types::{ColumnType, DataType};

/// Capacity of a variable column whose field has no metadata; the server does not check it (FACTS F27).
const CAPACITY_UNKNOWN: u32 = 0;

/// The column type of a field: from its metadata, else from its Arrow type (Utf8 as VARCHAR, Binary as VARBINARY).
///
/// # Errors
/// When the metadata is no type, or the Arrow type has no counterpart.
pub fn column_type_of(field: &ArrowField) -> Result<ColumnType> {
    let number = |key: &str| field.metadata().get(key).map(|text| text.parse::<i32>());
    match (number(KEY_TYPE), number(KEY_BYTES)) {
        (Some(Ok(code)), Some(Ok(bytes))) => {
            let code = u8::try_from(code).map_err(|_| WireError::UnknownType(u8::MAX))?;
            Ok(ColumnType { data_type: DataType::from_code(code)?, bytes })
        }
        (None, None) => by_arrow_type(field),
        _ => {
            let why = format!("{:?}: {KEY_TYPE} and {KEY_BYTES} must both be numbers", field.name());
            Err(WireError::invalid("field metadata", why))
        }
    }
}

fn by_arrow_type(field: &ArrowField) -> Result<ColumnType> {
    Ok(match field.data_type() {
        ArrowType::Boolean => ColumnType::of(DataType::Bool),
        ArrowType::Int8 => ColumnType::of(DataType::TinyInt),
        ArrowType::Int16 => ColumnType::of(DataType::SmallInt),
        ArrowType::Int32 => ColumnType::of(DataType::Int),
        ArrowType::Int64 => ColumnType::of(DataType::BigInt),
        ArrowType::UInt8 => ColumnType::of(DataType::UTinyInt),
        ArrowType::UInt16 => ColumnType::of(DataType::USmallInt),
        ArrowType::UInt32 => ColumnType::of(DataType::UInt),
        ArrowType::UInt64 => ColumnType::of(DataType::UBigInt),
        ArrowType::Float32 => ColumnType::of(DataType::Float),
        ArrowType::Float64 => ColumnType::of(DataType::Double),
        ArrowType::Timestamp(unit, _) if *unit != TimeUnit::Second => ColumnType::of(DataType::Timestamp),
        ArrowType::Utf8 => ColumnType::varchar(CAPACITY_UNKNOWN),
        ArrowType::Binary => ColumnType::sized(DataType::Varbinary, CAPACITY_UNKNOWN),
        ArrowType::Decimal128(precision, scale) if *scale >= 0 => ColumnType::decimal(*precision, *scale as u8),
        other => {
            let why = format!("{:?} is {other}, which TDengine does not have", field.name());
            return Err(WireError::unencodable("column", why));
        }
    })
}

/// A raw block with the columns of a batch.
///
/// `version` is the block's header version. Timestamps go as they are: their unit must be the precision of the database.
///
/// # Errors
/// When a field has no column type, or a value does not fit it.
pub fn from_batch(batch: &RecordBatch, version: i32) -> Result<Vec<u8>> {
    let types = batch.schema_ref().fields().iter().map(|field| column_type_of(field)).collect::<Result<Vec<_>>>()?;
    from_columns(batch.columns(), &types, version)
}

/// As [`from_batch`], with the column types given: those of the target table.
///
/// # Errors
/// When an array does not have the Arrow type of its column type, or a value does not fit.
pub fn from_columns(columns: &[ArrayRef], types: &[ColumnType], version: i32) -> Result<Vec<u8>> {
    if columns.len() != types.len() {
        let why = format!("{} types for {} columns", types.len(), columns.len());
        return Err(WireError::unencodable("block", why));
    }
    let mut block = BlockBuilder::new(types.iter().copied());
    for (into, from) in block.columns_mut().iter_mut().zip(columns) {
        append(into, from)?;
    }
    block.encode(version)
}

fn append(into: &mut ColumnBuilder, from: &ArrayRef) -> Result<()> {
    match (into.column_type().data_type, from.data_type()) {
        (DataType::Bool, ArrowType::Boolean) => bools(into, from),
        (DataType::TinyInt, ArrowType::Int8) => primitive::<Int8Type>(into, from),
        (DataType::SmallInt, ArrowType::Int16) => primitive::<Int16Type>(into, from),
        (DataType::Int, ArrowType::Int32) => primitive::<Int32Type>(into, from),
        (DataType::BigInt, ArrowType::Int64) => primitive::<Int64Type>(into, from),
        (DataType::UTinyInt, ArrowType::UInt8) => primitive::<UInt8Type>(into, from),
        (DataType::USmallInt, ArrowType::UInt16) => primitive::<UInt16Type>(into, from),
        (DataType::UInt, ArrowType::UInt32) => primitive::<UInt32Type>(into, from),
        (DataType::UBigInt, ArrowType::UInt64) => primitive::<UInt64Type>(into, from),
        (DataType::Float, ArrowType::Float32) => primitive::<Float32Type>(into, from),
        (DataType::Double, ArrowType::Float64) => primitive::<Float64Type>(into, from),
        (DataType::Timestamp, ArrowType::Timestamp(unit, _)) => match unit {
            TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(into, from),
            TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(into, from),
            TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(into, from),
            TimeUnit::Second => Err(mismatch(into, from)),
        },
        (DataType::Timestamp, ArrowType::Int64) => primitive::<Int64Type>(into, from),
        (DataType::Decimal, ArrowType::Decimal128(..)) => primitive::<Decimal128Type>(into, from),
        (DataType::Decimal64, ArrowType::Decimal128(..)) => decimals64(into, from),
        (DataType::Nchar, ArrowType::Utf8) => {
            let array = from.as_string::<i32>();
            array.iter().try_for_each(|text| push_optional(into, text, |into, text| into.push_str(text)))
        }
        (data_type, ArrowType::Utf8) if data_type.is_variable() => {
            let array = from.as_string::<i32>();
            array.iter().try_for_each(|text| push_optional(into, text, |into, text| into.push_bytes(text.as_bytes())))
        }
        (data_type, ArrowType::Binary) if data_type.is_variable() => {
            let array = from.as_binary::<i32>();
            array.iter().try_for_each(|value| push_optional(into, value, |into, value| into.push_bytes(value)))
        }
        _ => Err(mismatch(into, from)),
    }
}

fn mismatch(into: &ColumnBuilder, from: &ArrayRef) -> WireError {
    WireError::unencodable("column", format!("{} does not go into {}", from.data_type(), into.column_type()))
}

fn push_optional<T>(
    into: &mut ColumnBuilder,
    value: Option<T>,
    push: impl FnOnce(&mut ColumnBuilder, T) -> Result<()>,
) -> Result<()> {
    match value {
        Some(value) => push(into, value),
        None => {
            into.push_null();
            Ok(())
        }
    }
}

/// The null bitmap of an array: 1 = null, row 0 in the highest bit.
fn null_bitmap(array: &dyn Array) -> Option<Vec<u8>> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0)?;
    let mut bits = nulls.inner().sliced().as_slice().to_vec();
    bits.truncate(array.len().div_ceil(8));
    bits.iter_mut().for_each(|byte| *byte = (!*byte).reverse_bits());
    if let (Some(last), used @ 1..) = (bits.last_mut(), array.len() % 8) {
        *last &= !(0xff >> used);
    }
    Some(bits)
}

fn primitive<T: ArrowPrimitiveType>(into: &mut ColumnBuilder, from: &ArrayRef) -> Result<()> {
    let array = from.as_primitive::<T>();
    into.extend_fixed(array.values().inner().as_slice(), null_bitmap(array).as_deref())
}

fn bools(into: &mut ColumnBuilder, from: &ArrayRef) -> Result<()> {
    let array = from.as_boolean();
    let values: Vec<u8> = array.values().iter().map(u8::from).collect();
    into.extend_fixed(&values, null_bitmap(array).as_deref())
}

fn decimals64(into: &mut ColumnBuilder, from: &ArrayRef) -> Result<()> {
    let array = from.as_primitive::<Decimal128Type>();
    let mut values = Vec::with_capacity(array.len() * 8);
    for (row, value) in array.values().iter().enumerate() {
        match i64::try_from(*value) {
            Ok(value) => values.extend_from_slice(&value.to_le_bytes()),
            Err(_) if array.is_null(row) => values.extend_from_slice(&[0; 8]),
            Err(_) => return Err(WireError::unencodable("decimal", format!("{value} does not fit 64 bits"))),
        }
    }
    into.extend_fixed(&values, null_bitmap(array).as_deref())
}
