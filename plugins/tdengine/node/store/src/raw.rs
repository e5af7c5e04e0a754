//! Raw writes of TMQ messages (action 3), as libtaos 3.3.0 does them (PROTOCOL 10, FACTS F3–F11, F17–F20, F25–F32, F63,
//! F67, F68, F70). In strict mode, what would lose or misplace data is refused instead.

mod data;
mod stable;
mod table;

use std::sync::Arc;

use crate::body;
use crate::database::Database;
use crate::error::{Result, ServerError};
use crate::session::{MARK, Session};
use crate::store::inner::Inner;
use crate::write::current_database;

/// Rows, and rows with the tables that they made.
const DATA: u16 = 2;
const METADATA: u16 = 4;

/// One raw write.
struct Raw<'a> {
    inner: &'a Inner,
    database: Arc<Database>,
}

/// Applies a message of `fetch_raw`.
///
/// # Errors
/// 0x2616 without a current database, 0x0115 for a malformed body, 0x0118 for an unknown type; see the parts.
pub(crate) fn apply(inner: &Inner, session: &Session, raw_type: u16, body: &[u8]) -> Result<u64> {
    let raw = Raw { inner, database: current_database(inner, session)? };
    match raw_type {
        DATA | METADATA => raw.data(raw_type, body),
        body::CREATE_STABLE | body::ALTER_STABLE => raw.put_stable(&body::read::stable(body)?),
        body::DROP_STABLE => raw.drop_stable(&body::read::drop_stable(body)?),
        body::CREATE_TABLE => raw.create_tables(body::read::create_tables(body)?),
        body::ALTER_TABLE => {
            let (table, alter) = body::read::alter_table(body)?;
            raw.alter_table(&table, alter)
        }
        body::DROP_TABLE => raw.drop_tables(&body::read::drop_tables(body)?),
        body::DELETE => raw.delete(&body::read::delete(body)?),
        _ => Err(ServerError::invalid_parameter("Invalid parameters")),
    }
}

impl Raw<'_> {
    /// The SQL that libtaos makes of a deletion, in 256 bytes with the NUL: what does not fit is gone (FACTS F68), and so
    /// is a condition on tags (FACTS F17).
    fn delete(&self, delete: &body::read::RawDelete) -> Result<u64> {
        let body::read::RawDelete { table, timestamp, from, to } = delete;
        let sql = format!("delete from `{table}` where `{timestamp}` >= {from} and `{timestamp}` <= {to}");
        let is_cut = sql.len() > DELETE_BYTES_MAX;
        if is_cut && self.is_strict() {
            return Err(ServerError::invalid_parameter("delete does not fit 255 bytes"));
        }
        let cut = String::from_utf8_lossy(&sql.as_bytes()[..sql.len().min(DELETE_BYTES_MAX)]).into_owned();
        if is_cut {
            tracing::warn!(sql = %cut, "raw delete is cut as libtaos cuts it: its range is not that of the source");
        }
        let statement = tdengine_sql::parse(&cut)?;
        let tdengine_sql::Statement::Delete { table, condition } = &statement else {
            return Err(ServerError::invalid_message());
        };
        let session = Session { source: MARK, ..Session::with_database("root", &self.database.name) };
        match crate::dml::delete::run(self.inner, &session, table, condition.as_ref()) {
            // A table that is not there has nothing to delete (FACTS F32).
            Err(error) if error.code == crate::error::code::TABLE_INFO => Ok(0),
            other => other,
        }
    }

    /// Drops carry no mark in a real server's log (FACTS F7).
    fn drop_source(&self) -> u8 {
        if self.is_strict() { MARK } else { 0 }
    }

    fn is_strict(&self) -> bool {
        self.inner.config.mode == crate::config::Mode::Strict
    }
}

/// Bytes that fit the buffer of libtaos.
const DELETE_BYTES_MAX: usize = 255;
