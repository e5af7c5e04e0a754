//! One value of a column or tag, borrowed from the bytes that hold it. For tags, tests and texts; the data plane works
//! on whole columns and never makes one of these per row.

use std::fmt::Write as _;

use crate::error::{Result, WireError};
use crate::escape;
use crate::geometry;
use crate::types::{ColumnType, DataType};

/// A typed value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL of any type.
    Null,
    /// BOOL.
    Bool(bool),
    /// The signed integers.
    Int(i64),
    /// The unsigned integers.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// TIMESTAMP in the precision of its database.
    Timestamp(i64),
    /// DECIMAL and DECIMAL64 without their scale.
    Decimal(i128),
    /// VARCHAR: any bytes, UTF-8 by convention.
    Varchar(&'a [u8]),
    /// NCHAR: UTF-32LE.
    Nchar(&'a [u8]),
    /// JSON text.
    Json(&'a [u8]),
    /// VARBINARY.
    Varbinary(&'a [u8]),
    /// GEOMETRY: WKB.
    Geometry(&'a [u8]),
    /// BLOB, MEDIUMBLOB.
    Blob(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads a value without its length prefix.
    ///
    /// # Errors
    /// When a fixed type does not get exactly its width.
    pub fn read(data_type: DataType, bytes: &'a [u8]) -> Result<Self> {
        if data_type.width().is_some_and(|width| width != bytes.len()) {
            let why = format!("{} bytes for {data_type}", bytes.len());
            return Err(WireError::invalid("value", why));
        }
        Ok(match data_type {
            DataType::Bool => Self::Bool(bytes[0] != 0),
            DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => Self::Int(signed(bytes)),
            DataType::UTinyInt | DataType::USmallInt | DataType::UInt | DataType::UBigInt => {
                Self::UInt(unsigned(bytes) as u64)
            }
            DataType::Float => Self::Float(f32::from_bits(unsigned(bytes) as u32)),
            DataType::Double => Self::Double(f64::from_bits(unsigned(bytes) as u64)),
            DataType::Timestamp => Self::Timestamp(signed(bytes)),
            DataType::Decimal64 => Self::Decimal(i128::from(signed(bytes))),
            DataType::Decimal => Self::Decimal(unsigned(bytes) as i128),
            DataType::Varchar => Self::Varchar(bytes),
            DataType::Nchar => Self::Nchar(bytes),
            DataType::Json => Self::Json(bytes),
            DataType::Varbinary => Self::Varbinary(bytes),
            DataType::Geometry => Self::Geometry(bytes),
            DataType::Blob | DataType::MediumBlob => Self::Blob(bytes),
        })
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of VARCHAR, NCHAR and JSON; bytes that are no valid text become U+FFFD.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Varchar(bytes) | Self::Json(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Nchar(bytes) => Some(nchar_text(bytes)),
            _ => None,
        }
    }

    /// An integer, boolean or timestamp as `i64`; `None` for other types, NULL, and what does not fit.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Bool(value) => Some(i64::from(value)),
            Self::Int(value) | Self::Timestamp(value) => Some(value),
            Self::UInt(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The value as a SQL literal that gives exactly this value back (FACTS F21, F22: JSON meta does not).
    ///
    /// `column_type` supplies the scale of decimals. Floats have the shortest text that reads back the same; those that
    /// SQL cannot say (NaN, infinities, shapes that no server takes) become NULL. VARCHAR bytes that are no UTF-8 become U+FFFD: write those raw.
    pub fn to_sql(&self, column_type: ColumnType) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) | Self::Timestamp(value) => value.to_string(),
            Self::UInt(value) => value.to_string(),
            Self::Float(value) if value.is_finite() => format!("{value:e}"),
            Self::Double(value) if value.is_finite() => format!("{value:e}"),
            Self::Float(_) | Self::Double(_) => "NULL".to_owned(),
            Self::Decimal(value) => decimal_text(*value, column_type.decimal_parts().map_or(0, |parts| parts.1)),
            Self::Varchar(bytes) | Self::Json(bytes) => escape::literal(&String::from_utf8_lossy(bytes)),
            Self::Nchar(bytes) => escape::literal(&nchar_text(bytes)),
            Self::Geometry(bytes) => geometry::to_wkt(bytes).map_or_else(|_| "NULL".to_owned(), |text| escape::literal(&text)),
            Self::Varbinary(bytes) | Self::Blob(bytes) => {
                let mut text = String::with_capacity(bytes.len() * 2 + 4);
                text.push_str("'\\x");
                for byte in *bytes {
                    let _ = write!(text, "{byte:02X}");
                }
                text.push('\'');
                text
            }
        }
    }
}

fn unsigned(bytes: &[u8]) -> u128 {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(wide)
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    ((unsigned(bytes) as u64) << unused) as i64 >> unused
}

/// Decodes UTF-32LE; what is no character becomes U+FFFD.
pub fn nchar_text(bytes: &[u8]) -> String {
    bytes.chunks(4).map(|chunk| nchar_char(chunk).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// The character of four UTF-32LE bytes.
pub(crate) fn nchar_char(chunk: &[u8]) -> Option<char> {
    let bytes: [u8; 4] = chunk.try_into().ok()?;
    char::from_u32(u32::from_le_bytes(bytes))
}

/// Encodes text as UTF-32LE.
pub fn nchar_bytes(text: &str) -> Vec<u8> {
    text.chars().flat_map(|character| u32::from(character).to_le_bytes()).collect()
}

/// A scaled integer as text: `decimal_text(-105, 2)` is `-1.05`.
pub fn decimal_text(value: i128, scale: u8) -> String {
    let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}
