//! The tag blob: a child's tag values, NULLs left out (PROTOCOL 9.3).

use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};
use crate::types::DataType;
use crate::value::{Value, nchar_bytes, nchar_text};

const FLAG_JSON: u8 = 0x40;
const FLAG_LARGE: u8 = 0x20;
/// Flags, length, count and version.
const HEAD_BYTES: usize = 9;
/// Longest blob with an index of single bytes (recording c2).
const SMALL_BYTES_MAX: usize = 127;
/// Type code of a JSON null, which an empty value follows.
const TYPE_NULL: u8 = 0;

/// Tag values as a server packs them.
#[derive(Debug, Clone, PartialEq)]
pub struct TagBlob {
    /// Version of the tags.
    pub version: i32,
    /// Whether this is one JSON tag whose keys are the entries.
    pub is_json: bool,
    /// In the order of their ids or keys.
    pub entries: Vec<TagEntry>,
}

/// One value of a [`TagBlob`].
#[derive(Debug, Clone, PartialEq)]
pub struct TagEntry {
    /// What it belongs to.
    pub key: TagKey,
    /// Its type; `None` for a JSON null.
    pub data_type: Option<DataType>,
    /// Little-endian bytes of fixed types, else the bytes without prefix (NCHAR: UTF-32LE).
    pub bytes: Vec<u8>,
}

/// What a [`TagEntry`] belongs to.
#[derive(Debug, Clone, PartialEq)]
pub enum TagKey {
    /// Id of the tag.
    Id(i16),
    /// Key in the JSON object.
    Name(String),
}

impl TagEntry {
    /// The value.
    pub fn value(&self) -> Value<'_> {
        let read = self.data_type.map(|data_type| Value::read(data_type, &self.bytes));
        read.and_then(Result::ok).unwrap_or(Value::Null)
    }
}

impl TagBlob {
    /// Values by tag id; they are sorted.
    pub fn new(version: i32, mut entries: Vec<TagEntry>) -> Self {
        entries.sort_by_key(|entry| if let TagKey::Id(id) = entry.key { id } else { 0 });
        Self { version, is_json: false, entries }
    }

    /// A JSON tag. As a server packs it: every number a double, what is nested as its text (FACTS F22).
    ///
    /// # Errors
    /// When the text is no JSON object.
    pub fn of_json(text: &[u8]) -> Result<Self> {
        use serde_json::Value as Json;
        let object: serde_json::Map<String, Json> =
            serde_json::from_slice(text).map_err(|error| WireError::invalid("JSON tag", error.to_string()))?;
        let entry = |(name, value): (String, Json)| {
            let (data_type, bytes) = match value {
                Json::Null => (None, Vec::new()),
                Json::Bool(value) => (Some(DataType::Bool), vec![u8::from(value)]),
                Json::Number(number) => {
                    (Some(DataType::Double), number.as_f64().unwrap_or(f64::NAN).to_le_bytes().to_vec())
                }
                Json::String(text) => (Some(DataType::Nchar), nchar_bytes(&text)),
                nested => (Some(DataType::Nchar), nchar_bytes(&nested.to_string())),
            };
            TagEntry { key: TagKey::Name(name), data_type, bytes }
        };
        Ok(Self { version: 1, is_json: true, entries: object.into_iter().map(entry).collect() })
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8("tag flags")?;
        let length = usize::from(reader.u16("tag length")?);
        let count = usize::from(reader.u16("tag count")?);
        let version = reader.i32("tag version")?;
        if length != bytes.len() {
            return Err(WireError::invalid("tag length", format!("{length}, the blob has {}", bytes.len())));
        }
        let is_json = flags & FLAG_JSON != 0;
        let mut starts = Reader::new(if flags & FLAG_LARGE != 0 {
            reader.take(count * 2, "tag index")?
        } else {
            reader.take(count, "tag index")?
        });
        let values = reader.rest();
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let start = if flags & FLAG_LARGE != 0 {
                usize::from(starts.u16("tag index")?)
            } else {
                usize::from(starts.u8("tag index")?)
            };
            let entry = values.get(start..).ok_or_else(|| WireError::invalid("tag index", start.to_string()))?;
            entries.push(TagEntry::decode(&mut Reader::new(entry), is_json)?);
        }
        Ok(Self { version, is_json, entries })
    }

    /// Writes a blob.
    ///
    /// # Errors
    /// When the values pass 64 KiB.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut values = Vec::new();
        let mut starts = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            starts.push(values.len());
            entry.encode(&mut values);
        }
        let is_large = HEAD_BYTES + starts.len() + values.len() > SMALL_BYTES_MAX;
        let length = HEAD_BYTES + starts.len() * if is_large { 2 } else { 1 } + values.len();
        let too_long = |_| WireError::unencodable("tags", format!("{length} bytes"));
        let length = u16::try_from(length).map_err(too_long)?;
        let mut out = Vec::with_capacity(usize::from(length));
        out.push(if self.is_json { FLAG_JSON } else { 0 } | if is_large { FLAG_LARGE } else { 0 });
        out.put(&length.to_le_bytes());
        out.put(&(self.entries.len() as u16).to_le_bytes());
        out.put(&self.version.to_le_bytes());
        for start in starts {
            out.put(&(start as u16).to_le_bytes()[..if is_large { 2 } else { 1 }]);
        }
        out.put(&values);
        Ok(out)
    }

    /// The text of a JSON tag, whole numbers without a point; `None` for other tags.
    pub fn exact_json(&self) -> Option<String> {
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        self.json_text(|value| match value.fract() == 0.0 && value.abs() <= EXACT_MAX {
            true => (value as i64).to_string(),
            false => serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |value| value.to_string()),
        })
    }

    /// The text of a JSON tag, its numbers by `number`; `None` for other tags.
    pub fn json_text(&self, number: impl Fn(f64) -> String) -> Option<String> {
        if !self.is_json {
            return None;
        }
        let parts = self.entries.iter().map(|entry| {
            let TagKey::Name(name) = &entry.key else { return String::new() };
            let value = match entry.value() {
                Value::Bool(value) => serde_json::Value::from(value),
                Value::Double(value) => return format!("{}:{}", serde_json::Value::from(name.as_str()), number(value)),
                Value::Nchar(bytes) => serde_json::Value::from(nchar_text(bytes)),
                Value::Int(value) => serde_json::Value::from(value),
                other => other.text().map_or(serde_json::Value::Null, serde_json::Value::from),
            };
            format!("{}:{value}", serde_json::Value::from(name.as_str()))
        });
        Some(format!("{{{}}}", parts.collect::<Vec<_>>().join(",")))
    }
}

impl TagEntry {
    fn decode(reader: &mut Reader<'_>, is_json: bool) -> Result<Self> {
        let key = if is_json {
            TagKey::Name(reader.cstr("tag key")?.to_owned())
        } else {
            let id = reader.zigzag("tag id")?;
            TagKey::Id(i16::try_from(id).map_err(|_| WireError::invalid("tag id", id.to_string()))?)
        };
        let code = reader.u8("tag type")?;
        if code == TYPE_NULL {
            let bytes = reader.binary("tag null")?.to_vec();
            return Ok(Self { key, data_type: None, bytes });
        }
        let data_type = DataType::from_code(code)?;
        let bytes = match data_type.width() {
            Some(width) => reader.take(width, "tag value")?,
            None => reader.binary("tag value")?,
        };
        Ok(Self { key, data_type: Some(data_type), bytes: bytes.to_vec() })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match &self.key {
            TagKey::Id(id) => out.put_zigzag(i64::from(*id)),
            TagKey::Name(name) => out.put_cstr(name),
        }
        out.push(self.data_type.map_or(TYPE_NULL, DataType::code));
        match self.data_type {
            Some(data_type) if !data_type.is_variable() => out.put(&self.bytes),
            _ => out.put_binary(&self.bytes),
        }
    }
}
