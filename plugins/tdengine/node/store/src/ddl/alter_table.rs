//! ALTER TABLE of children and normal tables.

use std::sync::Arc;

use tdengine_wire::Field;

use super::{AlterKind, check};
use crate::body::{self, TableAction};
use crate::config::ServerVersion;
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::schema::{Schema, Stable, TagValues, compression_default};
use crate::store::inner::{Inner, now_ms};
use crate::table::{TableBody, TableMeta};
use crate::vgroup::{Effect, MetaRecord, Payload};
use crate::write::child::put_tag;
use crate::write::vgroup_of;

/// A tag and its new value: little-endian bytes, or bytes without prefix; `None` for NULL.
pub(crate) type TagChange = (String, Option<Vec<u8>>);

impl Inner {
    /// Alters a child or a normal table.
    pub fn alter_table(&self, database: &Database, name: &str, kind: &AlterKind, source: u8) -> Result<()> {
        let version = self.config.version;
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
            Ok((Some(entry(meta, &action, source)?), ()))
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
                Ok((Some(entry(meta, &TableAction::SetTag { field, value: value.clone() }, source)?), ()))
            })?;
        }
        Ok(())
    }
}

/// A normal table has no tag of any name.
fn no_tag(changes: &impl Fn(&Stable) -> Result<Vec<TagChange>>) -> ServerError {
    let empty = Arc::new(Schema::of_tags(Vec::new()));
    let stable =
        Stable { name: String::new(), suid: 0, created_ms: 0, columns: empty.clone(), tags: empty, next_id: 1, comment: None };
    match changes(&stable) {
        Err(error) => error,
        Ok(changes) => unknown_tag(changes.first().map_or("", |(name, _)| name)),
    }
}

pub(crate) fn unknown_tag(name: &str) -> ServerError {
    ServerError::new(code::INVALID_ALTER, format!("Invalid tag name: {name}"))
}

fn entry(meta: TableMeta, action: &TableAction, source: u8) -> Result<Payload> {
    let body = body::alter_table(&meta.name, action, now_ms(), source).into();
    let (suid, effect) = (meta.suid(), Effect::PutTables(vec![meta]));
    Ok(Payload::Meta(MetaRecord { change: 0, raw_type: body::ALTER_TABLE, source, suid, effect, body }))
}

fn options(meta: &mut TableMeta, ttl_days: Option<i32>, comment: Option<&str>) -> TableAction {
    if let Some(ttl_days) = ttl_days {
        meta.ttl_days = ttl_days;
    }
    if let Some(comment) = comment {
        meta.comment = Some(comment.to_owned()).filter(|comment| !comment.is_empty());
    }
    TableAction::Options { ttl_days, comment: comment.map(str::to_owned) }
}

fn change(columns: &mut Arc<Schema>, next_id: &mut i16, kind: &AlterKind, version: ServerVersion) -> Result<TableAction> {
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
            TableAction::AddColumn(field)
        }
        AlterKind::DropColumn(name) => {
            let place = schema.position(name).filter(|place| *place > 0 && schema.fields.len() > 2);
            let place = place.filter(|place| !schema.fields[*place].is_primary_key());
            let refused = || ServerError::new(code::INVALID_DROP_COLUMN, "No columns can be dropped");
            let place = place.ok_or_else(refused)?;
            schema.compression.remove(place);
            TableAction::DropColumn(schema.fields.remove(place))
        }
        AlterKind::ModifyColumn { name, column_type } => {
            let place = place_of(schema, name)?;
            check::modify(schema.fields[place].column_type, *column_type, version)?;
            schema.fields[place].column_type = *column_type;
            check::changed_row(schema, check::ROW_BYTES_MAX)?;
            TableAction::ModifyColumn(schema.fields[place].clone())
        }
        AlterKind::RenameColumn { from, to } => {
            let place = place_of(schema, from)?;
            if schema.position(to).is_some() {
                return Err(check::duplicated());
            }
            let old = schema.fields[place].clone();
            schema.fields[place].name = to.clone();
            TableAction::RenameColumn { old, to: to.clone() }
        }
        AlterKind::CompressColumn { name, compression } => {
            let place = place_of(schema, name)?;
            schema.compression[place] = compression.over(schema.compression[place]);
            TableAction::CompressColumn { field: schema.fields[place].clone(), compression: schema.compression[place] }
        }
        _ => return Err(ServerError::new(code::INVALID_ALTER, "Invalid alter table statement")),
    };
    schema.version += 1;
    Ok(action)
}
