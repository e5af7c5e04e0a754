//! A column of Arrow as the big-endian bytes of a type of the server.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, Int64Array, PrimitiveArray, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, TimeUnit, i256,
};
use arrow_json::writer::make_encoder;

use super::number;
use crate::kinds::{Kind, finer_than_microseconds, plain};

/// 2000-01-01, from which the server counts.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;
/// In front of each `jsonb`.
const JSONB_VERSION: u8 = 1;
/// The most digits of a decimal of 128 bits.
const NARROW_DIGITS: u8 = 38;

#[derive(Clone, Copy)]
pub struct Options {
    pub cut_nanoseconds: bool,
}

/// Why a column cannot be written; these rows of it, all where none is named.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub reason: String,
    pub rows: Vec<u64>,
}

pub struct Column {
    nulls: Option<NullBuffer>,
    values: Values,
}

enum Values {
    /// So many bytes each.
    Fixed(usize, Vec<u8>),
    /// Where each ends.
    Variable(Vec<u8>, Vec<usize>),
    Texts(StringArray),
    Binary(BinaryArray),
    /// Nothing but NULL.
    None,
}

impl Column {
    fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::None) || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Adds the bytes of each value, without those of its length.
    pub fn add_lengths(&self, lengths: &mut [usize]) {
        let add = |lengths: &mut [usize], of: &dyn Fn(usize) -> usize| {
            lengths.iter_mut().enumerate().filter(|(row, _)| !self.is_null(*row)).for_each(|(row, length)| *length += of(row));
        };
        match &self.values {
            Values::Fixed(width, _) => add(lengths, &|_| *width),
            Values::Variable(_, ends) => add(lengths, &|row| ends[row] - if row == 0 { 0 } else { ends[row - 1] }),
            Values::Texts(texts) => add(lengths, &|row| texts.value_length(row) as usize),
            Values::Binary(values) => add(lengths, &|row| values.value_length(row) as usize),
            Values::None => {}
        }
    }

    /// Puts each value where its row's next field goes.
    pub fn write(&self, bytes: &mut [u8], at: &mut [usize]) {
        match &self.values {
            Values::Fixed(width, data) => self.write_each(bytes, at, |row| &data[row * width..(row + 1) * width]),
            Values::Variable(data, ends) => self.write_each(bytes, at, |row| &data[if row == 0 { 0 } else { ends[row - 1] }..ends[row]]),
            Values::Texts(texts) => self.write_each(bytes, at, |row| texts.value(row).as_bytes()),
            Values::Binary(values) => self.write_each(bytes, at, |row| values.value(row)),
            Values::None => self.write_each(bytes, at, |_| &[]),
        }
    }

    fn write_each<'a>(&self, bytes: &mut [u8], at: &mut [usize], value: impl Fn(usize) -> &'a [u8]) {
        for (row, at) in at.iter_mut().enumerate() {
            let start = *at + 4;
            if self.is_null(row) {
                bytes[*at..start].copy_from_slice(&(-1i32).to_be_bytes());
                *at = start;
                continue;
            }
            let value = value(row);
            bytes[*at..start].copy_from_slice(&(value.len() as i32).to_be_bytes());
            bytes[start..start + value.len()].copy_from_slice(value);
            *at = start + value.len();
        }
    }
}

/// The column for a type of the server.
///
/// # Errors
/// The types do not fit, or single values.
pub fn column(array: &ArrayRef, kind: Kind, options: Options) -> Result<Column, Refused> {
    let from = plain(array.data_type());
    if from == DataType::Null {
        return Ok(Column { nulls: None, values: Values::None });
    }
    if !kind.takes(&from) {
        return Err(Refused { reason: format!("{from} cannot be held by it"), rows: Vec::new() });
    }
    let array = if from == *array.data_type() { array.clone() } else { cast(array, &from)? };
    let values = match kind {
        Kind::Bool => {
            let values: &BooleanArray = array.as_boolean();
            Values::Fixed(1, (0..values.len()).map(|row| u8::from(values.value(row))).collect())
        }
        Kind::Int2 => fixed::<Int16Type, 2>(&cast(&array, &DataType::Int16)?, i16::to_be_bytes),
        Kind::Int4 => fixed::<Int32Type, 4>(&cast(&array, &DataType::Int32)?, i32::to_be_bytes),
        Kind::Int8 => fixed::<Int64Type, 8>(&cast(&array, &DataType::Int64)?, i64::to_be_bytes),
        Kind::Float4 => fixed::<Float32Type, 4>(&cast(&array, &DataType::Float32)?, f32::to_be_bytes),
        Kind::Float8 => fixed::<Float64Type, 8>(&cast(&array, &DataType::Float64)?, f64::to_be_bytes),
        Kind::Numeric => numeric(&array, &from)?,
        Kind::Text => Values::Texts(array.as_string::<i32>().clone()),
        Kind::Bytea => Values::Binary(cast(&array, &DataType::Binary)?.as_binary::<i32>().clone()),
        Kind::Date => fixed::<Date32Type, 4>(&cast(&array, &DataType::Date32)?, |days| days.wrapping_sub(EPOCH_DAYS).to_be_bytes()),
        Kind::Time | Kind::Timestamp | Kind::TimestampTz => {
            let epoch = if kind == Kind::Time { 0 } else { EPOCH_MICROSECONDS };
            fixed::<Int64Type, 8>(&(Arc::new(microseconds(&array, options)?) as ArrayRef), |at| at.saturating_sub(epoch).to_be_bytes())
        }
        Kind::Interval => interval(&array, &from, options)?,
        Kind::Json | Kind::Jsonb => json(&array, &from, kind == Kind::Jsonb)?,
        Kind::Uuid => uuid(&array, &from)?,
    };
    Ok(Column { nulls: array.logical_nulls(), values })
}

fn fixed<T: ArrowPrimitiveType, const WIDTH: usize>(array: &ArrayRef, bytes: impl Fn(T::Native) -> [u8; WIDTH]) -> Values {
    let values: &PrimitiveArray<T> = array.as_primitive();
    Values::Fixed(WIDTH, values.values().iter().flat_map(|value| bytes(*value)).collect())
}

/// As another type; values that it cannot hold are refused by row.
fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Refused> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = cast_with_options(array, to, &options).map_err(|error| Refused { reason: error.to_string(), rows: Vec::new() })?;
    let is_new = |row: &usize| cast.is_null(*row) && !array.is_null(*row);
    refuse("a value is out of range", (0..array.len()).filter(|row| array.null_count() != cast.null_count() && is_new(row)))?;
    Ok(cast)
}

fn refuse(reason: &str, rows: impl Iterator<Item = usize>) -> Result<(), Refused> {
    let rows: Vec<u64> = rows.map(|row| row as u64).collect();
    if rows.is_empty() { Ok(()) } else { Err(Refused { reason: reason.into(), rows }) }
}

/// Times and lengths of time in microseconds.
fn microseconds(array: &ArrayRef, options: Options) -> Result<Int64Array, Refused> {
    let per_unit: i64 = match array.data_type() {
        DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit) | DataType::Duration(unit) => match unit {
            TimeUnit::Second => 1_000_000,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond | TimeUnit::Nanosecond => 1,
        },
        _ => 1,
    };
    // As the numbers they are: a cast between units would round.
    let wide = if matches!(array.data_type(), DataType::Time32(_)) { cast(array, &DataType::Int32)? } else { array.clone() };
    let numbers = cast(&wide, &DataType::Int64)?;
    let numbers: &Int64Array = numbers.as_primitive();
    let present = |row: &usize| !numbers.is_null(*row);
    if let Some(finer) = finer_than_microseconds(array.data_type()) {
        if !options.cut_nanoseconds {
            let reason = "a time is finer than a microsecond: set `nanoseconds = \"cut\"`, or make it a number with `select`";
            refuse(reason, (0..numbers.len()).filter(present).filter(|row| numbers.value(*row) % finer != 0))?;
        }
        return Ok(numbers.unary(|value| value.div_euclid(finer)));
    }
    let overflows = |row: &usize| numbers.value(*row).checked_mul(per_unit).is_none();
    refuse("a time is out of range", (0..numbers.len()).filter(present).filter(overflows))?;
    Ok(numbers.unary(|value: i64| value.wrapping_mul(per_unit)))
}

/// Microseconds, days, months.
fn interval(array: &ArrayRef, from: &DataType, options: Options) -> Result<Values, Refused> {
    let bytes = |microseconds: i64, days: i32, months: i32| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&microseconds.to_be_bytes());
        bytes[8..12].copy_from_slice(&days.to_be_bytes());
        bytes[12..].copy_from_slice(&months.to_be_bytes());
        bytes
    };
    if matches!(from, DataType::Duration(_)) {
        return Ok(fixed::<Int64Type, 16>(&(Arc::new(microseconds(array, options)?) as ArrayRef), |length| bytes(length, 0, 0)));
    }
    let array = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let values = array.as_primitive::<IntervalMonthDayNanoType>();
    if !options.cut_nanoseconds {
        let is_finer = |row: &usize| !values.is_null(*row) && values.value(*row).nanoseconds % 1_000 != 0;
        refuse("an interval is finer than a microsecond: set `nanoseconds = \"cut\"`", (0..values.len()).filter(is_finer))?;
    }
    Ok(fixed::<IntervalMonthDayNanoType, 16>(&array, |it| bytes(it.nanoseconds.div_euclid(1_000), it.days, it.months)))
}

fn numeric(array: &ArrayRef, from: &DataType) -> Result<Values, Refused> {
    let (digits, scale) = match from {
        DataType::Decimal32(digits, scale) | DataType::Decimal64(digits, scale) | DataType::Decimal128(digits, scale) | DataType::Decimal256(digits, scale) => (*digits, *scale),
        _ => (20, 0),
    };
    let shown = scale.max(0) as u8;
    let is_wide = digits > NARROW_DIGITS || scale < 0;
    let (mut data, mut ends) = (Vec::with_capacity(array.len() * 16), Vec::with_capacity(array.len()));
    if is_wide {
        let array = cast(array, &DataType::Decimal256(76, shown as i8))?;
        for value in array.as_primitive::<Decimal256Type>().values() {
            number::append(*value < i256::ZERO, value.wrapping_abs(), shown, &mut data);
            ends.push(data.len());
        }
    } else {
        let array = cast(array, &DataType::Decimal128(NARROW_DIGITS, shown as i8))?;
        for value in array.as_primitive::<Decimal128Type>().values() {
            number::append(*value < 0, value.unsigned_abs(), shown, &mut data);
            ends.push(data.len());
        }
    }
    Ok(Values::Variable(data, ends))
}

/// Lists, records and maps as JSON; texts as the JSON that they are.
fn json(array: &ArrayRef, from: &DataType, is_binary: bool) -> Result<Values, Refused> {
    let (mut data, mut ends) = (Vec::new(), Vec::with_capacity(array.len()));
    let mut push = |ends: &mut Vec<usize>, append: &mut dyn FnMut(&mut Vec<u8>)| {
        if is_binary {
            data.push(JSONB_VERSION);
        }
        append(&mut data);
        ends.push(data.len());
    };
    if *from == DataType::Utf8 {
        let texts: &StringArray = array.as_string();
        (0..texts.len()).for_each(|row| push(&mut ends, &mut |data| data.extend(texts.value(row).as_bytes())));
    } else {
        let field = Arc::new(Field::new("value", from.clone(), true));
        let options = arrow_json::EncoderOptions::default();
        let encoder = make_encoder(&field, array, &options);
        let mut encoder = encoder.map_err(|error| Refused { reason: format!("{from} makes no JSON: {error}"), rows: Vec::new() })?;
        for row in 0..array.len() {
            let is_null = encoder.is_null(row);
            push(&mut ends, &mut |data| if !is_null { encoder.encode(row, data) });
        }
    }
    Ok(Values::Variable(data, ends))
}

fn uuid(array: &ArrayRef, from: &DataType) -> Result<Values, Refused> {
    if let DataType::FixedSizeBinary(_) = from {
        let values: &FixedSizeBinaryArray = array.as_fixed_size_binary();
        return Ok(Values::Fixed(16, (0..values.len()).flat_map(|row| values.value(row).iter().copied()).collect()));
    }
    let texts: &StringArray = array.as_string();
    let mut data = vec![0; texts.len() * 16];
    let is_wrong = |(row, bytes): (usize, &mut [u8])| (!texts.is_null(row) && !parse_uuid(texts.value(row), bytes)).then_some(row);
    let wrong: Vec<usize> = data.chunks_mut(16).enumerate().filter_map(is_wrong).collect();
    refuse("a text is no UUID", wrong.into_iter())?;
    Ok(Values::Fixed(16, data))
}

/// 32 hexadecimal digits, with hyphens or without.
fn parse_uuid(text: &str, to: &mut [u8]) -> bool {
    let mut digits = text.bytes().filter(|byte| *byte != b'-').map(|byte| char::from(byte).to_digit(16));
    for byte in to.iter_mut() {
        let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else { return false };
        *byte = (high << 4 | low) as u8;
    }
    digits.next().is_none()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int32Array, TimestampNanosecondArray, UInt64Array};

    use super::*;

    const STRICT: Options = Options { cut_nanoseconds: false };

    fn bytes(array: ArrayRef, kind: Kind, options: Options) -> Result<Vec<u8>, Refused> {
        let column = column(&array, kind, options)?;
        let mut lengths = vec![4; array.len()];
        column.add_lengths(&mut lengths);
        let mut at: Vec<usize> = lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + length))).collect();
        let mut bytes = vec![0; lengths.iter().sum()];
        column.write(&mut bytes, &mut at);
        Ok(bytes)
    }

    #[test]
    fn what_does_not_fit_is_refused_by_row() {
        let refused = |array: ArrayRef, kind| bytes(array, kind, STRICT).unwrap_err();
        assert_eq!(refused(Arc::new(Int32Array::from(vec![Some(1), None, Some(70_000)])), Kind::Int2).rows, [2]);
        assert_eq!(refused(Arc::new(UInt64Array::from(vec![u64::MAX, 1])), Kind::Int8).rows, [0]);
        assert_eq!(refused(Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001])), Kind::Timestamp).rows, [1]);
        assert_eq!(refused(Arc::new(StringArray::from(vec!["00000000-0000-0000-0000-00000000000g"])), Kind::Uuid).rows, [0]);
        let whole = refused(Arc::new(StringArray::from(vec!["1"])), Kind::Int4);
        assert_eq!((whole.reason.as_str(), whole.rows.len()), ("Utf8 cannot be held by it", 0));
    }

    #[test]
    fn values_are_as_the_server_has_them() {
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![946_684_800_000_001_999]));
        let cut = bytes(time, Kind::TimestampTz, Options { cut_nanoseconds: true }).unwrap();
        assert_eq!(cut, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
        let decimal: ArrayRef = Arc::new(Decimal128Array::from(vec![-150]).with_precision_and_scale(5, 2).unwrap());
        assert_eq!(bytes(decimal, Kind::Numeric, STRICT).unwrap(), [0, 0, 0, 12, 0, 2, 0, 0, 0x40, 0, 0, 2, 0, 1, 0x13, 0x88]);
    }
}
