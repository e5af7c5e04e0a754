//! The tag blob: tag values as a real server packs them (PROTOCOL 9.3).

use tdengine_wire::cursor::Write as _;
use tdengine_wire::value::nchar_bytes;
use tdengine_wire::{DataType, Field};

use crate::error::{Result, ServerError};
use crate::schema::TagValues;

pub(super) const FLAG_JSON: u8 = 0x40;
pub(super) const FLAG_LARGE: u8 = 0x20;
/// Flags, length, count and version.
const HEAD_BYTES: usize = 9;
const VERSION: i32 = 1;

/// The values of a child's tags; NULLs are left out.
///
/// # Errors
/// When a JSON tag holds no JSON object.
pub(crate) fn tag_blob(fields: &[Field], tags: &TagValues) -> Result<Vec<u8>> {
    if let [field] = fields
        && field.column_type.data_type == DataType::Json
    {
        return json_blob(tags.bytes(field.id));
    }
    let mut entries = Vec::new();
    for field in fields {
        let Some(bytes) = tags.bytes(field.id) else { continue };
        let mut entry = Vec::new();
        entry.put_zigzag(i64::from(field.id));
        entry.push(field.column_type.data_type.code());
        put_value(&mut entry, field.column_type.data_type, bytes);
        entries.push(entry);
    }
    Ok(blob(0, &entries))
}

fn put_value(out: &mut Vec<u8>, data_type: DataType, bytes: &[u8]) {
    if data_type.is_variable() { out.put_binary(bytes) } else { out.put(bytes) }
}

fn json_blob(text: Option<&[u8]>) -> Result<Vec<u8>> {
    let invalid = |_| ServerError::invalid_parameter("json tag is not an object");
    let text = text.filter(|text| !text.is_empty()).unwrap_or(b"{}");
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).map_err(invalid)?;
    let mut entries = Vec::new();
    for (key, value) in &object {
        let mut entry = Vec::new();
        entry.put_cstr(key);
        match value {
            serde_json::Value::Null => entry.push(0),
            serde_json::Value::Bool(value) => entry.put(&[DataType::Bool.code(), u8::from(*value)]),
            // As C does: every number is a double (FACTS F22).
            serde_json::Value::Number(number) => {
                entry.push(DataType::Double.code());
                entry.put(&number.as_f64().unwrap_or(f64::NAN).to_le_bytes());
            }
            other => {
                let text = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
                entry.push(DataType::Nchar.code());
                entry.put_binary(&nchar_bytes(&text));
            }
        }
        entries.push(entry);
    }
    Ok(blob(FLAG_JSON, &entries))
}

fn blob(flags: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    let values: usize = entries.iter().map(Vec::len).sum();
    // As C does, which counts in signed bytes.
    let is_large = values > i8::MAX as usize;
    let index_bytes = if is_large { 2 } else { 1 };
    let length = HEAD_BYTES + entries.len() * index_bytes + values;
    let mut out = Vec::with_capacity(length);
    out.push(flags | if is_large { FLAG_LARGE } else { 0 });
    out.put(&(length as u16).to_le_bytes());
    out.put(&(entries.len() as u16).to_le_bytes());
    out.put(&VERSION.to_le_bytes());
    let mut offset = 0;
    for entry in entries {
        out.put(&(offset as u16).to_le_bytes()[..index_bytes]);
        offset += entry.len();
    }
    entries.iter().for_each(|entry| out.put(entry));
    out
}
