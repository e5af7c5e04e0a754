//! SELECT: which rows, what of them, in which order.

mod grouped;
mod plain;
mod scan;
mod union;
mod window;
mod written;

use std::sync::Arc;

use tdengine_sql::ast::{Binary, Expr, From, Item, Limit, Select};
use tdengine_wire::block::BlockView;
use tdengine_wire::{ColumnType, DataType};

use super::aggregate::AggregateKind;
use super::bind::{BOOL, Binder, Bound};
use super::cell::Cell;
use super::relation::{Memory, Relation, Stored, StoredTable};
use super::{database_of, output, system};
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::result::{ResultField, ResultSet};
use crate::schema::TableKind;
use crate::session::Session;
use crate::store::Store;

use window::{Fill, Window};

pub(crate) use written::{Condition, Projection};

/// A query ready to run.
struct Plan {
    relation: Relation,
    items: Vec<(Bound, ResultField)>,
    condition: Vec<Bound>,
    aggregates: Vec<super::aggregate::Aggregate>,
    groups: Vec<(Bound, ColumnType)>,
    window: Option<Window>,
    fill: Option<Fill>,
    having: Option<Bound>,
    order: Vec<(Bound, bool)>,
    distinct: bool,
    /// `SELECT TAGS`.
    tags: bool,
    limit: Option<Limit>,
    slimit: Option<Limit>,
    /// Partitioned without aggregates: LIMIT counts within each partition.
    partitioned: bool,
}

pub(super) fn run(store: &Store, session: &Session, query: &Select<'_>) -> Result<ResultSet> {
    if !query.union.is_empty() {
        return union::run_union(store, session, query);
    }
    run_plan(&plan(store, session, query)?)
}

fn run_plan(plan: &Plan) -> Result<ResultSet> {
    let fields: Vec<ResultField> = plan.items.iter().map(|(_, field)| field.clone()).collect();
    let precision = plan.relation.precision();
    if plan.aggregates.is_empty() && plan.groups.is_empty() && plan.window.is_none() {
        return plain::run(plan, fields, precision);
    }
    output::of_cells(fields, precision, grouped::run(plan)?)
}

fn plan(store: &Store, session: &Session, query: &Select<'_>) -> Result<Plan> {
    planned(store, session, query, relation(store, session, query.from.as_ref())?)
}

fn planned(store: &Store, session: &Session, query: &Select<'_>, relation: Relation) -> Result<Plan> {
    let version = store.config().version.to_string();
    let mut binder = Binder::new(&relation, session, &version);
    let mut condition = Vec::new();
    if let Some(expr) = &query.condition {
        conjuncts(binder.bind(expr)?.0, &mut condition);
    }
    let mut groups = Vec::new();
    for expr in query.partition_by.iter().chain(&query.group_by) {
        groups.push(binder.bind(expr)?);
    }
    binder.groups.clone_from(&groups);
    binder.aggregates = Some(Vec::new());
    let mut items = Vec::new();
    for item in &query.items {
        bind_item(&mut binder, item, &mut items)?;
    }
    let having = query.having.as_ref().map(|expr| binder.bind(expr)).transpose()?.map(|(bound, _)| bound);
    let mut order = Vec::new();
    for by in &query.order_by {
        order.push((bind_order(&mut binder, &by.expr, &items)?, by.descending));
    }
    let aggregates = binder.aggregates.take().unwrap_or_default();
    let window = query.interval.as_ref().map(|interval| Window::of(interval, relation.precision())).transpose()?;
    let fill = query.interval.as_ref().and_then(|interval| interval.fill.as_ref()).zip(window);
    let fill = fill.map(|(fill, window)| Fill::of(fill, &mut binder, &items, (scan::time_range(&condition), window)));
    let fill = fill.transpose()?;
    let partitioned = aggregates.is_empty() && window.is_none() && !query.partition_by.is_empty() && query.group_by.is_empty();
    if partitioned {
        unbind_groups(&mut items, &mut order, &groups);
        groups.clear();
    }
    if !aggregates.is_empty() || !groups.is_empty() || window.is_some() {
        check_grouped(&items, !groups.is_empty())?;
    }
    if query.slimit.is_some() && query.partition_by.is_empty() && query.group_by.is_empty() {
        return Err(ServerError::new(0x2638, "slimit/soffset only available for PARTITION/GROUP BY query"));
    }
    Ok(Plan {
        relation,
        items,
        condition,
        aggregates,
        groups,
        window,
        fill,
        having,
        order,
        distinct: query.distinct,
        tags: query.tags,
        limit: query.limit,
        slimit: query.slimit,
        partitioned,
    })
}

/// Takes an AND apart, so that each part can be checked where it is cheapest.
fn conjuncts(bound: Bound, parts: &mut Vec<Bound>) {
    match bound {
        Bound::Binary(Binary::And, left, right) => {
            conjuncts(*left, parts);
            conjuncts(*right, parts);
        }
        other => parts.push(other),
    }
}

fn bind_item(binder: &mut Binder<'_>, item: &Item<'_>, items: &mut Vec<(Bound, ResultField)>) -> Result<()> {
    if item.expr == Expr::Star {
        for (name, column_type) in binder.relation.all() {
            let column = Expr::Column { table: None, name: name.clone(), quoted: true };
            items.push((binder.bind(&column)?.0, ResultField::new(name, column_type)));
        }
        return Ok(());
    }
    if let Expr::Call { name, arguments } = &item.expr
        && let Some(columns) = many_columns(binder.relation, name, arguments)
    {
        for column in columns {
            let shown = format!("{name}({column})");
            let arguments = vec![Expr::Column { table: None, name: column, quoted: true }];
            let (bound, column_type) = binder.bind(&Expr::Call { name: name.clone(), arguments })?;
            items.push((bound, ResultField::new(shown, column_type)));
        }
        return Ok(());
    }
    let (mut bound, column_type) = binder.bind(&item.expr)?;
    if let Bound::Binary(..) = bound
        && column_type == BOOL
    {
        // As a column, a comparison with NULL is false (recording b4).
        let constant = |value| Bound::Constant(Cell::Bool(value));
        bound = Bound::Case { branches: vec![(bound, constant(true))], otherwise: Some(Box::new(constant(false))) };
    }
    let name = item.alias.clone().unwrap_or_else(|| shown_name(item));
    items.push((bound, ResultField::new(name, column_type)));
    Ok(())
}

/// The columns of `last(*)` and `last(a, b)`, which answer one column each.
fn many_columns(relation: &Relation, function: &str, arguments: &[Expr<'_>]) -> Option<Vec<String>> {
    if !matches!(
        AggregateKind::named(function),
        Some(AggregateKind::First | AggregateKind::Last | AggregateKind::LastRow)
    ) {
        return None;
    }
    if *arguments == [Expr::Star] {
        return Some(relation.all().into_iter().map(|(name, _)| name).collect());
    }
    let column = |argument: &Expr<'_>| match argument {
        Expr::Column { name, .. } => Some(name.clone()),
        _ => None,
    };
    (arguments.len() > 1).then(|| arguments.iter().map(column).collect())?
}

/// The column's name where there is no alias: a column's own, else the text.
fn shown_name(item: &Item<'_>) -> String {
    match &item.expr {
        Expr::Column { name, .. } => name.clone(),
        _ if item.text.eq_ignore_ascii_case("now") => "now()".to_owned(),
        _ => item.text.to_owned(),
    }
}

/// ORDER BY takes an alias, a position, or any expression.
fn bind_order(binder: &mut Binder<'_>, expr: &Expr<'_>, items: &[(Bound, ResultField)]) -> Result<Bound> {
    if let Expr::Column { name, .. } = expr
        && let Some((bound, _)) = items.iter().find(|(_, field)| field.name == *name)
    {
        return Ok(bound.clone());
    }
    if let Expr::Literal(tdengine_sql::ast::Literal::Number(text)) = expr
        && let Some((bound, _)) = text.parse::<usize>().ok().and_then(|at| items.get(at.wrapping_sub(1)))
    {
        return Ok(bound.clone());
    }
    Ok(binder.bind(expr)?.0)
}

/// PARTITION BY without aggregates is no grouping: its expressions are read row by row again.
fn unbind_groups(items: &mut [(Bound, ResultField)], order: &mut [(Bound, bool)], groups: &[(Bound, ColumnType)]) {
    let bounds = items.iter_mut().map(|(bound, _)| bound).chain(order.iter_mut().map(|(bound, _)| bound));
    for bound in bounds {
        if let Bound::Group(index) = bound {
            *bound = groups[*index].0.clone();
        }
    }
}

fn check_grouped(items: &[(Bound, ResultField)], grouped: bool) -> Result<()> {
    let mut wrong = false;
    for (bound, _) in items {
        bound.visit(&mut |part| wrong |= matches!(part, Bound::Column(_) | Bound::Tag(_) | Bound::TableName));
    }
    match (wrong, grouped) {
        (false, _) => Ok(()),
        (true, true) => Err(ServerError::new(0x260A, "Not a GROUP BY expression")),
        (true, false) => Err(ServerError::new(0x260C, "Not a single-group group function")),
    }
}

fn relation(store: &Store, session: &Session, from: Option<&From<'_>>) -> Result<Relation> {
    match from {
        None => Ok(Relation::Memory(Memory::nothing())),
        Some(From::Select { select, .. }) => materialized(run(store, session, select)?).map(Relation::Memory),
        Some(From::Table { name, .. }) => {
            let database = database_of(session, name.database.as_deref())?;
            if let Some(memory) = system::table(store, database, &name.table)? {
                return Ok(Relation::Memory(memory));
            }
            stored(store, database, &name.table).map(Relation::Stored)
        }
    }
}

/// A subquery's rows in memory.
fn materialized(mut result: ResultSet) -> Result<Memory> {
    let mut rows = Vec::new();
    while let Some(block) = result.next_block()? {
        let view = BlockView::parse(&block)?;
        for row in 0..view.rows() {
            let cells = view.columns().iter().map(|column| Cell::of(column.value(row), column.column_type()));
            rows.push(cells.collect());
        }
    }
    Ok(Memory { fields: result.fields, precision: result.precision, rows })
}

fn stored(store: &Store, database: &str, table: &str) -> Result<Stored> {
    let missing = |what: &str| ServerError::new(code::TABLE_INFO, format!("Fail to get table info, error: {what}"));
    let found: Arc<Database> = store.database(database).map_err(|_| missing("Database not exist"))?;
    let schema = store.describe(database, table).map_err(|_| missing("Table does not exist"))?;
    let is_super = schema.kind == TableKind::Super;
    let tables = if is_super {
        store.children(database, schema.suid)
    } else {
        store.table(database, table).into_iter().collect()
    };
    Ok(Stored {
        precision: found.options.precision(),
        columns: schema.columns,
        tags: schema.tags,
        tables: tables.into_iter().map(StoredTable::new).collect(),
        is_super,
    })
}

/// Sorts rows by their keys, cuts what LIMIT leaves out.
fn sorted_and_limited(mut rows: Vec<(Vec<Cell>, Vec<Cell>)>, plan: &Plan) -> Vec<Vec<Cell>> {
    if !plan.order.is_empty() {
        rows.sort_by(|(_, left), (_, right)| {
            let mut found = std::cmp::Ordering::Equal;
            for ((a, b), (_, descending)) in left.iter().zip(right).zip(&plan.order) {
                found = found.then_with(|| if *descending { b.order(a) } else { a.order(b) });
            }
            found
        });
    }
    if plan.distinct {
        let mut seen = std::collections::HashSet::new();
        rows.retain(|(cells, _)| {
            let mut key = Vec::new();
            cells.iter().for_each(|cell| cell.key(&mut key));
            seen.insert(key)
        });
    }
    let limit = plan.limit.unwrap_or(Limit { rows: u64::MAX, offset: 0 });
    let rows = rows.into_iter().map(|(cells, _)| cells);
    rows.skip(limit.offset as usize).take(usize::try_from(limit.rows).unwrap_or(usize::MAX)).collect()
}

/// Whether every item is a plain column, which is copied as it is.
fn is_column(bound: &Bound) -> Option<usize> {
    match bound {
        Bound::Column(index) => Some(*index),
        _ => None,
    }
}

/// Whether an item can be filled by copying: variable types keep their bytes, fixed ones their width.
fn copies(column: ColumnType, field: &ResultField) -> bool {
    column.data_type == field.column_type.data_type && column.data_type != DataType::Json
}
