//! Changes of a child's tags and of a normal table's columns.

use super::super::model::*;
use super::{rest, source};
use crate::cursor::{Reader, Write};
use crate::error::Result;
use crate::types::DataType;

pub(super) fn decode_alter(reader: &mut Reader<'_>) -> Result<AlterTable> {
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
        alter_type::ADD_COLUMN | alter_type::ADD_COLUMN_COMPRESSED => TableAction::AddColumn {
            name: name(reader)?,
            data_type: data_type(reader)?,
            flags: reader.u8("column flags")?,
            bytes: reader.zigzag32("column bytes")?,
            compression: match code {
                alter_type::ADD_COLUMN => None,
                _ => Some(reader.u32("compression")?),
            },
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

pub(super) fn encode_alter(out: &mut Vec<u8>, alter: &AlterTable) {
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
        TableAction::AddColumn { name, data_type, flags, bytes, compression } => {
            out.put_cstr(name);
            out.put(&[data_type.code(), *flags]);
            out.put_zigzag(i64::from(*bytes));
            if let Some(compression) = compression {
                out.put(&compression.to_le_bytes());
            }
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
