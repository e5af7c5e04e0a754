//! Columns, tags and their ids.
//!
//! An id is given once within a super table or normal table, columns and tags counting together, and never again: that
//! is how rows of a dropped column are told from those of a new one of the same name (FACTS F67).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tdengine_wire::types::flags;
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, DataType, Field};

/// What a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TableKind {
    /// Holds a schema for its children, and no rows.
    Super,
    /// A child of a super table.
    Child,
    /// A table of its own.
    Normal,
}

/// One version of the columns, or of the tags, of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// 1 for a new table, one more with each change.
    pub version: i32,
    /// In the order of `DESCRIBE`.
    #[serde(with = "fields_as_text")]
    pub fields: Vec<Field>,
    /// For each field: encode, compress and level as `encode << 24 | compress << 8 | level`; empty for tags.
    pub compression: Vec<u32>,
}

impl Schema {
    /// Version 1 of these fields, with the default compression of each.
    pub fn of_columns(fields: Vec<Field>) -> Self {
        let compression = fields.iter().map(|field| compression_default(field.column_type.data_type)).collect();
        Self { version: 1, fields, compression }
    }

    /// Version 1 of these tags.
    pub fn of_tags(fields: Vec<Field>) -> Self {
        Self { version: 1, fields, compression: Vec::new() }
    }

    /// Place of the field with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Place of the field with this id.
    pub fn position_of_id(&self, id: i16) -> Option<usize> {
        self.fields.iter().position(|field| field.id == id)
    }

    /// Whether the second column belongs to the key.
    pub fn has_composite_key(&self) -> bool {
        self.fields.get(1).is_some_and(Field::is_primary_key)
    }

    /// Bytes of the longest row (`FACTS` errors.jsonl: 65531 at most).
    pub fn row_bytes(&self) -> i64 {
        self.fields.iter().map(|field| i64::from(natural_bytes(field.column_type))).sum()
    }
}

fn natural_bytes(column_type: ColumnType) -> i32 {
    column_type.data_type.width().map_or(column_type.bytes, |width| width as i32)
}

/// The compression that a column gets when its CREATE names none (FACTS c3-meta).
pub fn compression_default(data_type: DataType) -> u32 {
    const LEVEL_MEDIUM: u32 = 2;
    const LZ4: u32 = 1;
    let encode: u32 = match data_type {
        DataType::Timestamp => 2,
        DataType::Bool => 3,
        DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => 1,
        DataType::UTinyInt | DataType::USmallInt | DataType::UInt | DataType::UBigInt => 1,
        DataType::Float | DataType::Double => 4,
        _ => 0xff,
    };
    encode << 24 | LZ4 << 8 | LEVEL_MEDIUM
}

/// What `DESCRIBE` and writers need to know of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Its own uid; the suid for a super table.
    pub uid: i64,
    /// The super table's uid; 0 for a normal table.
    pub suid: i64,
    /// What it is.
    pub kind: TableKind,
    /// The super table's name, for a child.
    pub stable: Option<String>,
    /// Columns.
    pub columns: Arc<Schema>,
    /// Tags; no fields for a normal table.
    pub tags: Arc<Schema>,
}

/// The tag values of a child, by tag id; a tag that is not in it is NULL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TagValues(#[serde(with = "bytes_as_hex")] pub BTreeMap<i16, Vec<u8>>);

impl TagValues {
    /// The bytes of a value: little endian for fixed types, without prefix for variable ones (NCHAR: UTF-32LE).
    pub fn bytes(&self, id: i16) -> Option<&[u8]> {
        self.0.get(&id).map(Vec::as_slice)
    }

    /// The value of this tag; NULL when absent.
    pub fn value(&self, field: &Field) -> Value<'_> {
        let bytes = self.bytes(field.id);
        bytes.and_then(|bytes| Value::read(field.column_type.data_type, bytes).ok()).unwrap_or(Value::Null)
    }
}

/// A super table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stable {
    /// Its name, case as stored.
    pub name: String,
    /// Its uid.
    pub suid: i64,
    /// When it was made.
    pub created_ms: i64,
    /// Its columns.
    pub columns: Arc<Schema>,
    /// Its tags.
    pub tags: Arc<Schema>,
    /// The id that the next column or tag gets.
    pub next_id: i16,
    /// `COMMENT`.
    pub comment: Option<String>,
    /// Of its tags; they do nothing here but be listed.
    #[serde(default)]
    pub indexes: Vec<TagIndex>,
}

/// An index of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagIndex {
    pub name: String,
    /// The tag's id.
    pub tag: i16,
    pub created_ms: i64,
}

impl Stable {
    /// As [`TableSchema`].
    pub fn schema(&self) -> TableSchema {
        TableSchema {
            uid: self.suid,
            suid: self.suid,
            kind: TableKind::Super,
            stable: None,
            columns: self.columns.clone(),
            tags: self.tags.clone(),
        }
    }
}

/// Fields in files: type code, bytes, id, flags, name.
mod fields_as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tdengine_wire::{ColumnType, DataType, Field};

    type Row = (u8, i32, i16, u8, String);

    pub fn serialize<S: Serializer>(fields: &[Field], serializer: S) -> Result<S::Ok, S::Error> {
        let row = |field: &Field| -> Row {
            let ColumnType { data_type, bytes } = field.column_type;
            (data_type.code(), bytes, field.id, field.flags, field.name.clone())
        };
        fields.iter().map(row).collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Field>, D::Error> {
        let field = |(code, bytes, id, flags, name): Row| {
            let data_type = DataType::from_code(code).map_err(serde::de::Error::custom)?;
            Ok(Field { name, column_type: ColumnType { data_type, bytes }, id, flags })
        };
        Vec::<Row>::deserialize(deserializer)?.into_iter().map(field).collect()
    }
}

/// Tag values in files: id and hexadecimal digits.
mod bytes_as_hex {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(values: &BTreeMap<i16, Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        let hex = |bytes: &Vec<u8>| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        };
        values.iter().map(|(id, bytes)| (*id, hex(bytes))).collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<i16, Vec<u8>>, D::Error> {
        let bytes = |(id, text): (i16, String)| {
            let digits = text.as_bytes().chunks(2);
            let parse = |pair: &[u8]| {
                let pair = std::str::from_utf8(pair).map_err(serde::de::Error::custom)?;
                u8::from_str_radix(pair, 16).map_err(serde::de::Error::custom)
            };
            Ok((id, digits.map(parse).collect::<Result<Vec<u8>, D::Error>>()?))
        };
        Vec::<(i16, String)>::deserialize(deserializer)?.into_iter().map(bytes).collect()
    }
}

/// The flags of a tag field: the first one is indexed.
pub fn tag_flags(index: usize) -> u8 {
    if index == 0 { flags::INDEX } else { 0 }
}
