//! Super tables and the requests that altered them.

use super::super::model::*;
use super::{framed, rest, source};
use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};
use crate::tmq::{decode_schema, put_schema};

pub(super) type Compression = (Option<Vec<(i16, u32)>>, i32);

pub(super) fn decode_compression(reader: &mut Reader<'_>) -> Result<Compression> {
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

pub(super) fn put_compression(out: &mut Vec<u8>, columns: &[(i16, u32)], version: i32) {
    out.put_zigzag(columns.len() as i64);
    out.put_zigzag(i64::from(version));
    for (id, word) in columns {
        out.put_zigzag(i64::from(*id));
        out.put(&word.to_le_bytes());
    }
}

pub(super) fn decode_stable(reader: &mut Reader<'_>) -> Result<Stable> {
    let name = reader.cstr("table name")?.to_owned();
    let suid = reader.i64("table uid")?;
    let rollup = reader.i8("rollup")?;
    let (columns, column_version) = decode_schema(reader)?;
    let (tags, tag_version) = decode_schema(reader)?;
    let mut stable = Stable {
        name,
        suid,
        rollup,
        columns,
        column_version,
        tags,
        tag_version,
        request: Vec::new(),
        source: super::super::SOURCE_LOCAL,
        compression: None,
        compression_version: 0,
        rest: Vec::new(),
    };
    if rollup != 0 {
        stable.rest = rest(reader);
        return Ok(stable);
    }
    let length = reader.i32("alter request length")?;
    if length > 0 {
        stable.request = reader.binary("alter request")?.to_vec();
    }
    stable.source = source(reader)?;
    if reader.left() > 0 && reader.u8("has compression")? != 0 {
        (stable.compression, stable.compression_version) = decode_compression(reader)?;
    }
    stable.rest = rest(reader);
    Ok(stable)
}

pub(super) fn encode_stable(out: &mut Vec<u8>, stable: &Stable) {
    out.put_framed(|out| {
        out.put_cstr(&stable.name);
        out.put(&stable.suid.to_le_bytes());
        out.push(stable.rollup as u8);
        put_schema(out, &stable.columns, stable.column_version);
        put_schema(out, &stable.tags, stable.tag_version);
        if stable.rollup != 0 {
            out.put(&stable.rest);
            return;
        }
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
