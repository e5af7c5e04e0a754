//! Writing rows: a frame's own bytes where the target's schema is the same, else a message built anew with the columns
//! that are known here, else nothing until the log announces what is missing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use pipeline_sdk::{Error, Frame, Header, Result, Rows};
use serde_json::json;
use tdengine_wire::Field;
use tdengine_wire::block::{BlockBuilder, BlockView, VERSION_TMQ};
use tdengine_wire::tmq::BlockParts;

use super::decide::{Fit, fit_of};
use super::from_arrow::{Lacking, block_of};
use super::target::Target;
use super::{MISSING_TABLE, MissingTable, NO_COLUMN, NOT_ANNOUNCED, parked, replay, shared, statement};
use crate::client::ClientError;
use crate::transport::Connection;
use crate::errors::{CodeReaction, reaction_to, wire_error};
use crate::log::data::{Block, DataBuilder, DataMessage};
use crate::log::open_envelope;

/// A block with what is written of it.
pub struct Planned<'a> {
    pub block: &'a Block<'a>,
    /// Of the message's rows the first that is in the block.
    pub first_row: usize,
    /// Names at the target, `None` for a column that is left out; absent where the bytes go as they are.
    pub names: Option<Vec<Option<String>>>,
    /// Rows to write, absent for all.
    pub rows: Option<Vec<Range<usize>>>,
}

/// Writes a frame of the source.
pub async fn write_frame(target: &mut Target, connection: &Connection, header: &Header, frame: &Frame) -> Result<()> {
    let (raw_type, body) = open_envelope(&frame.data).map_err(wire_error)?;
    let data = DataMessage::parse(raw_type, body).map_err(wire_error)?;
    write_blocks(target, connection, header, &data.blocks, Some(&frame.data)).await
}

/// Writes rows of any source: they become blocks first.
pub async fn write_rows(target: &mut Target, connection: &Connection, header: &Header, rows: &Rows) -> Result<()> {
    let mut builder = DataBuilder::default();
    let (mut lacking, mut refused) = (Lacking::new(), None::<Error>);
    for (run, range) in rows.ranges() {
        if range.is_empty() {
            continue;
        }
        let (first, batch) = (range.start, rows.batch.slice(range.start, range.len()));
        let made = match block_of(target, connection, run, &batch, first, &mut lacking).await {
            // Other tables may have the column.
            Err(error) if error.code == NO_COLUMN => {
                refused.get_or_insert(error).rows.extend(range.map(|row| row as u64));
                continue;
            }
            other => other?,
        };
        let (block, fields, precision) = made;
        let parts = BlockParts { table: &run.table, fields: &fields, schema_version: 0, precision, block: &block };
        builder.push(&parts).map_err(wire_error)?;
    }
    if let Some(error) = refused {
        return Err(error);
    }
    if builder.is_empty() {
        return Ok(());
    }
    let raw = builder.finish();
    let (raw_type, body) = open_envelope(&raw).map_err(wire_error)?;
    let data = DataMessage::parse(raw_type, body).map_err(wire_error)?;
    write_blocks(target, connection, header, &data.blocks, Some(&raw)).await
}

async fn write_blocks(
    target: &mut Target,
    connection: &Connection,
    header: &Header,
    blocks: &[Block<'_>],
    whole: Option<&[u8]>,
) -> Result<()> {
    let mut is_second_try = false;
    if target.waits_since.is_some() {
        // What is waited for may be a change that was parked, and no flush comes while rows wait.
        parked::retry(target, connection).await?;
    }
    let shared = target.shared.clone();
    loop {
        let _held = shared.definitions.read().await;
        let planned = plan(target, connection, header, blocks).await?;
        target.waits_since = None;
        if target.marks {
            target.renew_server_cache(connection).await?;
        }
        let Err(error) = send(target, connection, blocks.len(), &planned, whole).await? else { return Ok(()) };
        let stale = error.code().is_some_and(|code| {
            matches!(reaction_to(code), CodeReaction::ApplyMetaFirst | CodeReaction::Reject)
        });
        if !stale || is_second_try {
            return Err(Error::from(error).context(place_of(target, header, blocks)));
        }
        // What is known of the target may be old: look again, once.
        is_second_try = true;
        target.shared.forget();
    }
}

/// For a person: the first table and how many more, and where in the log.
pub fn place_of(target: &Target, header: &Header, blocks: &[Block<'_>]) -> String {
    let first = blocks.first().map_or_else(String::new, |block| target.qualified(block.table));
    let more = if blocks.len() > 1 { format!(" and {} tables more", blocks.len() - 1) } else { String::new() };
    format!("rows of {first}{more}, lane {} at {}", header.lane, header.position)
}

async fn send(
    target: &Target,
    connection: &Connection,
    block_count: usize,
    planned: &[Planned<'_>],
    whole: Option<&[u8]>,
) -> Result<Result<(), ClientError>> {
    if planned.is_empty() {
        return Ok(Ok(()));
    }
    if !target.marks {
        return statement::insert(target, connection, &rebuilt(planned)?).await;
    }
    let messages = messages_of(planned);
    let as_it_is = planned.len() == block_count && planned.iter().all(|one| one.names.is_none() && one.rows.is_none());
    if let Some(whole) = whole.filter(|_| as_it_is && messages.len() == 1) {
        return Ok(target.write_raw(connection, whole).await);
    }
    for message in messages {
        let mut builder = DataBuilder::default();
        for one in rebuilt(&planned[message])? {
            let Rebuilt { table, bytes, precision, fields, schema_version, .. } = one;
            builder.push(&BlockParts { table, fields: &fields, schema_version, precision, block: &bytes }).map_err(wire_error)?;
        }
        if builder.is_empty() {
            continue;
        }
        if let Err(error) = target.write_raw(connection, &builder.finish()).await {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// The raw messages that the blocks go in: in none of them does a table stand with two sets of columns. A server's client library
/// merges a table's blocks, and ends its process (an adapter, or this one) where a column is absent from one, NULL in another, has a
/// value in a third, and the times do not only grow.
pub fn messages_of(planned: &[Planned<'_>]) -> Vec<Range<usize>> {
    let (mut messages, mut start, mut schemas) = (Vec::new(), 0, HashMap::new());
    if !planned.windows(2).all(|pair| pair[0].block.schema == pair[1].block.schema) {
        for (index, one) in planned.iter().enumerate() {
            if schemas.get(one.block.table).is_some_and(|schema| *schema != one.block.schema) {
                messages.push(start..index);
                start = index;
                schemas.clear();
            }
            schemas.insert(one.block.table, one.block.schema);
        }
    }
    messages.push(start..planned.len());
    messages
}

/// A block as it is written.
pub struct Rebuilt<'a> {
    pub table: &'a str,
    /// Of the message's rows the first that is in the block.
    pub first_row: usize,
    pub bytes: Cow<'a, [u8]>,
    pub precision: tdengine_wire::Precision,
    /// Named as the target names them.
    pub fields: Vec<Field>,
    pub schema_version: i32,
}

fn rebuilt<'a>(planned: &[Planned<'a>]) -> Result<Vec<Rebuilt<'a>>> {
    let mut all = Vec::with_capacity(planned.len());
    for one in planned {
        if one.rows.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let block = one.block;
        let mut fields = block.fields().map_err(wire_error)?;
        let keeps_all = one.names.as_ref().is_none_or(|names| names.iter().all(Option::is_some));
        let bytes = if keeps_all && one.rows.is_none() {
            Cow::Borrowed(block.bytes)
        } else {
            Cow::Owned(cut(block, one.names.as_deref(), one.rows.as_deref()).map_err(wire_error)?)
        };
        if let Some(names) = &one.names {
            let kept = fields.into_iter().zip(names).filter_map(|(field, name)| {
                name.as_ref().map(|name| Field { name: name.clone(), ..field })
            });
            fields = kept.collect();
        }
        let (precision, schema_version) = (block.precision, block.schema_version);
        all.push(Rebuilt { table: block.table, first_row: one.first_row, bytes, precision, fields, schema_version });
    }
    Ok(all)
}

/// The block with some of its columns and rows.
fn cut(
    block: &Block<'_>,
    names: Option<&[Option<String>]>,
    rows: Option<&[Range<usize>]>,
) -> tdengine_wire::Result<Vec<u8>> {
    let view = BlockView::parse(block.bytes)?;
    let kept = |index: usize| names.is_none_or(|names| names.get(index).is_some_and(Option::is_some));
    let columns: Vec<_> =
        view.columns().iter().enumerate().filter(|(index, _)| kept(*index)).map(|(_, column)| column).collect();
    let mut builder = BlockBuilder::new(columns.iter().map(|column| column.column_type()));
    let all = 0..view.rows();
    for range in rows.unwrap_or(std::slice::from_ref(&all)) {
        for (to, from) in builder.columns_mut().iter_mut().zip(&columns) {
            to.extend_from(from, range.clone())?;
        }
    }
    builder.encode(VERSION_TMQ)
}

async fn plan<'a>(
    target: &mut Target,
    connection: &Connection,
    header: &Header,
    blocks: &'a [Block<'a>],
) -> Result<Vec<Planned<'a>>> {
    let mut planned = Vec::with_capacity(blocks.len());
    let (mut groups, mut compared) = (Vec::new(), Vec::new());
    // Rows at the start of the message that may have been written before.
    let replayed = if header.replayed { usize::try_from(header.replayed_rows).unwrap_or(usize::MAX) } else { 0 };
    let mut rows_before = 0;
    for block in blocks {
        let first_row = rows_before;
        rows_before += block.rows;
        let again = replayed.saturating_sub(first_row).min(block.rows);
        let Some(table) = target.find(connection, block.table).await? else {
            missing(target, header, block)?;
            continue;
        };
        let Some((table, fit)) = fit_now(target, connection, table, block).await? else { continue };
        let names = match &*fit {
            Fit::Same => None,
            Fit::ByName(names) => {
                let dropped = names.iter().filter(|name| name.is_none()).count();
                if dropped > 0 {
                    target.context.count("values_left_out", (dropped * block.rows) as u64);
                }
                Some(names.clone())
            }
            // Dropped by an entry behind these rows, which are read again.
            Fit::Wait(_) if is_dropped_here(target, &table, block) && again == block.rows => Some(names_here(target, &table, block)?),
            Fit::Wait(what) => Some(wait(target, header, &table, block, what, "its values are left out")?),
            Fit::WaitWider(what) => Some(wait(target, header, &table, block, what, "what is too long for it is refused")?),
            Fit::Conflict(why) => return Err(target.conflict(block.table, why)),
        };
        groups.push(table.group);
        compared.push(again);
        planned.push(Planned { block, first_row, names, rows: None });
    }
    let flagged: Vec<usize> = (0..planned.len()).filter(|index| compared[*index] > 0).collect();
    if !flagged.is_empty() {
        let candidates: Vec<replay::Candidate<'_>> = flagged
            .iter()
            .map(|index| {
                let (one, group) = (&planned[*index], groups[*index].clone());
                replay::Candidate { block: one.block, rows: compared[*index], group, names: one.names.clone() }
            })
            .collect();
        let rows = replay::rows_to_write(target, connection, &candidates).await?;
        flagged.into_iter().zip(rows).for_each(|(index, rows)| planned[index].rows = Some(rows));
    }
    Ok(planned)
}

/// How a block fits. Before values are left out, wait or are refused, the definition here is read again: a user may have changed it, or
/// another lane. `None` when the table is gone by then.
async fn fit_now(
    target: &mut Target,
    connection: &Connection,
    mut table: shared::Target,
    block: &Block<'_>,
) -> Result<Option<(shared::Target, Arc<Fit>)>> {
    let (mut fit, is_new) = fit_of(target, &table, block)?;
    let is_stuck = matches!(*fit, Fit::Wait(_) | Fit::WaitWider(_) | Fit::Conflict(_));
    if *fit == Fit::Same || !(is_new || is_stuck) {
        return Ok(Some((table, fit)));
    }
    loop {
        // A change is made here before it counts as announced: with a definition of before it, a column that was announced
        // meanwhile would look like one that was dropped here.
        let announced = target.origins.get(&table.group)?;
        target.shared.reload(connection, &target.database, &table.group).await?;
        let Some(found) = target.find(connection, block.table).await? else { return Ok(None) };
        table = found;
        fit = fit_of(target, &table, block)?.0;
        if target.origins.get(&table.group)? == announced {
            tracing::debug!(table = block.table, version = block.schema_version, ?fit, "definition read again");
            return Ok(Some((table, fit)));
        }
    }
}

/// Rows of a table that is not here.
fn missing(target: &mut Target, header: &Header, block: &Block<'_>) -> Result<()> {
    let table = target.place_of(block.table);
    let waits = !target.marks || target.missing_table == MissingTable::Wait;
    if waits && !target.is_overdue() {
        let message = format!("table {table} is missing; its creation may still come");
        return Err(Error::retry(message).code(MISSING_TABLE));
    }
    if !target.marks {
        let message = format!("table {table} is missing");
        return Err(Error::rejected(message).code(MISSING_TABLE).hint("create it, then retry"));
    }
    let detail = json!({ "table": block.table, "lane": header.lane.as_str(), "position": header.position.number });
    target.left_out(block.table, block.rows, &detail);
    Ok(())
}

/// Whether a column that is not here was dropped here: of a normal table all entries are in the lane of its rows, and what the rows have
/// was made before them. Between two sites; among more it may be on its way from a third.
fn is_dropped_here(target: &Target, table: &shared::Target, block: &Block<'_>) -> bool {
    target.marks && target.missing_table == MissingTable::LeaveOut && *table.group == *block.table
}

/// Rows with a column that the log has not announced: they wait, but not for ever.
fn wait(
    target: &mut Target,
    header: &Header,
    table: &shared::Target,
    block: &Block<'_>,
    what: &str,
    otherwise: &str,
) -> Result<Vec<Option<String>>> {
    let place = target.place_of(block.table);
    let key = (table.group.clone(), what.to_owned());
    if !target.never_announced.contains(&key) {
        if !target.is_overdue() {
            let message = format!("rows of {place} have {what}, which the log has not announced yet");
            return Err(Error::retry(message).code(NOT_ANNOUNCED).hint("it is waited for, up to `announce-timeout`"));
        }
        let message = format!("{what} of {place} was never announced; {otherwise}");
        let detail = json!({ "table": block.table, "lane": header.lane.as_str(), "position": header.position.number });
        target.context.incident("left-out", message, detail);
        target.never_announced.insert(key);
    }
    names_here(target, table, block)
}

/// The block's columns by their names here; counts the values of those that are not here, or are of another type.
fn names_here(target: &Target, table: &shared::Target, block: &Block<'_>) -> Result<Vec<Option<String>>> {
    let fields = block.fields().map_err(wire_error)?;
    let known = |field: Field| {
        let here = table.definition.column(&field.name);
        here.filter(|here| here.column_type.data_type == field.column_type.data_type).map(|here| here.name.clone())
    };
    let names: Vec<Option<String>> = fields.into_iter().map(known).collect();
    let left_out = names.iter().filter(|name| name.is_none()).count();
    target.context.count("values_left_out", (left_out * block.rows) as u64);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_stands_in_a_message_with_one_set_of_columns() {
        let (both, first, last): (&[u8], &[u8], &[u8]) = (b"ts a b", b"ts a", b"ts b");
        for (blocks, expect) in [
            (vec![("t", both), ("u", both), ("t", both)], vec![0..3]),
            (vec![("t", both), ("u", first), ("v", last), ("u", first)], vec![0..4]),
            (vec![("t", both), ("u", both), ("t", last), ("u", both), ("t", first)], vec![0..2, 2..4, 4..5]),
        ] {
            let precision = tdengine_wire::Precision::Milliseconds;
            let block = |(table, schema): &(&'static str, &'static [u8])| Block {
                precision,
                bytes: &[],
                rows: 1,
                schema_version: 0,
                schema,
                table,
            };
            let blocks: Vec<Block<'_>> = blocks.iter().map(block).collect();
            let planned: Vec<_> = blocks.iter().map(|block| Planned { block, first_row: 0, names: None, rows: None }).collect();
            assert_eq!(messages_of(&planned), expect);
        }
    }
}
