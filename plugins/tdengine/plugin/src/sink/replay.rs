//! Rows that may have been written before a restart are compared before they are written again.
//!
//! The other site may have overwritten them since; a marked rewrite would win here and never return there, so the newer
//! value would be lost for good and unseen (FACTS F70, invariant `no-regress`). A row that differs is not overwritten but
//! reported for repair.

use std::collections::HashMap;
use std::ops::Range;

use pipeline_sdk::Result;
use serde_json::json;
use tdengine_wire::block::BlockView;
use tdengine_wire::escape::identifier;

use super::target::Target;
use crate::transport::Connection;
use crate::errors::wire_error;
use crate::log::data::{Block, runs_of};

/// What the target has under a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Every value that would be written is there already.
    Equal,
    /// Nothing there contradicts: values are missing only.
    Missing,
    Differs,
}

/// The rows of a block that can be written without replacing another value.
pub async fn rows_to_write(
    target: &Target,
    connection: &Connection,
    block: &Block<'_>,
    names: Option<&[Option<String>]>,
) -> Result<Vec<Range<usize>>> {
    let view = BlockView::parse(block.bytes).map_err(wire_error)?;
    let fields = block.fields().map_err(wire_error)?;
    let Some(key) = fields.iter().position(|field| field.column_type.data_type == tdengine_wire::DataType::Timestamp)
    else {
        return Ok(vec![0..view.rows()]);
    };
    let second_key = fields.iter().position(tdengine_wire::Field::is_primary_key).filter(|second| *second != key);
    let columns: Vec<(usize, String)> = (0..fields.len())
        .filter_map(|index| match names {
            Some(names) => names.get(index).cloned().flatten().map(|name| (index, name)),
            None => Some((index, fields[index].name.clone())),
        })
        .collect();
    let Some((_, key_name)) = columns.iter().find(|(index, _)| *index == key) else { return Ok(Vec::new()) };
    let times: Vec<i64> = (0..view.rows()).filter_map(|row| view.columns()[key].value(row).as_i64()).collect();
    let (Some(from), Some(to)) = (times.iter().min(), times.iter().max()) else { return Ok(Vec::new()) };
    let selected = columns.iter().map(|(_, name)| identifier(name)).collect::<Vec<_>>().join(", ");
    let key_name = identifier(key_name);
    let table = target.qualified(block.table);
    let sql = format!("select {selected} from {table} where {key_name} >= {from} and {key_name} <= {to}");
    let stored = connection.query(&sql).await?;

    let ours = |row: usize, index: usize| view.columns()[index].bytes(row);
    let mut by_key: HashMap<(Vec<u8>, Vec<u8>), Vec<usize>> = HashMap::new();
    for row in 0..view.rows() {
        let second = second_key.and_then(|second| ours(row, second)).unwrap_or_default();
        by_key.entry((ours(row, key).unwrap_or_default().to_vec(), second.to_vec())).or_default().push(row);
    }
    let mut found = vec![Found::Missing; view.rows()];
    for bytes in &stored.blocks {
        let theirs = BlockView::parse(bytes).map_err(wire_error)?;
        let at = |index: usize| columns.iter().position(|(column, _)| *column == index);
        for row in 0..theirs.rows() {
            let value = |index: usize| at(index).and_then(|at| theirs.columns()[at].bytes(row)).unwrap_or_default();
            let second = second_key.map(value).unwrap_or_default();
            let Some(rows) = by_key.get(&(value(key).to_vec(), second.to_vec())) else { continue };
            // Of several rows with one key the last is what was written.
            let Some(last) = rows.last() else { continue };
            let mut verdict = Found::Equal;
            for (column, (index, _)) in columns.iter().enumerate() {
                match (ours(*last, *index), theirs.columns()[column].bytes(row)) {
                    (ours, theirs) if ours == theirs => {}
                    (Some(_), None) if verdict == Found::Equal => verdict = Found::Missing,
                    (Some(_), None) => {}
                    _ => verdict = Found::Differs,
                }
            }
            rows.iter().for_each(|row| found[*row] = verdict);
        }
    }
    report(target, block, &found, &times);
    Ok(runs_of(view.rows(), |row| found[row] == Found::Missing))
}

fn report(target: &Target, block: &Block<'_>, found: &[Found], times: &[i64]) {
    let equal = found.iter().filter(|found| **found == Found::Equal).count();
    let differing: Vec<i64> = (0..found.len())
        .filter(|row| found[*row] == Found::Differs)
        .filter_map(|row| times.get(row).copied())
        .collect();
    target.context.count("rows_replayed_equal", equal as u64);
    if differing.is_empty() {
        return;
    }
    const SHOWN_MAX: usize = 20;
    target.context.count("rows_replayed_differing", differing.len() as u64);
    let message = format!(
        "{} rows of `{}`.`{}` read again after a restart differ here and were not overwritten: repair them",
        differing.len(),
        target.database,
        block.table
    );
    let shown = &differing[..differing.len().min(SHOWN_MAX)];
    target.context.incident("regress", message, json!({ "table": block.table, "times": shown }));
}
