//! Bound values into columns of the target's types.
//!
//! Clients bind in types of their own: version 1 as JSON or as a raw block, version 2 in a form where NCHAR is UTF-8.
//! Whatever fits the target without loss is taken; the rest is refused, nothing is cut or rounded.

use std::ops::RangeInclusive;

use serde_json::Value as Json;
use tdengine_wire::block::{BlockBuilder, BlockView, ColumnBuilder, VERSION_QUERY};
use tdengine_wire::value::{Value, nchar_text};
use tdengine_wire::{ColumnType, DataType, Field, Precision};

use crate::error::Fail;

/// Values of one column or tag, one a row.
pub(super) trait Bound {
    fn rows(&self) -> usize;
    /// # Errors
    /// When the value cannot be read.
    fn get(&self, row: usize, target: &Field, precision: Precision) -> Result<Value<'_>, Fail>;
    /// Appends all rows at once where the types are the same; false where they have to be looked at one by one.
    ///
    /// # Errors
    /// When they cannot be appended.
    fn append(&self, _column: &mut ColumnBuilder) -> Result<bool, Fail> {
        Ok(false)
    }
}

/// The same constant in each row.
#[derive(Debug)]
pub(super) struct Constant<'a> {
    pub value: Option<&'a [u8]>,
    pub rows: usize,
}

impl Bound for Constant<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn get(&self, _row: usize, target: &Field, _precision: Precision) -> Result<Value<'_>, Fail> {
        match self.value {
            None => Ok(Value::Null),
            Some(bytes) => Ok(Value::read(target.column_type.data_type, bytes)?),
        }
    }
}

impl Bound for tdengine_wire::block::ColumnView<'_> {
    fn rows(&self) -> usize {
        self.rows()
    }

    fn get(&self, row: usize, _target: &Field, _precision: Precision) -> Result<Value<'_>, Fail> {
        Ok(self.value(row))
    }

    fn append(&self, column: &mut ColumnBuilder) -> Result<bool, Fail> {
        let same = self.data_type() == column.column_type().data_type;
        if same {
            column.extend_from(self, 0..self.rows())?;
        }
        Ok(same)
    }
}

impl Bound for Vec<Json> {
    fn rows(&self) -> usize {
        self.len()
    }

    fn get(&self, row: usize, target: &Field, precision: Precision) -> Result<Value<'_>, Fail> {
        let json = &self[row];
        let wrong = || mismatch(target, &json.to_string());
        Ok(match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::String(text) if target.column_type.data_type == DataType::Timestamp => {
                Value::Timestamp(time(text, precision).ok_or_else(wrong)?)
            }
            Json::String(text) => Value::Varchar(text.as_bytes()),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => Value::Int(value),
                (_, Some(value), _) => Value::UInt(value),
                (.., Some(value)) => Value::Double(value),
                _ => return Err(wrong()),
            },
            Json::Array(_) | Json::Object(_) => return Err(wrong()),
        })
    }
}

/// RFC 3339 in the precision of the database.
fn time(text: &str, precision: Precision) -> Option<i64> {
    let nanoseconds = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    i64::try_from(nanoseconds.div_euclid(1_000_000_000 / i128::from(precision.per_second()))).ok()
}

/// A block with one column for each target.
///
/// # Errors
/// 0x0118 when a value does not fit the type of its target, or columns have different numbers of rows.
pub(super) fn block(columns: &[(&Field, &dyn Bound)], precision: Precision) -> Result<Vec<u8>, Fail> {
    let rows = columns.first().map_or(0, |(_, bound)| bound.rows());
    if rows == 0 || columns.iter().any(|(_, bound)| bound.rows() != rows) {
        return Err(Fail::new(0x0118, "Invalid parameters: columns need the same number of rows, at least one"));
    }
    let mut builder = BlockBuilder::new(columns.iter().map(|(field, _)| field.column_type));
    for (column, (field, bound)) in builder.columns_mut().iter_mut().zip(columns) {
        if bound.append(column)? {
            continue;
        }
        for row in 0..rows {
            let value = bound.get(row, field, precision)?;
            push(column, value, field)?;
        }
    }
    Ok(builder.encode(VERSION_QUERY)?)
}

/// The bytes of one value as tags hold it; `None` for NULL.
///
/// # Errors
/// As [`block`].
pub(super) fn tag(field: &Field, bound: &dyn Bound, row: usize, precision: Precision) -> Result<Option<Vec<u8>>, Fail> {
    let mut builder = BlockBuilder::new([field.column_type]);
    let value = bound.get(row, field, precision)?;
    push(builder.column(0), value, field)?;
    let block = builder.encode(VERSION_QUERY)?;
    let view = BlockView::parse(&block)?;
    Ok(view.column(0).and_then(|column| column.bytes(0)).map(<[u8]>::to_vec))
}

fn push(column: &mut ColumnBuilder, value: Value<'_>, field: &Field) -> Result<(), Fail> {
    use DataType as T;
    let target = field.column_type.data_type;
    let pushed = match (target, value) {
        (_, Value::Null) => {
            column.push_null();
            return Ok(());
        }
        (T::Nchar, Value::Nchar(bytes)) => column.push_bytes(bytes),
        (T::Nchar, Value::Varchar(bytes) | Value::Json(bytes)) => column.push_str(utf8(bytes, field)?),
        (T::Varchar | T::Json | T::Varbinary, Value::Nchar(bytes)) => column.push_bytes(nchar_text(bytes).as_bytes()),
        (_, Value::Varchar(bytes) | Value::Json(bytes) | Value::Varbinary(bytes) | Value::Geometry(bytes))
            if target.is_variable() =>
        {
            column.push_bytes(bytes)
        }
        (_, Value::Blob(bytes)) if target.is_variable() => column.push_bytes(bytes),
        (T::Float, Value::Float(value)) => column.push_f32(value),
        (T::Float, Value::Double(value)) => column.push_f32(value as f32),
        (T::Double, Value::Float(value)) => column.push_f64(value.into()),
        (T::Double, Value::Double(value)) => column.push_f64(value),
        (T::Float, Value::Int(value)) => column.push_f32(value as f32),
        (T::Double, Value::Int(value)) => column.push_f64(value as f64),
        (T::Bool, Value::Bool(value)) => column.push_bytes(&[u8::from(value)]),
        (T::Bool, Value::Int(value)) => column.push_bytes(&[u8::from(value != 0)]),
        (T::Decimal, Value::Decimal(value)) => column.push_bytes(&value.to_le_bytes()),
        (T::Decimal64, Value::Decimal(value)) => match i64::try_from(value) {
            Ok(value) => column.push_bytes(&value.to_le_bytes()),
            Err(_) => return Err(mismatch(field, &value.to_string())),
        },
        (_, Value::Bool(value)) => return push_integer(column, value.into(), field),
        (_, Value::Int(value) | Value::Timestamp(value)) => return push_integer(column, value.into(), field),
        (_, Value::UInt(value)) => return push_integer(column, value.into(), field),
        (_, value) => return Err(mismatch(field, &format!("{value:?}"))),
    };
    pushed.map_err(|error| mismatch(field, &error.to_string()))
}

/// An integer or a timestamp, when it is within the range of the type.
fn push_integer(column: &mut ColumnBuilder, value: i128, field: &Field) -> Result<(), Fail> {
    let wrong = || mismatch(field, &value.to_string());
    let range = integer_range(field.column_type.data_type).ok_or_else(wrong)?;
    let width = field.column_type.data_type.width().ok_or_else(wrong)?;
    if !range.contains(&value) {
        return Err(wrong());
    }
    Ok(column.push_bytes(&value.to_le_bytes()[..width])?)
}

/// The values of an integer type; `None` for other types.
pub(crate) fn integer_range(data_type: DataType) -> Option<RangeInclusive<i128>> {
    use DataType as T;
    let bits = 8 * data_type.width()? as u32;
    match data_type {
        T::TinyInt | T::SmallInt | T::Int | T::BigInt | T::Timestamp => {
            Some(-(1i128 << (bits - 1))..=(1i128 << (bits - 1)) - 1)
        }
        T::UTinyInt | T::USmallInt | T::UInt | T::UBigInt => Some(0..=(1i128 << bits) - 1),
        _ => None,
    }
}

fn utf8<'a>(bytes: &'a [u8], field: &Field) -> Result<&'a str, Fail> {
    std::str::from_utf8(bytes).map_err(|_| mismatch(field, "bytes that are no UTF-8"))
}

fn mismatch(field: &Field, what: &str) -> Fail {
    let ColumnType { data_type, .. } = field.column_type;
    Fail::new(0x0118, format!("Invalid parameters: {what} does not fit {data_type} {}", field.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(json: &str, column_type: ColumnType) -> Option<String> {
        let field = Field::new("c", column_type, 1);
        let values: Vec<Json> = serde_json::from_str(json).unwrap();
        let bytes = block(&[(&field, &values)], Precision::Milliseconds).ok()?;
        let view = BlockView::parse(&bytes).unwrap();
        Some((0..view.rows()).map(|row| format!("{:?}", view.columns()[0].value(row))).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_fits_is_taken_and_the_rest_refused() {
        let check = |json: &str, data_type, expected: Option<&str>| {
            assert_eq!(bind(json, ColumnType::of(data_type)).as_deref(), expected, "{json} {data_type}");
        };
        check("[1,null,-5]", DataType::Int, Some("Int(1) Null Int(-5)"));
        check("[300]", DataType::TinyInt, None);
        check("[-1]", DataType::UInt, None);
        check("[18446744073709551615]", DataType::UBigInt, Some("UInt(18446744073709551615)"));
        check("[1.5]", DataType::Int, None);
        check("[1,1.5]", DataType::Double, Some("Double(1.0) Double(1.5)"));
        check("[true,0]", DataType::Bool, Some("Bool(true) Bool(false)"));
        check(r#"["1970-01-01T00:00:01Z",7]"#, DataType::Timestamp, Some("Timestamp(1000) Timestamp(7)"));
        check(r#"["no time"]"#, DataType::Timestamp, None);
        check("[]", DataType::Int, None);
        assert_eq!(bind(r#"["涛"]"#, ColumnType::nchar(4)).unwrap(), "Nchar([155, 109, 0, 0])");
        assert_eq!(bind(r#"["ab"]"#, ColumnType::varchar(4)).unwrap(), "Varchar([97, 98])");
    }
}
