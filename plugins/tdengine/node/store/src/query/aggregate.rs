//! Aggregates and their running states.

use std::collections::{BTreeMap, HashSet};

use tdengine_wire::{ColumnType, DataType};

use super::bind::{BIGINT, Bound, DOUBLE};
use super::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AggregateKind {
    Count,
    Sum,
    Average,
    Min,
    Max,
    First,
    Last,
    LastRow,
    Spread,
    Deviation,
    Mode,
    Distinct,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aggregate {
    pub kind: AggregateKind,
    /// `None`: `count(*)`.
    pub argument: Option<Bound>,
    pub argument_type: ColumnType,
}

impl AggregateKind {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "avg" => Self::Average,
            "min" => Self::Min,
            "max" => Self::Max,
            "first" => Self::First,
            "last" => Self::Last,
            "last_row" => Self::LastRow,
            "spread" => Self::Spread,
            "stddev" | "stddev_pop" => Self::Deviation,
            "mode" => Self::Mode,
            "hyperloglog" => Self::Distinct,
            _ => return None,
        })
    }

    /// The type of the result; `None` where the argument's type is not taken (FACTS F55).
    pub fn result(self, argument: ColumnType) -> Option<ColumnType> {
        let number = match argument.data_type {
            DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => Some(BIGINT),
            DataType::UTinyInt | DataType::USmallInt | DataType::UInt | DataType::UBigInt => {
                Some(ColumnType::of(DataType::UBigInt))
            }
            DataType::Float | DataType::Double | DataType::Decimal | DataType::Decimal64 => Some(DOUBLE),
            _ => None,
        };
        match self {
            Self::Count | Self::Distinct => Some(BIGINT),
            Self::Sum => number,
            Self::Average | Self::Deviation => number.map(|_| DOUBLE),
            Self::Spread if argument.data_type == DataType::Timestamp => Some(DOUBLE),
            Self::Spread => number.map(|_| DOUBLE),
            Self::Min | Self::Max => number.map(|_| argument),
            Self::First | Self::Last | Self::LastRow | Self::Mode => Some(argument),
        }
    }
}

/// The state of one aggregate for one group.
#[derive(Clone, Debug)]
pub(super) enum State {
    Count(i64),
    SumInt(i64, bool),
    SumDouble(f64, bool),
    Average { sum: f64, count: i64 },
    Extreme(Cell, std::cmp::Ordering),
    /// Time and value.
    Edge { at: Option<i64>, value: Cell, last: bool, nulls: bool },
    Spread(Option<(f64, f64)>),
    Deviation { sum: f64, squares: f64, count: i64 },
    Mode(BTreeMap<Vec<u8>, (u64, Cell)>),
    Distinct(HashSet<Vec<u8>>),
}

impl State {
    pub fn new(aggregate: &Aggregate) -> Self {
        let unsigned_or_signed = matches!(
            AggregateKind::Sum.result(aggregate.argument_type).map(|result| result.data_type),
            Some(DataType::BigInt | DataType::UBigInt)
        );
        match aggregate.kind {
            AggregateKind::Count => Self::Count(0),
            AggregateKind::Sum if unsigned_or_signed => Self::SumInt(0, false),
            AggregateKind::Sum => Self::SumDouble(0.0, false),
            AggregateKind::Average => Self::Average { sum: 0.0, count: 0 },
            AggregateKind::Min => Self::Extreme(Cell::Null, std::cmp::Ordering::Less),
            AggregateKind::Max => Self::Extreme(Cell::Null, std::cmp::Ordering::Greater),
            AggregateKind::First => Self::Edge { at: None, value: Cell::Null, last: false, nulls: false },
            AggregateKind::Last => Self::Edge { at: None, value: Cell::Null, last: true, nulls: false },
            AggregateKind::LastRow => Self::Edge { at: None, value: Cell::Null, last: true, nulls: true },
            AggregateKind::Spread => Self::Spread(None),
            AggregateKind::Deviation => Self::Deviation { sum: 0.0, squares: 0.0, count: 0 },
            AggregateKind::Mode => Self::Mode(BTreeMap::new()),
            AggregateKind::Distinct => Self::Distinct(HashSet::new()),
        }
    }

    /// Rows counted at once, without looking at them.
    pub fn add_rows(&mut self, rows: i64) {
        if let Self::Count(count) = self {
            *count += rows;
        }
    }

    pub fn add(&mut self, cell: Cell, time: i64) {
        if let Self::Edge { at, value, last, nulls } = self {
            let nearer = at.is_none_or(|at| if *last { time >= at } else { time < at });
            if nearer && (*nulls || !cell.is_null()) {
                (*at, *value) = (Some(time), cell);
            }
            return;
        }
        if cell.is_null() {
            return;
        }
        match self {
            Self::Count(count) => *count += 1,
            // Wraps silently, for unsigned values too (FACTS F57).
            Self::SumInt(sum, any) => {
                *sum = sum.wrapping_add(cell.as_i64().unwrap_or(0));
                *any = true;
            }
            Self::SumDouble(sum, any) => {
                *sum += cell.as_f64().unwrap_or(0.0);
                *any = true;
            }
            Self::Average { sum, count } => {
                *sum += cell.as_f64().unwrap_or(0.0);
                *count += 1;
            }
            Self::Extreme(best, wanted) => {
                if best.is_null() || cell.compare(best) == Some(*wanted) {
                    *best = cell;
                }
            }
            Self::Spread(range) => {
                let value = cell.as_f64().unwrap_or(0.0);
                *range = Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
            }
            Self::Deviation { sum, squares, count } => {
                let value = cell.as_f64().unwrap_or(0.0);
                *sum += value;
                *squares += value * value;
                *count += 1;
            }
            Self::Mode(counts) => {
                let mut key = Vec::new();
                cell.key(&mut key);
                counts.entry(key).or_insert_with(|| (0, cell)).0 += 1;
            }
            Self::Distinct(seen) => {
                let mut key = Vec::new();
                cell.key(&mut key);
                seen.insert(key);
            }
            Self::Edge { .. } => {}
        }
    }

    pub fn result(&self, aggregate: &Aggregate) -> Cell {
        let unsigned = aggregate.kind.result(aggregate.argument_type).is_some_and(|t| t.data_type == DataType::UBigInt);
        match self {
            Self::Count(count) => Cell::Int(*count),
            Self::SumInt(_, false) | Self::SumDouble(_, false) => Cell::Null,
            Self::SumInt(sum, true) if unsigned => Cell::UInt(*sum as u64),
            Self::SumInt(sum, true) => Cell::Int(*sum),
            Self::SumDouble(sum, true) => Cell::Double(*sum),
            Self::Average { count: 0, .. } | Self::Deviation { count: 0, .. } => Cell::Null,
            Self::Average { sum, count } => Cell::Double(sum / *count as f64),
            Self::Extreme(best, _) => best.clone(),
            Self::Edge { value, .. } => value.clone(),
            Self::Spread(range) => range.map_or(Cell::Null, |(low, high)| Cell::Double(high - low)),
            Self::Deviation { sum, squares, count } => {
                let mean = sum / *count as f64;
                Cell::Double((squares / *count as f64 - mean * mean).max(0.0).sqrt())
            }
            Self::Mode(counts) => {
                counts.values().max_by_key(|(count, _)| *count).map_or(Cell::Null, |(_, cell)| cell.clone())
            }
            Self::Distinct(seen) => Cell::Int(seen.len() as i64),
        }
    }
}
