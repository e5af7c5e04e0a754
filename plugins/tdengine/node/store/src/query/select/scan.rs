//! Going over the rows that the conditions let pass.

use std::ops::Range;
use std::slice;

use tdengine_sql::ast::Binary;
use tdengine_wire::block::ColumnView;

use super::Plan;
use crate::error::Result;
use crate::query::bind::Bound;
use crate::query::cell::Cell;
use crate::query::eval::{Group, eval};
use crate::query::relation::{Relation, Row, Stored, StoredTable};

/// Rows that share their columns.
pub(super) enum Frame<'a> {
    Memory(&'a [Cell]),
    Run { stored: &'a Stored, table: &'a StoredTable, columns: &'a [Option<ColumnView<'a>>] },
}

impl<'a> Frame<'a> {
    pub fn row(&'a self, at: usize) -> Row<'a> {
        match self {
            Self::Memory(cells) => Row::Memory(cells),
            Self::Run { stored, table, columns } => Row::Stored { stored, table, columns, at },
        }
    }
}

/// Gets a frame and the rows of it that pass, at least one; `true` ends the scan.
pub(super) type See<'a> = dyn FnMut(&Frame<'_>, &[Range<usize>]) -> Result<bool> + 'a;

/// Goes over the rows that the conditions let pass, run by run.
pub(super) fn scan(plan: &Plan, see: &mut See<'_>) -> Result<()> {
    let memory = match &plan.relation {
        Relation::Memory(memory) => memory,
        Relation::Stored(stored) => return scan_stored(plan, stored, see),
    };
    for cells in &memory.rows {
        let row = Row::Memory(cells);
        let passes = plan.condition.iter().all(|part| eval(part, row, Group::default()).is_true());
        if passes && see(&Frame::Memory(cells), slice::from_ref(&(0..1)))? {
            break;
        }
    }
    Ok(())
}

/// The tables that the conditions on tags and names let pass.
pub(super) fn tables<'a>(plan: &'a Plan, stored: &'a Stored) -> impl Iterator<Item = &'a StoredTable> {
    let of_table: Vec<&Bound> = plan.condition.iter().filter(|part| part.is_of_table()).collect();
    stored.tables.iter().filter(move |table| {
        let row = Row::Table { stored, table };
        of_table.iter().all(|part| eval(part, row, Group::default()).is_true())
    })
}

fn scan_stored(plan: &Plan, stored: &Stored, see: &mut See<'_>) -> Result<()> {
    let (from, to) = time_range(&plan.condition);
    // What the range of time says already needs no look at the rows.
    let of_row: Vec<&Bound> =
        plan.condition.iter().filter(|part| !part.is_of_table() && range_of(part).is_none()).collect();
    let descending = matches!(plan.order.first(), Some((Bound::Column(0), true)));
    for table in tables(plan, stored) {
        let runs = table.table.rows.scan(&stored.columns)?;
        let mut runs: Vec<_> = runs.iter().filter(|run| run.range().1 >= from && run.range().0 <= to).collect();
        if descending {
            runs.reverse();
        }
        for run in runs {
            let view = run.view()?;
            let columns: Vec<_> = stored.columns.fields.iter().map(|field| run.column(&view, field.id)).collect();
            let frame = Frame::Run { stored, table, columns: &columns };
            let ranges = passing(&of_row, &frame, within(&columns, run.rows(), from, to));
            if !ranges.is_empty() && see(&frame, &ranges)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The time of a row of a run, and of all of them: the first column, which is never NULL.
pub(super) fn times<'a>(columns: &[Option<ColumnView<'a>>]) -> &'a [[u8; 8]] {
    columns.first().copied().flatten().map_or(&[], |column| column.data().as_chunks::<8>().0)
}

/// The rows of a sorted run within a range of time.
fn within(columns: &[Option<ColumnView<'_>>], rows: usize, from: i64, to: i64) -> Range<usize> {
    let times = times(columns);
    if times.len() != rows {
        return 0..rows;
    }
    let start = times.partition_point(|time| i64::from_le_bytes(*time) < from);
    let end = times.partition_point(|time| i64::from_le_bytes(*time) <= to);
    start..end.max(start)
}

/// First and last timestamp that the conditions allow.
pub(super) fn time_range(condition: &[Bound]) -> (i64, i64) {
    let ranges = condition.iter().filter_map(range_of);
    ranges.fold((i64::MIN, i64::MAX), |(from, to), (low, high)| (from.max(low), to.min(high)))
}

/// The range of time that a condition says, where it says nothing else.
fn range_of(part: &Bound) -> Option<(i64, i64)> {
    let Bound::Binary(operator, left, right) = part else { return None };
    let (Bound::Column(0), Bound::Constant(Cell::Time(time) | Cell::Int(time))) = (&**left, &**right) else { return None };
    match operator {
        Binary::Equal => Some((*time, *time)),
        // Nothing is before the first or behind the last time there is.
        Binary::Less => Some((i64::MIN, time.checked_sub(1)?)),
        Binary::LessEqual => Some((i64::MIN, *time)),
        Binary::Greater => Some((time.checked_add(1)?, i64::MAX)),
        Binary::GreaterEqual => Some((*time, i64::MAX)),
        _ => None,
    }
}

/// Those of a frame's `rows` that pass, as ranges.
pub(super) fn passing(condition: &[&Bound], frame: &Frame<'_>, rows: Range<usize>) -> Vec<Range<usize>> {
    if rows.is_empty() {
        return Vec::new();
    }
    if condition.is_empty() {
        return vec![rows];
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for at in rows {
        if condition.iter().all(|part| eval(part, frame.row(at), Group::default()).is_true()) {
            match ranges.last_mut() {
                Some(range) if range.end == at => range.end += 1,
                _ => ranges.push(at..at + 1),
            }
        }
    }
    ranges
}
