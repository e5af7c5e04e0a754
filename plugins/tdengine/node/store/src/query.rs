//! Statements that read: SELECT, SHOW, DESCRIBE.

use tdengine_sql::Statement;

use crate::error::{Result, ServerError, code};
use crate::result::ResultSet;
use crate::session::Session;
use crate::store::Store;

/// The rows of a statement that reads.
pub(crate) fn run(_store: &Store, _session: &Session, _statement: &Statement<'_>) -> Result<ResultSet> {
    Err(ServerError::new(code::OPERATION_NOT_SUPPORTED, "Operation not supported"))
}
