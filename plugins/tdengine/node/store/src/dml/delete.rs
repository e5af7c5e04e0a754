//! DELETE: a range of time in one table, or in the children of a super table that a condition on tags picks.
//!
//! It writes an entry even when it hits nothing; one that hits rows has its range narrowed to them (FACTS F13, F20). The
//! entry of a super table names the super table and lists the uids of the children, one entry a vgroup (FACTS F18).

use std::sync::Arc;

use tdengine_sql::ast::{Expr, Name};
use tdengine_wire::meta::{Delete as DeleteEntry, Meta};

use super::condition::Condition;
use crate::body;
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::execute::{convert, database_of};
use crate::session::Session;
use crate::rows::Deleted;
use crate::schema::Stable;
use crate::store::inner::{Inner, now_ms};
use crate::table::Table;
use crate::vgroup::{Effect, Index, Payload};
use crate::write::vgroup_of;

/// Runs a DELETE and answers the number of rows.
///
/// # Errors
/// 0x2662 for a table that is missing, 0x2655 for a condition that is neither on time nor on tags.
pub(crate) fn run(inner: &Inner, session: &Session, name: &Name, condition: Option<&Expr<'_>>) -> Result<u64> {
    let missing = |text: &str| ServerError::new(code::TABLE_INFO, format!("Fail to get table info, error: {text}"));
    let database = database_of(inner, session, name).map_err(|error| match error.code {
        code::DATABASE_MISSING => missing("Database not exist"),
        _ => error,
    })?;
    let stable = inner.catalog.read().stable(database.id, &name.table).cloned();
    let columns = match &stable {
        Some(stable) => stable.columns.clone(),
        None => {
            let table = inner.find_table(&database, &name.table)?;
            let table = table.ok_or_else(|| missing("Table does not exist"))?;
            inner.vgroup(table.vgroup)?.index().columns(&table)?
        }
    };
    let context = convert::context(&database, session);
    let condition = Condition::new(condition, &columns.fields[0].name, stable.as_deref(), &context)?;
    let picks = |table: &Table, stable: &Stable| {
        table.meta().tags().map_or(Ok(false), |tags| condition.picks(&table.name, tags, stable))
    };
    let delete = Delete { table: &name.table, range: condition.range, picks: &picks, source: session.source };
    inner.delete(&database, &delete)
}

/// What is to be deleted.
pub(crate) struct Delete<'a> {
    /// A table or super table.
    pub table: &'a str,
    /// First and last timestamp.
    pub range: (i64, i64),
    /// Which children of a super table; called for each.
    pub picks: &'a dyn Fn(&Table, &Stable) -> Result<bool>,
    /// The mark.
    pub source: u8,
}

impl Inner {
    /// Deletes and answers the number of rows.
    pub fn delete(&self, database: &Database, delete: &Delete<'_>) -> Result<u64> {
        let stable = self.catalog.read().stable(database.id, delete.table).cloned();
        let Some(stable) = stable else {
            return self.vgroup(vgroup_of(database, delete.table))?.write(|index| plan_table(index, delete));
        };
        let mut rows = 0;
        for vgroup in self.vgroups_of(database)? {
            rows += vgroup.write(|index| plan_children(index, &stable, delete))?;
        }
        Ok(rows)
    }
}

fn plan_table(index: &Index, delete: &Delete<'_>) -> Result<(Option<Payload>, u64)> {
    let table = index.table(delete.table).ok_or_else(ServerError::table_missing)?;
    let timestamp = index.columns(table)?.fields[0].name.clone();
    plan(index, std::slice::from_ref(table), table.meta().suid(), delete, &timestamp)
}

fn plan_children(index: &Index, stable: &Stable, delete: &Delete<'_>) -> Result<(Option<Payload>, u64)> {
    let mut picked = Vec::new();
    for table in index.tables().filter(|table| table.meta().suid() == stable.suid) {
        if (delete.picks)(table, stable)? {
            picked.push(table.clone());
        }
    }
    plan(index, &picked, stable.suid, delete, &stable.columns.fields[0].name)
}

fn plan(
    index: &Index,
    tables: &[Arc<Table>],
    suid: i64,
    delete: &Delete<'_>,
    timestamp: &str,
) -> Result<(Option<Payload>, u64)> {
    let (from, to) = delete.range;
    let mut total: Option<Deleted> = None;
    for table in tables {
        let hits = table.rows.hits(&*index.columns(table)?, from, to)?;
        total = match (total, hits) {
            (Some(total), Some(hits)) => Some(Deleted {
                rows: total.rows + hits.rows,
                first: total.first.min(hits.first),
                last: total.last.max(hits.last),
            }),
            (total, hits) => total.or(hits),
        };
    }
    let (from, to) = total.map_or((from, to), |total| (total.first, total.last));
    let rows = total.map_or(0, |total| total.rows);
    let uids: Vec<i64> = tables.iter().map(|table| table.uid).collect();
    let entry = Meta::Delete(DeleteEntry {
        suid,
        uids: uids.clone(),
        from,
        to,
        affected: rows as i64,
        table: delete.table.to_owned(),
        timestamp: timestamp.to_owned(),
        time_ms: now_ms(),
        source: delete.source,
        rest: Vec::new(),
    });
    let effect = if rows == 0 { Effect::Nothing } else { Effect::Delete { uids, from, to } };
    Ok((Some(Payload::Meta(body::record(&entry, delete.source, suid, effect)?)), rows))
}
