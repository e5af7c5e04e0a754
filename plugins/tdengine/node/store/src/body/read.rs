//! Reading bodies in C layout, for raw writes. Fields that newer servers append within a length are passed over.

use tdengine_wire::cursor::Reader;
use tdengine_wire::{ColumnType, DataType, Field, Result, WireError};

use super::{KIND_CHILD, alter_type};

/// A super table as 531 and 533 give it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawStable {
    pub name: String,
    pub suid: i64,
    pub columns: RawSchema,
    pub tags: RawSchema,
    /// By column id; empty when the body has none.
    pub compression: Vec<(i16, u32)>,
}

/// Fields and their version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawSchema {
    pub version: i32,
    pub fields: Vec<Field>,
}

/// A request to make a table, as 515 and the tail of type 4 give it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawCreate {
    pub name: String,
    pub ttl_days: i32,
    pub comment: Option<String>,
    pub kind: RawCreateKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawCreateKind {
    Child {
        stable: String,
        tag_names: Vec<String>,
        /// Id, type code and bytes, in the order of the blob.
        tags: Vec<RawTag>,
        is_json: bool,
    },
    Normal {
        columns: RawSchema,
        compression: Vec<(i16, u32)>,
    },
}

/// A tag in a blob.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawTag {
    /// 0 for a key of a JSON tag.
    pub id: i16,
    /// The key of a JSON tag.
    pub key: String,
    pub code: u8,
    pub bytes: Vec<u8>,
}

/// A change of one table as 517 gives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawAlter {
    SetTag { name: String, code: u8, value: Option<Vec<u8>> },
    AddColumn { name: String, column_type: ColumnType },
    DropColumn(String),
    ModifyColumn { name: String, column_type: ColumnType },
    RenameColumn { from: String, to: String },
    /// Ignored by libtaos (PROTOCOL 10.4).
    Other(u8),
}

/// A deletion as 579 gives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawDelete {
    pub from: i64,
    pub to: i64,
    pub table: String,
    pub timestamp: String,
}

/// The struct behind the head of 8 bytes.
pub(crate) fn without_head(body: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(body);
    reader.take(8, "message head")?;
    Ok(reader.rest())
}

/// What a leading length spans.
fn framed<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<Reader<'a>> {
    let length = reader.i32(what)?;
    let length = usize::try_from(length).map_err(|_| invalid(what, "negative length"))?;
    Ok(Reader::new(reader.take(length, what)?))
}

fn invalid(what: &'static str, why: &str) -> WireError {
    WireError::Invalid { what, why: why.to_owned() }
}

/// 531 and 533.
pub(crate) fn stable(body: &[u8]) -> Result<RawStable> {
    let mut reader = framed(&mut Reader::new(without_head(body)?), "stable")?;
    let name = reader.cstr("stable name")?.to_owned();
    let (suid, rollup) = (reader.i64("suid")?, reader.u8("rollup")?);
    let (columns, tags) = (schema(&mut reader)?, schema(&mut reader)?);
    if rollup != 0 {
        return Err(invalid("rollup", "super tables with rollup are not supported"));
    }
    if reader.i32("alter length")? > 0 {
        reader.binary("alter request")?;
    }
    let mut compression = Vec::new();
    if reader.left() > 2 {
        reader.u8("source")?;
        if reader.u8("compressed")? != 0 {
            compression = read_compression(&mut reader)?;
        }
    }
    Ok(RawStable { name, suid, columns, tags, compression })
}

fn schema(reader: &mut Reader<'_>) -> Result<RawSchema> {
    let count = reader.zigzag("schema columns")?;
    let version = reader.zigzag32("schema version")?;
    let count = reader.count(count, 6, "schema columns")?;
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let (code, flags) = (reader.u8("column type")?, reader.u8("column flags")?);
        let bytes = reader.zigzag32("column bytes")?;
        let id = reader.zigzag("column id")? as i16;
        let column_type = ColumnType { data_type: DataType::from_code(code)?, bytes };
        fields.push(Field { name: reader.cstr("column name")?.to_owned(), column_type, id, flags });
    }
    Ok(RawSchema { version, fields })
}

fn read_compression(reader: &mut Reader<'_>) -> Result<Vec<(i16, u32)>> {
    let count = reader.zigzag("compressions")?;
    reader.zigzag("compression version")?;
    let count = reader.count(count, 5, "compressions")?;
    (0..count).map(|_| Ok((reader.zigzag("column id")? as i16, reader.u32("compression")?))).collect()
}

/// 515.
pub(crate) fn create_tables(body: &[u8]) -> Result<Vec<RawCreate>> {
    let mut reader = framed(&mut Reader::new(without_head(body)?), "create tables")?;
    let count = reader.zigzag("tables")?;
    let count = reader.count(count, 5, "tables")?;
    (0..count).map(|_| create_fields(&mut framed(&mut reader, "create table")?)).collect()
}

/// One request with its length, as the tail of type 4 has it.
pub(crate) fn create(request: &[u8]) -> Result<RawCreate> {
    create_fields(&mut framed(&mut Reader::new(request), "create table")?)
}

fn create_fields(reader: &mut Reader<'_>) -> Result<RawCreate> {
    reader.zigzag("flags")?;
    let name = reader.cstr("table name")?.to_owned();
    reader.take(16, "uid and time")?;
    let (ttl_days, kind) = (reader.i32("ttl")?, reader.u8("kind")?);
    let comment = match reader.i32("comment length")? {
        1.. => Some(reader.cstr("comment")?.to_owned()),
        _ => None,
    };
    let kind = if kind == KIND_CHILD { child(reader)? } else { normal(reader)? };
    Ok(RawCreate { name, ttl_days, comment, kind })
}

fn child(reader: &mut Reader<'_>) -> Result<RawCreateKind> {
    let stable = reader.cstr("stable name")?.to_owned();
    reader.u8("tag count")?;
    reader.i64("suid")?;
    let (tags, is_json) = tag_blob(reader.binary("tags")?)?;
    let count = reader.i32("tag names")?;
    let count = reader.count(i64::from(count), 1, "tag names")?;
    let names = (0..count).map(|_| reader.cstr("tag name").map(str::to_owned));
    Ok(RawCreateKind::Child { stable, tag_names: names.collect::<Result<_>>()?, tags, is_json })
}

fn normal(reader: &mut Reader<'_>) -> Result<RawCreateKind> {
    let columns = schema(reader)?;
    if reader.i32("sql length")? > 0 {
        reader.binary("sql")?;
    }
    let compression = if reader.left() > 0 { read_compression(reader)? } else { Vec::new() };
    Ok(RawCreateKind::Normal { columns, compression })
}

fn tag_blob(blob: &[u8]) -> Result<(Vec<RawTag>, bool)> {
    let mut reader = Reader::new(blob);
    let flags = reader.u8("tag flags")?;
    reader.u16("tag length")?;
    let count = reader.u16("tags")?;
    reader.i32("tag version")?;
    let index_bytes = if flags & super::tags::FLAG_LARGE != 0 { 2 } else { 1 };
    reader.take(usize::from(count) * index_bytes, "tag index")?;
    let is_json = flags & super::tags::FLAG_JSON != 0;
    let tags = (0..count).map(|_| tag(&mut reader, is_json)).collect::<Result<_>>()?;
    Ok((tags, is_json))
}

fn tag(reader: &mut Reader<'_>, is_json: bool) -> Result<RawTag> {
    let (mut id, mut key) = (0, String::new());
    if is_json {
        key = reader.cstr("json key")?.to_owned();
    } else {
        id = reader.zigzag("tag id")? as i16;
    }
    let code = reader.u8("tag type")?;
    let bytes = match (code, DataType::from_code(code)) {
        (0, _) => &[][..],
        (_, Ok(data_type)) => match data_type.width() {
            Some(width) => reader.take(width, "tag value")?,
            None => reader.binary("tag value")?,
        },
        (_, Err(error)) => return Err(error),
    };
    Ok(RawTag { id, key, code, bytes: bytes.to_vec() })
}

/// 517.
pub(crate) fn alter_table(body: &[u8]) -> Result<(String, RawAlter)> {
    let mut reader = framed(&mut Reader::new(without_head(body)?), "alter table")?;
    let table = reader.cstr("table name")?.to_owned();
    let action = reader.u8("action")?;
    reader.i32("column id")?;
    let mut name = || reader.cstr("column name").map(str::to_owned);
    let alter = match action {
        alter_type::SET_TAG => {
            let (name, is_null) = (name()?, reader.u8("is null")? != 0);
            let code = reader.u8("tag type")?;
            let value = if is_null { None } else { Some(reader.binary("tag value")?.to_vec()) };
            RawAlter::SetTag { name, code, value }
        }
        alter_type::ADD_COLUMN => {
            let (name, code) = (name()?, reader.u8("column type")?);
            reader.u8("column flags")?;
            let column_type = ColumnType { data_type: DataType::from_code(code)?, bytes: reader.zigzag32("bytes")? };
            RawAlter::AddColumn { name, column_type }
        }
        alter_type::DROP_COLUMN => RawAlter::DropColumn(name()?),
        alter_type::MODIFY_COLUMN => {
            let (name, code) = (name()?, reader.u8("column type")?);
            let column_type = ColumnType { data_type: DataType::from_code(code)?, bytes: reader.zigzag32("bytes")? };
            RawAlter::ModifyColumn { name, column_type }
        }
        alter_type::RENAME_COLUMN => RawAlter::RenameColumn { from: name()?, to: name()? },
        other => RawAlter::Other(other),
    };
    Ok((table, alter))
}

/// 519.
pub(crate) fn drop_tables(body: &[u8]) -> Result<Vec<String>> {
    let mut reader = framed(&mut Reader::new(without_head(body)?), "drop tables")?;
    let count = reader.zigzag("tables")?;
    let count = reader.count(count, 5, "tables")?;
    (0..count).map(|_| framed(&mut reader, "drop table")?.cstr("table name").map(str::to_owned)).collect()
}

/// 535.
pub(crate) fn drop_stable(body: &[u8]) -> Result<String> {
    let mut reader = framed(&mut Reader::new(without_head(body)?), "drop stable")?;
    reader.cstr("stable name").map(str::to_owned)
}

/// 579.
pub(crate) fn delete(body: &[u8]) -> Result<RawDelete> {
    let mut reader = Reader::new(without_head(body)?);
    reader.i64("suid")?;
    let count = reader.zigzag("uids")?;
    let count = reader.count(count, 8, "uids")?;
    reader.take(count * 8, "uids")?;
    let (from, to) = (reader.i64("first")?, reader.i64("last")?);
    reader.zigzag("rows")?;
    let (table, timestamp) = (reader.cstr("table name")?.to_owned(), reader.cstr("timestamp column")?.to_owned());
    Ok(RawDelete { from, to, table, timestamp })
}
