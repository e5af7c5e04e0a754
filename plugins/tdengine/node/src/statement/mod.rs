//! Prepared statements, version 1 (old Rust and Python clients, old JDBC) and version 2 (today's) (PROTOCOL 4).
//!
//! A statement is used by one request at a time. Read in this order: [`parse`], [`template`], [`value`], [`v1`], [`v2`].

mod parse;
mod template;
mod v1;
mod v2;
mod value;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tdengine_store::store::TableWrite;
use tdengine_store::{Outcome, Session, Store};
use tdengine_wire::block::BlockView;

use self::parse::Prepared;
use self::template::Write;
pub(crate) use self::template::misuse;
pub(crate) use self::v1::Values;
pub(crate) use self::value::integer_range;
use crate::config::Limits;
use crate::error::Fail;

/// The statements of one connection. Version 1 and version 2 share one series of ids.
#[derive(Debug)]
pub(crate) struct Statements {
    state: Mutex<State>,
    open_max: usize,
    rows_max: usize,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    open: HashMap<u64, Arc<OpenStatement>>,
}

/// A statement and whether it was closed while somebody waited for it.
#[derive(Debug)]
pub(crate) struct OpenStatement {
    is_closed: AtomicBool,
    statement: Mutex<Statement>,
}

impl OpenStatement {
    /// The statement, for one request at a time.
    ///
    /// # Errors
    /// When it was closed meanwhile.
    pub fn lock(&self) -> Result<MutexGuard<'_, Statement>, Fail> {
        let statement = self.statement.lock();
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(Fail::protocol("stmt has been freed")),
            false => Ok(statement),
        }
    }
}

/// One statement.
#[derive(Debug)]
pub(crate) struct Statement {
    prepared: Option<Prepared>,
    /// Version 1: what the next `bind` and `add_batch` are about.
    binding: v1::Binding,
    /// Rows that wait for `exec`.
    writes: Vec<Write>,
    rows: usize,
    rows_max: usize,
    /// Version 2: the query with its values in it.
    query: Option<String>,
    /// What `exec` of a query gave, until it is fetched.
    outcome: Option<Outcome>,
}

impl Statements {
    pub fn new(limits: &Limits) -> Self {
        Self { state: Mutex::default(), open_max: limits.statements_per_connection, rows_max: limits.statement_rows }
    }

    /// A new statement's id.
    ///
    /// # Errors
    /// When too many are open.
    pub fn open(&self) -> Result<u64, Fail> {
        let mut state = self.state.lock();
        if state.open.len() >= self.open_max {
            let max = self.open_max;
            return Err(Fail::protocol(format!("{max} statements are open (limits.statements-per-connection)")));
        }
        state.last_id += 1;
        let statement = Statement {
            prepared: None,
            binding: v1::Binding::default(),
            writes: Vec::new(),
            rows: 0,
            rows_max: self.rows_max,
            query: None,
            outcome: None,
        };
        let id = state.last_id;
        let statement = OpenStatement { is_closed: AtomicBool::new(false), statement: Mutex::new(statement) };
        state.open.insert(id, Arc::new(statement));
        Ok(id)
    }

    pub fn get(&self, id: u64) -> Result<Arc<OpenStatement>, Fail> {
        self.state.lock().open.get(&id).cloned().ok_or_else(|| Fail::protocol("stmt is nil"))
    }

    pub fn close(&self, id: u64) {
        if let Some(statement) = self.state.lock().open.remove(&id) {
            statement.is_closed.store(true, Ordering::Release);
        }
    }

    pub fn clear(&self) {
        self.state.lock().open.clear();
    }
}

impl Statement {
    fn prepared(&self) -> Result<&Prepared, Fail> {
        self.prepared.as_ref().ok_or_else(misuse)
    }

    /// Takes a new text; whatever was bound for the old one is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn prepare(&mut self, sql: &str) -> Result<bool, Fail> {
        let prepared = parse::prepare(sql)?;
        let is_insert = matches!(prepared, Prepared::Insert(_));
        (self.binding, self.writes, self.rows) = (v1::Binding::default(), Vec::new(), 0);
        (self.query, self.outcome) = (None, None);
        self.prepared = Some(prepared);
        Ok(is_insert)
    }

    fn wait(&mut self, write: Write) -> Result<(), Fail> {
        self.rows += write.rows;
        if self.rows > self.rows_max {
            let max = self.rows_max;
            return Err(Fail::protocol(format!("{max} rows are bound (limits.statement-rows); execute them first")));
        }
        self.writes.push(write);
        Ok(())
    }

    /// Writes what waits and tells how many rows.
    fn flush(&mut self, store: &Store) -> Result<u64, Fail> {
        self.rows = 0;
        let writes = std::mem::take(&mut self.writes);
        let mut affected = 0;
        for writes in writes.chunk_by(|one, other| one.database == other.database) {
            let database = writes[0].database.clone();
            let writes = writes.iter().map(|write| {
                Ok(TableWrite {
                    table: &write.table,
                    block: BlockView::parse(&write.block)?,
                    names: Some(write.names.iter().map(String::as_str).collect()),
                    create: write.create.clone(),
                    flags: 0,
                })
            });
            let writes = writes.collect::<Result<Vec<_>, Fail>>()?;
            affected += store.write_tables(&database, &writes)?;
        }
        Ok(affected)
    }

    /// Runs a query whose values are in its text; its rows wait to be fetched.
    fn run(&mut self, store: &Store, session: &Session, sql: &str) -> Result<(), Fail> {
        self.outcome = Some(store.execute(&mut session.clone(), sql)?);
        Ok(())
    }

    /// What `exec` of a query gave, once.
    pub fn take_outcome(&mut self) -> Result<Outcome, Fail> {
        self.outcome.take().ok_or_else(misuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_statement_says_so_to_who_still_holds_it_and_is_nil_to_others() {
        let statements = Statements::new(&Limits { statements_per_connection: 1, ..Limits::default() });
        let id = statements.open().unwrap();
        let refused = statements.open().unwrap_err();
        assert!(refused.message.contains("limits.statements-per-connection"), "{refused:?}");
        let held = statements.get(id).unwrap();
        statements.close(id);
        assert_eq!(held.lock().map(drop).unwrap_err(), Fail::protocol("stmt has been freed"));
        assert_eq!(statements.get(id).map(drop).unwrap_err(), Fail::protocol("stmt is nil"));
    }
}
