//! Bodies of meta entries in the C layout that a real server gives them (PROTOCOL 9.3), without the head of 8 bytes that
//! an entry gets when it is read: so that a node and a real server can stand at either end of a replica.

pub(crate) mod read;
mod tags;
#[cfg(test)]
mod tests;

use tdengine_wire::Field;
use tdengine_wire::cursor::Write as _;

use crate::ddl::{AlterKind, ColumnSpec};
use crate::error::Result;
use crate::schema::{Schema, Stable};
use crate::table::{TableBody, TableMeta};

pub(crate) use tags::tag_blob;

pub(crate) const CREATE_TABLE: u16 = 515;
pub(crate) const ALTER_TABLE: u16 = 517;
pub(crate) const DROP_TABLE: u16 = 519;
pub(crate) const CREATE_STABLE: u16 = 531;
pub(crate) const ALTER_STABLE: u16 = 533;
pub(crate) const DROP_STABLE: u16 = 535;
pub(crate) const DELETE: u16 = 579;

const KIND_CHILD: u8 = 2;
const KIND_NORMAL: u8 = 3;

/// The alter kinds of PROTOCOL 9.4.
mod alter_type {
    pub const ADD_TAG: u8 = 1;
    pub const DROP_TAG: u8 = 2;
    pub const RENAME_TAG: u8 = 3;
    pub const SET_TAG: u8 = 4;
    pub const ADD_COLUMN: u8 = 5;
    pub const DROP_COLUMN: u8 = 6;
    pub const MODIFY_COLUMN: u8 = 7;
    pub const MODIFY_TAG: u8 = 8;
    pub const OPTIONS: u8 = 9;
    pub const RENAME_COLUMN: u8 = 10;
    pub const COMPRESS_COLUMN: u8 = 13;
}

/// What an ALTER STABLE entry keeps of the statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AlterRequest<'a> {
    pub database: &'a str,
    pub stable: &'a str,
    pub kind: &'a AlterKind,
    /// The text as it came, comments included (FACTS F60).
    pub sql: &'a str,
}

/// What an ALTER TABLE entry says.
#[derive(Debug, Clone)]
pub(crate) enum TableAction {
    SetTag { field: Field, value: Option<Vec<u8>> },
    AddColumn(Field),
    DropColumn(Field),
    ModifyColumn(Field),
    RenameColumn { old: Field, to: String },
    CompressColumn { field: Field, compression: u32 },
    Options { ttl_days: Option<i32>, comment: Option<String> },
}

/// What a DELETE entry says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeleteResult<'a> {
    pub suid: i64,
    pub uids: &'a [i64],
    pub from: i64,
    pub to: i64,
    pub rows: u64,
    pub table: &'a str,
    /// Name of the timestamp column.
    pub timestamp: &'a str,
    pub time_ms: i64,
    pub source: u8,
}

/// CREATE STABLE, or ALTER STABLE with the schema that it leads to.
pub(crate) fn stable(stable: &Stable, source: u8, alter: Option<&AlterRequest<'_>>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.put_framed(|out| {
        out.put_cstr(&stable.name);
        out.put(&stable.suid.to_le_bytes());
        out.push(0);
        put_schema(out, &stable.columns);
        put_schema(out, &stable.tags);
        match alter {
            None => out.put(&0i32.to_le_bytes()),
            Some(alter) => {
                let request = alter_request(alter);
                out.put(&(request.len() as i32).to_le_bytes());
                out.put_binary(&request);
            }
        }
        out.push(source);
        out.push(1);
        put_compression(out, &stable.columns, stable.columns.version);
    });
    Ok(out)
}

/// DROP STABLE.
pub(crate) fn drop_stable(stable: &Stable) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_framed(|out| {
        out.put_cstr(&stable.name);
        out.put(&stable.suid.to_le_bytes());
    });
    out
}

/// One request of a CREATE TABLE batch, with its length.
pub(crate) fn create_request(
    meta: &TableMeta,
    stable: Option<&Stable>,
    tag_names: &[String],
    if_not_exists: bool,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let blob = match (&meta.body, stable) {
        (TableBody::Child { tags, .. }, Some(stable)) => tag_blob(&stable.tags.fields, tags)?,
        _ => Vec::new(),
    };
    out.put_framed(|out| {
        out.put_zigzag(i64::from(if_not_exists));
        out.put_cstr(&meta.name);
        out.put(&meta.uid.to_le_bytes());
        out.put(&meta.created_ms.to_le_bytes());
        out.put(&meta.ttl_days.to_le_bytes());
        out.push(if stable.is_some() { KIND_CHILD } else { KIND_NORMAL });
        match &meta.comment {
            None => out.put(&(-1i32).to_le_bytes()),
            Some(comment) => {
                out.put(&(comment.len() as i32).to_le_bytes());
                out.put_cstr(comment);
            }
        }
        if let Some(stable) = stable {
            out.put_cstr(&stable.name);
            out.push(tag_names.len() as u8);
            out.put(&stable.suid.to_le_bytes());
            out.put_binary(&blob);
            out.put(&(tag_names.len() as i32).to_le_bytes());
            tag_names.iter().for_each(|name| out.put_cstr(name));
        } else if let Some(columns) = meta.columns() {
            put_schema(out, columns);
        }
        out.put(&0i32.to_le_bytes());
        if let Some(columns) = meta.columns() {
            put_compression(out, columns, 0);
        }
    });
    Ok(out)
}

/// CREATE TABLE with these requests.
pub(crate) fn create_tables(requests: &[Vec<u8>], source: u8) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_framed(|out| {
        out.put_zigzag(requests.len() as i64);
        requests.iter().for_each(|request| out.put(request));
        out.push(source);
    });
    out
}

/// DROP TABLE of these names and super table uids.
pub(crate) fn drop_tables(tables: &[(&str, i64)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_framed(|out| {
        out.put_zigzag(tables.len() as i64);
        for (name, suid) in tables {
            out.put_framed(|out| {
                out.put_cstr(name);
                out.put(&suid.to_le_bytes());
                out.push(0);
            });
        }
    });
    out
}

/// ALTER TABLE.
pub(crate) fn alter_table(name: &str, action: &TableAction, time_ms: i64, source: u8) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_framed(|out| {
        out.put_cstr(name);
        put_action(out, action);
        out.put(&time_ms.to_le_bytes());
        out.push(source);
    });
    out
}

fn put_action(out: &mut Vec<u8>, action: &TableAction) {
    let mut head = |action: u8, id: i16| {
        out.push(action);
        out.put(&i32::from(id).to_le_bytes());
    };
    match action {
        TableAction::SetTag { field, value } => {
            head(alter_type::SET_TAG, field.id);
            out.put_cstr(&field.name);
            out.push(u8::from(value.is_none()));
            out.push(field.column_type.data_type.code());
            if let Some(value) = value {
                out.put_binary(value);
            }
        }
        TableAction::AddColumn(field) => {
            head(alter_type::ADD_COLUMN, 0);
            out.put_cstr(&field.name);
            out.push(field.column_type.data_type.code());
            out.push(field.flags);
            out.put_zigzag(i64::from(field.column_type.bytes));
        }
        TableAction::DropColumn(field) => {
            head(alter_type::DROP_COLUMN, field.id);
            out.put_cstr(&field.name);
        }
        TableAction::ModifyColumn(field) => {
            head(alter_type::MODIFY_COLUMN, field.id);
            out.put_cstr(&field.name);
            out.push(field.column_type.data_type.code());
            out.put_zigzag(i64::from(field.column_type.bytes));
        }
        TableAction::RenameColumn { old, to } => {
            head(alter_type::RENAME_COLUMN, 0);
            out.put_cstr(&old.name);
            out.put_cstr(to);
        }
        TableAction::CompressColumn { field, compression } => {
            head(alter_type::COMPRESS_COLUMN, field.id);
            out.put_cstr(&field.name);
            out.put(&compression.to_le_bytes());
        }
        TableAction::Options { ttl_days, comment } => {
            head(alter_type::OPTIONS, 0);
            out.push(u8::from(ttl_days.is_some()));
            if let Some(ttl_days) = ttl_days {
                out.put_zigzag(i64::from(*ttl_days));
            }
            out.put_zigzag(comment.as_ref().map_or(-1, |comment| comment.len() as i64));
            if let Some(comment) = comment.as_ref().filter(|comment| !comment.is_empty()) {
                out.put_cstr(comment);
            }
        }
    }
}

/// DELETE.
pub(crate) fn delete(result: &DeleteResult<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put(&result.suid.to_le_bytes());
    out.put_zigzag(result.uids.len() as i64);
    result.uids.iter().for_each(|uid| out.put(&uid.to_le_bytes()));
    out.put(&result.from.to_le_bytes());
    out.put(&result.to.to_le_bytes());
    out.put_zigzag(result.rows as i64);
    out.put_cstr(result.table);
    out.put_cstr(result.timestamp);
    out.put(&result.time_ms.to_le_bytes());
    out.push(result.source);
    out
}

fn put_schema(out: &mut Vec<u8>, schema: &Schema) {
    out.put_zigzag(schema.fields.len() as i64);
    out.put_zigzag(i64::from(schema.version));
    for field in &schema.fields {
        out.push(field.column_type.data_type.code());
        out.push(field.flags);
        out.put_zigzag(i64::from(field.column_type.bytes));
        out.put_zigzag(i64::from(field.id));
        out.put_cstr(&field.name);
    }
}

/// `version` is 0 for a normal table.
fn put_compression(out: &mut Vec<u8>, schema: &Schema, version: i32) {
    out.put_zigzag(schema.fields.len() as i64);
    out.put_zigzag(i64::from(version));
    for (field, compression) in schema.fields.iter().zip(&schema.compression) {
        out.put_zigzag(i64::from(field.id));
        out.put(&compression.to_le_bytes());
    }
}

/// The request that the mnode got, as it stands inside an ALTER STABLE entry.
fn alter_request(alter: &AlterRequest<'_>) -> Vec<u8> {
    let plain = |name: &str| (0u8, 0i32, name.to_owned());
    let typed = |column: &ColumnSpec| {
        let column_type = column.column_type;
        (column_type.data_type.code(), column_type.bytes, column.name.clone())
    };
    let (action, fields, comment) = match alter.kind {
        AlterKind::AddColumn(column) => (alter_type::ADD_COLUMN, vec![typed(column)], None),
        AlterKind::DropColumn(name) => (alter_type::DROP_COLUMN, vec![plain(name)], None),
        AlterKind::ModifyColumn { name, column_type } => {
            (alter_type::MODIFY_COLUMN, vec![(column_type.data_type.code(), column_type.bytes, name.clone())], None)
        }
        AlterKind::RenameColumn { from, to } => (alter_type::RENAME_COLUMN, vec![plain(from), plain(to)], None),
        AlterKind::CompressColumn { name, compression } => {
            (alter_type::COMPRESS_COLUMN, vec![(0, compression.over(0) as i32, name.clone())], None)
        }
        AlterKind::AddTag(tag) => (alter_type::ADD_TAG, vec![typed(tag)], None),
        AlterKind::DropTag(name) => (alter_type::DROP_TAG, vec![plain(name)], None),
        AlterKind::ModifyTag { name, column_type } => {
            (alter_type::MODIFY_TAG, vec![(column_type.data_type.code(), column_type.bytes, name.clone())], None)
        }
        AlterKind::RenameTag { from, to } => (alter_type::RENAME_TAG, vec![plain(from), plain(to)], None),
        AlterKind::Options { comment, .. } => (alter_type::OPTIONS, Vec::new(), comment.as_deref()),
    };
    let mut out = Vec::new();
    out.put_framed(|out| {
        out.put_cstr(&format!("1.{}.{}", alter.database, alter.stable));
        out.push(action);
        out.put(&(fields.len() as i32).to_le_bytes());
        for (code, bytes, name) in &fields {
            out.push(*code);
            out.put(&bytes.to_le_bytes());
            out.put_cstr(name);
        }
        out.put(&0i32.to_le_bytes());
        out.put(&(comment.map_or(0, str::len) as i32).to_le_bytes());
        if let Some(comment) = comment.filter(|comment| !comment.is_empty()) {
            out.put_cstr(comment);
        }
        out.put(&(alter.sql.len() as i32).to_le_bytes());
        out.put_binary(alter.sql.as_bytes());
    });
    out
}
