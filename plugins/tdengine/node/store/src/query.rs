//! Queries: SELECT, SHOW, DESCRIBE and the system's tables, over what the store keeps.
//!
//! A statement is bound to what it reads ([`bind`]), rows are scanned ([`relation`]), and results are made as raw blocks of at
//! most 4096 rows ([`output`]). Plain columns are copied run by run; only expressions are computed row by row.

mod aggregate;
mod bind;
mod cell;
mod eval;
mod fold;
mod function;
pub(crate) mod insert;
mod output;
mod relation;
mod select;
mod show;
mod system;
mod topic;

use tdengine_sql::Statement;

use crate::error::{Result, ServerError, code};
use crate::result::ResultSet;
use crate::session::Session;
use crate::store::Store;

pub(crate) use select::{Condition, Projection};
pub use topic::TopicFilter;

/// Runs a statement that answers rows.
pub(crate) fn run(store: &Store, session: &Session, statement: &Statement<'_>) -> Result<ResultSet> {
    match statement {
        Statement::Select(query) => select::run(store, session, query),
        Statement::Show(what) => show::run(store, session, what),
        Statement::Describe(name) => show::describe(store, session, name),
        _ => Err(ServerError::new(code::OPERATION_NOT_SUPPORTED, "Operation not supported")),
    }
}

/// The database that a name belongs to.
pub(crate) fn database_of<'a>(session: &'a Session, named: Option<&'a str>) -> Result<&'a str> {
    named.or(session.database.as_deref()).ok_or_else(ServerError::database_not_specified)
}
