//! CREATE and DROP INDEX: of tags, by a name that is unique in the database. Rows and lookups do not need them here, they are listed.
//! A server keeps them to itself: a consumer is told of none.

use tdengine_wire::Field;

use crate::catalog::{Catalog, Change};
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::schema::{Stable, TagIndex};
use crate::store::inner::{Inner, now_ms};

/// The index that a super table gets with its creation.
pub(crate) fn of_first_tag(stable: &str, tags: &[Field], created_ms: i64) -> Vec<TagIndex> {
    let index = |tag: &Field| TagIndex { name: format!("{}_{stable}", tag.name), tag: tag.id, created_ms };
    tags.first().map(index).into_iter().collect()
}

impl Inner {
    /// # Errors
    /// 0x2603 and 0x0362 for the super table, 0x260E for the tag, 0x2643 for several, 0x0483 for a name or tag that has one.
    pub fn create_index(&self, database: &Database, name: &str, table: &str, tags: &[String]) -> Result<()> {
        let found = self.find_table(database, table)?;
        self.change(|catalog| {
            if tags.len() > 1 {
                return Err(ServerError::new(code::TAG_COUNT, "Only one tag is allowed"));
            }
            let tag = tags.first().map(String::as_str).unwrap_or_default();
            let Some(stable) = catalog.stable(database.id, table) else {
                let schema = found.as_ref().map(|table| self.vgroup(table.vgroup)?.index().schema(table)).transpose()?;
                return Err(match schema {
                    None => ServerError::table_missing(),
                    Some(schema) if schema.tags.field(tag).is_some() => ServerError::new(code::STABLE_MISSING, "STable not exist"),
                    Some(_) => invalid_tag(tag),
                });
            };
            let field = stable.tags.field(tag).ok_or_else(|| invalid_tag(tag))?;
            let is_named = find(catalog, database, name).is_some();
            if is_named || stable.indexes.iter().any(|index| index.tag == field.id) {
                return Err(ServerError::new(code::INDEX_EXISTS, "index already exists in db"));
            }
            let mut stable = Stable::clone(stable);
            stable.indexes.push(TagIndex { name: name.to_owned(), tag: field.id, created_ms: now_ms() });
            Ok(Some(Change::PutStable { database: database.id, stable }))
        })
    }

    /// # Errors
    /// 0x0481 when there is none of that name.
    pub fn drop_index(&self, database: Option<&Database>, name: &str, if_exists: bool) -> Result<()> {
        self.change(|catalog| {
            let found = database.and_then(|database| Some((database, find(catalog, database, name)?)));
            let Some((database, stable)) = found else {
                return if if_exists { Ok(None) } else { Err(ServerError::new(code::INDEX_MISSING, "sma not exist")) };
            };
            let mut stable = Stable::clone(stable);
            stable.indexes.retain(|index| index.name != name);
            Ok(Some(Change::PutStable { database: database.id, stable }))
        })
    }
}

/// The super table that has an index of this name.
fn find<'a>(catalog: &'a Catalog, database: &Database, name: &str) -> Option<&'a Stable> {
    let has = |stable: &&Stable| stable.indexes.iter().any(|index| index.name == name);
    catalog.stables(database.id).map(AsRef::as_ref).find(has)
}

fn invalid_tag(name: &str) -> ServerError {
    ServerError::new(code::INVALID_TAG, format!("Invalid tag name: {name}"))
}
