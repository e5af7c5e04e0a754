//! The JSON form of a binary change: as a real server renders it, defects included, or exactly.

use std::fmt::Write as _;

use serde_json::{Number, Value as Json};

use super::json::{AlterJson, ChildJson, ColumnJson, MetaJson, TableKind, TagJson};
use super::model::{AlterTable, CreateTable, Delete, Meta, Stable, StableRequest, TableAction, TableBody};
use super::model::{alter_type, compression};
use super::tags::{TagBlob, TagEntry};
use crate::error::Result;
use crate::types::{ColumnType, DataType, Field, flags};
use crate::value::{Value, nchar_text};

/// Bytes of a delete's text that a real server keeps (FACTS F19).
const DELETE_BYTES_MAX: usize = 255;

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendering {
    /// As 3.3.0.1: big integers through a double (F21), an empty NCHAR a lone quote, GEOMETRY cut at its first zero
    /// byte (F22), deletes cut (F19).
    Faithful,
    /// Nothing is lost: exact numbers, GEOMETRY in hexadecimal, whole deletes.
    Exact,
}

/// Renders a change.
///
/// # Errors
/// When the request inside an ALTER STABLE is malformed.
pub fn render(meta: &Meta, rendering: Rendering) -> Result<MetaJson> {
    Ok(match meta {
        Meta::CreateStable(stable) => create_stable(stable),
        Meta::AlterStable(stable) => MetaJson::Alter(alter_stable(stable)?),
        Meta::DropStable { name, .. } => MetaJson::DropStable { name: name.clone() },
        Meta::CreateTables { tables, .. } => create_tables(tables, rendering),
        Meta::AlterTable(alter) => MetaJson::Alter(alter_table(alter, rendering)),
        Meta::DropTables { tables, .. } => {
            MetaJson::DropTables(tables.iter().map(|table| table.name.clone()).collect())
        }
        Meta::Delete(delete) => MetaJson::Delete { sql: delete.sql(rendering) },
    })
}

fn length(column_type: ColumnType) -> Option<i32> {
    (column_type.data_type != DataType::Json).then(|| column_type.capacity()).flatten().map(|capacity| capacity as i32)
}

fn columns(fields: &[Field], words: Option<&[(i16, u32)]>) -> Vec<ColumnJson> {
    let describe = |field: &Field| {
        let word = words.and_then(|words| words.iter().find(|(id, _)| *id == field.id)).map(|(_, word)| *word);
        let name = |of: fn(u32) -> Option<&'static str>| word.and_then(of).map(str::to_owned);
        ColumnJson {
            name: field.name.clone(),
            code: field.column_type.data_type.code(),
            length: length(field.column_type),
            is_primary_key: Some(field.flags & flags::PRIMARY_KEY != 0),
            encode: name(compression::encode),
            compress: name(compression::compress),
            level: name(compression::level),
        }
    };
    fields.iter().map(describe).collect()
}

fn create_stable(stable: &Stable) -> MetaJson {
    let tag = |field: &Field| ColumnJson {
        name: field.name.clone(),
        code: field.column_type.data_type.code(),
        length: length(field.column_type),
        ..ColumnJson::default()
    };
    MetaJson::CreateStable {
        name: stable.name.clone(),
        columns: columns(&stable.columns, stable.compression.as_deref()),
        tags: stable.tags.iter().map(tag).collect(),
    }
}

/// A batch with a normal table in it shows that table only, as a real server's statements make no others.
fn create_tables(tables: &[CreateTable], rendering: Rendering) -> MetaJson {
    if let Some(CreateTable { name, body: TableBody::Normal { columns: fields, .. }, compression, .. }) = tables.first()
    {
        return MetaJson::CreateNormal { name: name.clone(), columns: columns(fields, compression.as_deref()) };
    }
    let child = |table: &CreateTable| match &table.body {
        TableBody::Normal { .. } => None,
        TableBody::Child { stable, tag_count, tags, names, .. } => Some(ChildJson {
            table_name: table.name.clone(),
            using: stable.clone(),
            tag_num: i64::from(*tag_count),
            tags: tag_values(tags, names, rendering),
        }),
    };
    MetaJson::CreateChildren(tables.iter().filter_map(child).collect())
}

/// Values and names belong together by their places in the two lists.
fn tag_values(tags: &TagBlob, names: &[String], rendering: Rendering) -> Vec<TagJson> {
    if tags.is_json {
        let text = match rendering {
            Rendering::Faithful => tags.json_text(cjson),
            Rendering::Exact => tags.exact_json(),
        };
        let Some(text) = text.filter(|_| !tags.entries.is_empty()) else { return Vec::new() };
        return names.iter().take(1).map(|name| named(name, DataType::Json.code(), text.as_str().into())).collect();
    }
    let one = |(name, entry): (&String, &TagEntry)| {
        named(name, entry.data_type.map_or(0, DataType::code), tag_value(entry.value(), rendering))
    };
    names.iter().zip(&tags.entries).map(one).collect()
}

fn named(name: &str, code: u8, value: Json) -> TagJson {
    TagJson { name: name.to_owned(), code, value }
}

fn tag_value(value: Value<'_>, rendering: Rendering) -> Json {
    let faithful = rendering == Rendering::Faithful;
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(u8::from(value)),
        Value::Int(value) | Value::Timestamp(value) if faithful => through_double(value as f64),
        Value::UInt(value) if faithful => through_double(value as f64),
        Value::Int(value) | Value::Timestamp(value) => Json::from(value),
        Value::UInt(value) => Json::from(value),
        Value::Float(value) if faithful => through_double(f64::from(value)),
        Value::Float(value) => value.to_string().parse().map_or(Json::Null, exact),
        Value::Double(value) => if faithful { through_double(value) } else { exact(value) },
        Value::Decimal(value) => Json::from(value.to_string()),
        other => Json::from(quoted(other, rendering)),
    }
}

/// Text in quotes; quotes inside are not escaped in either form, for clients take off the outer ones only.
fn quoted(value: Value<'_>, rendering: Rendering) -> String {
    let faithful = rendering == Rendering::Faithful;
    match value {
        Value::Nchar([]) if faithful => "\"".to_owned(),
        Value::Nchar(bytes) => format!("\"{}\"", nchar_text(bytes)),
        Value::Varchar(bytes) | Value::Json(bytes) => format!("\"{}\"", String::from_utf8_lossy(bytes)),
        Value::Geometry(bytes) if faithful => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            format!("\"{}", String::from_utf8_lossy(&bytes[..end]))
        }
        Value::Varbinary(bytes) | Value::Geometry(bytes) | Value::Blob(bytes) => {
            let mut text = "\"\\x".to_owned();
            for byte in bytes {
                let _ = write!(text, "{byte:02X}");
            }
            text + "\""
        }
        other => other.text().unwrap_or_default(),
    }
}

fn alter_stable(stable: &Stable) -> Result<AlterJson> {
    let request = StableRequest::decode(&stable.request)?;
    let mut alter = AlterJson {
        table_type: TableKind::Super,
        table_name: stable.name.clone(),
        alter_type: request.action,
        ..AlterJson::default()
    };
    if let Some((code, bytes, name)) = request.fields.first() {
        alter.col_name = Some(name.clone());
        match request.action {
            alter_type::COMPRESS_COLUMN => put_compression(&mut alter, *bytes as u32),
            _ if *code != 0 => {
                let column_type = ColumnType { data_type: DataType::from_code(*code)?, bytes: *bytes };
                alter.col_type = Some(*code);
                alter.col_length = length(column_type);
            }
            _ => {}
        }
    }
    alter.col_new_name = request.fields.get(1).map(|(.., name)| name.clone());
    Ok(alter)
}

fn put_compression(alter: &mut AlterJson, word: u32) {
    alter.encode = compression::encode(word).map(str::to_owned);
    alter.compress = compression::compress(word).map(str::to_owned);
    alter.level = compression::level(word).map(str::to_owned);
}

fn alter_table(alter: &AlterTable, rendering: Rendering) -> AlterJson {
    let mut json = AlterJson {
        table_type: TableKind::Normal,
        table_name: alter.name.clone(),
        alter_type: alter.action.code(),
        ..AlterJson::default()
    };
    match &alter.action {
        TableAction::SetTag { name, data_type, value } => {
            json.table_type = TableKind::Child;
            json.col_name = Some(name.clone());
            json.col_value_null = Some(value.is_none());
            let read = value.as_deref().and_then(|value| Value::read(*data_type, value).ok());
            json.col_value = read.map(|value| set_value(value, rendering));
        }
        TableAction::AddColumn { name, data_type, bytes, .. }
        | TableAction::ModifyColumn { name, data_type, bytes } => {
            json.col_name = Some(name.clone());
            json.col_type = Some(data_type.code());
            json.col_length = length(ColumnType { data_type: *data_type, bytes: *bytes });
        }
        TableAction::DropColumn { name } => json.col_name = Some(name.clone()),
        TableAction::RenameColumn { name, new_name } => {
            json.col_name = Some(name.clone());
            json.col_new_name = Some(new_name.clone());
        }
        TableAction::Compress { name, compression } => {
            json.col_name = Some(name.clone());
            put_compression(&mut json, *compression);
        }
        TableAction::Options { .. } | TableAction::Other { .. } => {}
    }
    json
}

/// Here numbers are text, integers are exact, and floats have six digits (FACTS F21).
fn set_value(value: Value<'_>, rendering: Rendering) -> String {
    let faithful = rendering == Rendering::Faithful;
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) | Value::Timestamp(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) if faithful => exponent(f64::from(value)),
        Value::Double(value) if faithful => exponent(value),
        Value::Float(value) => format!("{value:e}"),
        Value::Double(value) => format!("{value:e}"),
        Value::Decimal(value) => value.to_string(),
        other => quoted(other, rendering),
    }
}

impl Delete {
    /// The statement that libtaos makes of it: whole, or cut as its buffer of 256 bytes cuts it (FACTS F19, F68).
    pub fn sql(&self, rendering: Rendering) -> String {
        let Self { table, timestamp, from, to, .. } = self;
        let sql = format!("delete from `{table}` where `{timestamp}` >= {from} and `{timestamp}` <= {to}");
        if rendering == Rendering::Exact || sql.len() <= DELETE_BYTES_MAX {
            return sql;
        }
        String::from_utf8_lossy(&sql.as_bytes()[..DELETE_BYTES_MAX]).into_owned()
    }
}

fn exact(value: f64) -> Json {
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

/// A number after a double and cJSON have had it.
fn through_double(value: f64) -> Json {
    let text = cjson(value);
    match text.parse::<i64>() {
        Ok(whole) => Json::from(whole),
        Err(_) => text.parse().map_or(Json::Null, exact),
    }
}

/// A double as cJSON prints it: 15 digits, or 17 where those give another value.
fn cjson(value: f64) -> String {
    let short = general(value, 15);
    let read: f64 = short.parse().unwrap_or(value);
    let is_close = (read - value).abs() <= read.abs().max(value.abs()) * f64::EPSILON;
    if is_close { short } else { general(value, 17) }
}

/// `%.{digits}g` of C.
fn general(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits - 1);
    let Some((mantissa, power)) = text.split_once('e') else { return "null".to_owned() };
    let power: i32 = power.parse().unwrap_or_default();
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..digits as i32).contains(&power) {
        return trim(&format!("{value:.*}", (digits as i32 - 1 - power) as usize));
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), power.unsigned_abs())
}

/// `%e` of C: six digits, and an exponent with a sign and two digits at least.
fn exponent(value: f64) -> String {
    let text = format!("{value:.6e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recording c3-meta.
    #[test]
    fn doubles_as_a_server_prints_them() {
        let check = |value: f64, text: &str| {
            assert_eq!(through_double(value), serde_json::from_str::<Json>(text).unwrap(), "{value}");
        };
        check(9_007_199_254_740_993i64 as f64, "9.00719925474099e+15");
        check(i64::MIN as f64, "-9.2233720368547758e+18");
        check(u64::MAX as f64, "1.8446744073709552e+19");
        check(0.1, "0.1");
        check(f64::from(0.1f32), "0.10000000149011612");
        check(1.0, "1");
        check(1_700_000_000_001.0, "1700000000001");
        assert_eq!(exponent(0.3), "3.000000e-01");
        assert_eq!(exponent(-1.5e300), "-1.500000e+300");
    }
}
