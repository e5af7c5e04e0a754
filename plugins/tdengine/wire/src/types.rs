//! Column types: their codes, SQL names and the four ways in which TDengine counts a column's width.
//!
//! A width appears as schema `bytes` (raw blocks, TMQ schemas, meta), as query length (`fields_lengths` of replies), as
//! the number in SQL, and as JSON meta length. [`ColumnType`] holds the first and converts to the others.

use std::fmt;

use crate::error::{Result, WireError};

/// Longest variable column value (VARCHAR, NCHAR in bytes) that a row can hold (PROTOCOL 12.2).
pub const VALUE_BYTES_MAX: usize = 65_517;
/// Schema `bytes` of a JSON tag (PROTOCOL 7.2).
pub const JSON_BYTES: i32 = 16_384;

/// A column type of TDengine 3; the discriminant is its code (PROTOCOL 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool = 1,
    /// 8 bits, signed.
    TinyInt = 2,
    /// 16 bits, signed.
    SmallInt = 3,
    /// 32 bits, signed.
    Int = 4,
    /// 64 bits, signed.
    BigInt = 5,
    /// 32 bits, IEEE.
    Float = 6,
    /// 64 bits, IEEE.
    Double = 7,
    /// Bytes, UTF-8 by convention; BINARY is another name for it.
    Varchar = 8,
    /// 64 bits in the precision of the database.
    Timestamp = 9,
    /// UTF-32LE on the wire.
    Nchar = 10,
    /// 8 bits, unsigned.
    UTinyInt = 11,
    /// 16 bits, unsigned.
    USmallInt = 12,
    /// 32 bits, unsigned.
    UInt = 13,
    /// 64 bits, unsigned.
    UBigInt = 14,
    /// JSON text; tags only.
    Json = 15,
    /// Bytes.
    Varbinary = 16,
    /// 128 bits, two's complement, scaled.
    Decimal = 17,
    /// Bytes with a 32-bit length.
    Blob = 18,
    /// As [`DataType::Blob`].
    MediumBlob = 19,
    /// WKB bytes.
    Geometry = 20,
    /// 64 bits, scaled.
    Decimal64 = 21,
}

impl DataType {
    /// Every type, in the order of the codes.
    pub const ALL: [Self; 21] = [
        Self::Bool,
        Self::TinyInt,
        Self::SmallInt,
        Self::Int,
        Self::BigInt,
        Self::Float,
        Self::Double,
        Self::Varchar,
        Self::Timestamp,
        Self::Nchar,
        Self::UTinyInt,
        Self::USmallInt,
        Self::UInt,
        Self::UBigInt,
        Self::Json,
        Self::Varbinary,
        Self::Decimal,
        Self::Blob,
        Self::MediumBlob,
        Self::Geometry,
        Self::Decimal64,
    ];

    /// The type with this code.
    ///
    /// # Errors
    /// [`WireError::UnknownType`] for 0 and beyond 21.
    pub fn from_code(code: u8) -> Result<Self> {
        match code {
            1..=21 => Ok(Self::ALL[usize::from(code) - 1]),
            _ => Err(WireError::UnknownType(code)),
        }
    }

    /// Its code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The bytes of one value; `None` for variable types.
    pub fn width(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::TinyInt | Self::UTinyInt => 1,
            Self::SmallInt | Self::USmallInt => 2,
            Self::Int | Self::UInt | Self::Float => 4,
            Self::BigInt | Self::UBigInt | Self::Double | Self::Timestamp | Self::Decimal64 => 8,
            Self::Decimal => 16,
            _ => return None,
        })
    }

    /// Whether values have a length of their own.
    pub fn is_variable(self) -> bool {
        self.width().is_none()
    }

    /// The bytes of the length word before each value of a variable column: 2, or 4 for BLOB.
    pub fn prefix(self) -> usize {
        if matches!(self, Self::Blob | Self::MediumBlob) { 4 } else { 2 }
    }

    /// The SQL name without a width, as `describe` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::TinyInt => "TINYINT",
            Self::SmallInt => "SMALLINT",
            Self::Int => "INT",
            Self::BigInt => "BIGINT",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Varchar => "VARCHAR",
            Self::Timestamp => "TIMESTAMP",
            Self::Nchar => "NCHAR",
            Self::UTinyInt => "TINYINT UNSIGNED",
            Self::USmallInt => "SMALLINT UNSIGNED",
            Self::UInt => "INT UNSIGNED",
            Self::UBigInt => "BIGINT UNSIGNED",
            Self::Json => "JSON",
            Self::Varbinary => "VARBINARY",
            Self::Decimal | Self::Decimal64 => "DECIMAL",
            Self::Blob => "BLOB",
            Self::MediumBlob => "MEDIUMBLOB",
            Self::Geometry => "GEOMETRY",
        }
    }

    /// The type with this SQL name in any letter case; BINARY and INTEGER are known too. Widths are not parsed.
    pub fn from_name(name: &str) -> Option<Self> {
        let wanted = name.trim();
        let same = |other: &str| wanted.eq_ignore_ascii_case(other);
        if same("BINARY") {
            return Some(Self::Varchar);
        }
        if same("INTEGER") {
            return Some(Self::Int);
        }
        Self::ALL.into_iter().find(|data_type| same(data_type.name()))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The unit of a database's timestamps; the discriminant is its code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Precision {
    /// `ms`.
    #[default]
    Milliseconds = 0,
    /// `us`.
    Microseconds = 1,
    /// `ns`.
    Nanoseconds = 2,
}

impl Precision {
    /// The precision with this code.
    ///
    /// # Errors
    /// For a code beyond 2.
    pub fn from_code(code: i64) -> Result<Self> {
        match code {
            0 => Ok(Self::Milliseconds),
            1 => Ok(Self::Microseconds),
            2 => Ok(Self::Nanoseconds),
            _ => Err(WireError::invalid("precision", format!("code {code}, expected 0, 1 or 2"))),
        }
    }

    /// Its code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Ticks in one second.
    pub fn per_second(self) -> i64 {
        match self {
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1_000_000,
            Self::Nanoseconds => 1_000_000_000,
        }
    }

    /// As in `PRECISION 'ms'`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    /// The precision with this name (`ms`, `us`, `ns`).
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Milliseconds, Self::Microseconds, Self::Nanoseconds].into_iter().find(|precision| precision.name() == name)
    }
}

/// A type and its width in the form of raw block schemas (PROTOCOL 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ColumnType {
    /// The type.
    pub data_type: DataType,
    /// Fixed types: the width. VARCHAR, VARBINARY, GEOMETRY: capacity + 2. NCHAR: 4 · characters + 2. JSON: 16384
    /// (recordings b1, c2; PROTOCOL says 4097).
    /// BLOB: capacity + 4. Decimals: width, 0, precision, scale in four bytes, low to high.
    pub bytes: i32,
}

impl ColumnType {
    /// A fixed type with its natural width (JSON: 16384). For a variable type the width is that of capacity 0.
    pub fn of(data_type: DataType) -> Self {
        let bytes = match (data_type, data_type.width()) {
            (DataType::Json, _) => JSON_BYTES,
            (_, Some(width)) => width as i32,
            (_, None) => data_type.prefix() as i32,
        };
        Self { data_type, bytes }
    }

    /// A variable type with the capacity as SQL counts it: bytes, or characters for NCHAR.
    pub fn sized(data_type: DataType, capacity: u32) -> Self {
        let prefix = data_type.prefix() as i64;
        let bytes = match data_type {
            DataType::Nchar => i64::from(capacity) * 4 + prefix,
            DataType::Json => i64::from(JSON_BYTES),
            _ if data_type.is_variable() => i64::from(capacity) + prefix,
            _ => return Self::of(data_type),
        };
        Self { data_type, bytes: i32::try_from(bytes).unwrap_or(i32::MAX) }
    }

    /// `VARCHAR(capacity)`.
    pub fn varchar(capacity: u32) -> Self {
        Self::sized(DataType::Varchar, capacity)
    }

    /// `NCHAR(characters)`.
    pub fn nchar(characters: u32) -> Self {
        Self::sized(DataType::Nchar, characters)
    }

    /// `DECIMAL(precision, scale)`: 64 bits up to precision 18, else 128.
    pub fn decimal(precision: u8, scale: u8) -> Self {
        let data_type = if precision <= 18 { DataType::Decimal64 } else { DataType::Decimal };
        let width = data_type.width().unwrap_or_default() as u8;
        Self { data_type, bytes: i32::from_le_bytes([width, 0, precision, scale]) }
    }

    /// Precision and scale of a decimal.
    pub fn decimal_parts(self) -> Option<(u8, u8)> {
        if !matches!(self.data_type, DataType::Decimal | DataType::Decimal64) {
            return None;
        }
        let [_, _, precision, scale] = self.bytes.to_le_bytes();
        Some((precision, scale))
    }

    /// The capacity as SQL counts it: characters for NCHAR, bytes for other variable types; `None` for fixed ones.
    pub fn capacity(self) -> Option<u32> {
        if !self.data_type.is_variable() {
            return None;
        }
        let bytes = (self.bytes - self.data_type.prefix() as i32).max(0) as u32;
        Some(if self.data_type == DataType::Nchar { bytes / 4 } else { bytes })
    }

    /// The number that query replies give in `fields_lengths` and `describe` prints (PROTOCOL 2.1, T17): the width of
    /// fixed types, the capacity of variable ones, 4095 for JSON.
    pub fn query_length(self) -> i32 {
        const JSON_LENGTH: i32 = 4095;
        match (self.capacity(), self.data_type.width()) {
            _ if self.data_type == DataType::Json => JSON_LENGTH,
            (Some(capacity), _) => capacity as i32,
            (None, Some(width)) => width as i32,
            (None, None) => self.bytes,
        }
    }

    /// From a type code and the length in a query reply (see [`ColumnType::query_length`]); decimals take precision
    /// and scale from `fields_precisions` and `fields_scales`.
    ///
    /// # Errors
    /// For a code that is no type.
    pub fn from_query(code: u8, length: i32, precision: u8, scale: u8) -> Result<Self> {
        let data_type = DataType::from_code(code)?;
        if matches!(data_type, DataType::Decimal | DataType::Decimal64) {
            let width = data_type.width().unwrap_or_default() as u8;
            return Ok(Self { data_type, bytes: i32::from_le_bytes([width, 0, precision, scale]) });
        }
        Ok(Self::sized(data_type, length.max(0) as u32))
    }

    /// Whether values are numbers, booleans or timestamps with the width of the type.
    pub fn is_variable(self) -> bool {
        self.data_type.is_variable()
    }
}

impl fmt::Display for ColumnType {
    /// As in `CREATE TABLE`: `VARCHAR(16)`, `DECIMAL(10,2)`, `INT UNSIGNED`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.data_type.name();
        if let Some((precision, scale)) = self.decimal_parts() {
            return write!(formatter, "{name}({precision},{scale})");
        }
        match (self.data_type, self.capacity()) {
            (DataType::Json | DataType::Blob | DataType::MediumBlob, _) | (_, None) => formatter.write_str(name),
            (_, Some(capacity)) => write!(formatter, "{name}({capacity})"),
        }
    }
}

/// A named column or tag as it stands in TMQ schemas and binary meta.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name, case as stored.
    pub name: String,
    /// Type and width.
    pub column_type: ColumnType,
    /// Its id within the super table, never used again after a drop (FACTS F67).
    pub id: i16,
    /// Bits of [`flags`].
    pub flags: u8,
}

/// Bits of [`Field::flags`].
pub mod flags {
    /// Small materialized aggregates are kept; every ordinary column has it.
    pub const SMA: u8 = 1;
    /// A tag with an index; the first tag has it.
    pub const INDEX: u8 = 2;
    /// Part of a composite primary key.
    pub const PRIMARY_KEY: u8 = 4;
}

impl Field {
    /// A field with the default flags of a column.
    pub fn new(name: impl Into<String>, column_type: ColumnType, id: i16) -> Self {
        Self { name: name.into(), column_type, id, flags: flags::SMA }
    }

    /// Whether it is the second column of a composite primary key.
    pub fn is_primary_key(&self) -> bool {
        self.flags & flags::PRIMARY_KEY != 0
    }
}
