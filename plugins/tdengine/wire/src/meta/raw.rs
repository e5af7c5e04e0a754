//! The binary form of changes, byte for byte as `fetch_raw` delivers it (PROTOCOL 9.3).
//!
//! What a newer server appends is kept in the `rest` of each structure and written back.

mod alter;
mod create;
mod stable;

use alter::{decode_alter, encode_alter};
use stable::{decode_stable, encode_stable};

use super::kind;
use super::model::*;
use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};

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
        Ok((self.meta.raw_type(), with_head(self.vgroup_id, &self.meta.encode()?)))
    }
}

/// What [`Meta::encode`] wrote with the head of a message of that vgroup before it.
pub fn with_head(vgroup_id: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 8);
    super::put_head(&mut out, vgroup_id, |out| out.put(body));
    out
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

    /// Writes the struct alone; a message has a head before it (see [`with_head`]).
    ///
    /// # Errors
    /// When tag values pass 64 KiB.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::CreateStable(stable) | Self::AlterStable(stable) => encode_stable(&mut out, stable),
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
            Self::AlterTable(alter) => encode_alter(&mut out, alter),
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
            Self::Delete(delete) => encode_delete(&mut out, delete),
        }
        Ok(out)
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
