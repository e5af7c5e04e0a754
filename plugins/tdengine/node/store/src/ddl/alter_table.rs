//! ALTER TABLE of children and normal tables.

use std::sync::Arc;

use tdengine_wire::Field;
use tdengine_wire::meta::{AlterTable, Meta, TableAction};

use super::{AlterKind, check};
use crate::body;
use crate::config::ServerVersion;
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::schema::{Schema, Stable, TagValues, compression_default};
use crate::store::inner::{Inner, now_ms};
use crate::table::{TableBody, TableMeta};
use crate::vgroup::{Effect, Payload};
use crate::write::child::put_tag;
use crate::write::vgroup_of;

/// A tag and its new value: little-endian bytes, or bytes without prefix; `None` for NULL.
pub(crate) type TagChange = (String, Option<Vec<u8>>);

impl Inner {
    /// Alters a child or a normal table.
    pub fn alter_table(&self, database: &Database, name: &str, kind: &AlterKind, source: u8) -> Result<()> {
        let version = self.config.version;
        // A real server says so of normal tables with another code than of super tables.
        if super::is_used_by_topic(&self.catalog.read(), database, name, kind) {
            return Err(ServerError::new(code::COLUMN_SUBSCRIBED, "Table column is subscribed"));
        }
        self.vgroup(vgroup_of(database, name))?.write(|index| {
            let table = index.table(name).ok_or_else(ServerError::table_missing)?;
            let mut meta = (*table.meta()).clone();
            let action = match (kind, &mut meta.body) {
                (AlterKind::Options { ttl_days, comment }, _) => options(&mut meta, *ttl_days, comment.as_deref()),
                (_, TableBody::Child { .. }) => {
                    return Err(ServerError::new(code::INVALID_TABLE_ACTION, "Invalid table action"));
                }
                (_, TableBody::Normal { columns, next_id }) => change(columns, next_id, kind, version)?,
            };
            Ok((Some(entry(meta, action, source)?), ()))
        })
    }

    /// Sets tags of a child, one entry each; one that has the value already gets an entry too (FACTS F13).
    pub fn set_tags(
        &self,
        database: &Database,
        name: &str,
        changes: impl Fn(&Stable) -> Result<Vec<TagChange>>,
        source: u8,
    ) -> Result<()> {
        let vgroup = self.vgroup(vgroup_of(database, name))?;
        let stable = {
            let index = vgroup.index();
            let table = index.table(name).ok_or_else(ServerError::table_missing)?;
            index.stable(table.meta().suid()).cloned()
        };
        let Some(stable) = stable else { return Err(no_tag(&changes)) };
        for (tag, value) in changes(&stable)? {
            vgroup.write(|index| {
                let table = index.table(name).ok_or_else(ServerError::table_missing)?;
                let mut meta = (*table.meta()).clone();
                let TableBody::Child { suid, tags } = &mut meta.body else { return Err(unknown_tag(&tag)) };
                let stable = index.stable(*suid).ok_or_else(ServerError::table_missing)?;
                let field = stable.tags.field(&tag).ok_or_else(|| unknown_tag(&tag))?.clone();
                let mut values: TagValues = (**tags).clone();
                put_tag(&mut values, &stable.tags, &tag, value.clone())?;
                *tags = Arc::new(values);
                let data_type = field.column_type.data_type;
                let action = TableAction::SetTag { name: tag.clone(), data_type, value: value.clone() };
                Ok((Some(entry(meta, (field.id, action), source)?), ()))
            })?;
        }
        Ok(())
    }
}

/// A normal table has no tag of any name.
fn no_tag(changes: &impl Fn(&Stable) -> Result<Vec<TagChange>>) -> ServerError {
    let empty = Arc::new(Schema::of_tags(Vec::new()));
    let stable = Stable {
        name: String::new(),
        suid: 0,
        created_ms: 0,
        columns: empty.clone(),
        tags: empty,
        next_id: 1,
        comment: None,
        indexes: Vec::new(),
    };
    match changes(&stable) {
        Err(error) => error,
        Ok(changes) => unknown_tag(changes.first().map_or("", |(name, _)| name)),
    }
}

pub(crate) fn unknown_tag(name: &str) -> ServerError {
    ServerError::new(code::INVALID_ALTER, format!("Invalid tag name: {name}"))
}

/// `id` is that of the column or tag, 0 where it has none yet.
fn entry(meta: TableMeta, (id, action): (i16, TableAction), source: u8) -> Result<Payload> {
    let (name, column_id) = (meta.name.clone(), i32::from(id));
    let alter = Meta::AlterTable(AlterTable { name, column_id, action, time_ms: now_ms(), source, rest: Vec::new() });
    let (suid, effect) = (meta.suid(), Effect::PutTables(vec![meta]));
    Ok(Payload::Meta(body::record(&alter, source, suid, effect)?))
}

fn options(meta: &mut TableMeta, ttl_days: Option<i32>, comment: Option<&str>) -> (i16, TableAction) {
    if let Some(ttl_days) = ttl_days {
        meta.ttl_days = ttl_days;
    }
    if let Some(comment) = comment {
        meta.comment = Some(comment.to_owned()).filter(|comment| !comment.is_empty());
    }
    (0, TableAction::Options { ttl: ttl_days, comment: comment.map(str::to_owned) })
}

fn change(
    columns: &mut Arc<Schema>,
    next_id: &mut i16,
    kind: &AlterKind,
    version: ServerVersion,
) -> Result<(i16, TableAction)> {
    let schema = Arc::make_mut(columns);
    let place_of = |schema: &Schema, name: &str| schema.position(name).ok_or_else(|| ServerError::invalid_column(name));
    let action = match kind {
        AlterKind::AddColumn(column) => {
            if schema.position(&column.name).is_some() {
                return Err(check::duplicated());
            }
            check::column_type(column.column_type, version)?;
            let field = Field::new(column.name.clone(), column.column_type, *next_id);
            *next_id += 1;
            schema.fields.push(field.clone());
            let compression = column.compression.over(compression_default(column.column_type.data_type));
            schema.compression.push(compression);
            check::changed_row(schema, check::ROW_BYTES_MAX)?;
            let Field { name, column_type, flags, .. } = field;
            let (data_type, bytes) = (column_type.data_type, column_type.bytes);
            (0, TableAction::AddColumn { name, data_type, flags, bytes, compression: None })
        }
        AlterKind::DropColumn(name) => {
            let place = schema.position(name).filter(|place| *place > 0 && schema.fields.len() > 2);
            let place = place.filter(|place| !schema.fields[*place].is_primary_key());
            let refused = || ServerError::new(code::INVALID_DROP_COLUMN, "No columns can be dropped");
            let place = place.ok_or_else(refused)?;
            schema.compression.remove(place);
            let field = schema.fields.remove(place);
            (field.id, TableAction::DropColumn { name: field.name })
        }
        AlterKind::ModifyColumn { name, column_type } => {
            let place = place_of(schema, name)?;
            check::modify(schema.fields[place].column_type, *column_type, version)?;
            schema.fields[place].column_type = *column_type;
            check::changed_row(schema, check::ROW_BYTES_MAX)?;
            let (id, name) = (schema.fields[place].id, name.clone());
            (id, TableAction::ModifyColumn { name, data_type: column_type.data_type, bytes: column_type.bytes })
        }
        AlterKind::RenameColumn { from, to } => {
            let place = place_of(schema, from)?;
            if schema.position(to).is_some() {
                return Err(check::duplicated());
            }
            schema.fields[place].name = to.clone();
            (0, TableAction::RenameColumn { name: from.clone(), new_name: to.clone() })
        }
        AlterKind::CompressColumn { name, compression } => {
            let place = place_of(schema, name)?;
            schema.compression[place] = compression.over(schema.compression[place]);
            let (name, compression) = (name.clone(), schema.compression[place]);
            (schema.fields[place].id, TableAction::Compress { name, compression })
        }
        _ => return Err(ServerError::new(code::INVALID_ALTER, "Invalid alter table statement")),
    };
    schema.version += 1;
    Ok(action)
}
