//! Rows that may have been written before a restart are compared before they are written again.
//!
//! The other site may have overwritten them since; a marked rewrite would win here and never return there, so the newer
//! value would be lost for good and unseen (FACTS F70, invariant `no-regress`). A row that differs is not overwritten but
//! reported for repair. A message is compared with one query for many tables: after a crash it may hold the rows of
//! thousands of small writes.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use pipeline_sdk::Result;
use serde_json::json;
use tdengine_wire::block::BlockView;
use tdengine_wire::escape::{identifier, literal};
use tdengine_wire::{DataType, Field};

use super::target::Target;
use crate::errors::wire_error;
use crate::log::data::{Block, runs_of};
use crate::transport::Connection;

/// Tables that one query asks for.
const TABLES_AT_ONCE: usize = 256;
/// Ranges of time that one query asks for: rows that lie far apart do not bring everything between them.
const RANGES_MAX: usize = 16;
/// Times that a report names.
const TIMES_SHOWN: usize = 20;
/// Rows that are remembered as written again: a delete behind more of them may be left out and reported.
const REWRITTEN_MAX: usize = 100_000;

/// Rows that were not here and were written again since the sink connected: a delete behind them in the log may take them, whatever
/// it took at the source. By table: time and second key.
#[derive(Default)]
pub struct Rewritten {
    rows: HashMap<Box<str>, BTreeSet<(i64, Box<[u8]>)>>,
    count: usize,
}

impl Rewritten {
    fn add(&mut self, table: &str, time: i64, second_key: &[u8]) {
        if self.count == REWRITTEN_MAX {
            return;
        }
        if !self.rows.contains_key(table) {
            self.rows.insert(table.into(), BTreeSet::new());
        }
        let rows = self.rows.get_mut(table).expect("it was just inserted");
        self.count += usize::from(rows.insert((time, second_key.into())));
    }

    /// Rows of a table in a range of times.
    pub fn rows_in(&self, table: &str, times: RangeInclusive<i64>) -> usize {
        let Some(rows) = self.rows.get(table).filter(|_| !times.is_empty()) else { return 0 };
        rows.range((*times.start(), Box::default())..).take_while(|(time, _)| times.contains(time)).count()
    }

    /// They were deleted.
    pub fn forget(&mut self, table: &str, times: RangeInclusive<i64>) {
        if let Some(rows) = self.rows.get_mut(table) {
            let before = rows.len();
            rows.retain(|(time, _)| !times.contains(time));
            self.count -= before - rows.len();
        }
    }
}

/// A block that may have been written.
pub struct Candidate<'a> {
    pub block: &'a Block<'a>,
    /// Rows at its start that may have been; what comes behind is new.
    pub rows: usize,
    /// The super table, or the table itself.
    pub group: Arc<str>,
    /// Names at the target, as in [`super::decide::Fit::ByName`]; absent where they are the block's own.
    pub names: Option<Vec<Option<String>>>,
}

/// What the target has under a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Every value that would be written is there already.
    Equal,
    /// No row has this key.
    Missing,
    /// A row is there, and NULL where values would be written: of several writes to one row the first may have been done.
    Partial,
    Differs,
}

/// A block, read.
struct Opened<'a> {
    table: &'a str,
    view: BlockView<'a>,
    rows: usize,
    key: usize,
    second_key: Option<usize>,
    /// Column of the block, and its name here.
    columns: Vec<(usize, String)>,
}

/// Table, time and second key: what one row is known by.
type Key<'a> = (&'a str, &'a [u8], &'a [u8]);

/// Places of the rows with one key, in the order in which they were written: block and row.
type Places<'a> = HashMap<Key<'a>, Vec<(usize, usize)>>;

/// For each candidate the rows that can be written without replacing another value.
pub async fn rows_to_write(
    target: &mut Target,
    connection: &Connection,
    candidates: &[Candidate<'_>],
) -> Result<Vec<Vec<Range<usize>>>> {
    let opened = candidates.iter().map(Opened::of).collect::<Result<Vec<_>>>()?;
    let mut places = Places::new();
    for (index, opened) in opened.iter().enumerate().filter_map(|(index, opened)| Some((index, opened.as_ref()?))) {
        for row in 0..opened.rows {
            places.entry(opened.key_of(row)).or_default().push((index, row));
        }
    }
    let mut found: Vec<Vec<Found>> =
        candidates.iter().map(|candidate| vec![Found::Missing; candidate.rows]).collect();
    let mut by_group: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, candidate) in candidates.iter().enumerate().filter(|(index, _)| opened[*index].is_some()) {
        by_group.entry(&candidate.group).or_default().push(index);
    }
    for (group, mut indices) in by_group {
        indices.sort_by_key(|index| candidates[*index].block.table);
        let of_table = |index: &usize| candidates[*index].block.table;
        let by_table: Vec<&[usize]> = indices.chunk_by(|a, b| of_table(a) == of_table(b)).collect();
        for tables in by_table.chunks(TABLES_AT_ONCE) {
            let of_chunk: Vec<&Opened<'_>> =
                tables.iter().copied().flatten().filter_map(|index| opened[*index].as_ref()).collect();
            let question = Question::about(target, group, &of_chunk);
            compare(connection, &question, &opened, &places, &mut found).await?;
        }
    }
    for (opened, found) in opened.iter().zip(&found) {
        if let Some(opened) = opened {
            report(target, opened, found);
            for row in (0..found.len()).filter(|row| found[*row] == Found::Missing) {
                let (table, _, second_key) = opened.key_of(row);
                let time = opened.time_of(row).unwrap_or_default();
                target.rewritten.add(table, time, second_key);
            }
        }
    }
    let is_due = |found: &Vec<Found>, row: usize| {
        found.get(row).is_none_or(|found| matches!(found, Found::Missing | Found::Partial))
    };
    Ok(candidates.iter().zip(&found).map(|(one, found)| runs_of(one.block.rows, |row| is_due(found, row))).collect())
}

impl<'a> Opened<'a> {
    /// `None` for a block whose rows have no time that could be looked up.
    fn of(candidate: &Candidate<'a>) -> Result<Option<Self>> {
        let block = candidate.block;
        let view = BlockView::parse(block.bytes).map_err(wire_error)?;
        let fields = block.fields().map_err(wire_error)?;
        let key = fields.iter().position(|field| field.column_type.data_type == DataType::Timestamp);
        let columns: Vec<(usize, String)> = match &candidate.names {
            Some(names) => {
                names.iter().enumerate().filter_map(|(index, name)| Some((index, name.clone()?))).collect()
            }
            None => fields.iter().enumerate().map(|(index, field)| (index, field.name.clone())).collect(),
        };
        let Some(key) = key.filter(|key| columns.iter().any(|(index, _)| index == key)) else { return Ok(None) };
        let second_key = fields.iter().position(Field::is_primary_key).filter(|second| *second != key);
        let rows = candidate.rows.min(view.rows());
        Ok(Some(Self { table: block.table, view, rows, key, second_key, columns }))
    }

    fn key_of(&self, row: usize) -> Key<'a> {
        let bytes = |index: usize| self.view.columns()[index].bytes(row).unwrap_or_default();
        (self.table, bytes(self.key), self.second_key.map_or(&[], bytes))
    }

    fn time_of(&self, row: usize) -> Option<i64> {
        self.view.columns()[self.key].value(row).as_i64()
    }

    fn name_of(&self, index: usize) -> &str {
        self.columns.iter().find(|(column, _)| *column == index).map_or("", |(_, name)| name)
    }
}

/// One query for the rows of many tables of one super table.
struct Question<'a> {
    sql: String,
    /// Columns of the answer behind the table's name, which only comes where several tables are asked for.
    names: Vec<&'a str>,
    table: Option<&'a str>,
    key: usize,
    second_key: Option<usize>,
}

impl<'a> Question<'a> {
    fn about(target: &Target, group: &str, opened: &[&'a Opened<'a>]) -> Self {
        let mut names: Vec<&str> =
            opened.iter().flat_map(|one| one.columns.iter().map(|(_, name)| name.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        let at = |name: &str| names.iter().position(|other| *other == name);
        let (key_name, second_name) = (opened[0].name_of(opened[0].key), opened[0].second_key.map(|key| opened[0].name_of(key)));
        let (key, second_key) = (at(key_name).unwrap_or_default(), second_name.and_then(at));
        let times = opened.iter().flat_map(|one| (0..one.rows).filter_map(|row| one.time_of(row)));
        let key_name = identifier(key_name);
        let ranges = ranges_of(times.collect());
        let ranges: Vec<String> = ranges.iter().map(|(from, to)| format!("({key_name} >= {from} and {key_name} <= {to})")).collect();
        let ranges = ranges.join(" or ");
        let selected = names.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ");
        let mut tables: Vec<&str> = opened.iter().map(|one| one.table).collect();
        tables.dedup();
        if let [table] = tables[..] {
            let sql = format!("select {selected} from {} where {ranges}", target.qualified(table));
            return Self { sql, names, table: Some(table), key, second_key };
        }
        let tables = tables.iter().map(|table| literal(table)).collect::<Vec<_>>().join(", ");
        let stable = target.qualified(group);
        let sql = format!("select tbname, {selected} from {stable} where tbname in ({tables}) and ({ranges})");
        Self { sql, names, table: None, key, second_key }
    }
}

/// At most [`RANGES_MAX`] ranges that hold all times, cut where the gaps are largest.
fn ranges_of(mut times: Vec<i64>) -> Vec<(i64, i64)> {
    times.sort_unstable();
    times.dedup();
    let mut gaps: Vec<usize> = (1..times.len()).collect();
    gaps.sort_unstable_by_key(|at| std::cmp::Reverse(times[*at].wrapping_sub(times[at - 1]) as u64));
    gaps.truncate(RANGES_MAX - 1);
    gaps.sort_unstable();
    let begins = std::iter::once(0).chain(gaps.iter().copied());
    let ends = gaps.iter().copied().chain(std::iter::once(times.len()));
    begins.zip(ends).filter_map(|(begin, end)| Some((*times.get(begin)?, *times.get(end.checked_sub(1)?)?))).collect()
}

async fn compare(
    connection: &Connection,
    question: &Question<'_>,
    opened: &[Option<Opened<'_>>],
    places: &Places<'_>,
    found: &mut [Vec<Found>],
) -> Result<()> {
    let first = usize::from(question.table.is_none());
    // Block by block: between the times that are asked for there may be far more than what is looked for.
    let compared = connection.query_each(&question.sql, |_, theirs| {
        for row in 0..theirs.rows() {
            let value = |column: usize| theirs.columns()[first + column].bytes(row);
            let table = match question.table {
                Some(table) => table,
                None => std::str::from_utf8(theirs.columns()[0].bytes(row).unwrap_or_default()).unwrap_or_default(),
            };
            let second = question.second_key.and_then(value).unwrap_or_default();
            let Some(places) = places.get(&(table, value(question.key).unwrap_or_default(), second)) else { continue };
            let verdict = verdict_of(places, opened, &question.names, value);
            for (block, row) in places {
                found[*block][*row] = verdict;
            }
        }
        Ok(())
    });
    compared.await?;
    Ok(())
}

/// Of several values for one column the last is what was written.
fn verdict_of<'a>(
    places: &[(usize, usize)],
    opened: &[Option<Opened<'_>>],
    names: &[&str],
    theirs: impl Fn(usize) -> Option<&'a [u8]>,
) -> Found {
    let mut verdict = Found::Equal;
    let mut seen = vec![false; names.len()];
    for (block, row) in places.iter().rev() {
        let Some(opened) = &opened[*block] else { continue };
        for (index, name) in &opened.columns {
            let Ok(column) = names.binary_search(&name.as_str()) else { continue };
            if std::mem::replace(&mut seen[column], true) {
                continue;
            }
            match (opened.view.columns()[*index].bytes(*row), theirs(column)) {
                (ours, theirs) if ours == theirs => {}
                (Some(_), None) => verdict = Found::Partial,
                _ => return Found::Differs,
            }
        }
    }
    verdict
}

fn report(target: &Target, opened: &Opened<'_>, found: &[Found]) {
    let count = |what: Found| found.iter().filter(|found| **found == what).count();
    let times = |what: Found| -> Vec<i64> {
        (0..found.len()).filter(|row| found[*row] == what).filter_map(|row| opened.time_of(row)).take(TIMES_SHOWN).collect()
    };
    target.context.count("rows_replayed_equal", count(Found::Equal) as u64);
    let partial = count(Found::Partial);
    if partial > 0 {
        // As a rule the rest of a row that was written in parts; a NULL that a user has set here since looks the same.
        target.context.count("rows_replayed_partial", partial as u64);
        let (table, times) = (target.qualified(opened.table), times(Found::Partial));
        tracing::info!(rows = partial, table, ?times, "values read again after a restart are written where this site has NULL");
    }
    let differing = count(Found::Differs);
    if differing > 0 {
        target.context.count("rows_replayed_differing", differing as u64);
        let message = format!(
            "{differing} rows of {} read again after a restart differ here and were not overwritten: repair them",
            target.qualified(opened.table),
        );
        target.context.incident("regress", message, json!({ "table": opened.table, "times": times(Found::Differs) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_written_again_are_counted_once_until_they_are_deleted() {
        let mut rewritten = Rewritten::default();
        for (table, time, second_key) in [("t", 5, ""), ("t", 5, ""), ("t", 7, ""), ("two", 5, "a"), ("two", 5, "b")] {
            rewritten.add(table, time, second_key.as_bytes());
        }
        let rows = |rewritten: &Rewritten| {
            [("t", 5..=7), ("t", 6..=7), ("t", 8..=i64::MAX), ("two", i64::MIN..=5), ("none", 5..=5)].map(|(table, times)| rewritten.rows_in(table, times))
        };
        assert_eq!((rows(&rewritten), rewritten.count), ([2, 1, 0, 2, 0], 4));
        rewritten.forget("t", 0..=5);
        assert_eq!((rows(&rewritten), rewritten.count), ([1, 1, 0, 2, 0], 3));
    }

    #[test]
    fn ranges_hold_all_times_and_leave_out_the_largest_gaps() {
        assert_eq!(ranges_of(vec![]), []);
        assert_eq!(ranges_of(vec![5, 3, 5]), [(3, 3), (5, 5)]);
        let mut times: Vec<i64> = (0..1_000).chain(5_000..6_000).collect();
        times.push(i64::MIN);
        let ranges = ranges_of(times);
        assert_eq!(ranges.len(), RANGES_MAX);
        assert_eq!((ranges[0], ranges.last().unwrap().1), ((i64::MIN, i64::MIN), 5_999));
        assert!(ranges.contains(&(5_000, 5_999)) || ranges.iter().any(|range| range.0 == 5_000));
    }
}
