//! SELECT: which rows, what of them, in which order.

mod grouped;
mod plain;

use std::sync::Arc;

use tdengine_sql::ast::{Binary, Expr, From, Item, Limit, Select};
use tdengine_wire::block::{BlockView, ColumnView};
use tdengine_wire::{ColumnType, DataType, Field};

use super::aggregate::AggregateKind;
use super::bind::{Binder, Bound};
use super::cell::Cell;
use super::eval::{Group, eval};
use super::relation::{Memory, Relation, Row, Stored, StoredTable};
use super::{database_of, output, system};
use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::result::{ResultField, ResultSet};
use crate::schema::TableKind;
use crate::session::Session;
use crate::store::Store;

/// A query ready to run.
struct Plan {
    relation: Relation,
    items: Vec<(Bound, ResultField)>,
    condition: Vec<Bound>,
    aggregates: Vec<super::aggregate::Aggregate>,
    groups: Vec<(Bound, ColumnType)>,
    /// Width and offset of the windows, in ticks.
    window: Option<(i64, i64)>,
    having: Option<Bound>,
    order: Vec<(Bound, bool)>,
    distinct: bool,
    limit: Option<Limit>,
    slimit: Option<Limit>,
    /// Partitioned without aggregates: LIMIT counts within each partition.
    partitioned: bool,
}

pub(super) fn run(store: &Store, session: &Session, query: &Select<'_>) -> Result<ResultSet> {
    let plan = plan(store, session, query)?;
    let fields: Vec<ResultField> = plan.items.iter().map(|(_, field)| field.clone()).collect();
    let precision = plan.relation.precision();
    if plan.aggregates.is_empty() && plan.groups.is_empty() && plan.window.is_none() {
        return plain::run(&plan, fields, precision);
    }
    output::of_cells(fields, precision, grouped::run(&plan)?)
}

fn plan(store: &Store, session: &Session, query: &Select<'_>) -> Result<Plan> {
    let relation = relation(store, session, query.from.as_ref())?;
    let version = store.config().version.to_string();
    let mut binder =
        Binder { relation: &relation, session, server_version: &version, aggregates: None, groups: Vec::new() };
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
    let window = query.interval.as_ref().map(|interval| window(interval, relation.precision())).transpose()?;
    let partitioned = aggregates.is_empty() && window.is_none() && !query.partition_by.is_empty() && query.group_by.is_empty();
    if partitioned {
        unbind_groups(&mut items, &mut order, &groups);
        groups.clear();
    }
    if !aggregates.is_empty() || !groups.is_empty() || window.is_some() {
        check_grouped(&items)?;
    }
    Ok(Plan {
        relation,
        items,
        condition,
        aggregates,
        groups,
        window,
        having,
        order,
        distinct: query.distinct,
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
    if let Expr::Call { name, arguments, distinct } = &item.expr
        && arguments[..] == [Expr::Star]
        && matches!(AggregateKind::named(name), Some(AggregateKind::First | AggregateKind::Last | AggregateKind::LastRow))
    {
        for (column, column_type) in binder.relation.all() {
            let arguments = vec![Expr::Column { table: None, name: column.clone(), quoted: true }];
            let call = Expr::Call { name: name.clone(), arguments, distinct: *distinct };
            items.push((binder.bind(&call)?.0, ResultField::new(format!("{name}({column})"), column_type)));
        }
        return Ok(());
    }
    let (bound, column_type) = binder.bind(&item.expr)?;
    let name = item.alias.clone().unwrap_or_else(|| shown_name(item));
    items.push((bound, ResultField::new(name, column_type)));
    Ok(())
}

/// The column's name where there is no alias: a column's own, else the text.
fn shown_name(item: &Item<'_>) -> String {
    match &item.expr {
        Expr::Column { name, .. } => name.clone(),
        Expr::Literal(tdengine_sql::ast::Literal::Text(text)) => tdengine_sql::ast::unescape(text).into_owned(),
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

fn check_grouped(items: &[(Bound, ResultField)]) -> Result<()> {
    let mut wrong = false;
    for (bound, _) in items {
        bound.visit(&mut |part| wrong |= matches!(part, Bound::Column(_) | Bound::Tag(_) | Bound::TableName));
    }
    if wrong { Err(ServerError::new(0x260A, "Not a GROUP BY expression")) } else { Ok(()) }
}

fn window(interval: &tdengine_sql::ast::Interval<'_>, precision: tdengine_wire::Precision) -> Result<(i64, i64)> {
    let ticks = |text: &str| {
        crate::literal::time::duration(text, precision)
            .ok_or_else(|| ServerError::new(code::SYNTAX, format!("syntax error near \"{text}\"")))
    };
    let width = ticks(interval.width)?;
    if width < 1 {
        return Err(ServerError::new(0x2615, "Interval cannot be less than 1 ms"));
    }
    Ok((width, interval.offset.map_or(Ok(0), ticks)?))
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

/// First and last timestamp that the conditions allow; runs outside are not looked at.
fn time_range(condition: &[Bound]) -> (i64, i64) {
    let (mut from, mut to) = (i64::MIN, i64::MAX);
    for part in condition {
        let Bound::Binary(operator, left, right) = part else { continue };
        let (Bound::Column(0), Bound::Constant(cell)) = (&**left, &**right) else { continue };
        let Some(time) = cell.as_i64() else { continue };
        match operator {
            Binary::Equal => (from, to) = (from.max(time), to.min(time)),
            Binary::Less | Binary::LessEqual => to = to.min(time),
            Binary::Greater | Binary::GreaterEqual => from = from.max(time),
            _ => {}
        }
    }
    (from, to)
}

/// Goes over the rows that the conditions let pass, run by run. `see` gets the row's frame and the rows of it that pass;
/// `true` ends the scan.
fn scan(
    plan: &Plan,
    see: &mut dyn FnMut(&Frame<'_>, &[std::ops::Range<usize>]) -> Result<bool>,
) -> Result<()> {
    match &plan.relation {
        Relation::Memory(memory) => {
            for cells in &memory.rows {
                let row = Row::Memory(cells);
                if plan.condition.iter().all(|part| eval(part, row, Group::default()).is_true())
                    && see(&Frame::Memory(cells), &[0..1])?
                {
                    return Ok(());
                }
            }
            Ok(())
        }
        Relation::Stored(stored) => scan_stored(plan, stored, see),
    }
}

/// Rows that share their columns.
enum Frame<'a> {
    Memory(&'a [Cell]),
    Run { stored: &'a Stored, table: &'a StoredTable, columns: &'a [Option<ColumnView<'a>>] },
}

impl<'a> Frame<'a> {
    fn row(&'a self, at: usize) -> Row<'a> {
        match self {
            Self::Memory(cells) => Row::Memory(cells),
            Self::Run { stored, table, columns } => Row::Stored { stored, table, columns, at },
        }
    }
}

fn scan_stored(
    plan: &Plan,
    stored: &Stored,
    see: &mut dyn FnMut(&Frame<'_>, &[std::ops::Range<usize>]) -> Result<bool>,
) -> Result<()> {
    let (of_table, of_row): (Vec<_>, Vec<_>) = plan.condition.iter().partition(|part| part.is_of_table());
    let (from, to) = time_range(&plan.condition);
    let descending = matches!(plan.order.first(), Some((Bound::Column(0), true)));
    for table in &stored.tables {
        let row = Row::Table { stored, table };
        if !of_table.iter().all(|part| eval(part, row, Group::default()).is_true()) {
            continue;
        }
        let runs = table.table.rows.scan(&stored.columns)?;
        let mut runs: Vec<_> = runs.iter().filter(|run| run.range().1 >= from && run.range().0 <= to).collect();
        if descending {
            runs.reverse();
        }
        for run in runs {
            let view = run.view()?;
            let columns: Vec<_> = stored.columns.fields.iter().map(|field| run.column(&view, field.id)).collect();
            let frame = Frame::Run { stored, table, columns: &columns };
            let ranges = passing(&of_row, &frame, run.rows());
            if !ranges.is_empty() && see(&frame, &ranges)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Rows of a frame that pass, as ranges.
fn passing(condition: &[&Bound], frame: &Frame<'_>, rows: usize) -> Vec<std::ops::Range<usize>> {
    if condition.is_empty() {
        return vec![0..rows];
    }
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for at in 0..rows {
        if condition.iter().all(|part| eval(part, frame.row(at), Group::default()).is_true()) {
            match ranges.last_mut() {
                Some(range) if range.end == at => range.end += 1,
                _ => ranges.push(at..at + 1),
            }
        }
    }
    ranges
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

/// A condition on the tags of a super table, kept as text (topics `AS STABLE … WHERE`, DELETE by tags).
pub(crate) struct Condition {
    relation: Relation,
    parts: Vec<Bound>,
}

impl Condition {
    /// Reads a condition over the tags (and columns) of a super table.
    ///
    /// # Errors
    /// As SELECT with this condition.
    pub fn new(store: &Store, database: &str, stable: &str, text: &str) -> Result<Self> {
        let sql = format!("select * from `{stable}` where {text}");
        let tdengine_sql::Statement::Select(query) = tdengine_sql::parse(&sql)? else {
            return Err(ServerError::new(code::SYNTAX, "syntax error near \"where\""));
        };
        let session = Session::with_database("root", database);
        let Plan { relation, condition, .. } = plan(store, &session, &query)?;
        Ok(Self { relation, parts: condition })
    }

    /// Whether a child passes.
    pub fn takes(&self, table: &Arc<crate::table::Table>) -> bool {
        let Relation::Stored(stored) = &self.relation else { return false };
        let table = StoredTable::new(table.clone());
        let row = Row::Table { stored, table: &table };
        self.parts.iter().all(|part| eval(part, row, Group::default()).is_true())
    }
}

/// The query of a topic `AS SELECT`, applied to rows as they are written.
pub(crate) struct Projection {
    plan: Plan,
}

impl Projection {
    /// Reads the query.
    ///
    /// # Errors
    /// As running it.
    pub fn new(store: &Store, database: &str, query: &str) -> Result<Self> {
        let tdengine_sql::Statement::Select(query) = tdengine_sql::parse(query)? else {
            return Err(ServerError::new(code::SYNTAX, "syntax error near \"as\""));
        };
        let session = Session::with_database("root", database);
        Ok(Self { plan: plan(store, &session, &query)? })
    }

    /// Whether it reads this table: itself, or a child of its super table.
    pub fn reads(&self, uid: i64) -> bool {
        match &self.plan.relation {
            Relation::Stored(stored) => stored.tables.iter().any(|table| table.table.uid == uid),
            Relation::Memory(_) => false,
        }
    }

    /// The columns that it answers.
    pub fn fields(&self) -> Vec<Field> {
        let field = |(place, (_, field)): (usize, &(Bound, ResultField))| {
            Field::new(field.name.clone(), field.column_type, place as i16 + 1)
        };
        self.plan.items.iter().enumerate().map(field).collect()
    }

    /// Rows of a written block that pass, as a raw block of header version 2; `None` where none does.
    ///
    /// # Errors
    /// When the block is malformed.
    pub fn apply(
        &self,
        table: &Arc<crate::table::Table>,
        ids: &[i16],
        block: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let Relation::Stored(stored) = &self.plan.relation else { return Ok(None) };
        let view = BlockView::parse(block)?;
        let column = |field: &Field| {
            ids.iter().position(|id| *id == field.id).and_then(|at| view.column(at).copied())
        };
        let columns: Vec<_> = stored.columns.fields.iter().map(column).collect();
        let table = StoredTable::new(table.clone());
        let frame = Frame::Run { stored, table: &table, columns: &columns };
        let condition: Vec<&Bound> = self.plan.condition.iter().collect();
        let ranges = passing(&condition, &frame, view.rows());
        if ranges.is_empty() {
            return Ok(None);
        }
        let types: Vec<_> = self.plan.items.iter().map(|(_, field)| field.column_type).collect();
        let mut builder = tdengine_wire::block::BlockBuilder::new(types);
        plain::append(&self.plan, &frame, &ranges, &mut builder)?;
        Ok(Some(builder.encode(2)?))
    }
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
