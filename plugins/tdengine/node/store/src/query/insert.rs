//! `INSERT INTO table [(columns)] SELECT …`: the rows of a query, by position, each value converted as CAST does it.
//!
//! What a 3.3.0.1 server was seen to do, errors and their order among it. Columns may be named twice, the first counts; tags that
//! are named are passed over. A constant is taken only where it needs no conversion.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tdengine_sql::ast::{Expr, InsertQuery, Literal, Name, Select, Unary};
use tdengine_wire::block::{BlockBuilder, BlockView, VERSION_TMQ};
use tdengine_wire::{DataType, Field};

use super::cell::Cell;
use super::eval::cast;
use super::select;
use crate::database::Database;
use crate::ddl::database::is_system;
use crate::error::{Result, ServerError, code};
use crate::execute::database_of;
use crate::result::ResultField;
use crate::schema::Schema;
use crate::session::Session;
use crate::store::Store;
use crate::write::{Columns, Write};

/// Runs it and answers the number of rows; those of one key in one block count once.
///
/// # Errors
/// 0x2662 for a table that is missing, 0x0200 for a super table, 0x2602 for a column, 0x263F for their number or without the timestamp, 0x2600
/// without the second column of the key, 0x2700 for a constant of another type, 0x2802 for what cannot be converted, 0x2635 and 0x267B for NULL
/// in the key; and what the query says. Nothing is written then.
pub(crate) fn run(store: &Store, session: &Session, insert: &InsertQuery<'_>) -> Result<u64> {
    let target = Target::new(store, session, &insert.table, insert.columns.as_deref())?;
    let mut rows = select::run(store, session, &insert.query)?;
    target.check(&insert.query, &rows.fields)?;
    let mut blocks = Vec::new();
    let mut affected = 0;
    while let Some(block) = rows.next_block()? {
        let block = target.converted(&BlockView::parse(&block)?)?;
        affected += target.keys(&BlockView::parse(&block)?);
        blocks.push(block);
    }
    let names: Vec<&str> = target.kept().map(|(_, field)| field.name.as_str()).collect();
    let writes = blocks.iter().map(|block| {
        let columns = Columns::Named(BlockView::parse(block)?, names.clone());
        Ok(Write { table: &insert.table.table, columns, create: None, flags: 0 })
    });
    let writes = writes.collect::<Result<_>>()?;
    store.inner().write_rows(&target.database, writes)?;
    Ok(affected)
}

/// Where the rows go.
struct Target {
    database: Arc<Database>,
    schema: Arc<Schema>,
    /// For each column of the query what it is here; absent where it is a tag.
    fields: Vec<Option<Field>>,
}

impl Target {
    fn new(store: &Store, session: &Session, name: &Name, columns: Option<&[String]>) -> Result<Self> {
        let inner = store.inner();
        let refused = || ServerError::new(code::INVALID_OPERATION, "insert data into super table is not supported");
        let missing = |text: &str| ServerError::new(code::TABLE_INFO, format!("Fail to get table info, error: {text}"));
        if name.database.as_deref().or(session.database.as_deref()).is_some_and(is_system) {
            return Err(refused());
        }
        let database = database_of(inner, session, name).map_err(|error| match error.code {
            code::DATABASE_MISSING => missing("Database not exist"),
            _ => error,
        })?;
        if inner.catalog.read().stable(database.id, &name.table).is_some() {
            return Err(refused());
        }
        let table = inner.find_table(&database, &name.table)?.ok_or_else(|| missing("Table does not exist"))?;
        let schema = inner.vgroup(table.vgroup)?.index().columns(&table)?;
        let stable = inner.catalog.read().stables(database.id).find(|stable| stable.suid == table.meta().suid()).cloned();
        let field = |name: &String| match schema.field(name) {
            Some(field) => Ok(Some(field.clone())),
            None if stable.as_ref().is_some_and(|stable| stable.tags.field(name).is_some()) => Ok(None),
            None => Err(ServerError::invalid_column(name)),
        };
        let fields = match columns {
            Some(names) => names.iter().map(field).collect::<Result<_>>()?,
            None => schema.fields.iter().cloned().map(Some).collect(),
        };
        Ok(Self { database, schema, fields })
    }

    /// Checks the columns of the query, before any row of it is read.
    fn check(&self, query: &Select<'_>, found: &[ResultField]) -> Result<()> {
        if found.len() != self.fields.len() {
            return Err(ServerError::new(code::COLUMN_COUNT, "Illegal number of columns"));
        }
        let is_given = |key: &Field| self.fields.iter().flatten().any(|field| field.id == key.id);
        let key = &self.schema.fields;
        if !is_given(&key[0]) {
            return Err(ServerError::new(code::COLUMN_COUNT, "Primary timestamp column should not be null"));
        }
        if self.schema.has_composite_key() && !is_given(&key[1]) {
            return Err(ServerError::new(code::SYNTAX, "Primary key column should not be none"));
        }
        for (place, (field, from)) in self.fields.iter().zip(found).enumerate() {
            let Some(field) = field else { continue };
            let is_same = field.column_type == from.column_type;
            if let Some(expr) = constant(query, place, found.len())
                && !(is_same && is_plain(expr))
            {
                return Err(ServerError::new(code::PLANNER, "Planner internal error"));
            }
            if !is_same && !is_castable(from.column_type.data_type, field.column_type.data_type) {
                return Err(ServerError::new(code::FUNCTION_TYPE, "Invalid parameter data type : cast"));
            }
        }
        Ok(())
    }

    /// The query's columns that are written, with their places: of those that are named twice the first.
    fn kept(&self) -> impl Iterator<Item = (usize, &Field)> {
        let is_first = |place: usize, field: &Field| !self.fields[..place].iter().flatten().any(|other| other.id == field.id);
        let given = self.fields.iter().enumerate().filter_map(|(place, field)| Some((place, field.as_ref()?)));
        given.filter(move |(place, field)| is_first(*place, field))
    }

    /// Rows of the query as rows of the table.
    fn converted(&self, block: &BlockView<'_>) -> Result<Bytes> {
        let mut builder = BlockBuilder::new(self.kept().map(|(_, field)| field.column_type));
        for (column, (place, field)) in builder.columns_mut().iter_mut().zip(self.kept()) {
            let from = &block.columns()[place];
            if let Some(refusal) = self.null_refused(field)
                && from.null_count() > 0
            {
                return Err(refusal);
            }
            if from.column_type() == field.column_type {
                column.extend_from(from, 0..block.rows())?;
                continue;
            }
            for row in 0..block.rows() {
                let cell = Cell::of(from.value(row), from.column_type());
                cast(cell, field.column_type).push(column)?;
            }
        }
        Ok(builder.encode(VERSION_TMQ)?.into())
    }

    /// How many keys the rows of a block have.
    fn keys(&self, block: &BlockView<'_>) -> u64 {
        let length = if self.schema.has_composite_key() { 2 } else { 1 };
        let is_key = |field: &Field| self.schema.fields[..length].iter().any(|key| key.id == field.id);
        let columns = self.kept().zip(block.columns()).filter(|((_, field), _)| is_key(field)).map(|(_, column)| column);
        let columns: Vec<_> = columns.collect();
        let keys: HashSet<Vec<_>> = (0..block.rows()).map(|row| columns.iter().map(|column| column.bytes(row)).collect()).collect();
        keys.len() as u64
    }

    /// What a NULL in a column of the key is refused with.
    fn null_refused(&self, field: &Field) -> Option<ServerError> {
        let key = &self.schema.fields;
        if field.id == key[0].id {
            Some(ServerError::new(code::TIMESTAMP_VALUE, "Incorrect TIMESTAMP value"))
        } else if self.schema.has_composite_key() && field.id == key[1].id {
            Some(ServerError::new(code::PRIMARY_KEY_NULL, "Primary key column should not be null"))
        } else {
            None
        }
    }
}

/// The expression of a column of the query, where it is a constant.
fn constant<'q>(query: &'q Select<'_>, place: usize, columns: usize) -> Option<&'q Expr<'q>> {
    if !query.union.is_empty() {
        return None;
    }
    let items = &query.items;
    // Behind a `*` places count from the end.
    let star = items.iter().position(|item| item.expr == Expr::Star).unwrap_or(items.len());
    let item = if place < star { items.get(place) } else { items[star..].iter().rev().nth(columns - 1 - place) };
    item.map(|item| &item.expr).filter(|expr| is_constant(expr))
}

fn is_constant(expr: &Expr<'_>) -> bool {
    let all = |parts: &[Expr<'_>]| parts.iter().all(is_constant);
    match expr {
        Expr::Literal(_) => true,
        Expr::Star | Expr::Column { .. } => false,
        Expr::Unary { operand, .. } | Expr::Cast { operand, .. } | Expr::IsNull { operand, .. } => is_constant(operand),
        Expr::Binary { left, right, .. } => is_constant(left) && is_constant(right),
        Expr::Call { arguments, .. } => all(arguments),
        Expr::In { operand, list, .. } => is_constant(operand) && all(list),
        Expr::Between { operand, low, high, .. } => is_constant(operand) && is_constant(low) && is_constant(high),
        Expr::Case { operand, branches, otherwise } => {
            let of = |part: &Option<Box<Expr<'_>>>| part.as_deref().is_none_or(is_constant);
            of(operand) && of(otherwise) && branches.iter().all(|(when, then)| is_constant(when) && is_constant(then))
        }
    }
}

/// A literal as it stands, and no point in time.
fn is_plain(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::Literal(literal) => !matches!(literal, Literal::Time { .. }),
        Expr::Unary { operator: Unary::Minus, operand } => is_plain(operand),
        _ => false,
    }
}

fn is_castable(from: DataType, to: DataType) -> bool {
    let is_opaque = |data_type| matches!(data_type, DataType::Geometry | DataType::Json | DataType::Blob);
    match (from, to) {
        (DataType::Varbinary, _) => false,
        (DataType::Varchar, DataType::Varbinary) => true,
        (_, DataType::Varbinary) => false,
        _ => !is_opaque(from) && !is_opaque(to),
    }
}
