//! Raw block → Arrow.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType as ArrowType, Field as ArrowField, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::{KEY_BYTES, KEY_TYPE};
use crate::block::{BlockView, ColumnView};
use crate::error::{Result, WireError};
use crate::types::{ColumnType, DataType, Precision};
use crate::value::nchar_char;

/// Digits that a decimal of unknown precision gets.
const DECIMAL_PRECISION_MAX: u8 = 38;

/// The Arrow field of a column, nullable and with the metadata for the way back.
pub fn field_of(name: &str, column_type: ColumnType, precision: Precision) -> ArrowField {
    field_with(name, arrow_type(column_type, precision), column_type)
}

fn field_with(name: &str, arrow_type: ArrowType, column_type: ColumnType) -> ArrowField {
    let metadata = HashMap::from([
        (KEY_TYPE.to_owned(), column_type.data_type.code().to_string()),
        (KEY_BYTES.to_owned(), column_type.bytes.to_string()),
    ]);
    ArrowField::new(name, arrow_type, true).with_metadata(metadata)
}

fn arrow_type(column_type: ColumnType, precision: Precision) -> ArrowType {
    match column_type.data_type {
        DataType::Bool => ArrowType::Boolean,
        DataType::TinyInt => ArrowType::Int8,
        DataType::SmallInt => ArrowType::Int16,
        DataType::Int => ArrowType::Int32,
        DataType::BigInt => ArrowType::Int64,
        DataType::UTinyInt => ArrowType::UInt8,
        DataType::USmallInt => ArrowType::UInt16,
        DataType::UInt => ArrowType::UInt32,
        DataType::UBigInt => ArrowType::UInt64,
        DataType::Float => ArrowType::Float32,
        DataType::Double => ArrowType::Float64,
        DataType::Timestamp => ArrowType::Timestamp(unit(precision), None),
        DataType::Varchar | DataType::Nchar | DataType::Json => ArrowType::Utf8,
        DataType::Varbinary | DataType::Geometry | DataType::Blob | DataType::MediumBlob => ArrowType::Binary,
        DataType::Decimal | DataType::Decimal64 => {
            let (precision, scale) = decimal_parts(column_type);
            ArrowType::Decimal128(precision, scale)
        }
    }
}

/// Precision and scale that Arrow accepts, whatever the block says.
fn decimal_parts(column_type: ColumnType) -> (u8, i8) {
    let (precision, scale) = column_type.decimal_parts().unwrap_or_default();
    let precision = if (1..=DECIMAL_PRECISION_MAX).contains(&precision) { precision } else { DECIMAL_PRECISION_MAX };
    (precision, scale.min(precision) as i8)
}

fn unit(precision: Precision) -> TimeUnit {
    match precision {
        Precision::Milliseconds => TimeUnit::Millisecond,
        Precision::Microseconds => TimeUnit::Microsecond,
        Precision::Nanoseconds => TimeUnit::Nanosecond,
    }
}

/// A record batch with the columns of a block.
///
/// # Errors
/// When there are not as many names as columns.
pub fn to_batch<'n>(
    block: &BlockView<'_>,
    names: impl IntoIterator<Item = &'n str>,
    precision: Precision,
) -> Result<RecordBatch> {
    let names: Vec<&str> = names.into_iter().collect();
    if names.len() != block.columns().len() {
        let why = format!("{} names for {} columns", names.len(), block.columns().len());
        return Err(WireError::invalid("record batch", why));
    }
    let columns = to_columns(block, precision)?;
    let fields = names.iter().zip(&columns).zip(block.columns());
    let fields: Vec<_> = fields
        .map(|((name, array), column)| field_with(name, array.data_type().clone(), column.column_type()))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(block.rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|error| WireError::invalid("record batch", error.to_string()))
}

/// The columns of a block as arrays of the types in the module's table.
///
/// # Errors
/// When a variable column passes the 2 GiB of Arrow's offsets, which needs a block that points at its data many times.
pub fn to_columns(block: &BlockView<'_>, precision: Precision) -> Result<Vec<ArrayRef>> {
    block.columns().iter().map(|column| to_array(column, precision)).collect()
}

fn to_array(column: &ColumnView<'_>, precision: Precision) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Bool => bools(column),
        DataType::TinyInt => primitive::<Int8Type>(column),
        DataType::SmallInt => primitive::<Int16Type>(column),
        DataType::Int => primitive::<Int32Type>(column),
        DataType::BigInt => primitive::<Int64Type>(column),
        DataType::UTinyInt => primitive::<UInt8Type>(column),
        DataType::USmallInt => primitive::<UInt16Type>(column),
        DataType::UInt => primitive::<UInt32Type>(column),
        DataType::UBigInt => primitive::<UInt64Type>(column),
        DataType::Float => primitive::<Float32Type>(column),
        DataType::Double => primitive::<Float64Type>(column),
        DataType::Timestamp => match precision {
            Precision::Milliseconds => primitive::<TimestampMillisecondType>(column),
            Precision::Microseconds => primitive::<TimestampMicrosecondType>(column),
            Precision::Nanoseconds => primitive::<TimestampNanosecondType>(column),
        },
        DataType::Decimal | DataType::Decimal64 => decimals(column),
        DataType::Varchar | DataType::Json => texts(column)?,
        DataType::Nchar => nchars(column)?,
        DataType::Varbinary | DataType::Geometry | DataType::Blob | DataType::MediumBlob => {
            let (offsets, data, nulls) = gather(column)?;
            Arc::new(BinaryArray::new(offsets, data, nulls))
        }
    })
}

/// Inverts a null bitmap and turns the bits of each byte around; `None` when nothing is null.
fn validity(column: &ColumnView<'_>) -> Option<NullBuffer> {
    let bitmap = column.bitmap()?;
    if bitmap.iter().all(|byte| *byte == 0) {
        return None;
    }
    let bits: Vec<u8> = bitmap.iter().map(|byte| (!byte).reverse_bits()).collect();
    Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, column.rows())))
}

fn primitive<T: ArrowPrimitiveType>(column: &ColumnView<'_>) -> ArrayRef {
    let values = ScalarBuffer::new(Buffer::from_slice_ref(column.data()), 0, column.rows());
    Arc::new(PrimitiveArray::<T>::new(values, validity(column)))
}

fn bools(column: &ColumnView<'_>) -> ArrayRef {
    let pack = |bytes: &[u8]| bytes.iter().rev().fold(0u8, |bits, byte| bits << 1 | u8::from(*byte != 0));
    let bits: Vec<u8> = column.data().chunks(8).map(pack).collect();
    let values = BooleanBuffer::new(Buffer::from_vec(bits), 0, column.rows());
    Arc::new(BooleanArray::new(values, validity(column)))
}

fn decimals(column: &ColumnView<'_>) -> ArrayRef {
    let values: ScalarBuffer<i128> = if column.data_type() == DataType::Decimal {
        ScalarBuffer::new(Buffer::from_slice_ref(column.data()), 0, column.rows())
    } else {
        let (words, _) = column.data().as_chunks::<8>();
        words.iter().map(|word| i128::from(i64::from_le_bytes(*word))).collect()
    };
    let (precision, scale) = decimal_parts(column.column_type());
    let array = Decimal128Array::new(values, validity(column));
    Arc::new(array.with_data_type(ArrowType::Decimal128(precision, scale)))
}

/// The values of a variable column one after the other, without their prefixes.
fn gather(column: &ColumnView<'_>) -> Result<(OffsetBuffer<i32>, Buffer, Option<NullBuffer>)> {
    let mut data = Vec::with_capacity(column.data().len());
    let (offsets, nulls) = each_value(column, |value| {
        data.extend_from_slice(value);
        data.len()
    })?;
    Ok((offsets, Buffer::from_vec(data), nulls))
}

/// Calls `append` for each value that is not null; it answers the bytes appended so far.
fn each_value<'a>(
    column: &ColumnView<'a>,
    mut append: impl FnMut(&'a [u8]) -> usize,
) -> Result<(OffsetBuffer<i32>, Option<NullBuffer>)> {
    let mut ends = Vec::with_capacity(column.rows() + 1);
    ends.push(0i32);
    let mut valid = vec![0u8; column.rows().div_ceil(8)];
    let (mut end, mut nulls) = (0usize, 0);
    for (row, offset) in column.offsets().enumerate() {
        if offset == -1 {
            nulls += 1;
        } else {
            end = append(column.value_at(offset as usize));
            valid[row / 8] |= 1 << (row % 8);
        }
        ends.push(i32::try_from(end).map_err(|_| WireError::invalid("column", "its values pass 2 GiB"))?);
    }
    let bits = BooleanBuffer::new(Buffer::from_vec(valid), 0, column.rows());
    let nulls = (nulls > 0).then(|| NullBuffer::new(bits));
    Ok((OffsetBuffer::new(ScalarBuffer::from(ends)), nulls))
}

fn texts(column: &ColumnView<'_>) -> Result<ArrayRef> {
    let (offsets, data, nulls) = gather(column)?;
    Ok(match StringArray::try_new(offsets.clone(), data.clone(), nulls.clone()) {
        Ok(array) => Arc::new(array),
        Err(_) => Arc::new(BinaryArray::new(offsets, data, nulls)),
    })
}

fn nchars(column: &ColumnView<'_>) -> Result<ArrayRef> {
    let mut data = Vec::with_capacity(column.data().len() / 2);
    let mut is_text = true;
    let (offsets, nulls) = each_value(column, |value| {
        is_text &= append_utf8(value, &mut data);
        data.len()
    })?;
    if is_text && let Ok(array) = StringArray::try_new(offsets, Buffer::from_vec(data), nulls) {
        return Ok(Arc::new(array));
    }
    let (offsets, data, nulls) = gather(column)?;
    Ok(Arc::new(BinaryArray::new(offsets, data, nulls)))
}

/// Appends UTF-32LE as UTF-8; whether it was text.
fn append_utf8(value: &[u8], out: &mut Vec<u8>) -> bool {
    for chunk in value.chunks(4) {
        // ASCII by far the most often.
        if let [byte @ 0..0x80, 0, 0, 0] = chunk {
            out.push(*byte);
            continue;
        }
        match nchar_char(chunk) {
            Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => return false,
        }
    }
    true
}
