//! CREATE and DROP TABLE: children and normal tables, several in a statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use tdengine_wire::meta::{CreateTable as CreateEntry, DropTable as DropEntry, Meta};

use super::{ColumnSpec, check, stable};
use crate::VgroupId;
use crate::body;
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::schema::Schema;
use crate::store::inner::{Inner, new_uid, now_ms};
use crate::table::{Table, TableBody, TableMeta};
use crate::vgroup::{Effect, Index, Payload};
use crate::write::child::NewChild;
use crate::write::vgroup_of;

/// One table of a CREATE TABLE.
#[derive(Debug, Clone)]
pub(crate) struct CreateTable {
    pub database: Arc<Database>,
    pub name: String,
    pub if_not_exists: bool,
    pub kind: CreateKind,
}

#[derive(Debug, Clone)]
pub(crate) enum CreateKind {
    Child(NewChild),
    Normal { columns: Vec<ColumnSpec>, ttl_days: i32, comment: Option<String> },
}

/// One table of a DROP TABLE.
#[derive(Debug, Clone)]
pub(crate) struct DropTable {
    pub database: Arc<Database>,
    pub name: String,
    pub if_exists: bool,
}

impl Inner {
    /// The child or normal table of this name.
    pub fn find_table(&self, database: &Database, name: &str) -> Result<Option<Arc<Table>>> {
        Ok(self.vgroup(vgroup_of(database, name))?.index().table(name).cloned())
    }

    /// Makes tables, one entry a vgroup. One that is there already is in the entry too, and is left as it is (FACTS F13,
    /// F15).
    pub fn create_tables(&self, tables: Vec<CreateTable>, source: u8) -> Result<()> {
        let mut by_vgroup: BTreeMap<VgroupId, Vec<CreateTable>> = BTreeMap::new();
        for table in tables {
            if let CreateKind::Normal { columns, .. } = &table.kind {
                check::columns(columns, &[], self.config.version)?;
            }
            if self.catalog.read().stable(table.database.id, &table.name).is_some() {
                return Err(exists());
            }
            if !table.if_not_exists && self.find_table(&table.database, &table.name)?.is_some() {
                return Err(exists());
            }
            by_vgroup.entry(vgroup_of(&table.database, &table.name)).or_default().push(table);
        }
        for (id, tables) in by_vgroup {
            self.vgroup(id)?.write(|index| Ok((Some(plan(index, &tables, source)?), ())))?;
        }
        Ok(())
    }

    /// Drops tables, one entry a vgroup; a name of a super table drops that. `source` is 0 but in strict mode.
    pub fn drop_tables(&self, tables: &[DropTable], source: u8) -> Result<()> {
        let mut by_vgroup: BTreeMap<VgroupId, Vec<Arc<Table>>> = BTreeMap::new();
        for DropTable { database, name, if_exists } in tables {
            if self.catalog.read().stable(database.id, name).is_some() {
                self.drop_stable(database, name, *if_exists, source)?;
                continue;
            }
            match self.find_table(database, name)? {
                Some(table) => by_vgroup.entry(table.vgroup).or_default().push(table),
                None if *if_exists => {}
                None => return Err(ServerError::table_missing()),
            }
        }
        for (id, tables) in by_vgroup {
            self.vgroup(id)?.write(|index| Ok((Some(plan_drop(index, &tables, source)?), ())))?;
        }
        Ok(())
    }
}

fn exists() -> ServerError {
    ServerError::new(code::TABLE_EXISTS, "Table already exists")
}

fn plan(index: &Index, tables: &[CreateTable], source: u8) -> Result<Payload> {
    let (mut requests, mut made): (Vec<CreateEntry>, Vec<TableMeta>) = (Vec::new(), Vec::new());
    let mut suid = None;
    for table in tables {
        let is_there = index.table(&table.name).is_some() || made.iter().any(|made| made.name == table.name);
        if is_there && !table.if_not_exists {
            return Err(exists());
        }
        let (meta, request) = match &table.kind {
            CreateKind::Child(child) => {
                let stable = index.stable(child.stable.suid).ok_or_else(ServerError::table_missing)?;
                let meta = child.meta(&table.name, new_uid());
                let request = body::create_table(&meta, Some(stable), &child.tag_names, table.if_not_exists)?;
                (meta, request)
            }
            CreateKind::Normal { columns, ttl_days, comment } => {
                let meta = normal(&table.name, columns, *ttl_days, comment.clone());
                let request = body::create_table(&meta, None, &[], table.if_not_exists)?;
                (meta, request)
            }
        };
        suid = suid.or(Some(meta.suid()));
        requests.push(request);
        if !is_there {
            made.push(meta);
        }
    }
    let effect = if made.is_empty() { Effect::Nothing } else { Effect::PutTables(made) };
    let entry = Meta::CreateTables { tables: requests, source, rest: Vec::new() };
    Ok(Payload::Meta(body::record(&entry, source, suid.unwrap_or(0), effect)?))
}

fn normal(name: &str, columns: &[ColumnSpec], ttl_days: i32, comment: Option<String>) -> TableMeta {
    let (fields, compression) = stable::fields_of(columns);
    let next_id = fields.len() as i16 + 1;
    let columns = Arc::new(Schema { version: 1, fields, compression });
    TableMeta {
        uid: new_uid(),
        name: name.to_owned(),
        created_ms: now_ms(),
        ttl_days,
        comment,
        body: TableBody::Normal { columns, next_id },
    }
}

fn plan_drop(index: &Index, tables: &[Arc<Table>], source: u8) -> Result<Payload> {
    // A table that somebody else dropped meanwhile is no error: it is gone.
    let tables: Vec<&Arc<Table>> = tables.iter().filter(|table| index.table_of(table.uid).is_some()).collect();
    let entry = |table: &&Arc<Table>| DropEntry {
        name: table.name.to_string(),
        suid: table.meta().suid(),
        if_exists: 0,
        rest: Vec::new(),
    };
    let entries: Vec<DropEntry> = tables.iter().map(entry).collect();
    let effect = Effect::DropTables(tables.iter().map(|table| table.uid).collect());
    let suid = entries.first().map_or(0, |entry| entry.suid);
    let entry = Meta::DropTables { tables: entries, rest: Vec::new() };
    Ok(Payload::Meta(body::record(&entry, source, suid, effect)?))
}
