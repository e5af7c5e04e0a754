//! SELECT without aggregates. Without ORDER BY and DISTINCT rows go straight into blocks, plain columns by copying.

use std::ops::Range;

use tdengine_wire::Precision;
use tdengine_wire::block::BlockBuilder;

use super::scan::{Frame, scan, tables};
use super::{Plan, copies, is_column, sorted_and_limited};
use crate::error::Result;
use crate::query::bind::Bound;
use crate::query::cell::Cell;
use crate::query::eval::{Group, eval};
use crate::query::output::{Blocks, of_cells};
use crate::query::relation::{Relation, Row};
use crate::result::{ResultField, ResultSet};

/// A row with its sort keys.
type Sortable = (Vec<Cell>, Vec<Cell>);

pub(super) fn run(plan: &Plan, fields: Vec<ResultField>, precision: Precision) -> Result<ResultSet> {
    if let Some(rows) = tables_alone(plan)? {
        return of_cells(fields, precision, sorted_and_limited(rows, plan));
    }
    // Rows of one table come in the order of time by themselves.
    let one_table = matches!(&plan.relation, Relation::Stored(stored) if stored.tables.len() <= 1);
    let in_order = plan.order.is_empty() || (one_table && plan.order[..] == [(Bound::Column(0), false)]);
    if in_order && !plan.distinct {
        return stream(plan, fields, precision);
    }
    let mut rows = Vec::new();
    scan(plan, &mut |frame, ranges| {
        for at in ranges.iter().cloned().flatten() {
            let compute = |bound: &Bound| eval(bound, frame.row(at), Group::default());
            let cells = plan.items.iter().map(|(bound, _)| compute(bound)).collect();
            rows.push((cells, plan.order.iter().map(|(bound, _)| compute(bound)).collect()));
        }
        Ok(false)
    })?;
    of_cells(fields, precision, sorted_and_limited(rows, plan))
}

/// DISTINCT over tags and names alone reads tables, not rows, and so does SELECT TAGS. A table without rows counts for that, and
/// where names are asked for.
fn tables_alone(plan: &Plan) -> Result<Option<Vec<Sortable>>> {
    let Relation::Stored(stored) = &plan.relation else { return Ok(None) };
    let items = plan.items.iter().map(|(bound, _)| bound);
    let mut all = items.clone().chain(&plan.condition).chain(plan.order.iter().map(|(bound, _)| bound));
    let wanted = plan.tags || (plan.distinct && stored.is_super);
    if !wanted || !all.all(Bound::is_of_table) {
        return Ok(None);
    }
    let named = plan.tags || items.clone().any(|bound| *bound == Bound::TableName);
    let mut rows = Vec::new();
    for table in tables(plan, stored) {
        if named || !table.table.rows.scan(&stored.columns)?.is_empty() {
            let compute = |bound: &Bound| eval(bound, Row::Table { stored, table }, Group::default());
            rows.push((items.clone().map(compute).collect(), plan.order.iter().map(|(bound, _)| compute(bound)).collect()));
        }
    }
    Ok(Some(rows))
}

fn stream(plan: &Plan, fields: Vec<ResultField>, precision: Precision) -> Result<ResultSet> {
    let types: Vec<_> = fields.iter().map(|field| field.column_type).collect();
    let mut blocks = Blocks::new(&types);
    let limit = plan.limit.unwrap_or(tdengine_sql::ast::Limit { rows: u64::MAX, offset: 0 });
    let (mut skip, mut take) = (limit.offset as usize, usize::try_from(limit.rows).unwrap_or(usize::MAX));
    let mut partition = std::ptr::null();
    scan(plan, &mut |frame, ranges| {
        if let (true, Frame::Run { table, .. }) = (plan.partitioned, frame)
            && !std::ptr::eq(partition, *table)
        {
            partition = *table;
            (skip, take) = (limit.offset as usize, usize::try_from(limit.rows).unwrap_or(usize::MAX));
        }
        for range in ranges {
            let skipped = skip.min(range.len());
            skip -= skipped;
            let mut range = range.start + skipped..range.end.min((range.start + skipped).saturating_add(take));
            take -= range.len();
            while !range.is_empty() {
                let end = range.end.min(range.start + blocks.room());
                append(plan, frame, std::slice::from_ref(&(range.start..end)), &mut blocks.builder)?;
                blocks.row_added()?;
                range.start = end;
            }
        }
        Ok(take == 0 && !plan.partitioned)
    })?;
    Ok(ResultSet::new(fields, precision, blocks.finish()?.into_iter().map(Ok)))
}

/// Appends rows of a frame to a block.
pub(super) fn append(plan: &Plan, frame: &Frame<'_>, ranges: &[Range<usize>], builder: &mut BlockBuilder) -> Result<()> {
    for (index, (bound, field)) in plan.items.iter().enumerate() {
        let column = builder.column(index);
        if let (Some(source), Frame::Run { stored, columns, .. }) = (is_column(bound), frame)
            && copies(stored.columns.fields[source].column_type, field)
        {
            for range in ranges {
                match &columns[source] {
                    Some(view) => column.extend_from(view, range.clone())?,
                    None => range.clone().for_each(|_| column.push_null()),
                }
            }
            continue;
        }
        for at in ranges.iter().cloned().flatten() {
            eval(bound, frame.row(at), Group::default()).push(column)?;
        }
    }
    Ok(())
}
