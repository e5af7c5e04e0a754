//! What topics and DELETE ask of rows and tables outside of a query: a condition, and a projection of written blocks.

use std::sync::Arc;

use tdengine_wire::Field;
use tdengine_wire::block::{BlockBuilder, BlockView};

use super::scan::{Frame, passing};
use super::{Plan, plain, plan};
use crate::error::{Result, ServerError, code};
use crate::query::bind::Bound;
use crate::query::eval::{Group, eval};
use crate::query::relation::{Relation, Row, StoredTable};
use crate::result::ResultField;
use crate::session::Session;
use crate::store::Store;
use crate::table::Table;

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
    pub fn takes(&self, table: &Arc<Table>) -> bool {
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
        table: &Arc<Table>,
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
        let ranges = passing(&condition, &frame, 0..view.rows());
        if ranges.is_empty() {
            return Ok(None);
        }
        let types: Vec<_> = self.plan.items.iter().map(|(_, field)| field.column_type).collect();
        let mut builder = BlockBuilder::new(types);
        plain::append(&self.plan, &frame, &ranges, &mut builder)?;
        Ok(Some(builder.encode(2)?))
    }
}
