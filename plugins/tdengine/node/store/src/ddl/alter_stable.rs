//! ALTER STABLE.

use std::sync::Arc;

use tdengine_wire::Field;
use tdengine_wire::meta::kind::ALTER_STABLE;

use super::{AlterKind, ColumnSpec, check, stable};
use crate::body;
use crate::config::ServerVersion;
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::schema::{Schema, Stable, compression_default, tag_flags};
use crate::store::inner::Inner;

impl Inner {
    /// Alters a super table; a failed one leaves no entry (FACTS F12). The entry holds the text of the statement, comments
    /// included (FACTS F60).
    pub fn alter_stable(
        &self,
        database: &Database,
        name: &str,
        kind: &AlterKind,
        sql: &str,
        source: u8,
    ) -> Result<()> {
        self.change_stable(database, name, |catalog| {
            let old = catalog.stable(database.id, name).ok_or_else(ServerError::table_missing)?;
            if super::is_used_by_topic(catalog, database, name, kind) {
                return Err(ServerError::new(code::FIELD_USED_BY_TOPIC, "Field used by topic"));
            }
            let altered = altered(old, kind, self.config.version)?;
            let request = body::alter_request(&database.name, name, kind, sql);
            stable::put(database, altered, ALTER_STABLE, source, Some(&request)).map(Some)
        })
    }
}

/// The super table after the change.
///
/// # Errors
/// The codes of recordings/errors.jsonl.
pub(crate) fn altered(old: &Stable, kind: &AlterKind, version: ServerVersion) -> Result<Stable> {
    let mut new = old.clone();
    match kind {
        AlterKind::AddColumn(column) => add_column(&mut new, column, version)?,
        AlterKind::DropColumn(name) => drop_column(&mut new, name)?,
        AlterKind::ModifyColumn { name, column_type } => {
            let place = old.columns.position(name).ok_or_else(|| ServerError::invalid_column(name))?;
            check::modify(old.columns.fields[place].column_type, *column_type, version)?;
            let schema = next(&mut new.columns);
            schema.fields[place].column_type = *column_type;
            check::changed_row(schema, check::ROW_BYTES_MAX)?;
        }
        AlterKind::CompressColumn { name, compression } => {
            let place = old.columns.position(name).ok_or_else(|| ServerError::invalid_column(name))?;
            let schema = next(&mut new.columns);
            schema.compression[place] = compression.over(schema.compression[place]);
        }
        AlterKind::RenameColumn { .. } => {
            let text = "Rename column only available for normal table";
            return Err(ServerError::new(code::INVALID_ALTER, text));
        }
        AlterKind::AddTag(tag) => add_tag(&mut new, tag, version)?,
        AlterKind::DropTag(name) => {
            let place = tag_place(old, name)?;
            if old.tags.fields.len() == 1 {
                return Err(invalid_alter());
            }
            let dropped = next(&mut new.tags).fields.remove(place);
            new.indexes.retain(|index| index.tag != dropped.id);
        }
        AlterKind::ModifyTag { name, column_type } => {
            let place = tag_place(old, name)?;
            check::modify(old.tags.fields[place].column_type, *column_type, version)?;
            let schema = next(&mut new.tags);
            schema.fields[place].column_type = *column_type;
            check::changed_row(schema, check::TAG_BYTES_MAX)?;
        }
        AlterKind::RenameTag { from, to } => {
            let missing = || ServerError::new(code::TAG_MISSING, "Tag does not exist");
            let place = old.tags.position(from).ok_or_else(missing)?;
            check_new_name(old, to)?;
            next(&mut new.tags).fields[place].name = to.clone();
        }
        AlterKind::Options { ttl_days: Some(_), .. } => {
            return Err(ServerError::new(code::INVALID_ALTER, "Invalid alter table statement"));
        }
        AlterKind::Options { comment, .. } => new.comment = comment.clone().filter(|comment| !comment.is_empty()),
    }
    Ok(new)
}

/// The schema to be changed, as its next version.
fn next(schema: &mut Arc<Schema>) -> &mut Schema {
    let schema = Arc::make_mut(schema);
    schema.version += 1;
    schema
}

fn check_new_name(stable: &Stable, name: &str) -> Result<()> {
    if stable.columns.position(name).is_some() {
        return Err(ServerError::new(code::COLUMN_EXISTS, "Column already exists"));
    }
    if stable.tags.position(name).is_some() {
        return Err(ServerError::new(code::TAG_EXISTS, "Tag already exists"));
    }
    Ok(())
}

fn tag_place(stable: &Stable, name: &str) -> Result<usize> {
    let missing = || ServerError::new(code::INVALID_TAG, format!("Invalid tag name: {name}"));
    stable.tags.position(name).ok_or_else(missing)
}

fn invalid_alter() -> ServerError {
    ServerError::new(code::INVALID_STABLE_ALTER, "Invalid stable alter options")
}

fn add_column(stable: &mut Stable, column: &ColumnSpec, version: ServerVersion) -> Result<()> {
    check_new_name(stable, &column.name)?;
    check::column_type(column.column_type, version)?;
    let id = stable.next_id;
    stable.next_id += 1;
    let schema = next(&mut stable.columns);
    schema.fields.push(Field::new(column.name.clone(), column.column_type, id));
    schema.compression.push(column.compression.over(compression_default(column.column_type.data_type)));
    check::changed_row(schema, check::ROW_BYTES_MAX)
}

fn add_tag(stable: &mut Stable, tag: &ColumnSpec, version: ServerVersion) -> Result<()> {
    check_new_name(stable, &tag.name)?;
    check::column_type(tag.column_type, version)?;
    let id = stable.next_id;
    stable.next_id += 1;
    let schema = next(&mut stable.tags);
    let flags = tag_flags(schema.fields.len());
    schema.fields.push(Field { flags, ..Field::new(tag.name.clone(), tag.column_type, id) });
    check::changed_row(schema, check::TAG_BYTES_MAX)
}

fn drop_column(stable: &mut Stable, name: &str) -> Result<()> {
    let place = stable.columns.position(name).ok_or_else(|| ServerError::invalid_column(name))?;
    if place == 0 || stable.columns.fields[place].is_primary_key() || stable.columns.fields.len() == 2 {
        return Err(invalid_alter());
    }
    let schema = next(&mut stable.columns);
    schema.fields.remove(place);
    schema.compression.remove(place);
    Ok(())
}
