//! Children and normal tables in the requests that make them.

use super::super::model::*;
use super::super::tags::TagBlob;
use super::stable::{decode_compression, put_compression};
use super::{framed, rest};
use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};
use crate::tmq::{decode_schema, put_schema};

const KIND_CHILD: i8 = 2;
const KIND_NORMAL: i8 = 3;

impl CreateTable {
    /// Reads one request as the tail of type-4 data holds it, its length in front.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(&mut Reader::new(bytes))
    }

    pub(super) fn read(outer: &mut Reader<'_>) -> Result<Self> {
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
