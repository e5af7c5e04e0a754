//! UNION: rows of several queries as columns of the first.

use std::collections::HashSet;

use tdengine_sql::ast::{Expr, Item, Select};

use super::{materialized, planned, run, run_plan};
use crate::error::{Result, ServerError};
use crate::query::cell::Cell;
use crate::query::eval::cast;
use crate::query::relation::{Memory, Relation};
use crate::result::ResultSet;
use crate::session::Session;
use crate::store::Store;

/// Joins what the queries answer, types turned into those of the first; then orders and cuts the whole.
pub(super) fn run_union(store: &Store, session: &Session, query: &Select<'_>) -> Result<ResultSet> {
    let first = Select { union: Vec::new(), order_by: Vec::new(), limit: None, slimit: None, ..query.clone() };
    let mut whole = materialized(run(store, session, &first)?)?;
    for part in &query.union {
        let more = materialized(run(store, session, &part.select)?)?;
        join(&mut whole, more)?;
        if !part.all {
            keep_one_of_each(&mut whole.rows);
        }
    }
    let star = Item { expr: Expr::Star, alias: None, text: "*" };
    let outer = Select {
        items: vec![star],
        order_by: query.order_by.clone(),
        limit: query.limit,
        slimit: query.slimit,
        ..Select::default()
    };
    run_plan(&planned(store, session, &outer, Relation::Memory(whole))?)
}

fn join(whole: &mut Memory, more: Memory) -> Result<()> {
    if more.fields.len() != whole.fields.len() {
        return Err(ServerError::new(0x2634, "Query block has incorrect number of result columns"));
    }
    let types: Vec<_> = whole.fields.iter().map(|field| field.column_type).collect();
    let into = |(cell, (to, from)): (Cell, (_, _))| if to == from { cell } else { cast(cell, to) };
    let from: Vec<_> = more.fields.iter().map(|field| field.column_type).collect();
    for row in more.rows {
        whole.rows.push(row.into_iter().zip(types.iter().copied().zip(from.iter().copied())).map(into).collect());
    }
    Ok(())
}

fn keep_one_of_each(rows: &mut Vec<Vec<Cell>>) {
    let mut seen = HashSet::new();
    rows.retain(|row| {
        let mut key = Vec::new();
        row.iter().for_each(|cell| cell.key(&mut key));
        seen.insert(key)
    });
}
