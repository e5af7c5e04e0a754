//! What a vgroup knows besides its log: tables, super tables, old schemas, offsets. Everything here follows from the
//! log's entries, and is kept in snapshots.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tdengine_wire::Field;

use super::payload::{Effect, Payload, SubmitRecord};
use crate::error::{Result, ServerError};
use crate::rows::{Rows, Run};
use crate::schema::{Schema, Stable, TableKind, TableSchema};
use crate::table::{Table, TableBody, TableMeta};
use crate::{Version, VgroupId};

/// The state that a log's entries make.
#[derive(Debug, Default)]
pub(crate) struct Index {
    vgroup: VgroupId,
    unmerged_rows_max: usize,
    tables: BTreeMap<Arc<str>, Arc<Table>>,
    by_uid: HashMap<i64, Arc<Table>>,
    stables: HashMap<i64, Arc<Stable>>,
    /// Column schemas by owner (suid, or uid of a normal table) and version: what entries were written with.
    schemas: HashMap<(i64, i32), Arc<Schema>>,
    /// Committed offsets by topic and group.
    offsets: BTreeMap<(String, String), Version>,
    /// Changes of the catalog that are in the log, since the catalog's last snapshot.
    changes: BTreeSet<u64>,
}

/// The part of an [`Index`] that a snapshot holds beside the rows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexImage {
    pub tables: Vec<TableMeta>,
    stables: Vec<Stable>,
    schemas: Vec<(i64, Arc<Schema>)>,
    offsets: Vec<(String, String, Version)>,
    changes: Vec<u64>,
}

/// Reading.
impl Index {
    /// A vgroup without tables.
    pub fn new(vgroup: VgroupId, unmerged_rows_max: usize) -> Self {
        Self { vgroup, unmerged_rows_max, ..Self::default() }
    }

    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }

    pub fn table_of(&self, uid: i64) -> Option<&Arc<Table>> {
        self.by_uid.get(&uid)
    }

    pub fn tables(&self) -> impl ExactSizeIterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    pub fn stable(&self, suid: i64) -> Option<&Arc<Stable>> {
        self.stables.get(&suid)
    }

    pub fn offset(&self, topic: &str, group: &str) -> Option<Version> {
        self.offsets.get(&(topic.to_owned(), group.to_owned())).copied()
    }

    pub fn offsets(&self) -> impl Iterator<Item = (&str, &str, Version)> {
        self.offsets.iter().map(|((topic, group), offset)| (topic.as_str(), group.as_str(), *offset))
    }

    pub fn has_change(&self, change: u64) -> bool {
        self.changes.contains(&change)
    }

    /// Columns and tags of a table.
    pub fn schema(&self, table: &Table) -> Result<TableSchema> {
        let meta = table.meta();
        match &meta.body {
            TableBody::Normal { columns, .. } => Ok(TableSchema {
                uid: meta.uid,
                suid: 0,
                kind: TableKind::Normal,
                stable: None,
                columns: columns.clone(),
                tags: Arc::new(Schema::of_tags(Vec::new())),
            }),
            TableBody::Child { suid, .. } => {
                let stable = self.stable(*suid).ok_or_else(ServerError::table_missing)?;
                let kind = TableKind::Child;
                Ok(TableSchema { uid: meta.uid, kind, stable: Some(stable.name.clone()), ..stable.schema() })
            }
        }
    }

    /// The columns of a table now.
    pub fn columns(&self, table: &Table) -> Result<Arc<Schema>> {
        let meta = table.meta();
        match &meta.body {
            TableBody::Normal { columns, .. } => Ok(columns.clone()),
            TableBody::Child { suid, .. } => {
                self.stable(*suid).map(|stable| stable.columns.clone()).ok_or_else(ServerError::table_missing)
            }
        }
    }

    /// The fields with these ids as they were in a version of the columns.
    pub fn fields(&self, owner: i64, version: i32, ids: &[i16]) -> Option<Arc<[Field]>> {
        let schema = self.schemas.get(&(owner, version))?;
        ids.iter().map(|id| schema.position_of_id(*id).map(|place| schema.fields[place].clone())).collect()
    }
}

/// Applying.
impl Index {
    /// Applies an entry that is in the log.
    pub fn apply(&mut self, payload: &Payload) -> Result<()> {
        match payload {
            Payload::Marker(effect) => self.apply_effect(effect),
            Payload::Meta(record) => {
                if record.change > 0 {
                    self.changes.insert(record.change);
                }
                self.apply_effect(&record.effect)
            }
            Payload::Submit(tables) => {
                for meta in tables.iter().filter_map(|table| table.create.as_ref()?.meta.as_ref()) {
                    self.put_table(meta.clone());
                }
                self.apply_rows(tables)
            }
        }
    }

    /// Applies rows whose tables are there; readers of the index need not wait for it.
    pub fn apply_rows(&self, records: &[SubmitRecord]) -> Result<()> {
        records.iter().try_for_each(|record| self.push_rows(record))
    }

    fn push_rows(&self, record: &SubmitRecord) -> Result<()> {
        // A table that a later snapshot or drop does not know any more has no use for its rows.
        let Some(table) = self.by_uid.get(&record.uid) else { return Ok(()) };
        let columns = self.columns(table)?;
        table.rows.push(Run::new(record.ids.clone(), record.block.clone())?, &columns, self.unmerged_rows_max)
    }

    fn apply_effect(&mut self, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Nothing => {}
            Effect::PutStable(stable) => {
                self.schemas.insert((stable.suid, stable.columns.version), stable.columns.clone());
                self.stables.insert(stable.suid, Arc::new(stable.clone()));
            }
            Effect::DropStable { suid } => {
                self.stables.remove(suid);
                let children = self.tables.values().filter(|table| table.meta().suid() == *suid);
                let children: Vec<i64> = children.map(|table| table.uid).collect();
                children.iter().for_each(|uid| self.drop_table(*uid));
            }
            Effect::PutTables(metas) => metas.iter().for_each(|meta| self.put_table(meta.clone())),
            Effect::DropTables(uids) => uids.iter().for_each(|uid| self.drop_table(*uid)),
            Effect::Delete { uids, from, to } => {
                for uid in uids {
                    if let Some(table) = self.by_uid.get(uid) {
                        table.rows.delete(&*self.columns(table)?, *from, *to)?;
                    }
                }
            }
            Effect::Commit { group, topic, offset } => {
                self.offsets.insert((topic.clone(), group.clone()), *offset);
            }
            Effect::Forget { topic, group } => {
                self.offsets.retain(|(of, by), _| of != topic || group.as_ref().is_some_and(|group| group != by));
            }
        }
        Ok(())
    }

    fn put_table(&mut self, meta: TableMeta) {
        if let TableBody::Normal { columns, .. } = &meta.body {
            self.schemas.insert((meta.uid, columns.version), columns.clone());
        }
        match self.by_uid.get(&meta.uid) {
            Some(table) => table.set_meta(meta),
            None => self.insert(Table::new(meta, self.vgroup, Rows::default())),
        }
    }

    fn insert(&mut self, table: Table) {
        let table = Arc::new(table);
        self.tables.insert(table.name.clone(), table.clone());
        self.by_uid.insert(table.uid, table);
    }

    fn drop_table(&mut self, uid: i64) {
        let Some(table) = self.by_uid.remove(&uid) else { return };
        // The name may belong to a newer table by now.
        if self.tables.get(&table.name).is_some_and(|named| named.uid == uid) {
            self.tables.remove(&table.name);
        }
    }
}

/// Snapshots.
impl Index {
    /// Forgets changes that the catalog would not do again after a crash.
    pub fn forget_changes(&mut self, below: u64) {
        self.changes = self.changes.split_off(&below);
    }

    /// What a snapshot holds beside the rows.
    pub fn image(&self) -> IndexImage {
        IndexImage {
            tables: self.tables.values().map(|table| (*table.meta()).clone()).collect(),
            stables: self.stables.values().map(|stable| (**stable).clone()).collect(),
            schemas: self.schemas.iter().map(|((owner, _), schema)| (*owner, schema.clone())).collect(),
            offsets: self.offsets().map(|(topic, group, offset)| (topic.into(), group.into(), offset)).collect(),
            changes: self.changes.iter().copied().collect(),
        }
    }

    /// The state of a snapshot; `rows` are in the order of its tables.
    pub fn restore(vgroup: VgroupId, unmerged_rows_max: usize, image: IndexImage, rows: Vec<Rows>) -> Self {
        let mut index = Self::new(vgroup, unmerged_rows_max);
        let schemas = image.schemas.into_iter();
        index.schemas = schemas.map(|(owner, schema)| ((owner, schema.version), schema)).collect();
        index.stables = image.stables.into_iter().map(|stable| (stable.suid, Arc::new(stable))).collect();
        index.offsets = image.offsets.into_iter().map(|(topic, group, offset)| ((topic, group), offset)).collect();
        index.changes = image.changes.into_iter().collect();
        for (meta, rows) in image.tables.into_iter().zip(rows) {
            index.insert(Table::new(meta, vgroup, rows));
        }
        index
    }
}
