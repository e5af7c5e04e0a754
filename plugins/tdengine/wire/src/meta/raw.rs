//! The binary form of changes, byte for byte as `fetch_raw` delivers it (PROTOCOL 9.3).
//!
//! What a newer server appends is kept in the `rest` of each structure and written back.

use super::kind;
use super::model::*;
use super::tags::TagBlob;
use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};
use crate::tmq::{decode_schema, put_schema};
use crate::types::DataType;

const KIND_CHILD: i8 = 2;
const KIND_NORMAL: i8 = 3;

/// A change with the vgroup whose log it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct RawMeta {
    /// The vgroup.
    pub vgroup_id: i32,
    /// What is changed.
    pub meta: Meta,
}

impl RawMeta {
    /// Reads the body of a raw message whose type is one of [`kind`].
    ///
    /// # Errors
    /// When the type is no change, or the body is malformed.
    pub fn decode(raw_type: u16, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let length = reader.i32("meta length")?;
        if usize::try_from(length).ok() != Some(bytes.len()) {
            return Err(WireError::invalid("meta length", format!("{length}, the body has {}", bytes.len())));
        }
        let vgroup_id = reader.i32("vgroup")?;
        if raw_type == kind::DELETE {
            return Ok(Self { vgroup_id, meta: Meta::Delete(decode_delete(&mut reader)?) });
        }
        let mut reader = framed(&mut reader)?;
        let meta = match raw_type {
            kind::CREATE_STABLE => Meta::CreateStable(decode_stable(&mut reader)?),
            kind::ALTER_STABLE => Meta::AlterStable(decode_stable(&mut reader)?),
            kind::DROP_STABLE => Meta::DropStable {
                name: reader.cstr("table name")?.to_owned(),
                suid: reader.i64("table uid")?,
                rest: rest(&reader),
            },
            kind::CREATE_TABLE => {
                let count = reader.zigzag("tables")?;
                let count = reader.count(count, 4, "tables")?;
                let tables = (0..count).map(|_| CreateTable::read(&mut reader)).collect::<Result<_>>()?;
                Meta::CreateTables { tables, source: source(&mut reader)?, rest: rest(&reader) }
            }
            kind::ALTER_TABLE => Meta::AlterTable(decode_alter(&mut reader)?),
            kind::DROP_TABLE => {
                let count = reader.zigzag("tables")?;
                let count = reader.count(count, 4, "tables")?;
                let tables = (0..count).map(|_| decode_drop(&mut reader)).collect::<Result<_>>()?;
                Meta::DropTables { tables, rest: rest(&reader) }
            }
            _ => return Err(WireError::invalid("raw type", format!("{raw_type} is no change"))),
        };
        Ok(Self { vgroup_id, meta })
    }

    /// Writes the raw type and the body.
    ///
    /// # Errors
    /// When tag values pass 64 KiB.
    pub fn encode(&self) -> Result<(u16, Vec<u8>)> {
        let mut body = Vec::new();
        let raw_type = self.meta.encode(&mut body)?;
        let mut out = Vec::with_capacity(body.len() + 8);
        super::put_head(&mut out, self.vgroup_id, |out| out.put(&body));
        Ok((raw_type, out))
    }
}

impl Meta {
    /// Its raw type, one of [`kind`].
    pub fn raw_type(&self) -> u16 {
        match self {
            Self::CreateStable(_) => kind::CREATE_STABLE,
            Self::AlterStable(_) => kind::ALTER_STABLE,
            Self::DropStable { .. } => kind::DROP_STABLE,
            Self::CreateTables { .. } => kind::CREATE_TABLE,
            Self::AlterTable(_) => kind::ALTER_TABLE,
            Self::DropTables { .. } => kind::DROP_TABLE,
            Self::Delete(_) => kind::DELETE,
        }
    }

    /// Whether it carries the loop mark; drops never do (FACTS F7).
    pub fn is_marked(&self) -> bool {
        let source = match self {
            Self::CreateStable(stable) | Self::AlterStable(stable) => stable.source,
            Self::CreateTables { source, .. } => *source,
            Self::AlterTable(alter) => alter.source,
            Self::Delete(delete) => delete.source,
            Self::DropStable { .. } | Self::DropTables { .. } => 0,
        };
        source & super::SOURCE_REPLICA != 0
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<u16> {
        match self {
            Self::CreateStable(stable) | Self::AlterStable(stable) => encode_stable(out, stable),
            Self::DropStable { name, suid, rest } => out.put_framed(|out| {
                out.put_cstr(name);
                out.put(&suid.to_le_bytes());
                out.put(rest);
            }),
            Self::CreateTables { tables, source, rest } => {
                let requests = tables.iter().map(CreateTable::encode).collect::<Result<Vec<_>>>()?;
                out.put_framed(|out| {
                    out.put_zigzag(requests.len() as i64);
                    requests.iter().for_each(|request| out.put(request));
                    out.push(*source);
                    out.put(rest);
                });
            }
            Self::AlterTable(alter) => encode_alter(out, alter),
            Self::DropTables { tables, rest } => out.put_framed(|out| {
                out.put_zigzag(tables.len() as i64);
                for table in tables {
                    out.put_framed(|out| {
                        out.put_cstr(&table.name);
                        out.put(&table.suid.to_le_bytes());
                        out.push(table.if_exists);
                        out.put(&table.rest);
                    });
                }
                out.put(rest);
            }),
            Self::Delete(delete) => encode_delete(out, delete),
        }
        Ok(self.raw_type())
    }
}

fn framed<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>> {
    let length = reader.i32("frame length")?;
    let length = usize::try_from(length).map_err(|_| WireError::invalid("frame length", length.to_string()))?;
    Ok(Reader::new(reader.take(length, "frame")?))
}

fn rest(reader: &Reader<'_>) -> Vec<u8> {
    reader.rest().to_vec()
}

/// The source byte; servers before the mark end here.
fn source(reader: &mut Reader<'_>) -> Result<u8> {
    if reader.left() == 0 { Ok(super::SOURCE_LOCAL) } else { reader.u8("source") }
}

type Compression = (Option<Vec<(i16, u32)>>, i32);

fn decode_compression(reader: &mut Reader<'_>) -> Result<Compression> {
    let count = reader.zigzag("compressed columns")?;
    let version = reader.zigzag32("compression version")?;
    let count = reader.count(count, 5, "compressed columns")?;
    let one = |reader: &mut Reader<'_>| {
        let id = reader.zigzag("column id")?;
        let id = i16::try_from(id).map_err(|_| WireError::invalid("column id", id.to_string()))?;
        Ok((id, reader.u32("compression")?))
    };
    Ok((Some((0..count).map(|_| one(reader)).collect::<Result<_>>()?), version))
}

fn put_compression(out: &mut Vec<u8>, columns: &[(i16, u32)], version: i32) {
    out.put_zigzag(columns.len() as i64);
    out.put_zigzag(i64::from(version));
    for (id, word) in columns {
        out.put_zigzag(i64::from(*id));
        out.put(&word.to_le_bytes());
    }
}

fn decode_stable(reader: &mut Reader<'_>) -> Result<Stable> {
    let name = reader.cstr("table name")?.to_owned();
    let suid = reader.i64("table uid")?;
    let rollup = reader.i8("rollup")?;
    let (columns, column_version) = decode_schema(reader)?;
    let (tags, tag_version) = decode_schema(reader)?;
    if rollup != 0 {
        return Err(WireError::invalid("rollup", "super tables with rollup are not supported"));
    }
    let length = reader.i32("alter request length")?;
    let request = if length > 0 { reader.binary("alter request")?.to_vec() } else { Vec::new() };
    let source = source(reader)?;
    let has_compression = reader.left() > 0 && reader.u8("has compression")? != 0;
    let (compression, compression_version) = if has_compression { decode_compression(reader)? } else { (None, 0) };
    Ok(Stable {
        name,
        suid,
        rollup,
        columns,
        column_version,
        tags,
        tag_version,
        request,
        source,
        compression,
        compression_version,
        rest: rest(reader),
    })
}

fn encode_stable(out: &mut Vec<u8>, stable: &Stable) {
    out.put_framed(|out| {
        out.put_cstr(&stable.name);
        out.put(&stable.suid.to_le_bytes());
        out.push(stable.rollup as u8);
        put_schema(out, &stable.columns, stable.column_version);
        put_schema(out, &stable.tags, stable.tag_version);
        out.put(&(stable.request.len() as i32).to_le_bytes());
        if !stable.request.is_empty() {
            out.put_binary(&stable.request);
        }
        out.push(stable.source);
        out.push(u8::from(stable.compression.is_some()));
        if let Some(columns) = &stable.compression {
            put_compression(out, columns, stable.compression_version);
        }
        out.put(&stable.rest);
    });
}

impl StableRequest {
    /// Reads [`Stable::request`].
    ///
    /// # Errors
    /// When it is malformed. Fields of action 14 may carry a compression word, which is skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes, 0).or_else(|error| Self::read(bytes, 4).map_err(|_| error))
    }

    fn read(bytes: &[u8], field_extra: usize) -> Result<Self> {
        let mut reader = framed(&mut Reader::new(bytes))?;
        let full_name = reader.cstr("table name")?.to_owned();
        let action = reader.u8("alter action")?;
        let count = reader.i32("alter fields")?;
        let count = reader.count(i64::from(count), 7 + field_extra, "alter fields")?;
        let field = |reader: &mut Reader<'_>| {
            let head = (reader.u8("field type")?, reader.i32("field bytes")?, reader.cstr("field name")?.to_owned());
            reader.take(field_extra, "field compression")?;
            Ok(head)
        };
        let fields = (0..count).map(|_| field(&mut reader)).collect::<Result<_>>()?;
        let ttl = reader.i32("ttl")?;
        let comment = match reader.i32("comment length")? {
            ..=0 => None,
            _ => Some(reader.cstr("comment")?.to_owned()),
        };
        reader.i32("statement length")?;
        let sql = String::from_utf8_lossy(reader.binary("statement")?).into_owned();
        Ok(Self { full_name, action, fields, ttl, comment, sql })
    }

    /// Writes what [`Stable::request`] holds.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_framed(|out| {
            out.put_cstr(&self.full_name);
            out.push(self.action);
            out.put(&(self.fields.len() as i32).to_le_bytes());
            for (code, bytes, name) in &self.fields {
                out.push(*code);
                out.put(&bytes.to_le_bytes());
                out.put_cstr(name);
            }
            out.put(&self.ttl.to_le_bytes());
            match &self.comment {
                None => out.put(&[0; 4]),
                Some(comment) => {
                    out.put(&(comment.len() as i32).to_le_bytes());
                    out.put_cstr(comment);
                }
            }
            out.put(&(self.sql.len() as i32).to_le_bytes());
            out.put_binary(self.sql.as_bytes());
        });
        out
    }
}

impl CreateTable {
    /// Reads one request as the tail of type-4 data holds it, its length in front.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(&mut Reader::new(bytes))
    }

    fn read(outer: &mut Reader<'_>) -> Result<Self> {
        let mut reader = framed(outer)?;
        let flags = reader.zigzag32("table flags")?;
        let name = reader.cstr("table name")?.to_owned();
        let uid = reader.i64("table uid")?;
        let created_ms = reader.i64("creation time")?;
        let ttl = reader.i32("ttl")?;
        let table_kind = reader.i8("table kind")?;
        let comment = match reader.i32("comment length")? {
            ..0 => None,
            0 => Some(String::new()),
            _ => Some(reader.cstr("comment")?.to_owned()),
        };
        let body = match table_kind {
            KIND_CHILD => TableBody::read_child(&mut reader)?,
            KIND_NORMAL => {
                let (columns, version) = decode_schema(&mut reader)?;
                TableBody::Normal { columns, version }
            }
            other => return Err(WireError::invalid("table kind", other.to_string())),
        };
        let sql = if reader.i32("statement length")? > 0 { reader.binary("statement")?.to_vec() } else { Vec::new() };
        let is_normal = matches!(body, TableBody::Normal { .. });
        let (compression, compression_version) =
            if is_normal && reader.left() > 0 { decode_compression(&mut reader)? } else { (None, 0) };
        let rest = rest(&reader);
        Ok(Self { flags, name, uid, created_ms, ttl, comment, body, sql, compression, compression_version, rest })
    }

    /// Writes one request, its length in front.
    ///
    /// # Errors
    /// When tag values pass 64 KiB.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let blob = match &self.body {
            TableBody::Child { tags, .. } => tags.encode()?,
            TableBody::Normal { .. } => Vec::new(),
        };
        let mut out = Vec::new();
        out.put_framed(|out| {
            out.put_zigzag(i64::from(self.flags));
            out.put_cstr(&self.name);
            out.put(&self.uid.to_le_bytes());
            out.put(&self.created_ms.to_le_bytes());
            out.put(&self.ttl.to_le_bytes());
            out.push(if matches!(self.body, TableBody::Child { .. }) { KIND_CHILD } else { KIND_NORMAL } as u8);
            out.put(&self.comment.as_ref().map_or(-1, |comment| comment.len() as i32).to_le_bytes());
            if let Some(comment) = self.comment.as_deref().filter(|comment| !comment.is_empty()) {
                out.put_cstr(comment);
            }
            match &self.body {
                TableBody::Child { stable, suid, tag_count, names, .. } => {
                    out.put_cstr(stable);
                    out.push(*tag_count);
                    out.put(&suid.to_le_bytes());
                    out.put_binary(&blob);
                    out.put(&(names.len() as i32).to_le_bytes());
                    names.iter().for_each(|name| out.put_cstr(name));
                }
                TableBody::Normal { columns, version } => put_schema(out, columns, *version),
            }
            out.put(&(self.sql.len() as i32).to_le_bytes());
            if !self.sql.is_empty() {
                out.put_binary(&self.sql);
            }
            if let Some(columns) = &self.compression {
                put_compression(out, columns, self.compression_version);
            }
            out.put(&self.rest);
        });
        Ok(out)
    }
}

impl TableBody {
    fn read_child(reader: &mut Reader<'_>) -> Result<Self> {
        let stable = reader.cstr("super table")?.to_owned();
        let tag_count = reader.u8("tag count")?;
        let suid = reader.i64("super table uid")?;
        let tags = TagBlob::decode(reader.binary("tags")?)?;
        let count = reader.i32("tag names")?;
        let count = reader.count(i64::from(count), 2, "tag names")?;
        let names = (0..count).map(|_| reader.cstr("tag name").map(str::to_owned)).collect::<Result<_>>()?;
        Ok(Self::Child { stable, suid, tag_count, tags, names })
    }
}

fn decode_alter(reader: &mut Reader<'_>) -> Result<AlterTable> {
    let name = reader.cstr("table name")?.to_owned();
    let code = reader.u8("alter action")?;
    let column_id = reader.i32("column id")?;
    let action = match decode_action(code, reader)? {
        Some(action) => action,
        None => {
            let action = TableAction::Other { action: code, body: rest(reader) };
            return Ok(AlterTable { name, column_id, action, time_ms: 0, source: 0, rest: Vec::new() });
        }
    };
    let time_ms = reader.i64("alter time")?;
    Ok(AlterTable { name, column_id, action, time_ms, source: source(reader)?, rest: rest(reader) })
}

fn decode_action(code: u8, reader: &mut Reader<'_>) -> Result<Option<TableAction>> {
    let name = |reader: &mut Reader<'_>| reader.cstr("column name").map(str::to_owned);
    let data_type = |reader: &mut Reader<'_>| DataType::from_code(reader.u8("column type")?);
    Ok(Some(match code {
        alter_type::SET_TAG => {
            let name = name(reader)?;
            let is_null = reader.u8("tag is null")? != 0;
            let data_type = data_type(reader)?;
            let value = if is_null { None } else { Some(reader.binary("tag value")?.to_vec()) };
            TableAction::SetTag { name, data_type, value }
        }
        alter_type::ADD_COLUMN => TableAction::AddColumn {
            name: name(reader)?,
            data_type: data_type(reader)?,
            flags: reader.u8("column flags")?,
            bytes: reader.zigzag32("column bytes")?,
        },
        alter_type::DROP_COLUMN => TableAction::DropColumn { name: name(reader)? },
        alter_type::MODIFY_COLUMN => TableAction::ModifyColumn {
            name: name(reader)?,
            data_type: data_type(reader)?,
            bytes: reader.zigzag32("column bytes")?,
        },
        alter_type::OPTIONS => {
            let ttl = if reader.u8("has ttl")? != 0 { Some(reader.zigzag32("ttl")?) } else { None };
            let comment = match reader.zigzag("comment length")? {
                ..0 => None,
                0 => Some(String::new()),
                _ => Some(reader.cstr("comment")?.to_owned()),
            };
            TableAction::Options { ttl, comment }
        }
        alter_type::RENAME_COLUMN => TableAction::RenameColumn { name: name(reader)?, new_name: name(reader)? },
        alter_type::COMPRESS_COLUMN => {
            TableAction::Compress { name: name(reader)?, compression: reader.u32("compression")? }
        }
        _ => return Ok(None),
    }))
}

fn encode_alter(out: &mut Vec<u8>, alter: &AlterTable) {
    out.put_framed(|out| {
        out.put_cstr(&alter.name);
        out.push(alter.action.code());
        out.put(&alter.column_id.to_le_bytes());
        put_action(out, &alter.action);
        if !matches!(alter.action, TableAction::Other { .. }) {
            out.put(&alter.time_ms.to_le_bytes());
            out.push(alter.source);
            out.put(&alter.rest);
        }
    });
}

fn put_action(out: &mut Vec<u8>, action: &TableAction) {
    match action {
        TableAction::SetTag { name, data_type, value } => {
            out.put_cstr(name);
            out.put(&[u8::from(value.is_none()), data_type.code()]);
            if let Some(value) = value {
                out.put_binary(value);
            }
        }
        TableAction::AddColumn { name, data_type, flags, bytes } => {
            out.put_cstr(name);
            out.put(&[data_type.code(), *flags]);
            out.put_zigzag(i64::from(*bytes));
        }
        TableAction::DropColumn { name } => out.put_cstr(name),
        TableAction::ModifyColumn { name, data_type, bytes } => {
            out.put_cstr(name);
            out.push(data_type.code());
            out.put_zigzag(i64::from(*bytes));
        }
        TableAction::Options { ttl, comment } => {
            out.push(u8::from(ttl.is_some()));
            if let Some(ttl) = ttl {
                out.put_zigzag(i64::from(*ttl));
            }
            out.put_zigzag(comment.as_ref().map_or(-1, |comment| comment.len() as i64));
            if let Some(comment) = comment.as_deref().filter(|comment| !comment.is_empty()) {
                out.put_cstr(comment);
            }
        }
        TableAction::RenameColumn { name, new_name } => {
            out.put_cstr(name);
            out.put_cstr(new_name);
        }
        TableAction::Compress { name, compression } => {
            out.put_cstr(name);
            out.put(&compression.to_le_bytes());
        }
        TableAction::Other { body, .. } => out.put(body),
    }
}

fn decode_drop(reader: &mut Reader<'_>) -> Result<DropTable> {
    let mut reader = framed(reader)?;
    let name = reader.cstr("table name")?.to_owned();
    let suid = reader.i64("super table uid")?;
    Ok(DropTable { name, suid, if_exists: reader.u8("if exists")?, rest: rest(&reader) })
}

fn decode_delete(reader: &mut Reader<'_>) -> Result<Delete> {
    let suid = reader.i64("super table uid")?;
    let count = reader.zigzag("deleted tables")?;
    let count = reader.count(count, 8, "deleted tables")?;
    Ok(Delete {
        suid,
        uids: (0..count).map(|_| reader.i64("table uid")).collect::<Result<_>>()?,
        from: reader.i64("first timestamp")?,
        to: reader.i64("last timestamp")?,
        affected: reader.zigzag("affected rows")?,
        table: reader.cstr("table name")?.to_owned(),
        timestamp: reader.cstr("timestamp column")?.to_owned(),
        time_ms: reader.i64("delete time")?,
        source: source(reader)?,
        rest: rest(reader),
    })
}

fn encode_delete(out: &mut Vec<u8>, delete: &Delete) {
    out.put(&delete.suid.to_le_bytes());
    out.put_zigzag(delete.uids.len() as i64);
    delete.uids.iter().for_each(|uid| out.put(&uid.to_le_bytes()));
    out.put(&delete.from.to_le_bytes());
    out.put(&delete.to.to_le_bytes());
    out.put_zigzag(delete.affected);
    out.put_cstr(&delete.table);
    out.put_cstr(&delete.timestamp);
    out.put(&delete.time_ms.to_le_bytes());
    out.push(delete.source);
    out.put(&delete.rest);
}
