//! Whether a block of rows fits its table at the target, and how it is written if it does not fit as it is.
//!
//! A server does not check: an unknown name shifts the columns behind it, another type of the same width is taken bit for
//! bit (FACTS F26, F27). Columns of frames match by **id** within the incarnation of the super
//! table, those of other rows by name; a row never creates a column.

use std::sync::Arc;

use pipeline_sdk::Result;
use tdengine_wire::Field;
use xxhash_rust::xxh3::xxh3_64;

use super::origin::OriginStable;
use super::shared;
use super::target::Target;
use crate::errors::wire_error;
use crate::log::data::Block;
use crate::metadata::Definition;

/// The id of a column of rows that are no frame's, such as those behind a transform: their columns match by name alone.
pub const NO_ID: i16 = 0;

/// How a block's columns meet a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Name, type and width are the target's: the bytes can be written as they are.
    Same,
    /// For each column its name at the target, `None` for one that is left out because it was dropped since.
    ByName(Vec<Option<String>>),
    /// A column that the log has not announced yet.
    Wait(String),
    /// A column whose widening the log has not announced yet.
    WaitWider(String),
    /// It can never fit.
    Conflict(String),
}

/// The fit of a block, remembered per definition and schema; and whether it was found just now.
pub fn fit_of(target: &mut Target, table: &shared::Target, block: &Block<'_>) -> Result<(Arc<Fit>, bool)> {
    let generation = target.shared.generation();
    if target.fits_generation != generation || target.fits.len() > FITS_MAX {
        target.fits.clear();
        target.fits_generation = generation;
    }
    let key = key_of(table, block);
    if let Some((definition, fit)) = target.fits.get(&key)
        && Arc::ptr_eq(definition, &table.definition)
    {
        return Ok((fit.clone(), false));
    }
    let origin = target.origins.get(&table.group)?.filter(|origin| origin.is_counterpart_of(&table.definition));
    let fields = block.fields().map_err(wire_error)?;
    let fit = Arc::new(compare(&fields, origin.as_deref(), &table.definition));
    target.is_server_cache_old = true;
    target.fits.insert(key, (table.definition.clone(), fit.clone()));
    Ok((fit, true))
}

/// Whether a block can be written as it is. What it comes to otherwise is not remembered: that is found with the definition read again.
pub fn is_same(target: &mut Target, table: &shared::Target, block: &Block<'_>) -> Result<bool> {
    let (fit, is_new) = fit_of(target, table, block)?;
    let is_same = *fit == Fit::Same;
    if is_new && !is_same {
        target.fits.remove(&key_of(table, block));
    }
    Ok(is_same)
}

fn key_of(table: &shared::Target, block: &Block<'_>) -> (Arc<str>, u64) {
    (table.group.clone(), xxh3_64(block.schema))
}

/// Fits remembered before they are forgotten.
const FITS_MAX: usize = 4_096;

/// Compares a block's columns with the target's. Ids are never used again and only grow (FACTS F67), so one that the last
/// known schema lacks was dropped since if it is not newer than all of them, else not announced yet. Blocks tell no
/// version to go by: a real server writes 0.
fn compare(fields: &[Field], origin: Option<&OriginStable>, target: &Definition) -> Fit {
    let mut names = Vec::with_capacity(fields.len());
    let mut same = true;
    for field in fields {
        let origin = origin.filter(|_| field.id != NO_ID);
        let known = origin.and_then(|origin| origin.columns.iter().find(|column| column.id == field.id));
        let announced = known.is_some();
        if !announced && origin.is_some_and(|origin| field.id <= origin.newest_id) {
            same = false;
            names.push(None);
            continue;
        }
        let name = known.map_or(field.name.as_str(), |column| column.name.as_str());
        let Some(column) = target.column(name) else {
            if !announced {
                return Fit::Wait(format!("column `{name}`"));
            }
            // It was announced and is not here: dropped here, or refused by the site and parked.
            same = false;
            names.push(None);
            continue;
        };
        if column.column_type.data_type != field.column_type.data_type {
            // The rows were made for the type that it had a moment ago.
            if field.id == NO_ID {
                return Fit::Wait(format!("column `{name}`, of another type"));
            }
            let (ours, theirs) = (field.column_type, column.column_type);
            return Fit::Conflict(format!("column `{name}` is {ours} at the source and {theirs} here"));
        }
        if column.column_type.bytes < field.column_type.bytes && known.is_none_or(|known| known.bytes < field.column_type.bytes) {
            return Fit::WaitWider(format!("a wider column `{name}`"));
        }
        same &= name == field.name && column.column_type.bytes == field.column_type.bytes;
        names.push(Some(name.to_owned()));
    }
    // The time is the first column; rows without it cannot be written.
    if same { Fit::Same } else { Fit::ByName(names) }
}

#[cfg(test)]
mod tests {
    use super::super::origin::OriginField;
    use super::*;
    use crate::metadata::Column;
    use tdengine_wire::{ColumnType, DataType};

    fn int() -> ColumnType {
        ColumnType::of(DataType::Int)
    }

    fn field(id: i16, name: &str, column_type: ColumnType) -> Field {
        Field::new(name, column_type, id)
    }

    fn table(columns: &[(&str, ColumnType)]) -> Definition {
        let columns = columns
            .iter()
            .map(|(name, column_type)| Column { name: (*name).into(), column_type: *column_type, is_primary_key: false })
            .collect();
        Definition { columns, ..Definition::default() }
    }

    fn origin(newest_id: i16, columns: &[Field]) -> OriginStable {
        let columns = columns.iter().map(OriginField::from).collect();
        OriginStable { suid: 1, column_version: 1, tag_version: 1, columns, tags: Vec::new(), newest_id, dropped: Vec::new(), target_created: None }
    }

    #[test]
    fn columns_match_by_id_and_rows_create_none() {
        let (ts, narrow, wide) = (ColumnType::of(DataType::Timestamp), ColumnType::varchar(10), ColumnType::varchar(20));
        let target = table(&[("ts", ts), ("a", int()), ("s", narrow)]);
        let float = ColumnType::of(DataType::Float);
        let some = |names: &[&str]| Fit::ByName(names.iter().map(|name| (*name != "-").then(|| (*name).into())).collect());
        let old = origin(4, &[field(1, "ts", ts), field(2, "a", int()), field(3, "s", narrow)]);
        let new = origin(9, &[field(1, "ts", ts), field(5, "a", int()), field(3, "s", wide), field(9, "z", int())]);
        let moved = vec![field(NO_ID, "ts", ts), field(NO_ID, "s", narrow), field(NO_ID, "a", int())];
        let conflict = "column `a` is FLOAT at the source and INT here";
        for (what, fields, known, expect) in [
            ("equal", vec![field(1, "ts", ts), field(2, "a", int())], None, Fit::Same),
            ("a subset in another order", vec![field(3, "s", narrow), field(1, "ts", ts)], Some(&old), Fit::Same),
            ("not announced", vec![field(9, "z", int())], Some(&old), Fit::Wait("column `z`".into())),
            ("not announced, nothing known", vec![field(9, "z", int())], None, Fit::Wait("column `z`".into())),
            ("not announced, here already", vec![field(9, "a", int())], Some(&old), Fit::Same),
            ("dropped since", vec![field(1, "ts", ts), field(6, "y", int())], Some(&new), some(&["ts", "-"])),
            ("dropped and made again", vec![field(1, "ts", ts), field(2, "a", int())], Some(&new), some(&["ts", "-"])),
            ("announced but not here", vec![field(1, "ts", ts), field(9, "z", int())], Some(&new), some(&["ts", "-"])),
            ("same width, other type", vec![field(2, "a", float)], None, Fit::Conflict(conflict.into())),
            ("wider, not announced", vec![field(3, "s", wide)], Some(&old), Fit::WaitWider("a wider column `s`".into())),
            ("by name, whatever the ids are elsewhere", moved, Some(&new), Fit::Same),
            ("by name, not here", vec![field(NO_ID, "z", int())], Some(&new), Fit::Wait("column `z`".into())),
            ("by name, another type since", vec![field(NO_ID, "a", float)], Some(&new), Fit::Wait("column `a`, of another type".into())),
            ("wider, announced and refused", vec![field(3, "s", wide)], Some(&new), some(&["s"])),
        ] {
            assert_eq!(compare(&fields, known, &target), expect, "{what}");
        }
    }
}
