//! Types: what a column of Arrow becomes in a new table, and as what values go into a column that is there.
//!
//! Values are never changed on their way: what the table's type cannot hold is refused, whole types by name, single values by row.

use arrow::datatypes::{DataType, TimeUnit};

/// Types of the server that this sink knows the binary form of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Json,
    Jsonb,
    Uuid,
}

const NAMES: [(&str, Kind); 20] = [
    ("bool", Kind::Bool),
    ("int2", Kind::Int2),
    ("int4", Kind::Int4),
    ("int8", Kind::Int8),
    ("float4", Kind::Float4),
    ("float8", Kind::Float8),
    ("numeric", Kind::Numeric),
    ("text", Kind::Text),
    ("varchar", Kind::Text),
    ("bpchar", Kind::Text),
    ("name", Kind::Text),
    ("citext", Kind::Text),
    ("bytea", Kind::Bytea),
    ("date", Kind::Date),
    ("time", Kind::Time),
    ("timestamp", Kind::Timestamp),
    ("timestamptz", Kind::TimestampTz),
    ("interval", Kind::Interval),
    ("json", Kind::Json),
    ("jsonb", Kind::Jsonb),
];

impl Kind {
    /// By `pg_type.typname` and `typtype`; an enumeration takes texts.
    pub fn of(name: &str, class: &str) -> Option<Self> {
        match name {
            "uuid" => Some(Self::Uuid),
            _ if class == "e" => Some(Self::Text),
            _ => NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind),
        }
    }

    /// Whether every value of the Arrow type that fits is held as it is.
    pub fn takes(self, from: &DataType) -> bool {
        use DataType::*;
        match self {
            Self::Bool => matches!(from, Boolean),
            Self::Int2 | Self::Int4 | Self::Int8 => from.is_integer(),
            Self::Float4 => matches!(from, Float16 | Float32),
            Self::Float8 => matches!(from, Float16 | Float32 | Float64 | Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32),
            Self::Numeric => from.is_integer() || from.is_decimal(),
            Self::Text => matches!(from, Utf8),
            Self::Bytea => matches!(from, Binary | FixedSizeBinary(_)),
            Self::Date => matches!(from, Date32 | Date64),
            Self::Time => matches!(from, Time32(_) | Time64(_)),
            Self::Timestamp | Self::TimestampTz => matches!(from, Timestamp(..)),
            Self::Interval => matches!(from, Duration(_) | Interval(_)),
            Self::Json | Self::Jsonb => from.is_nested() || matches!(from, Utf8),
            Self::Uuid => matches!(from, FixedSizeBinary(16) | Utf8),
        }
    }
}

/// The type without what is only its storage: dictionaries, runs, views, large offsets.
pub fn plain(from: &DataType) -> DataType {
    match from {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// The type of a column that is made for it.
pub fn made_as(from: &DataType) -> String {
    match plain(from) {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint".into(),
        DataType::UInt16 | DataType::Int32 => "integer".into(),
        DataType::UInt32 | DataType::Int64 => "bigint".into(),
        DataType::UInt64 => "numeric(20, 0)".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => match u8::try_from(scale) {
            Ok(scale) => format!("numeric({}, {scale})", digits.max(scale)),
            Err(_) => "numeric".into(),
        },
        DataType::Binary | DataType::FixedSizeBinary(_) => "bytea".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Duration(_) | DataType::Interval(_) => "interval".into(),
        nested if nested.is_nested() => "jsonb".into(),
        // Texts; and columns of nothing but NULL, which could be anything.
        _ => "text".into(),
    }
}

/// How many of the unit are a microsecond, where it is finer than that.
pub fn finer_than_microseconds(from: &DataType) -> Option<i64> {
    match from {
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond) | DataType::Duration(TimeUnit::Nanosecond) => Some(1_000),
        _ => None,
    }
}
