//! Aggregates over ranges of a stored column, without a cell a row.

use std::cmp::Ordering;
use std::ops::Range;

use tdengine_wire::DataType;
use tdengine_wire::block::ColumnView;

use super::aggregate::State;
use super::cell::Cell;

/// Adds rows of a column to a state. `times` are those of all rows of the column, in order. False where this aggregate or
/// type has no short way and nothing was added.
pub(super) fn fold(state: &mut State, column: &ColumnView<'_>, times: &[[u8; 8]], rows: Range<usize>) -> bool {
    match state {
        State::Count(count) => *count += values(column, rows).count() as i64,
        State::SumInt(sum, any) => {
            let (total, seen) = (sum, any);
            return integers(column, rows, |value| {
                *total = total.wrapping_add(value);
                *seen = true;
            });
        }
        State::SumDouble(sum, any) => {
            let (total, seen) = (sum, any);
            return numbers(column, rows, |value| {
                *total += value;
                *seen = true;
            });
        }
        State::Average { sum, count } => {
            return numbers(column, rows, |value| {
                *sum += value;
                *count += 1;
            });
        }
        State::Spread(range) => {
            return numbers(column, rows, |value| {
                *range = Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
            });
        }
        State::Deviation { sum, squares, count } => {
            return numbers(column, rows, |value| {
                *sum += value;
                *squares += value * value;
                *count += 1;
            });
        }
        State::Extreme(_, wanted) => {
            let Some(found) = extreme(column, rows, *wanted) else { return false };
            state.add(found, 0);
        }
        State::Edge { last, nulls, .. } => {
            let mut candidates = rows;
            let keep_nulls = *nulls;
            let takes = |at: &usize| keep_nulls || !column.is_null(*at);
            let found = if *last { candidates.rfind(takes) } else { candidates.find(takes) };
            if let Some(at) = found {
                let cell = Cell::of(column.value(at), column.column_type());
                state.add(cell, i64::from_le_bytes(times[at]));
            }
        }
        State::Mode(_) | State::Distinct(_) => return false,
    }
    true
}

/// Rows that are not NULL.
fn values(column: &ColumnView<'_>, rows: Range<usize>) -> impl Iterator<Item = usize> {
    rows.filter(|row| !column.is_null(*row))
}

/// Calls `$see` with each value, read as `$type` and turned into `$as`.
macro_rules! each {
    ($column:ident, $rows:ident, $type:ty, $as:ty, $see:ident) => {{
        let (data, _) = $column.data().as_chunks::<{ size_of::<$type>() }>();
        for row in values($column, $rows) {
            $see(<$type>::from_le_bytes(data[row]) as $as);
        }
    }};
}

/// Each whole number; unsigned ones by their bits. False for other types.
fn integers(column: &ColumnView<'_>, rows: Range<usize>, mut see: impl FnMut(i64)) -> bool {
    match column.data_type() {
        DataType::TinyInt => each!(column, rows, i8, i64, see),
        DataType::SmallInt => each!(column, rows, i16, i64, see),
        DataType::Int => each!(column, rows, i32, i64, see),
        DataType::BigInt | DataType::Timestamp => each!(column, rows, i64, i64, see),
        DataType::UTinyInt => each!(column, rows, u8, i64, see),
        DataType::USmallInt => each!(column, rows, u16, i64, see),
        DataType::UInt => each!(column, rows, u32, i64, see),
        DataType::UBigInt => each!(column, rows, u64, i64, see),
        _ => return false,
    }
    true
}

/// Each number as a double. False for other types.
fn numbers(column: &ColumnView<'_>, rows: Range<usize>, mut see: impl FnMut(f64)) -> bool {
    match column.data_type() {
        DataType::Float => each!(column, rows, f32, f64, see),
        DataType::Double => each!(column, rows, f64, f64, see),
        DataType::UBigInt => each!(column, rows, u64, f64, see),
        _ => return integers(column, rows, |value| see(value as f64)),
    }
    true
}

/// The least or greatest number, NULL where there is none; `None` for types that have no short way.
fn extreme(column: &ColumnView<'_>, rows: Range<usize>, wanted: Ordering) -> Option<Cell> {
    match column.data_type() {
        DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => {
            let mut best: Option<i64> = None;
            integers(column, rows, |value| {
                if best.is_none_or(|best| value.cmp(&best) == wanted) {
                    best = Some(value);
                }
            });
            Some(best.map_or(Cell::Null, Cell::Int))
        }
        DataType::Double => {
            let mut best: Option<f64> = None;
            numbers(column, rows, |value| {
                if best.is_none_or(|best| value.partial_cmp(&best) == Some(wanted)) {
                    best = Some(value);
                }
            });
            Some(best.map_or(Cell::Null, Cell::Double))
        }
        _ => None,
    }
}
