//! Changes as the wire library writes them: so that a node and a real server can stand at either end of a replica.

#[cfg(test)]
mod tests;

use tdengine_wire::meta::{
    CreateTable, Meta, Stable as StableEntry, StableRequest, TableBody as BodyEntry, TagBlob, TagEntry, TagKey, alter_type,
};
use tdengine_wire::{DataType, Field};

use crate::ddl::{AlterKind, ColumnSpec};
use crate::error::{Result, ServerError};
use crate::schema::{Schema, Stable, TagValues};
use crate::table::{TableBody, TableMeta};
use crate::vgroup::{Effect, MetaRecord};

/// Version of the tags in a blob, whatever that of the super table.
const TAGS_VERSION: i32 = 1;
/// Version of the compression of a normal table's columns.
const NORMAL_COMPRESSION_VERSION: i32 = 0;

/// The entry of a change that no other vgroup has to get.
///
/// # Errors
/// 0x0118 when tag values pass 64 KiB.
pub(crate) fn record(meta: &Meta, source: u8, suid: i64, effect: Effect) -> Result<MetaRecord> {
    let body = meta.encode()?.into();
    Ok(MetaRecord { change: 0, raw_type: meta.raw_type(), source, suid, effect, body })
}

/// A super table; with the request that altered it in an ALTER STABLE.
pub(crate) fn stable(stable: &Stable, source: u8, request: Option<&StableRequest>) -> StableEntry {
    StableEntry {
        name: stable.name.clone(),
        suid: stable.suid,
        rollup: 0,
        columns: stable.columns.fields.clone(),
        column_version: stable.columns.version,
        tags: stable.tags.fields.clone(),
        tag_version: stable.tags.version,
        request: request.map(StableRequest::encode).unwrap_or_default(),
        source,
        compression: Some(compression(&stable.columns)),
        compression_version: stable.columns.version,
        rest: Vec::new(),
    }
}

/// One table of a CREATE TABLE, with those of the tags that were given, in the order of the statement, that are not NULL
/// (recording c2).
///
/// # Errors
/// 0x0118 when a JSON tag holds no object.
pub(crate) fn create_table(
    meta: &TableMeta,
    stable: Option<&Stable>,
    tag_names: &[String],
    if_not_exists: bool,
) -> Result<CreateTable> {
    let (body, compression) = match (&meta.body, stable) {
        (TableBody::Child { suid, tags }, stable) => {
            let fields = stable.map_or(&[][..], |stable| &stable.tags.fields);
            let is_given = |name: &&String| {
                fields.iter().any(|field| field.name == **name && tags.bytes(field.id).is_some())
            };
            let body = BodyEntry::Child {
                stable: stable.map(|stable| stable.name.clone()).unwrap_or_default(),
                suid: *suid,
                tag_count: fields.len() as u8,
                tags: tag_blob(fields, tags)?,
                names: tag_names.iter().filter(is_given).cloned().collect(),
            };
            (body, None)
        }
        (TableBody::Normal { columns, .. }, _) => {
            let body = BodyEntry::Normal { columns: columns.fields.clone(), version: columns.version };
            (body, Some(compression(columns)))
        }
    };
    Ok(CreateTable {
        flags: i32::from(if_not_exists),
        name: meta.name.clone(),
        uid: meta.uid,
        created_ms: meta.created_ms,
        ttl: meta.ttl_days,
        comment: meta.comment.clone(),
        body,
        sql: Vec::new(),
        compression,
        compression_version: NORMAL_COMPRESSION_VERSION,
        rest: Vec::new(),
    })
}

fn compression(columns: &Schema) -> Vec<(i16, u32)> {
    columns.fields.iter().zip(&columns.compression).map(|(field, word)| (field.id, *word)).collect()
}

/// The values of a child's tags; NULLs are left out.
///
/// # Errors
/// 0x0118 when a JSON tag holds no object.
fn tag_blob(fields: &[Field], tags: &TagValues) -> Result<TagBlob> {
    if let [field] = fields
        && field.column_type.data_type == DataType::Json
        && let Some(text) = tags.bytes(field.id)
    {
        let text = if text.is_empty() { b"{}" } else { text };
        return TagBlob::of_json(text).map_err(|_| ServerError::invalid_parameter("json tag is not an object"));
    }
    let entry = |field: &Field| {
        let bytes = tags.bytes(field.id)?.to_vec();
        Some(TagEntry { key: TagKey::Id(field.id), data_type: Some(field.column_type.data_type), bytes })
    };
    Ok(TagBlob { version: TAGS_VERSION, is_json: false, entries: fields.iter().filter_map(entry).collect() })
}

/// The request that the mnode got, as it stands inside an ALTER STABLE entry; `sql` is the text as it came, comments
/// included (FACTS F60).
pub(crate) fn alter_request(database: &str, stable: &str, kind: &AlterKind, sql: &str) -> StableRequest {
    let plain = |name: &str| (0u8, 0i32, name.to_owned());
    let typed = |column: &ColumnSpec| {
        let column_type = column.column_type;
        (column_type.data_type.code(), column_type.bytes, column.name.clone())
    };
    let (action, fields, comment) = match kind {
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
        AlterKind::Options { comment, .. } => (alter_type::OPTIONS, Vec::new(), comment.clone()),
    };
    let full_name = format!("1.{database}.{stable}");
    StableRequest { full_name, action, fields, ttl: 0, comment, sql: sql.to_owned() }
}
