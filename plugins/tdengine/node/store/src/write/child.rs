//! Children that rows bring with them (`INSERT … USING`, type-4 raw data).

use std::sync::Arc;

use crate::body;
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::schema::{Schema, Stable, TableKind, TableSchema, TagValues};
use crate::store::CreateChild;
use crate::store::inner::{Inner, new_uid, now_ms};
use crate::table::{TableBody, TableMeta};
use crate::vgroup::{CreateRecord, Index};

/// A child that is to be made if it is missing.
#[derive(Debug, Clone)]
pub(crate) struct NewChild {
    pub stable: Arc<Stable>,
    /// Names of the tags that were given.
    pub tag_names: Vec<String>,
    pub tags: TagValues,
    pub ttl_days: i32,
    pub comment: Option<String>,
}

impl NewChild {
    /// What a caller asks for by names and bytes.
    ///
    /// # Errors
    /// 0x2603 for the super table, 0x260D for the number of tags, 0x260E for a name, 0x2653 for a value.
    pub fn of_request(inner: &Inner, database: &Database, request: &CreateChild) -> Result<Self> {
        let stable = inner.catalog.read().stable(database.id, &request.stable).cloned();
        let stable = stable.ok_or_else(ServerError::table_missing)?;
        let names = tag_names(&stable.tags, request.tag_names.as_deref())?;
        if names.len() != request.tag_values.len() {
            return Err(ServerError::new(code::TAGS_NOT_MATCHED, "Tags number not matched"));
        }
        let mut tags = TagValues::default();
        for (name, value) in names.iter().zip(&request.tag_values) {
            put_tag(&mut tags, &stable.tags, name, value.clone())?;
        }
        Ok(Self { stable, tag_names: names, tags, ttl_days: request.ttl_days, comment: None })
    }

    /// The table as it will be, with the request that makes it.
    pub fn make(&self, index: &Index, name: &str) -> Result<(TableSchema, CreateRecord)> {
        let stable = index.stable(self.stable.suid).ok_or_else(ServerError::table_missing)?;
        let meta = self.meta(name, new_uid());
        let body = body::create_table(&meta, Some(stable), &self.tag_names, false)?.encode()?.into();
        let kind = TableKind::Child;
        let schema = TableSchema { uid: meta.uid, kind, stable: Some(stable.name.clone()), ..stable.schema() };
        Ok((schema, CreateRecord { meta: Some(meta), body }))
    }

    /// The request for a table that is there already: it goes into the log with the tags of the statement, and does
    /// nothing (FACTS F13, F30).
    ///
    /// # Errors
    /// 0x061D when the name belongs to another kind of table.
    pub fn existing(&self, name: &str, schema: &TableSchema) -> Result<CreateRecord> {
        if schema.suid != self.stable.suid {
            return Err(ServerError::new(code::STABLE_NOT_MATCHED, "Table already exists in other stables"));
        }
        let meta = self.meta(name, schema.uid);
        let body = body::create_table(&meta, Some(&self.stable), &self.tag_names, false)?.encode()?.into();
        Ok(CreateRecord { meta: None, body })
    }

    /// The table as it would be.
    pub fn meta(&self, name: &str, uid: i64) -> TableMeta {
        TableMeta {
            uid,
            name: name.to_owned(),
            created_ms: now_ms(),
            ttl_days: self.ttl_days,
            comment: self.comment.clone(),
            body: TableBody::Child { suid: self.stable.suid, tags: Arc::new(self.tags.clone()) },
        }
    }
}

/// The tags that a list of names means; all of them without one.
///
/// # Errors
/// 0x260E for a name that the super table does not have.
pub(crate) fn tag_names(tags: &Schema, names: Option<&[String]>) -> Result<Vec<String>> {
    let Some(names) = names else { return Ok(tags.fields.iter().map(|field| field.name.clone()).collect()) };
    match names.iter().find(|name| tags.position(name).is_none()) {
        Some(name) => Err(ServerError::new(code::INVALID_TAG, format!("Invalid tag name: {name}"))),
        None => Ok(names.to_vec()),
    }
}

/// Sets a tag by name.
///
/// # Errors
/// 0x260E for the name, 0x2653 for a value that is too long, 0x0118 for one of another width.
pub(crate) fn put_tag(tags: &mut TagValues, schema: &Schema, name: &str, value: Option<Vec<u8>>) -> Result<()> {
    let field = schema.field(name);
    let field = field.ok_or_else(|| ServerError::new(code::INVALID_TAG, format!("Invalid tag name: {name}")))?;
    let Some(value) = value else {
        tags.0.remove(&field.id);
        return Ok(());
    };
    match field.column_type.data_type.width() {
        Some(width) if width != value.len() => return Err(ServerError::invalid_parameter("Invalid parameters")),
        None if value.len() + field.column_type.data_type.prefix() > field.column_type.bytes as usize => {
            return Err(ServerError::value_too_long(name));
        }
        _ => tags.0.insert(field.id, value),
    };
    Ok(())
}
