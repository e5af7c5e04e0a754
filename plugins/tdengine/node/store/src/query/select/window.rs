//! Windows of time: INTERVAL, SLIDING, and FILL of those without rows.

use std::ops::Range;

use tdengine_sql::ast::{FillMode, Interval};
use tdengine_wire::{ColumnType, Precision};

use crate::error::{Result, ServerError, code};
use crate::literal::time::duration;
use crate::query::bind::{Binder, Bound};
use crate::query::cell::Cell;
use crate::query::eval::{Group, cast, eval};
use crate::query::relation::Row;
use crate::result::ResultField;

/// Windows that a FILL may answer.
const WINDOWS_MAX: i64 = 10_000_000;

/// How long windows are and where they begin, in ticks.
#[derive(Clone, Copy)]
pub(super) struct Window {
    width: i64,
    offset: i64,
    sliding: i64,
}

/// Start of a window and the tick behind its end.
pub(super) type Span = (i64, i64);

impl Window {
    pub fn of(interval: &Interval<'_>, precision: Precision) -> Result<Self> {
        let ticks = |text: &str| {
            duration(text, precision).ok_or_else(|| ServerError::new(code::SYNTAX, format!("syntax error near \"{text}\"")))
        };
        let width = ticks(interval.width)?;
        if width < 1 {
            return Err(ServerError::new(0x2615, "Interval cannot be less than 1 ms"));
        }
        let sliding = interval.sliding.map_or(Ok(width), ticks)?;
        if sliding > width {
            return Err(ServerError::new(0x2631, "sliding value no larger than the interval value"));
        }
        if sliding < 1 || sliding < width / 100 {
            return Err(ServerError::new(0x2632, "sliding value can not less than 1% of interval value"));
        }
        Ok(Self { width, offset: interval.offset.map_or(Ok(0), ticks)?, sliding })
    }

    fn span(self, start: i64) -> Span {
        (start, start.saturating_add(self.width))
    }

    /// Start of the last window that holds a time.
    fn last(self, time: i64) -> i64 {
        let steps = time.wrapping_sub(self.offset).div_euclid(self.sliding);
        steps.wrapping_mul(self.sliding).wrapping_add(self.offset)
    }

    /// Start of the first window that holds a time.
    fn first(self, time: i64) -> i64 {
        let later = (self.width - 1) / self.sliding;
        let start = self.last(time).saturating_sub(later.saturating_mul(self.sliding));
        if start.saturating_add(self.width) > time { start } else { start.saturating_add(self.sliding) }
    }

    /// The windows that hold a time.
    pub fn spans(self, time: i64) -> impl Iterator<Item = Span> {
        let (first, last) = (self.first(time), self.last(time));
        std::iter::successors(Some(first), move |start| start.checked_add(self.sliding))
            .take_while(move |start| *start <= last)
            .map(move |start| self.span(start))
    }

    /// A range of rows that are sorted by time, cut into windows.
    pub fn parts(self, times: &[[u8; 8]], range: Range<usize>) -> Vec<(Span, Range<usize>)> {
        let mut parts = Vec::new();
        if range.is_empty() {
            return parts;
        }
        let time = |at: usize| i64::from_le_bytes(times[at]);
        let (mut from, mut start) = (range.start, self.first(time(range.start)));
        loop {
            let place = |limit: i64, from: usize| {
                from + times[from..range.end].partition_point(|time| i64::from_le_bytes(*time) < limit)
            };
            from = place(start, from);
            if from >= range.end {
                return parts;
            }
            let span = self.span(start);
            let end = place(span.1, from);
            if end > from {
                parts.push((span, from..end));
            }
            let next = start.checked_add(self.sliding);
            // Over windows without rows at once.
            let jump = if end == from { Some(self.first(time(from))) } else { None };
            match next.map(|next| jump.map_or(next, |jump| jump.max(next))) {
                Some(next) => start = next,
                None => return parts,
            }
        }
    }
}

/// What stands in windows without rows.
pub(super) struct Fill {
    mode: Mode,
    pub is_forced: bool,
    /// First and last time that the conditions allow.
    range: (i64, i64),
}

enum Mode {
    Null,
    /// By item; `None` for those that are not computed from rows.
    Value(Vec<Option<Cell>>),
    Previous,
    Next,
    Linear,
}

/// A row of a result with its sort keys.
type Sortable = (Vec<Cell>, Vec<Cell>);

impl Fill {
    pub fn of(
        fill: &tdengine_sql::ast::Fill<'_>,
        binder: &mut Binder<'_>,
        items: &[(Bound, ResultField)],
        (range, window): ((i64, i64), Window),
    ) -> Result<Self> {
        let count = range.1.checked_sub(range.0).map(|span| span / window.sliding);
        if range.0 == i64::MIN || range.1 == i64::MAX || count.is_none_or(|count| count >= WINDOWS_MAX) {
            let text = "Start(end) time of query range required or time range too large";
            return Err(ServerError::new(0x263b, text));
        }
        let mode = match &fill.mode {
            FillMode::Null => Mode::Null,
            FillMode::Previous => Mode::Previous,
            FillMode::Next => Mode::Next,
            FillMode::Linear => Mode::Linear,
            FillMode::Value(exprs) => {
                let computed: Vec<ColumnType> =
                    items.iter().filter(|(bound, _)| is_computed(bound)).map(|(_, field)| field.column_type).collect();
                if computed.len() != exprs.len() {
                    return Err(ServerError::new(0x2605, "Filled values number mismatch"));
                }
                let mut values = Vec::new();
                for (expr, column_type) in exprs.iter().zip(computed) {
                    let (bound, _) = binder.bind(expr)?;
                    values.push(cast(eval(&bound, Row::Memory(&[]), Group::default()), column_type));
                }
                let mut values = values.into_iter();
                Mode::Value(items.iter().map(|(bound, _)| if is_computed(bound) { values.next() } else { None }).collect())
            }
        };
        Ok(Self { mode, is_forced: fill.is_forced, range })
    }

    /// The windows of one partition, in order, with a row for each that had none. `empty` makes the row of such a window, its
    /// computed items NULL.
    pub fn fill(
        &self,
        window: Window,
        items: &[(Bound, ResultField)],
        rows: Vec<(Span, Sortable)>,
        empty: impl Fn(Span) -> Sortable,
    ) -> Vec<Sortable> {
        let mut there = rows.into_iter().peekable();
        let mut filled: Vec<(Span, Sortable, bool)> = Vec::new();
        let last = window.last(self.range.1);
        let mut start = window.first(self.range.0);
        while start <= last {
            let span = window.span(start);
            match there.next_if(|(of, _)| *of == span) {
                Some((_, row)) => filled.push((span, row, true)),
                None => filled.push((span, empty(span), false)),
            }
            let Some(next) = start.checked_add(window.sliding) else { break };
            start = next;
        }
        for (index, (bound, field)) in items.iter().enumerate() {
            if is_computed(bound) {
                self.fill_item(index, field.column_type, &mut filled);
            }
        }
        filled.into_iter().map(|(_, row, _)| row).collect()
    }

    fn fill_item(&self, index: usize, column_type: ColumnType, rows: &mut [(Span, Sortable, bool)]) {
        let (before, after) = neighbours(rows);
        // A row that was there: the start of its window, and its cell.
        let cell_of = |rows: &[(Span, Sortable, bool)], at: usize| (rows[at].0.0, rows[at].1.0[index].clone());
        for at in 0..rows.len() {
            if rows[at].2 {
                continue;
            }
            let (before, after) = (before[at].map(|at| cell_of(rows, at)), after[at].map(|at| cell_of(rows, at)));
            let cell = match &self.mode {
                Mode::Null => None,
                Mode::Value(values) => values[index].clone(),
                Mode::Previous => before.map(|(_, cell)| cell),
                Mode::Next => after.map(|(_, cell)| cell),
                Mode::Linear => before.zip(after).and_then(|(before, after)| between(before, after, rows[at].0.0)),
            };
            rows[at].1.0[index] = cell.map_or(Cell::Null, |cell| cast(cell, column_type));
        }
    }
}

/// For each row, the nearest before it and behind it that was there.
fn neighbours(rows: &[(Span, Sortable, bool)]) -> (Vec<Option<usize>>, Vec<Option<usize>>) {
    let nearest = |seen: &mut Option<usize>, at: usize| {
        *seen = if rows[at].2 { Some(at) } else { *seen };
        Some(*seen)
    };
    let before = (0..rows.len()).scan(None, nearest).collect();
    let mut after: Vec<_> = (0..rows.len()).rev().scan(None, nearest).collect();
    after.reverse();
    (before, after)
}

/// On the line between two values, `None` where one is no number.
fn between(before: (i64, Cell), after: (i64, Cell), time: i64) -> Option<Cell> {
    let (low, high) = (before.1.as_f64()?, after.1.as_f64()?);
    let share = (time - before.0) as f64 / (after.0 - before.0) as f64;
    Some(Cell::Double(low + (high - low) * share))
}

/// Whether an item is computed from the rows of a window.
fn is_computed(bound: &Bound) -> bool {
    let mut found = false;
    bound.visit(&mut |part| found |= matches!(part, Bound::Aggregate(_)));
    found
}
