//! Raw changes of super tables (PROTOCOL 10.4).

use std::sync::Arc;

use tdengine_wire::Field;
use tdengine_wire::meta::{Stable as StableEntry, kind};
use tdengine_wire::murmur;

use super::Raw;
use crate::ddl::index;
use crate::ddl::stable::put;
use crate::error::{Result, ServerError};
use crate::schema::{Schema, Stable, compression_default, tag_flags};
use crate::session::MARK;

const INVALID_SCHEMA_VERSION: u16 = 0x03C6;

impl Raw<'_> {
    /// CREATE and ALTER STABLE alike: the uid is the source's plus the hash of the database's name. One that exists with
    /// another uid is left as it is, with success; one with that uid takes schemas that are one version newer, the first one of
    /// any version (FACTS F9, PROTOCOL 10.4).
    pub(super) fn put_stable(&self, raw: &StableEntry) -> Result<u64> {
        if raw.rollup != 0 {
            return Err(ServerError::invalid_message());
        }
        let suid = raw.suid.wrapping_add(i64::from(murmur::hash(self.database.name.as_bytes())));
        if self.inner.find_table(&self.database, &raw.name)?.is_some() {
            return Ok(0);
        }
        self.inner.change_stable(&self.database, &raw.name, |catalog| {
            let Some(old) = catalog.stable(self.database.id, &raw.name) else {
                if (raw.column_version, raw.tag_version) != (1, 1) {
                    tracing::info!(stable = %raw.name, "raw super table of a later version is ignored: it was dropped here");
                    return Ok(None);
                }
                let stable = created(raw, suid, self.inner.next_stable_ms());
                return put(&self.database, stable, kind::CREATE_STABLE, MARK, None).map(Some);
            };
            if old.suid != suid {
                tracing::info!(stable = %raw.name, "raw super table with another uid is ignored, as a real server does");
                let refused = ServerError::new(0x03C7, "Invalid stable uid");
                return if self.is_strict() { Err(refused) } else { Ok(None) };
            }
            let steps = (raw.column_version - old.columns.version, raw.tag_version - old.tags.version);
            // One that was never altered here takes any later schema.
            let is_first = |old: &Schema, newer: i32| old.version == 1 && newer > 1;
            let is_taken = matches!(steps, (1, 0) | (0, 1))
                || is_first(&old.columns, raw.column_version)
                || is_first(&old.tags, raw.tag_version);
            match steps {
                (..=0, ..=0) => Ok(None),
                _ if is_taken => put(&self.database, altered(old, raw), kind::ALTER_STABLE, MARK, None).map(Some),
                _ => Err(ServerError::new(INVALID_SCHEMA_VERSION, "Invalid schema version")),
            }
        })?;
        Ok(0)
    }

    pub(super) fn drop_stable(&self, name: &str) -> Result<u64> {
        self.inner.drop_stable(&self.database, name, true, self.drop_source())?;
        Ok(0)
    }
}

/// A new super table; ids are given anew, in order.
fn created(raw: &StableEntry, suid: i64, created_ms: i64) -> Stable {
    let mut next_id = 1;
    let mut columns = renumbered(&raw.columns, raw.column_version, &mut next_id, |_| None);
    columns.compression = compressions(raw, &columns, None);
    let tags = renumbered(&raw.tags, raw.tag_version, &mut next_id, |_| None);
    Stable {
        name: raw.name.clone(),
        suid,
        created_ms,
        indexes: index::of_first_tag(&raw.name, &tags.fields, created_ms),
        columns: Arc::new(columns),
        tags: Arc::new(with_index(tags)),
        next_id,
        comment: None,
    }
}

/// The schema of `raw`; what has a name that is known keeps its id here.
fn altered(old: &Stable, raw: &StableEntry) -> Stable {
    let mut new = old.clone();
    let known = |schema: &Schema, field: &Field| schema.field(&field.name).map(|field| field.id);
    let mut columns = renumbered(&raw.columns, raw.column_version, &mut new.next_id, |field| known(&old.columns, field));
    columns.compression = compressions(raw, &columns, Some(old));
    new.columns = Arc::new(columns);
    let tags = renumbered(&raw.tags, raw.tag_version, &mut new.next_id, |field| known(&old.tags, field));
    new.indexes.retain(|index| tags.position_of_id(index.tag).is_some());
    new.tags = Arc::new(with_index(tags));
    new
}

fn renumbered(fields: &[Field], version: i32, next_id: &mut i16, known: impl Fn(&Field) -> Option<i16>) -> Schema {
    let mut give = |field: &Field| {
        let id = known(field).unwrap_or_else(|| {
            *next_id += 1;
            *next_id - 1
        });
        Field { id, ..field.clone() }
    };
    let fields = fields.iter().map(&mut give).collect();
    Schema { version, fields, compression: Vec::new() }
}

fn with_index(mut tags: Schema) -> Schema {
    tags.fields.iter_mut().enumerate().for_each(|(place, field)| field.flags = tag_flags(place));
    tags
}

fn compressions(raw: &StableEntry, columns: &Schema, old: Option<&Stable>) -> Vec<u32> {
    let of = |(place, field): (usize, &Field)| {
        let source_id = raw.columns[place].id;
        let given = raw.compression.iter().flatten().find(|(id, _)| *id == source_id).map(|(_, compression)| *compression);
        let kept = || {
            let old = old?;
            old.columns.compression.get(old.columns.position(&field.name)?).copied()
        };
        given.or_else(kept).unwrap_or_else(|| compression_default(field.column_type.data_type))
    };
    columns.fields.iter().enumerate().map(of).collect()
}
