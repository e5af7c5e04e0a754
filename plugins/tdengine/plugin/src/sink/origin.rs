//! What the sink knows of the source's super tables: columns by id, and which incarnations are gone.
//!
//! A log shows a change of a super table once in every lane, in different orders across super tables (FACTS F64). The
//! versions of an incarnation (suid) only grow, so what was applied is known by comparing versions, and what an entry
//! changed is the difference from the last one known: `log-creates` and "once per identity" rest on this. The state is the
//! task's, for all its lanes.

use std::sync::Arc;

use pipeline_sdk::{Context, Error, Result, State};
use serde::{Deserialize, Serialize};
use tdengine_wire::{ColumnType, DataType, Field};

use crate::metadata::Definition;

const KEY_STABLE: &str = "v1/stable/";
const KEY_GONE: &str = "v1/gone/";
const KEY_EARLY: &str = "v1/early/";
/// Super tables whose change came before their creation.
const EARLY_MAX: usize = 1_000;
/// Dropped columns of a super table that are remembered.
const DROPPED_MAX: usize = 256;
/// Incarnations of one name that are remembered as dropped.
const GONE_MAX: usize = 64;

/// A column or tag at the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginField {
    pub id: i16,
    pub name: String,
    pub code: u8,
    pub bytes: i32,
    pub flags: u8,
}

impl OriginField {
    pub fn column_type(&self) -> Result<ColumnType> {
        let data_type = DataType::from_code(self.code).map_err(crate::errors::wire_error)?;
        Ok(ColumnType { data_type, bytes: self.bytes })
    }
}

impl From<&Field> for OriginField {
    fn from(field: &Field) -> Self {
        Self {
            id: field.id,
            name: field.name.clone(),
            code: field.column_type.data_type.code(),
            bytes: field.column_type.bytes,
            flags: field.flags,
        }
    }
}

/// A super table at the source, as the last entry that was applied shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginStable {
    pub suid: i64,
    pub column_version: i32,
    pub tag_version: i32,
    pub columns: Vec<OriginField>,
    pub tags: Vec<OriginField>,
    /// The highest id ever seen, of columns dropped since too.
    #[serde(default)]
    pub newest_id: i16,
    /// Names of columns that were dropped, for rows that have no ids.
    #[serde(default)]
    pub dropped: Vec<String>,
    /// When the target's super table was made that this one was compared with last.
    #[serde(default)]
    pub target_created: Option<i64>,
}

impl OriginStable {
    /// Whether this is the counterpart of the target's super table. Where that was dropped and made again, the source's was as
    /// well, which nobody tells this side: it was replicated there. Its columns have other ids, and match by name until an entry
    /// tells them.
    pub fn is_counterpart_of(&self, target: &Definition) -> bool {
        match (self.target_created, target.created) {
            (Some(then), Some(now)) => then == now,
            _ => true,
        }
    }

    /// The tag by its name of now: another lane may have brought a later RENAME or DROP before an entry that names it. Ids are
    /// never used again and only grow (FACTS F67).
    pub fn tag_now(&self, id: i16) -> TagNow<'_> {
        match self.tags.iter().find(|tag| tag.id == id) {
            Some(tag) => TagNow::Named(&tag.name),
            None if id > self.newest_id => TagNow::NotAnnounced,
            None => TagNow::Dropped,
        }
    }

    /// Takes over from the state before which columns were dropped.
    pub fn follow(&mut self, before: &Self) {
        let names = before.columns.iter().map(|column| &column.name).chain(&before.dropped);
        self.dropped = names.filter(|name| !self.columns.iter().any(|column| column.name == **name)).take(DROPPED_MAX).cloned().collect();
    }

    /// Whether the source has a column of this name, or had one.
    pub fn had_column(&self, name: &str) -> bool {
        self.columns.iter().map(|column| &column.name).chain(&self.dropped).any(|known| known == name)
    }

    /// Whether an entry with these versions was applied already.
    pub fn covers(&self, column_version: i32, tag_version: i32) -> bool {
        column_version <= self.column_version && tag_version <= self.tag_version
    }
}

/// What became of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagNow<'a> {
    Named(&'a str),
    Dropped,
    NotAnnounced,
}

/// The store of [`OriginStable`]s of one source database.
pub struct Origins {
    state: State,
    database: String,
}

impl Origins {
    pub fn new(context: &Context, database: &str) -> Self {
        Self { state: context.shared_state(), database: database.into() }
    }

    pub fn get(&self, name: &str) -> Result<Option<Arc<OriginStable>>> {
        self.read(&self.key(KEY_STABLE, name)).map(|stable| stable.map(Arc::new))
    }

    pub fn put(&self, name: &str, stable: &OriginStable) -> Result<()> {
        self.write(&self.key(KEY_STABLE, name), stable)
    }

    /// Whether this incarnation was dropped.
    pub fn is_gone(&self, name: &str, suid: i64) -> Result<bool> {
        let gone: Option<Vec<i64>> = self.read(&self.key(KEY_GONE, name))?;
        Ok(gone.is_some_and(|gone| gone.contains(&suid)))
    }

    /// Remembers that an incarnation was dropped.
    pub fn put_gone(&self, name: &str, suid: i64) -> Result<()> {
        let key = self.key(KEY_GONE, name);
        let mut gone: Vec<i64> = self.read(&key)?.unwrap_or_default();
        if !gone.contains(&suid) {
            gone.push(suid);
        }
        let surplus = gone.len().saturating_sub(GONE_MAX);
        gone.drain(..surplus);
        self.write(&key, &gone)?;
        if self.early(name, suid)?.is_some() {
            self.delete_early(name)?;
        }
        if self.get(name)?.is_some_and(|stable| stable.suid == suid) {
            self.state.delete(&self.key(KEY_STABLE, name))?;
        }
        Ok(())
    }

    /// Keeps the schema of an incarnation whose creation has not been read yet: what schemaless writes grow comes through
    /// another reader, in another order (FACTS F10, F66). Whether there was room.
    pub fn put_early(&self, name: &str, stable: &OriginStable) -> Result<bool> {
        let key = self.key(KEY_EARLY, name);
        let kept: Option<OriginStable> = self.read(&key)?;
        if kept.is_none() && self.state.keys(KEY_EARLY)?.len() >= EARLY_MAX {
            return Ok(false);
        }
        let is_news = |kept: &OriginStable| kept.suid != stable.suid || !kept.covers(stable.column_version, stable.tag_version);
        if kept.as_ref().is_none_or(is_news) {
            self.write(&key, stable)?;
        }
        Ok(true)
    }

    /// The schema kept by [`Origins::put_early`] for an incarnation.
    pub fn early(&self, name: &str, suid: i64) -> Result<Option<OriginStable>> {
        let kept: Option<OriginStable> = self.read(&self.key(KEY_EARLY, name))?;
        Ok(kept.filter(|kept| kept.suid == suid))
    }

    /// Forgets it.
    pub fn delete_early(&self, name: &str) -> Result<()> {
        self.state.delete(&self.key(KEY_EARLY, name))
    }

    fn key(&self, kind: &str, name: &str) -> String {
        format!("{kind}{}/{name}", self.database)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.state.get(key)? else { return Ok(None) };
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::fatal(format!("stored state `{key}` is not readable: {error}")))?;
        Ok(Some(value))
    }

    fn write<T: Serialize>(&self, key: &str, value: &T) -> Result<()> {
        self.state.put(key, &serde_json::to_vec(value).expect("plain JSON"))
    }
}

/// What happened to one list of fields between two entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldChange<'a> {
    Renamed { from: &'a str, to: &'a OriginField },
    Dropped(&'a OriginField),
    Added(&'a OriginField),
    /// Same id and name, wider.
    Widened(&'a OriginField),
}

/// The difference by id, in the order to apply it.
pub fn difference<'a>(before: &'a [OriginField], after: &'a [OriginField]) -> Vec<FieldChange<'a>> {
    let in_after = |id: i16| after.iter().find(|field| field.id == id);
    let in_before = |id: i16| before.iter().find(|field| field.id == id);
    let mut changes = Vec::new();
    for old in before {
        match in_after(old.id) {
            Some(new) if new.name != old.name => changes.push(FieldChange::Renamed { from: &old.name, to: new }),
            _ => {}
        }
    }
    changes.extend(before.iter().filter(|old| in_after(old.id).is_none()).map(FieldChange::Dropped));
    for new in after {
        match in_before(new.id) {
            None => changes.push(FieldChange::Added(new)),
            Some(old) if old.bytes < new.bytes => changes.push(FieldChange::Widened(new)),
            Some(_) => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(id: i16, name: &str, bytes: i32) -> OriginField {
        OriginField { id, name: name.into(), code: 8, bytes, flags: 0 }
    }

    #[test]
    fn an_entry_is_the_difference_from_the_last() {
        let before = [field(1, "ts", 8), field(2, "a", 10), field(3, "b", 10), field(4, "c", 10)];
        // a renamed, b dropped and made again under its name, c wider.
        let after = [field(1, "ts", 8), field(2, "z", 10), field(4, "c", 20), field(5, "b", 10)];
        assert_eq!(
            difference(&before, &after),
            [
                FieldChange::Renamed { from: "a", to: &after[1] },
                FieldChange::Dropped(&before[2]),
                FieldChange::Widened(&after[2]),
                FieldChange::Added(&after[3]),
            ]
        );
        assert!(difference(&after, &after).is_empty());
    }

    #[test]
    fn what_was_dropped_is_known_until_it_is_made_again() {
        let stable = |columns: &[&str]| OriginStable {
            suid: 1,
            column_version: 1,
            tag_version: 1,
            columns: columns.iter().zip(1..).map(|(name, id)| field(id, name, 8)).collect(),
            tags: Vec::new(),
            newest_id: 9,
            dropped: Vec::new(),
            target_created: None,
        };
        let (mut second, mut third) = (stable(&["ts", "a"]), stable(&["ts", "b"]));
        second.follow(&stable(&["ts", "a", "b", "c"]));
        assert_eq!(second.dropped, ["b", "c"]);
        third.follow(&second);
        assert_eq!(third.dropped, ["a", "c"]);
        assert_eq!(["b", "c", "z"].map(|name| third.had_column(name)), [true, true, false]);
    }

    #[test]
    fn a_change_that_came_before_the_creation_is_kept_for_it() {
        let context = Context::detached();
        let origins = Origins::new(&context, "power");
        let stable = |suid, column_version| OriginStable {
            suid,
            column_version,
            tag_version: 1,
            columns: Vec::new(),
            tags: Vec::new(),
            newest_id: 0,
            dropped: Vec::new(),
            target_created: None,
        };
        for (suid, version) in [(7, 2), (7, 3), (7, 2)] {
            assert!(origins.put_early("s", &stable(suid, version)).unwrap());
        }
        assert_eq!(origins.early("s", 7).unwrap(), Some(stable(7, 3)), "the newest is kept");
        assert_eq!(origins.early("s", 8).unwrap(), None);
        origins.put_gone("s", 7).unwrap();
        assert_eq!(origins.early("s", 7).unwrap(), None);
    }

    #[test]
    fn a_dropped_incarnation_stays_gone() {
        let context = Context::detached();
        let origins = Origins::new(&context, "power");
        let stable = OriginStable { suid: 7, column_version: 2, tag_version: 1, columns: vec![], tags: vec![], newest_id: 0, dropped: vec![], target_created: None };
        origins.put("s", &stable).unwrap();
        assert!(origins.get("s").unwrap().unwrap().covers(2, 1));
        assert!(!origins.get("s").unwrap().unwrap().covers(1, 2));
        origins.put_gone("s", 7).unwrap();
        assert!(origins.get("s").unwrap().is_none());
        assert!(origins.is_gone("s", 7).unwrap() && !origins.is_gone("s", 8).unwrap());
    }
}
