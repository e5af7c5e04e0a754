//! One value while an expression is computed.

use std::cmp::Ordering;

use tdengine_wire::block::ColumnBuilder;
use tdengine_wire::value::{Value, decimal_text, nchar_bytes, nchar_text};
use tdengine_wire::{ColumnType, DataType};

use crate::error::Result;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Time(i64),
    /// Value and scale.
    Decimal(i128, u8),
    /// VARCHAR, NCHAR and JSON: bytes, UTF-8 by convention.
    Text(Vec<u8>),
    /// VARBINARY, GEOMETRY, BLOB.
    Bytes(Vec<u8>),
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into().into_bytes())
    }

    pub fn of(value: Value<'_>, column_type: ColumnType) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::UInt(value) => Self::UInt(value),
            Value::Float(value) => Self::Float(value),
            Value::Double(value) => Self::Double(value),
            Value::Timestamp(value) => Self::Time(value),
            Value::Decimal(value) => Self::Decimal(value, column_type.decimal_parts().map_or(0, |parts| parts.1)),
            Value::Varchar(bytes) | Value::Json(bytes) => Self::Text(bytes.to_vec()),
            Value::Nchar(bytes) => Self::Text(nchar_text(bytes).into_bytes()),
            Value::Varbinary(bytes) | Value::Geometry(bytes) | Value::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }

    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// As a condition: NULL and 0 are no.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::Null => false,
            other => other.as_f64().is_some_and(|number| number != 0.0),
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Bool(value) => Some(i64::from(*value)),
            Self::Int(value) | Self::Time(value) => Some(*value),
            Self::UInt(value) => Some(*value as i64),
            Self::Float(value) => Some(*value as i64),
            Self::Double(value) => Some(*value as i64),
            Self::Decimal(value, scale) => i64::try_from(value / 10i128.pow(u32::from(*scale))).ok(),
            Self::Text(bytes) => Some(std::str::from_utf8(bytes).ok().map_or(0, leading_integer)),
            Self::Null | Self::Bytes(_) => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(*value)),
            Self::Int(value) | Self::Time(value) => Some(*value as f64),
            Self::UInt(value) => Some(*value as f64),
            Self::Float(value) => Some(f64::from(*value)),
            Self::Double(value) => Some(*value),
            Self::Decimal(value, scale) => Some(*value as f64 / 10f64.powi(i32::from(*scale))),
            Self::Text(bytes) => std::str::from_utf8(bytes).ok()?.trim().parse().ok(),
            Self::Null | Self::Bytes(_) => None,
        }
    }

    /// As text, the way casts and system tables show it.
    pub fn shown(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) | Self::Time(value) => value.to_string(),
            Self::UInt(value) => value.to_string(),
            Self::Float(value) => format!("{value:.6}"),
            Self::Double(value) => format!("{value:.6}"),
            Self::Decimal(value, scale) => decimal_text(*value, *scale),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
        }
    }

    /// How two values stand to each other; `None` where one is NULL or they do not compare.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Text(left) | Self::Bytes(left), Self::Text(right) | Self::Bytes(right)) => Some(left.cmp(right)),
            (Self::Decimal(left, a), Self::Decimal(right, b)) if a == b => Some(left.cmp(right)),
            _ => match (self.integer(), other.integer()) {
                (Some(left), Some(right)) => Some(left.cmp(&right)),
                _ => self.as_f64()?.partial_cmp(&other.as_f64()?),
            },
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Int(value) | Self::Time(value) => Some(i128::from(*value)),
            Self::UInt(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// For ORDER BY: NULLs first, then by value; incomparable ones are equal.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self.is_null(), other.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare(other).unwrap_or(Ordering::Equal),
        }
    }

    /// Bytes that are equal for equal values, for grouping.
    pub fn key(&self, out: &mut Vec<u8>) {
        let tagged = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Null => out.push(0),
            Self::Bool(value) => tagged(out, 1, &[u8::from(*value)]),
            Self::Int(value) => tagged(out, 2, &value.to_le_bytes()),
            Self::UInt(value) => tagged(out, 3, &value.to_le_bytes()),
            Self::Float(value) => tagged(out, 4, &value.to_bits().to_le_bytes()),
            Self::Double(value) => tagged(out, 5, &value.to_bits().to_le_bytes()),
            Self::Time(value) => tagged(out, 6, &value.to_le_bytes()),
            Self::Decimal(value, scale) => {
                tagged(out, 7, &value.to_le_bytes());
                out.push(*scale);
            }
            Self::Text(bytes) => tagged(out, 8, bytes),
            Self::Bytes(bytes) => tagged(out, 9, bytes),
        }
    }

    /// Appends the value to a column, converted to its type; what does not convert becomes NULL.
    pub fn push(&self, column: &mut ColumnBuilder) -> Result<()> {
        let data_type = column.column_type().data_type;
        match self.bytes_as(column.column_type()) {
            Some(bytes) if data_type.is_variable() || data_type.width() == Some(bytes.len()) => column.push_bytes(&bytes)?,
            _ => column.push_null(),
        }
        Ok(())
    }

    fn bytes_as(&self, column_type: ColumnType) -> Option<Vec<u8>> {
        if self.is_null() {
            return None;
        }
        let integer = |width: usize| self.as_i64().map(|value| value.to_le_bytes()[..width].to_vec());
        match column_type.data_type {
            DataType::Bool => Some(vec![u8::from(self.is_true())]),
            DataType::TinyInt | DataType::UTinyInt => integer(1),
            DataType::SmallInt | DataType::USmallInt => integer(2),
            DataType::Int | DataType::UInt => integer(4),
            DataType::BigInt | DataType::UBigInt | DataType::Timestamp => integer(8),
            DataType::Float => self.as_f64().map(|value| match self {
                Self::Float(exact) => exact.to_le_bytes().to_vec(),
                _ => (value as f32).to_le_bytes().to_vec(),
            }),
            DataType::Double => self.as_f64().map(|value| value.to_le_bytes().to_vec()),
            DataType::Decimal => match self {
                Self::Decimal(value, _) => Some(value.to_le_bytes().to_vec()),
                _ => None,
            },
            DataType::Decimal64 => match self {
                Self::Decimal(value, _) => i64::try_from(*value).ok().map(|value| value.to_le_bytes().to_vec()),
                _ => None,
            },
            DataType::Nchar => match self {
                Self::Text(bytes) => Some(nchar_bytes(&String::from_utf8_lossy(bytes))),
                other => Some(nchar_bytes(&other.shown())),
            },
            _ => match self {
                Self::Text(bytes) | Self::Bytes(bytes) => Some(bytes.clone()),
                other => Some(other.shown().into_bytes()),
            },
        }
    }
}

/// The number at the start of a text, 0 where there is none (FACTS F57).
fn leading_integer(text: &str) -> i64 {
    let text = text.trim_start();
    let digits = text.bytes().enumerate().take_while(|(at, byte)| byte.is_ascii_digit() || (*at == 0 && b"+-".contains(byte)));
    text[..digits.count()].parse().unwrap_or(0)
}
