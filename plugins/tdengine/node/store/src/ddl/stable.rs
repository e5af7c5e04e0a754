//! CREATE and DROP STABLE.

use std::sync::Arc;

use tdengine_wire::Field;
use tdengine_wire::meta::{Meta, StableRequest, kind};
use tdengine_wire::types::flags;

use super::{ColumnSpec, check, index};
use crate::body;
use crate::catalog::{Catalog, Change, ChangeEntry};
use crate::database::{Database, TopicKind};
use crate::error::{Result, ServerError, code};
use crate::schema::{Schema, Stable, compression_default, tag_flags};
use crate::store::inner::{Inner, new_uid};
use crate::vgroup::Effect;

/// `CREATE STABLE`.
#[derive(Debug, Clone)]
pub(crate) struct CreateStable {
    pub name: String,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnSpec>,
    pub tags: Vec<ColumnSpec>,
    pub comment: Option<String>,
}

/// Columns with ids from 1 on.
pub(crate) fn fields_of(columns: &[ColumnSpec]) -> (Vec<Field>, Vec<u32>) {
    let field = |(place, column): (usize, &ColumnSpec)| {
        let flags = flags::SMA | if column.primary_key { flags::PRIMARY_KEY } else { 0 };
        Field { flags, ..Field::new(column.name.clone(), column.column_type, place as i16 + 1) }
    };
    let compression = |column: &ColumnSpec| column.compression.over(compression_default(column.column_type.data_type));
    (columns.iter().enumerate().map(field).collect(), columns.iter().map(compression).collect())
}

impl Inner {
    /// Makes a super table; with IF NOT EXISTS nothing happens to one that is there (FACTS F12).
    pub fn create_stable(&self, database: &Database, request: &CreateStable, source: u8) -> Result<()> {
        check::columns(&request.columns, &request.tags, self.config.version)?;
        check::tags(&request.tags, self.config.version)?;
        self.change_stable(database, &request.name, |catalog| {
            if self.stable_exists(catalog, database, request)? {
                return Ok(None);
            }
            let (fields, compression) = fields_of(&request.columns);
            let first_tag = fields.len() as i16 + 1;
            let tag = |(place, tag): (usize, &ColumnSpec)| Field {
                flags: tag_flags(place),
                ..Field::new(tag.name.clone(), tag.column_type, first_tag + place as i16)
            };
            let tags: Vec<Field> = request.tags.iter().enumerate().map(tag).collect();
            let created_ms = self.next_stable_ms();
            let stable = Stable {
                name: request.name.clone(),
                suid: new_uid(),
                created_ms,
                indexes: index::of_first_tag(&request.name, &tags, created_ms),
                next_id: first_tag + tags.len() as i16,
                columns: Arc::new(Schema { version: 1, fields, compression }),
                tags: Arc::new(Schema::of_tags(tags)),
                comment: request.comment.clone(),
            };
            put(database, stable, kind::CREATE_STABLE, source, None).map(Some)
        })
    }

    fn stable_exists(&self, catalog: &Catalog, database: &Database, request: &CreateStable) -> Result<bool> {
        if self.find_table(database, &request.name)?.is_some() {
            return Err(ServerError::new(code::TABLE_EXISTS, "Table already exists"));
        }
        match (catalog.stable(database.id, &request.name), request.if_not_exists) {
            (None, _) => Ok(false),
            (Some(_), true) => Ok(true),
            (Some(_), false) => Err(ServerError::new(code::STABLE_EXISTS, "STable already exists")),
        }
    }

    /// Drops a super table and its children. `source` is 0 but in strict mode (FACTS F7).
    pub fn drop_stable(&self, database: &Database, name: &str, if_exists: bool, source: u8) -> Result<()> {
        self.change_stable(database, name, |catalog| {
            let Some(stable) = catalog.stable(database.id, name) else {
                let missing = || ServerError::new(code::STABLE_MISSING, "STable not exist");
                return if if_exists { Ok(None) } else { Err(missing()) };
            };
            if is_used_by_topic(catalog, database, name) {
                return Err(ServerError::new(code::TOPIC_FIRST, "Topic must be dropped first"));
            }
            let change = Change::DropStable { database: database.id, name: name.to_owned() };
            let entry = Meta::DropStable { name: name.to_owned(), suid: stable.suid, rest: Vec::new() };
            let entry = ChangeEntry {
                vgroups: Vec::new(),
                raw_type: kind::DROP_STABLE,
                source,
                suid: stable.suid,
                effect: Effect::DropStable { suid: stable.suid },
                body: entry.encode()?,
            };
            Ok(Some((change, entry)))
        })
    }
}

/// Whether a topic reads this super table by name; one on the database does not count.
fn is_used_by_topic(catalog: &Catalog, database: &Database, stable: &str) -> bool {
    catalog.topics.values().filter(|topic| topic.database == database.name).any(|topic| match &topic.kind {
        TopicKind::Database => false,
        TopicKind::Stable { name, .. } => name == stable,
        TopicKind::Select { table, .. } => table == stable,
    })
}

/// The change and the entry that put a super table in place, new or altered.
pub(crate) fn put(
    database: &Database,
    stable: Stable,
    raw_type: u16,
    source: u8,
    request: Option<&StableRequest>,
) -> Result<(Change, ChangeEntry)> {
    let body = match raw_type {
        kind::ALTER_STABLE => Meta::AlterStable(body::stable(&stable, source, request)),
        _ => Meta::CreateStable(body::stable(&stable, source, request)),
    };
    let entry = ChangeEntry {
        vgroups: Vec::new(),
        raw_type,
        source,
        suid: stable.suid,
        body: body.encode()?,
        effect: Effect::PutStable(stable.clone()),
    };
    Ok((Change::PutStable { database: database.id, stable }, entry))
}
