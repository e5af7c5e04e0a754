//! Changes as JSON, read off their binary bodies (PROTOCOL 9.3, 9.4, recordings c3 and c7).
//!
//! The faithful form has the defects of 3.3.0.1: BIGINT tags go through a double, an empty NCHAR is a lone quote, GEOMETRY
//! ends at its first zero byte (FACTS F21, F22). The other form is exact. In both, quotes inside a text are not escaped,
//! and a deletion is cut at 255 bytes (FACTS F19).

use serde_json::{Map, Value as Json, json};
use tdengine_wire::cursor::Reader;
use tdengine_wire::meta::kind;
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, DataType, Result, WireError};

use super::number::{exponent, through_double};

/// Longest text of a deletion.
const DELETE_BYTES_MAX: usize = 255;

mod alter {
    pub const ADD_TAG: u8 = 1;
    pub const DROP_TAG: u8 = 2;
    pub const RENAME_TAG: u8 = 3;
    pub const SET_TAG: u8 = 4;
    pub const ADD_COLUMN: u8 = 5;
    pub const DROP_COLUMN: u8 = 6;
    pub const MODIFY_COLUMN: u8 = 7;
    pub const MODIFY_TAG: u8 = 8;
    pub const RENAME_COLUMN: u8 = 10;
    pub const COMPRESS_COLUMN: u8 = 13;
}

/// The body of a change, with its head of 8 bytes, as JSON.
///
/// # Errors
/// When the body is malformed or of an unknown type.
pub(super) fn change(raw_type: u16, body: &[u8], faithful: bool) -> Result<Json> {
    let mut reader = Reader::new(body);
    reader.take(8, "message head")?;
    if raw_type == kind::DELETE {
        return delete(&mut reader);
    }
    let mut reader = framed(&mut reader)?;
    match raw_type {
        kind::CREATE_STABLE => stable(&mut reader, false),
        kind::ALTER_STABLE => stable(&mut reader, true),
        kind::DROP_STABLE => Ok(json!({ "type": "drop", "tableType": "super", "tableName": reader.cstr("name")? })),
        kind::CREATE_TABLE => {
            let count = count(&mut reader)?;
            let requests = (0..count).map(|_| table(&mut framed(&mut reader)?, faithful));
            Ok(created(requests.collect::<Result<_>>()?))
        }
        kind::DROP_TABLE => {
            let count = count(&mut reader)?;
            let names = (0..count).map(|_| framed(&mut reader)?.cstr("name").map(str::to_owned));
            Ok(json!({ "type": "drop", "tableNameList": names.collect::<Result<Vec<_>>>()? }))
        }
        kind::ALTER_TABLE => alter_table(&mut reader, faithful),
        other => Err(invalid(format!("raw type {other}"))),
    }
}

/// The requests that made tables for rows, as JSON.
///
/// # Errors
/// When a request is malformed.
pub(super) fn creations<'a>(requests: impl Iterator<Item = &'a [u8]>, faithful: bool) -> Result<Json> {
    let tables = requests.map(|request| table(&mut framed(&mut Reader::new(request))?, faithful));
    Ok(created(tables.collect::<Result<_>>()?))
}

/// The first table with all of its keys; several, the first among them, also in `createList` (FACTS F23).
fn created(mut tables: Vec<Map<String, Json>>) -> Json {
    let list: Vec<Json> = if tables.len() > 1 { tables.iter().cloned().map(Json::Object).collect() } else { Vec::new() };
    if tables.is_empty() {
        return Json::Null;
    }
    let mut first = tables.swap_remove(0);
    first.insert("type".into(), "create".into());
    let is_child = first.contains_key("using");
    first.insert("tableType".into(), if is_child { "child" } else { "normal" }.into());
    if is_child {
        first.insert("createList".into(), list.into());
    }
    Json::Object(first)
}

/// CREATE STABLE, or what an ALTER changed.
fn stable(reader: &mut Reader<'_>, altered: bool) -> Result<Json> {
    let name = reader.cstr("name")?.to_owned();
    reader.take(9, "suid and rollup")?;
    let (columns, tags) = (schema(reader)?, schema(reader)?);
    let has_request = reader.i32("alter length")? > 0;
    if has_request {
        let request = reader.binary("alter request")?;
        if altered {
            return alter_stable(&name, &mut framed(&mut Reader::new(request))?);
        }
    }
    reader.u8("source")?;
    let compression = if reader.u8("compressed")? != 0 { compressions(reader)? } else { Vec::new() };
    let columns = described(columns, &compression);
    let tags: Vec<Json> = tags.into_iter().map(|tag| Json::Object(tag.json())).collect();
    Ok(json!({ "type": "create", "tableType": "super", "tableName": name, "columns": columns, "tags": tags }))
}

struct Column {
    name: String,
    column_type: ColumnType,
    id: i64,
    is_key: bool,
}

impl Column {
    fn json(&self) -> Map<String, Json> {
        let mut json = Map::new();
        json.insert("name".into(), self.name.clone().into());
        json.insert("type".into(), self.column_type.data_type.code().into());
        if let Some(length) = length(self.column_type) {
            json.insert("length".into(), length.into());
        }
        json
    }
}

/// JSON tags have a width and no length.
fn length(column_type: ColumnType) -> Option<i32> {
    let sized = column_type.is_variable() && column_type.data_type != DataType::Json;
    sized.then(|| column_type.query_length())
}

fn schema(reader: &mut Reader<'_>) -> Result<Vec<Column>> {
    const PRIMARY_KEY: u8 = 4;
    let count = count(reader)?;
    reader.zigzag("schema version")?;
    let column = |_| {
        let (code, flags) = (reader.u8("type")?, reader.u8("flags")?);
        let column_type = ColumnType { data_type: DataType::from_code(code)?, bytes: reader.zigzag32("bytes")? };
        let id = reader.zigzag("id")?;
        Ok(Column { name: reader.cstr("name")?.to_owned(), column_type, id, is_key: flags & PRIMARY_KEY != 0 })
    };
    (0..count).map(column).collect()
}

fn compressions(reader: &mut Reader<'_>) -> Result<Vec<(i64, u32)>> {
    let count = count(reader)?;
    reader.zigzag("compression version")?;
    (0..count).map(|_| Ok((reader.zigzag("column id")?, reader.u32("compression")?))).collect()
}

fn described(columns: Vec<Column>, compression: &[(i64, u32)]) -> Vec<Json> {
    let describe = |column: Column| {
        let mut json = column.json();
        json.insert("isPrimarykey".into(), column.is_key.into());
        if let Some((_, packed)) = compression.iter().find(|(id, _)| *id == column.id) {
            json.extend(compression_names(*packed));
        }
        Json::Object(json)
    };
    columns.into_iter().map(describe).collect()
}

/// Encode, compress and level as `encode << 24 | compress << 8 | level`; those that are 0 are not said.
fn compression_names(packed: u32) -> impl Iterator<Item = (String, Json)> {
    const DISABLED: u32 = 0xff;
    let name = |code: u32, names: &[&'static str]| match code {
        0 => None,
        DISABLED => Some("disabled"),
        code => names.get(code as usize - 1).copied().or(Some("unknown")),
    };
    let encode = name(packed >> 24, &["simple8b", "delta-i", "bit-packing", "delta-d"]);
    let compress = name(packed >> 8 & 0xffff, &["lz4", "zlib", "zstd", "tsz", "xz"]);
    let level = name(packed & 0xff, &["low", "medium", "high"]);
    let named = [("encode", encode), ("compress", compress), ("level", level)];
    named.into_iter().filter_map(|(key, name)| Some((key.to_owned(), name?.into())))
}

fn alter_stable(name: &str, request: &mut Reader<'_>) -> Result<Json> {
    request.cstr("qualified name")?;
    let action = request.u8("action")?;
    let count = request.i32("fields")?;
    let count = request.count(i64::from(count), 6, "fields")?;
    let field = |_| Ok((request.u8("type")?, request.i32("bytes")?, request.cstr("name")?.to_owned()));
    let fields: Vec<(u8, i32, String)> = (0..count).map(field).collect::<Result<_>>()?;
    let mut json = altered("super", name, action);
    let Some((code, bytes, column)) = fields.first() else {
        return Ok(Json::Object(json));
    };
    json.insert("colName".into(), column.clone().into());
    match action {
        alter::ADD_TAG | alter::ADD_COLUMN | alter::MODIFY_TAG | alter::MODIFY_COLUMN => {
            put_type(&mut json, ColumnType { data_type: DataType::from_code(*code)?, bytes: *bytes });
        }
        alter::RENAME_TAG => {
            let to = fields.get(1).map(|(.., name)| name.clone());
            json.insert("colNewName".into(), to.unwrap_or_default().into());
        }
        alter::COMPRESS_COLUMN => json.extend(compression_names(*bytes as u32)),
        alter::DROP_TAG | alter::DROP_COLUMN => {}
        _ => {}
    }
    Ok(Json::Object(json))
}

fn altered(table_type: &str, name: &str, action: u8) -> Map<String, Json> {
    let json = json!({ "type": "alter", "tableType": table_type, "tableName": name, "alterType": action });
    json.as_object().cloned().unwrap_or_default()
}

fn put_type(json: &mut Map<String, Json>, column_type: ColumnType) {
    json.insert("colType".into(), column_type.data_type.code().into());
    if let Some(length) = length(column_type) {
        json.insert("colLength".into(), length.into());
    }
}

/// One request of CREATE TABLE.
fn table(reader: &mut Reader<'_>, faithful: bool) -> Result<Map<String, Json>> {
    const CHILD: u8 = 2;
    reader.zigzag("flags")?;
    let mut json = Map::new();
    json.insert("tableName".into(), reader.cstr("name")?.into());
    reader.take(20, "uid, time and ttl")?;
    let is_child = reader.u8("kind")? == CHILD;
    if reader.i32("comment length")? > 0 {
        reader.cstr("comment")?;
    }
    if !is_child {
        let columns = schema(reader)?;
        if reader.i32("sql length")? > 0 {
            reader.binary("sql")?;
        }
        let compression = if reader.left() > 0 { compressions(reader)? } else { Vec::new() };
        json.insert("columns".into(), described(columns, &compression).into());
        json.insert("tags".into(), json!([]));
        return Ok(json);
    }
    json.insert("using".into(), reader.cstr("stable")?.into());
    json.insert("tagNum".into(), reader.u8("tag count")?.into());
    reader.take(8, "suid")?;
    let blob = reader.binary("tags")?;
    let count = reader.i32("tag names")?;
    let count = reader.count(i64::from(count), 1, "tag names")?;
    let names: Vec<&str> = (0..count).map(|_| reader.cstr("tag name")).collect::<Result<_>>()?;
    json.insert("tags".into(), tags(blob, &names, faithful)?.into());
    Ok(json)
}

/// The tags of a blob: those that are not NULL, in the order of their ids. Their names come in the order of the
/// statement, and are dealt out by place as C does it: a statement that names tags in another order gets them wrong.
fn tags(blob: &[u8], names: &[&str], faithful: bool) -> Result<Vec<Json>> {
    const IS_JSON: u8 = 0x40;
    const LARGE: u8 = 0x20;
    let mut reader = Reader::new(blob);
    let flags = reader.u8("tag flags")?;
    reader.u16("tag length")?;
    let count = usize::from(reader.u16("tags")?);
    reader.i32("tag version")?;
    reader.take(count * if flags & LARGE != 0 { 2 } else { 1 }, "tag index")?;
    if flags & IS_JSON != 0 {
        let text = json_tag(&mut reader, count, faithful)?;
        let name = names.first().copied().unwrap_or_default();
        let tag = json!({ "name": name, "type": DataType::Json.code(), "value": text });
        return Ok(if count == 0 { Vec::new() } else { vec![tag] });
    }
    let tag = |at: usize| {
        reader.zigzag("tag id")?;
        let data_type = DataType::from_code(reader.u8("tag type")?)?;
        let bytes = match data_type.width() {
            Some(width) => reader.take(width, "tag value")?,
            None => reader.binary("tag value")?,
        };
        let value = tag_value(data_type, bytes, faithful)?;
        Ok(json!({ "name": names.get(at).copied().unwrap_or_default(), "type": data_type.code(), "value": value }))
    };
    (0..count).map(tag).collect()
}

fn tag_value(data_type: DataType, bytes: &[u8], faithful: bool) -> Result<Json> {
    Ok(match Value::read(data_type, bytes)? {
        Value::Bool(value) => u8::from(value).into(),
        Value::Int(value) | Value::Timestamp(value) => {
            if faithful { through_double(value as f64) } else { value.into() }
        }
        Value::UInt(value) => if faithful { through_double(value as f64) } else { value.into() },
        Value::Float(value) => through_double(value.into()),
        Value::Double(value) => through_double(value),
        value => quoted(value, faithful).into(),
    })
}

/// A text in quotes, quotes inside not escaped.
fn quoted(value: Value<'_>, faithful: bool) -> String {
    match value {
        Value::Nchar([]) if faithful => "\"".into(),
        Value::Geometry(bytes) if faithful => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            format!("\"{}", String::from_utf8_lossy(&bytes[..end]))
        }
        Value::Varbinary(bytes) | Value::Geometry(bytes) | Value::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("\"\\x{hex}\"")
        }
        value => format!("\"{}\"", value.text().unwrap_or_default()),
    }
}

/// A JSON tag out of its keys; numbers are doubles in it.
fn json_tag(reader: &mut Reader<'_>, count: usize, faithful: bool) -> Result<String> {
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let key = reader.cstr("json key")?;
        let value = match reader.u8("json type")? {
            0 => Json::Null,
            code => match DataType::from_code(code)? {
                DataType::Bool => Json::Bool(reader.u8("json value")? != 0),
                DataType::Double => {
                    let number = f64::from_bits(reader.u64("json value")?);
                    let whole = number.fract() == 0.0 && number.abs() < 9e15;
                    if whole && !faithful { Json::from(number as i64) } else { through_double(number) }
                }
                _ => Value::Nchar(reader.binary("json value")?).text().unwrap_or_default().into(),
            },
        };
        parts.push(format!("{}:{value}", Json::from(key)));
    }
    Ok(format!("{{{}}}", parts.join(",")))
}

fn alter_table(reader: &mut Reader<'_>, faithful: bool) -> Result<Json> {
    let table = reader.cstr("name")?.to_owned();
    let action = reader.u8("action")?;
    reader.i32("column id")?;
    let mut json = altered(if action == alter::SET_TAG { "child" } else { "normal" }, &table, action);
    let mut put_name = |key: &str, reader: &mut Reader<'_>| -> Result<()> {
        json.insert(key.to_owned(), reader.cstr("column name")?.into());
        Ok(())
    };
    match action {
        alter::SET_TAG => {
            put_name("colName", reader)?;
            let is_null = reader.u8("is null")? != 0;
            let data_type = DataType::from_code(reader.u8("tag type")?)?;
            json.insert("colValueNull".into(), is_null.into());
            if !is_null {
                let value = Value::read(data_type, reader.binary("tag value")?)?;
                json.insert("colValue".into(), set_value(value, faithful).into());
            }
        }
        alter::ADD_COLUMN | alter::MODIFY_COLUMN => {
            put_name("colName", reader)?;
            let data_type = DataType::from_code(reader.u8("column type")?)?;
            if action == alter::ADD_COLUMN {
                reader.u8("column flags")?;
            }
            put_type(&mut json, ColumnType { data_type, bytes: reader.zigzag32("bytes")? });
        }
        alter::DROP_COLUMN => put_name("colName", reader)?,
        alter::RENAME_COLUMN => {
            put_name("colName", reader)?;
            put_name("colNewName", reader)?;
        }
        alter::COMPRESS_COLUMN => {
            put_name("colName", reader)?;
            json.extend(compression_names(reader.u32("compression")?));
        }
        _ => {}
    }
    Ok(Json::Object(json))
}

/// The new value of a tag is a text, whatever its type.
fn set_value(value: Value<'_>, faithful: bool) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) | Value::Timestamp(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) if faithful => exponent(value.into()),
        Value::Double(value) if faithful => exponent(value),
        Value::Float(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        value => quoted(value, faithful),
    }
}

fn delete(reader: &mut Reader<'_>) -> Result<Json> {
    reader.take(8, "suid")?;
    let count = reader.zigzag("uids")?;
    let count = reader.count(count, 8, "uids")?;
    reader.take(count * 8, "uids")?;
    let (from, to) = (reader.i64("first")?, reader.i64("last")?);
    reader.zigzag("rows")?;
    let (table, time) = (reader.cstr("table")?, reader.cstr("time column")?);
    let mut sql = format!("delete from `{table}` where `{time}` >= {from} and `{time}` <= {to}");
    let mut end = sql.len().min(DELETE_BYTES_MAX);
    while !sql.is_char_boundary(end) {
        end -= 1;
    }
    sql.truncate(end);
    Ok(json!({ "type": "delete", "sql": sql }))
}

fn count(reader: &mut Reader<'_>) -> Result<usize> {
    let count = reader.zigzag("count")?;
    reader.count(count, 1, "count")
}

fn framed<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>> {
    let length = reader.i32("length")?;
    let length = usize::try_from(length).map_err(|_| invalid(format!("length {length}")))?;
    Ok(Reader::new(reader.take(length, "body")?))
}

fn invalid(why: String) -> WireError {
    WireError::Invalid { what: "change", why }
}
