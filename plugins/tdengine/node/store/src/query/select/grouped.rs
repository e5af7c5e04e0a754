//! SELECT with aggregates, GROUP BY, PARTITION BY or INTERVAL.

use std::collections::HashMap;

use super::{Frame, Plan, scan, sorted_and_limited};
use crate::error::Result;
use crate::query::aggregate::{AggregateKind, State};
use crate::query::bind::Bound;
use crate::query::cell::Cell;
use crate::query::eval::{Group, eval};
use crate::query::relation::Row;

struct Collected {
    values: Vec<Cell>,
    window: Option<(i64, i64)>,
    states: Vec<State>,
}

pub(super) fn run(plan: &Plan) -> Result<Vec<Vec<Cell>>> {
    let mut groups: Vec<Collected> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let states = || plan.aggregates.iter().map(State::new).collect::<Vec<_>>();
    let per_table = plan.window.is_none() && plan.groups.iter().all(|(bound, _)| bound.is_of_table());
    scan(plan, &mut |frame, ranges| {
        if per_table && matches!(frame, Frame::Run { .. }) {
            let values: Vec<Cell> =
                plan.groups.iter().map(|(bound, _)| eval(bound, frame.row(0), Group::default())).collect();
            let place = place_of(&mut places, &mut groups, values, None, &states);
            add_ranges(plan, frame, ranges, &mut groups[place].states);
            return Ok(false);
        }
        for at in ranges.iter().cloned().flatten() {
            let row = frame.row(at);
            let values = plan.groups.iter().map(|(bound, _)| eval(bound, row, Group::default())).collect();
            let window = plan.window.map(|(width, offset)| {
                let start = (time_of(row) - offset).div_euclid(width) * width + offset;
                (start, start + width)
            });
            let place = place_of(&mut places, &mut groups, values, window, &states);
            add_row(plan, row, &mut groups[place].states);
        }
        Ok(false)
    })?;
    if groups.is_empty() && plan.groups.is_empty() && plan.window.is_none() && counts(plan) {
        groups.push(Collected { values: Vec::new(), window: None, states: states() });
    }
    Ok(results(plan, groups))
}

/// COUNT answers 0 for no rows; other aggregates answer no row.
fn counts(plan: &Plan) -> bool {
    plan.aggregates.iter().any(|aggregate| matches!(aggregate.kind, AggregateKind::Count | AggregateKind::Distinct))
}

fn place_of(
    places: &mut HashMap<Vec<u8>, usize>,
    groups: &mut Vec<Collected>,
    values: Vec<Cell>,
    window: Option<(i64, i64)>,
    states: &dyn Fn() -> Vec<State>,
) -> usize {
    let mut key = Vec::new();
    values.iter().for_each(|value| value.key(&mut key));
    if let Some((start, _)) = window {
        key.extend_from_slice(&start.to_le_bytes());
    }
    *places.entry(key).or_insert_with(|| {
        groups.push(Collected { values, window, states: states() });
        groups.len() - 1
    })
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

/// Rows that all belong to one group: counted at once where nothing has to be looked at.
fn add_ranges(plan: &Plan, frame: &Frame<'_>, ranges: &[std::ops::Range<usize>], states: &mut [State]) {
    let rows: usize = ranges.iter().map(std::ops::Range::len).sum();
    for (aggregate, state) in plan.aggregates.iter().zip(states) {
        let all = match &aggregate.argument {
            None => true,
            // The timestamp is never NULL.
            Some(Bound::Column(0)) => aggregate.kind == AggregateKind::Count && !aggregate.distinct,
            Some(_) => false,
        };
        if all {
            state.add_rows(rows as i64);
            continue;
        }
        let Some(argument) = &aggregate.argument else { continue };
        for at in ranges.iter().cloned().flatten() {
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
    let memory_row: &[Cell] = &[];
    let mut rows = Vec::new();
    for group in &groups {
        let aggregates: Vec<Cell> =
            plan.aggregates.iter().zip(&group.states).map(|(aggregate, state)| state.result(aggregate)).collect();
        let context = Group { values: &group.values, aggregates: &aggregates, window: group.window };
        let compute = |bound: &Bound| eval(bound, Row::Memory(memory_row), context);
        if plan.having.as_ref().is_some_and(|having| !compute(having).is_true()) {
            continue;
        }
        let cells = plan.items.iter().map(|(bound, _)| compute(bound)).collect();
        rows.push((cells, plan.order.iter().map(|(bound, _)| compute(bound)).collect()));
    }
    if let Some(slimit) = plan.slimit {
        rows = rows.into_iter().skip(slimit.offset as usize).take(slimit.rows as usize).collect();
    }
    sorted_and_limited(rows, plan)
}
