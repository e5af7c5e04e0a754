//! Rows that are not SQL: blocks for named tables, from stmt, schemaless and raw writes.
//!
//! Each vgroup gets one log entry with all its tables. Only the columns that a block has are assigned (PROTOCOL 6.6).

pub(crate) mod bind;
pub(crate) mod child;
pub(crate) mod shift;

use std::collections::BTreeMap;
use std::sync::Arc;

use tdengine_wire::block::BlockView;

use crate::VgroupId;
use crate::config::Mode;
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::schema::TableSchema;
use crate::store::inner::Inner;
use crate::store::{RawField, TableWrite};
use crate::vgroup::{Index, Payload, SubmitRecord};
use bind::Bound;
use child::NewChild;

/// Flag of rows that bring the request to make their table.
pub(crate) const FLAG_AUTO_CREATE: u8 = 0x1;

/// How the columns of a block find those of the table.
pub(crate) enum Columns<'a> {
    /// By name; an unknown one is refused.
    Named(BlockView<'a>, Vec<&'a str>),
    /// The first columns of the table, by position.
    Positional(BlockView<'a>),
    /// By name as libtaos does it, mistakes included.
    Faithful(&'a [u8], Vec<&'a str>),
    /// By position as libtaos does it.
    FaithfulPositional(&'a [u8]),
}

/// Rows for one table before it is known what the table looks like.
pub(crate) struct Write<'a> {
    pub table: &'a str,
    pub columns: Columns<'a>,
    pub create: Option<NewChild>,
    pub flags: u8,
}

impl Inner {
    /// The rows of [`crate::Store::write_tables`].
    pub fn write_tables(&self, database: &Database, writes: &[TableWrite<'_>]) -> Result<u64> {
        let mut prepared = Vec::with_capacity(writes.len());
        for write in writes.iter().filter(|write| write.block.rows() > 0) {
            let create = write.create.as_ref();
            let create = create.map(|create| NewChild::of_request(self, database, create)).transpose()?;
            let columns = match &write.names {
                Some(names) => Columns::Named(write.block.clone(), names.clone()),
                None => Columns::Positional(write.block.clone()),
            };
            prepared.push(Write { table: write.table, columns, create, flags: write.flags });
        }
        self.write_rows(database, prepared)
    }

    /// Actions 4 and 5.
    pub fn write_raw_block(
        &self,
        database: &Database,
        table: &str,
        fields: Option<&[RawField]>,
        block: &[u8],
    ) -> Result<u64> {
        if self.catalog.read().stable(database.id, table).is_some() {
            return Err(ServerError::invalid_parameter("Invalid parameters"));
        }
        let columns = match (self.config.mode, fields) {
            (Mode::Faithful, None) => Columns::FaithfulPositional(block),
            (Mode::Faithful, Some(fields)) => Columns::Faithful(block, names_of(fields)),
            (Mode::Strict, None) => Columns::Positional(BlockView::parse(block)?),
            (Mode::Strict, Some(fields)) => Columns::Named(BlockView::parse(block)?, names_of(fields)),
        };
        let write = Write { table, columns, create: None, flags: crate::session::MARK };
        self.write_rows(database, vec![write])
    }

    /// Writes rows, one entry a vgroup, vgroups in the order of their ids.
    pub fn write_rows(&self, database: &Database, writes: Vec<Write<'_>>) -> Result<u64> {
        let mut by_vgroup: BTreeMap<VgroupId, Vec<Write<'_>>> = BTreeMap::new();
        for write in writes {
            by_vgroup.entry(vgroup_of(database, write.table)).or_default().push(write);
        }
        let mut rows = 0;
        for (id, writes) in by_vgroup {
            rows += self.vgroup(id)?.write(|index| plan(index, database, writes))?;
        }
        Ok(rows)
    }
}

fn names_of(fields: &[RawField]) -> Vec<&str> {
    fields.iter().map(|field| field.name.as_str()).collect()
}

/// The vgroup in whose range the hash of the full name falls, as in a real server.
pub(crate) fn vgroup_of(database: &Database, table: &str) -> VgroupId {
    let hash = u64::from(tdengine_wire::murmur::hash(format!("1.{}.{table}", database.name).as_bytes()));
    let count = database.vgroups.len() as u64;
    let index = ((hash * count) >> 32) as usize;
    database.vgroups[index.min(database.vgroups.len() - 1)]
}

fn plan(index: &Index, database: &Database, writes: Vec<Write<'_>>) -> Result<(Option<Payload>, u64)> {
    let mut records: Vec<SubmitRecord> = Vec::with_capacity(writes.len());
    let mut made: BTreeMap<String, TableSchema> = BTreeMap::new();
    let mut rows = 0;
    for write in writes {
        let target = match (index.table(write.table), made.get(write.table)) {
            (Some(table), _) => Some(index.schema(table)?),
            (None, made) => made.cloned(),
        };
        let (schema, create) = match (&target, &write.create) {
            (Some(schema), None) => (schema.clone(), None),
            (Some(schema), Some(child)) => (schema.clone(), Some(child.existing(write.table, schema)?)),
            (None, Some(child)) => {
                let (schema, record) = child.make(index, write.table)?;
                made.insert(write.table.to_owned(), schema.clone());
                (schema, Some(record))
            }
            (None, None) => return Err(ServerError::table_missing()),
        };
        let bound = bind_columns(&write.columns, &schema)?;
        let Some(bound) = bound else { continue };
        bound.check_range(database)?;
        rows += bound.rows as u64;
        let flags = write.flags | if create.is_some() { FLAG_AUTO_CREATE } else { 0 };
        records.push(SubmitRecord {
            flags,
            uid: schema.uid,
            suid: schema.suid,
            schema_version: schema.columns.version,
            name: write.table.into(),
            ids: bound.ids,
            block: bound.block,
            create,
        });
    }
    Ok(((!records.is_empty()).then_some(Payload::Submit(records)), rows))
}

fn bind_columns(columns: &Columns<'_>, schema: &TableSchema) -> Result<Option<Bound>> {
    let columns_of_table = &schema.columns;
    match columns {
        Columns::Named(view, names) => bind::by_name(view, names, columns_of_table).map(Some),
        Columns::Positional(view) => bind::by_position(view, columns_of_table).map(Some),
        Columns::Faithful(block, names) => shift::by_name(block, names, columns_of_table),
        Columns::FaithfulPositional(block) => shift::by_position(block, columns_of_table),
    }
}

/// The database of a session.
pub(crate) fn current_database(inner: &Inner, session: &crate::Session) -> Result<Arc<Database>> {
    let name = session.database.as_deref().ok_or_else(ServerError::database_not_specified)?;
    inner.database(name).ok_or_else(|| ServerError::new(code::DATABASE_MISSING, "Database not exist"))
}
