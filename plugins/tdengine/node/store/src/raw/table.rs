//! Raw changes of children and normal tables.

use std::cmp::Ordering;
use std::sync::Arc;

use tdengine_wire::meta::{
    AlterTable, CreateTable as CreateEntry, DropTable as DropEntry, TableAction, TableBody, TagBlob, TagEntry, TagKey,
};
use tdengine_wire::types::flags;
use tdengine_wire::{ColumnType, Field};

use super::Raw;
use crate::ddl::table::{CreateKind, CreateTable, DropTable};
use crate::ddl::{AlterKind, ColumnSpec, Compression};
use crate::error::{Result, ServerError, code};
use crate::schema::{Stable, TagValues};
use crate::session::MARK;
use crate::write::child::NewChild;

impl Raw<'_> {
    /// CREATE TABLE: one whose super table is missing is passed over, one that is there is left as it is, both with
    /// success (FACTS F32).
    pub(super) fn create_tables(&self, requests: Vec<CreateEntry>) -> Result<u64> {
        let mut tables = Vec::new();
        for request in requests {
            if self.stable(&request.name).is_some() {
                continue;
            }
            let CreateEntry { name, ttl: ttl_days, comment, body, compression, .. } = request;
            let comment = comment.filter(|comment| !comment.is_empty());
            let kind = match body {
                TableBody::Child { stable, names: tag_names, tags, .. } => {
                    let Some(stable) = self.stable(&stable) else { continue };
                    let tags = match tags.is_json {
                        true => json_tags(&stable, &tags),
                        false => self.by_name(&stable, &tag_names, tags.entries)?,
                    };
                    CreateKind::Child(NewChild { stable, tag_names, tags, ttl_days, comment })
                }
                TableBody::Normal { columns, .. } => {
                    CreateKind::Normal { columns: specs(&columns, &compression.unwrap_or_default()), ttl_days, comment }
                }
            };
            tables.push(CreateTable { database: self.database.clone(), name, if_not_exists: true, kind });
        }
        self.inner.create_tables(tables, MARK)?;
        Ok(0)
    }

    pub(super) fn stable(&self, name: &str) -> Option<Arc<Stable>> {
        self.inner.catalog.read().stable(self.database.id, name).cloned()
    }

    /// The tags with the ids that their names have here, as libtaos gives them: it pairs names and values by place,
    /// leaves the values in their old order, and the server then looks for them by bisection, which misses those that
    /// stand out of order (FACTS F67).
    fn by_name(&self, stable: &Stable, names: &[String], mut tags: Vec<TagEntry>) -> Result<TagValues> {
        for (tag, name) in tags.iter_mut().zip(names) {
            if let Some(field) = stable.tags.field(name) {
                tag.key = TagKey::Id(field.id);
            }
        }
        if self.is_strict() {
            tags.sort_by_key(id);
        }
        check_types(stable, &tags, self.is_strict())?;
        let mut values = TagValues::default();
        for field in &stable.tags.fields {
            if let Some(tag) = bisect(&tags, field.id) {
                values.0.insert(field.id, tag.bytes.clone());
            }
        }
        Ok(values)
    }

    /// ALTER TABLE; a table that is missing is passed over, and so are table options (PROTOCOL 10.4).
    pub(super) fn alter_table(&self, alter: AlterTable) -> Result<u64> {
        let AlterTable { name: table, action, .. } = alter;
        if self.inner.find_table(&self.database, &table)?.is_none() {
            return Ok(0);
        }
        let kind = match action {
            TableAction::SetTag { name, value, .. } => {
                let changes = |_: &Stable| Ok(vec![(name.clone(), value.clone())]);
                self.inner.set_tags(&self.database, &table, changes, MARK).map_err(refused_by_vnode)?;
                return Ok(0);
            }
            TableAction::AddColumn { name, data_type, bytes, .. } => {
                let (column_type, compression) = (ColumnType { data_type, bytes }, Compression::default());
                AlterKind::AddColumn(ColumnSpec { name, column_type, primary_key: false, compression })
            }
            TableAction::DropColumn { name } => AlterKind::DropColumn(name),
            TableAction::ModifyColumn { name, data_type, bytes } => {
                AlterKind::ModifyColumn { name, column_type: ColumnType { data_type, bytes } }
            }
            TableAction::RenameColumn { name, new_name } => AlterKind::RenameColumn { from: name, to: new_name },
            TableAction::Options { .. } | TableAction::Compress { .. } | TableAction::Other { .. } => return Ok(0),
        };
        self.inner.alter_table(&self.database, &table, &kind, MARK).map_err(refused_by_vnode)?;
        Ok(0)
    }

    /// DROP TABLE by name; its entry carries no mark (FACTS F7).
    pub(super) fn drop_tables(&self, tables: Vec<DropEntry>) -> Result<u64> {
        let table = |drop: DropEntry| DropTable { database: self.database.clone(), name: drop.name, if_exists: true };
        self.inner.drop_tables(&tables.into_iter().map(table).collect::<Vec<_>>(), self.drop_source())?;
        Ok(0)
    }
}

/// A statement is checked before it is sent, a raw change by the vnode alone, which has codes of its own (seen on 3.3.0.1).
fn refused_by_vnode(error: ServerError) -> ServerError {
    match error.code {
        code::INVALID_COLUMN | code::COLUMN_MISSING | code::INVALID_DROP_COLUMN | code::INVALID_ALTER => {
            ServerError::new(code::TABLE_COLUMN_MISSING, "Table column not exists")
        }
        code::DUPLICATED_COLUMN | code::COLUMN_EXISTS => {
            ServerError::new(code::TABLE_COLUMN_EXISTS, "Table column already exists")
        }
        code::INVALID_MODIFY => ServerError::new(code::INVALID_TABLE_ACTION, "Invalid table action"),
        _ => error,
    }
}

/// The tags with the ids of the source (FACTS F30, F67).
pub(super) fn by_id(stable: &Stable, tags: &[TagEntry], is_strict: bool) -> Result<TagValues> {
    check_types(stable, tags, is_strict)?;
    Ok(TagValues(tags.iter().map(|tag| (id(tag), tag.bytes.clone())).collect()))
}

/// A value of another type than its tag kills a real server, and again at each start (FACTS F31).
fn check_types(stable: &Stable, tags: &[TagEntry], is_strict: bool) -> Result<()> {
    let differs = |tag: &&TagEntry| {
        let field = stable.tags.fields.iter().find(|field| field.id == id(tag));
        field.is_some_and(|field| Some(field.column_type.data_type) != tag.data_type)
    };
    let Some(tag) = tags.iter().find(differs) else { return Ok(()) };
    if is_strict {
        return Err(ServerError::invalid_parameter("a tag has another type at the target"));
    }
    tracing::error!(
        stable = %stable.name,
        tag = id(tag),
        "raw child with a tag of another type: a real server dies of this and of every restart after it; nothing was written"
    );
    Err(ServerError::new(code::SERVICE_OUT, "some vnode/qnode/mnode(s) out of service"))
}

/// The id that a value has; keys of a JSON tag have none.
fn id(tag: &TagEntry) -> i16 {
    if let TagKey::Id(id) = tag.key { id } else { 0 }
}

fn bisect(tags: &[TagEntry], wanted: i16) -> Option<&TagEntry> {
    let (mut low, mut high) = (0i64, tags.len() as i64 - 1);
    while low <= high {
        let middle = (low + high) / 2;
        let tag = &tags[middle as usize];
        match id(tag).cmp(&wanted) {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle - 1,
            Ordering::Equal => return Some(tag),
        }
    }
    None
}

/// The object of a JSON tag, as text.
pub(super) fn json_tags(stable: &Stable, tags: &TagBlob) -> TagValues {
    let mut values = TagValues::default();
    let text = tags.exact_json().filter(|_| !tags.entries.is_empty());
    if let (Some(field), Some(text)) = (stable.tags.fields.first(), text) {
        values.0.insert(field.id, text.into_bytes());
    }
    values
}

fn specs(columns: &[Field], compression: &[(i16, u32)]) -> Vec<ColumnSpec> {
    let spec = |field: &Field| {
        let word = compression.iter().find(|(id, _)| *id == field.id).map(|(_, word)| word.to_le_bytes());
        let part = |place: usize| word.map(|word| word[place]);
        ColumnSpec {
            name: field.name.clone(),
            column_type: field.column_type,
            primary_key: field.flags & flags::PRIMARY_KEY != 0,
            compression: Compression { encode: part(3), compress: part(1), level: part(0) },
        }
    };
    columns.iter().map(spec).collect()
}
