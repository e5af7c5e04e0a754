//! SELECT with aggregates, GROUP BY, PARTITION BY or INTERVAL.
//!
//! Where a group holds whole tables, rows go to it range by range ([`fold`]): a run is sorted by time, so each window is
//! one range of it. Only groups by columns look at every row.

use std::collections::HashMap;
use std::ops::Range;

use super::scan::{Frame, scan, tables, times};
use super::window::{Fill, Span, Window};
use super::{Plan, sorted_and_limited};
use crate::error::Result;
use crate::query::aggregate::{AggregateKind, State};
use crate::query::bind::Bound;
use crate::query::cell::Cell;
use crate::query::eval::{Group, eval};
use crate::query::fold::fold;
use crate::query::relation::{Relation, Row};

struct Collected {
    values: Vec<Cell>,
    window: Option<Span>,
    states: Vec<State>,
}

/// The groups so far, in the order of their first rows.
struct Groups<'a> {
    plan: &'a Plan,
    list: Vec<Collected>,
    places: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
}

impl Groups<'_> {
    /// The states of a group, new where nobody came to it before.
    fn states(&mut self, values: &[Cell], window: Option<Span>) -> &mut [State] {
        self.key.clear();
        values.iter().for_each(|value| value.key(&mut self.key));
        if let Some((start, _)) = window {
            self.key.extend_from_slice(&start.to_le_bytes());
        }
        let place = match self.places.get(&self.key) {
            Some(place) => *place,
            None => {
                let states = self.plan.aggregates.iter().map(State::new).collect();
                self.list.push(Collected { values: values.to_vec(), window, states });
                self.places.insert(self.key.clone(), self.list.len() - 1);
                self.list.len() - 1
            }
        };
        &mut self.list[place].states
    }
}

pub(super) fn run(plan: &Plan) -> Result<Vec<Vec<Cell>>> {
    let mut groups = Groups { plan, list: Vec::new(), places: HashMap::new(), key: Vec::new() };
    let per_table = plan.groups.iter().all(|(bound, _)| bound.is_of_table());
    let values = |row: Row<'_>| -> Vec<Cell> {
        plan.groups.iter().map(|(bound, _)| eval(bound, row, Group::default())).collect()
    };
    if counts(plan) && per_table && plan.window.is_none() {
        if plan.groups.is_empty() {
            groups.states(&[], None);
        } else if let Relation::Stored(stored) = &plan.relation {
            // A table without rows is a group too.
            tables(plan, stored).for_each(|table| {
                groups.states(&values(Row::Table { stored, table }), None);
            });
        }
    }
    scan(plan, &mut |frame, ranges| {
        if let (true, Frame::Run { columns, .. }) = (per_table, frame) {
            let values = values(frame.row(ranges[0].start));
            for range in ranges {
                let Some(window) = plan.window else {
                    add_range(plan, frame, range.clone(), groups.states(&values, None));
                    continue;
                };
                for (span, part) in window.parts(times(columns), range.clone()) {
                    add_range(plan, frame, part, groups.states(&values, Some(span)));
                }
            }
            return Ok(false);
        }
        for at in ranges.iter().cloned().flatten() {
            let row = frame.row(at);
            let Some(window) = plan.window else {
                add_row(plan, row, groups.states(&values(row), None));
                continue;
            };
            for span in window.spans(time_of(row)) {
                add_row(plan, row, groups.states(&values(row), Some(span)));
            }
        }
        Ok(false)
    })?;
    Ok(results(plan, groups.list))
}

/// COUNT answers 0 for no rows; other aggregates answer no row.
fn counts(plan: &Plan) -> bool {
    plan.aggregates.iter().any(|aggregate| matches!(aggregate.kind, AggregateKind::Count | AggregateKind::Distinct))
}

fn time_of(row: Row<'_>) -> i64 {
    match row.column(0) {
        Cell::Time(time) => time,
        other => other.as_i64().unwrap_or(0),
    }
}

fn add_row(plan: &Plan, row: Row<'_>, states: &mut [State]) {
    for (aggregate, state) in plan.aggregates.iter().zip(states) {
        match &aggregate.argument {
            None => state.add_rows(1),
            Some(argument) => state.add(eval(argument, row, Group::default()), time_of(row)),
        }
    }
}

/// Rows that all belong to one group: by whole columns where an aggregate takes one, else row by row.
fn add_range(plan: &Plan, frame: &Frame<'_>, range: Range<usize>, states: &mut [State]) {
    for (aggregate, state) in plan.aggregates.iter().zip(states) {
        let Some(argument) = &aggregate.argument else {
            state.add_rows(range.len() as i64);
            continue;
        };
        if let (Bound::Column(index), Frame::Run { columns, .. }) = (argument, frame) {
            // A column that no row here ever assigned holds NULLs, which only `last_row` sees.
            let Some(column) = &columns[*index] else {
                if aggregate.kind == AggregateKind::LastRow {
                    state.add(Cell::Null, time_of(frame.row(range.end - 1)));
                }
                continue;
            };
            if fold(state, column, times(columns), range.clone()) {
                continue;
            }
        }
        for at in range.clone() {
            let row = frame.row(at);
            state.add(eval(argument, row, Group::default()), time_of(row));
        }
    }
}

fn results(plan: &Plan, mut groups: Vec<Collected>) -> Vec<Vec<Cell>> {
    if plan.window.is_some() {
        groups.sort_by_key(|group| group.window);
        // Within a partition windows come in the order of time, partitions one after another.
        if !plan.groups.is_empty() {
            let order = |group: &Collected| {
                let mut key = Vec::new();
                group.values.iter().for_each(|value| value.key(&mut key));
                key
            };
            groups.sort_by_cached_key(order);
        }
    }
    let compute = |group: &Collected| -> Option<(Vec<Cell>, Vec<Cell>)> {
        let aggregates: Vec<Cell> =
            plan.aggregates.iter().zip(&group.states).map(|(aggregate, state)| state.result(aggregate)).collect();
        let context = Group { values: &group.values, aggregates: &aggregates, window: group.window };
        let of_group = |bound: &Bound| eval(bound, Row::Memory(&[]), context);
        if plan.having.as_ref().is_some_and(|having| !of_group(having).is_true()) {
            return None;
        }
        let keys = plan.order.iter().map(|(bound, _)| of_group(bound)).collect();
        Some((plan.items.iter().map(|(bound, _)| of_group(bound)).collect(), keys))
    };
    let mut rows: Vec<_> = match plan.fill.as_ref().zip(plan.window) {
        None => groups.iter().filter_map(compute).collect(),
        Some((fill, window)) => filled(plan, (fill, window), &groups, compute),
    };
    if let Some(slimit) = plan.slimit {
        rows = rows.into_iter().skip(slimit.offset as usize).take(slimit.rows as usize).collect();
    }
    sorted_and_limited(rows, plan)
}

/// Partition by partition, with a row for each window of the range.
fn filled(
    plan: &Plan,
    (fill, window): (&Fill, Window),
    groups: &[Collected],
    compute: impl Fn(&Collected) -> Option<(Vec<Cell>, Vec<Cell>)>,
) -> Vec<(Vec<Cell>, Vec<Cell>)> {
    let no_values: &[Cell] = &[];
    let mut partitions: Vec<(&[Cell], Vec<_>)> = Vec::new();
    if groups.is_empty() && fill.is_forced && plan.groups.is_empty() {
        partitions.push((no_values, Vec::new()));
    }
    for group in groups {
        if partitions.last().is_none_or(|(values, _)| *values != group.values.as_slice()) {
            partitions.push((&group.values, Vec::new()));
        }
        let rows = &mut partitions.last_mut().expect("one was just pushed").1;
        rows.extend(group.window.zip(compute(group)));
    }
    let nothing = vec![Cell::Null; plan.aggregates.len()];
    let mut all = Vec::new();
    for (values, rows) in partitions {
        let empty = |span: Span| {
            let context = Group { values, aggregates: &nothing, window: Some(span) };
            let of_window = |bound: &Bound| eval(bound, Row::Memory(&[]), context);
            let keys = plan.order.iter().map(|(bound, _)| of_window(bound)).collect();
            (plan.items.iter().map(|(bound, _)| of_window(bound)).collect(), keys)
        };
        all.extend(fill.fill(window, &plan.items, rows, empty));
    }
    all
}
