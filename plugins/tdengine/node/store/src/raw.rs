//! Raw writes of TMQ messages (action 3), as libtaos 3.3.0 does them (PROTOCOL 10, FACTS F3–F11, F17–F20, F25–F32, F63,
//! F67, F68, F70). In strict mode, what would lose or misplace data is refused instead.

mod data;
mod stable;
mod table;

use std::sync::Arc;

use tdengine_wire::meta::{Delete, Meta, RawMeta, Rendering, kind};
use tdengine_wire::tmq::{DATA, METADATA};

use crate::database::Database;
use crate::error::{Result, ServerError};
use crate::session::{MARK, Session};
use crate::store::inner::Inner;
use crate::write::current_database;

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
        _ if kind::ALL.contains(&raw_type) => raw.change(RawMeta::decode(raw_type, body)?.meta),
        _ => Err(ServerError::invalid_parameter("Invalid parameters")),
    }
}

impl Raw<'_> {
    fn change(&self, meta: Meta) -> Result<u64> {
        match meta {
            Meta::CreateStable(stable) | Meta::AlterStable(stable) => self.put_stable(&stable),
            Meta::DropStable { name, .. } => self.drop_stable(&name),
            Meta::CreateTables { tables, .. } => self.create_tables(tables),
            Meta::AlterTable(alter) => self.alter_table(alter),
            Meta::DropTables { tables, .. } => self.drop_tables(tables),
            Meta::Delete(delete) => self.delete(&delete),
        }
    }

    /// The SQL that libtaos makes of a deletion, in 256 bytes with the NUL: what does not fit is gone (FACTS F68), and so
    /// is a condition on tags (FACTS F17).
    fn delete(&self, delete: &Delete) -> Result<u64> {
        let (whole, cut) = (delete.sql(Rendering::Exact), delete.sql(Rendering::Faithful));
        let is_cut = whole.len() > cut.len();
        if is_cut && self.is_strict() {
            return Err(ServerError::invalid_parameter("delete does not fit 255 bytes"));
        }
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
