//! Version 1: `init`, `prepare`, `set_table_name`, `set_tags`, `bind`, `add_batch`, `exec`, `close` (PROTOCOL 4.1,
//! recording e1).

use serde_json::Value as Json;
use tdengine_store::store::CreateChild;
use tdengine_store::{Session, Store};
use tdengine_wire::block::{BlockView, ColumnView};
use tdengine_wire::envelope::StmtField;
use tdengine_wire::{ColumnType, Field, Precision};

use super::parse::Prepared;
use super::template::{Target, Template, Write, misuse, name_needed, stmt_field};
use super::value::Bound;
use super::Statement;
use crate::error::Fail;

/// What was set for the rows to come.
#[derive(Debug, Default)]
pub(super) struct Binding {
    table: Option<String>,
    create: Option<CreateChild>,
    /// Bound and not yet added to the batch.
    bound: Vec<Write>,
    /// The values of a query's question marks, as SQL.
    values: Option<Vec<String>>,
}

/// Values of one `set_tags` or `bind`.
#[derive(Debug)]
pub(crate) enum Values {
    /// One array a column.
    Json(Vec<Vec<Json>>),
    /// A raw block.
    Block(Vec<u8>),
}

impl Values {
    /// # Errors
    /// 0x0115 for a malformed block.
    fn with<T>(&self, take: impl FnOnce(&[&dyn Bound]) -> Result<T, Fail>) -> Result<T, Fail> {
        match self {
            Self::Json(columns) => take(&columns.iter().map(|column| column as &dyn Bound).collect::<Vec<_>>()),
            Self::Block(bytes) => {
                let view = BlockView::parse(bytes)?;
                take(&view.columns().iter().map(|column: &ColumnView<'_>| column as &dyn Bound).collect::<Vec<_>>())
            }
        }
    }
}

impl Statement {
    fn template(&self) -> Result<&Template, Fail> {
        match self.prepared()? {
            Prepared::Insert(template) => Ok(template),
            Prepared::Query(_) => Err(misuse()),
        }
    }

    fn target(&self, store: &Store, session: &Session) -> Result<Target, Fail> {
        self.template()?.target(store, session, self.binding.table.as_deref())
    }

    /// The table of the rows to come; it is not looked up before they are bound.
    pub fn set_table_name(&mut self, name: String) -> Result<(), Fail> {
        if self.template()?.table.is_some() {
            return Err(misuse());
        }
        self.binding.table = Some(name);
        self.binding.create = None;
        Ok(())
    }

    pub fn set_tags(&mut self, store: &Store, session: &Session, tags: &Values) -> Result<(), Fail> {
        let target = self.target(store, session)?;
        self.binding.create = tags.with(|tags| target.create(tags, 0))?;
        Ok(())
    }

    pub fn bind(&mut self, store: &Store, session: &Session, columns: &Values) -> Result<(), Fail> {
        if let Prepared::Query(query) = self.prepared()? {
            // The real adapter needs the types of JSON values and finds none for a query (recording e1).
            let Values::Block(_) = columns else {
                return Err(misuse());
            };
            let count = query.parameters();
            self.binding.values = Some(columns.with(|columns| query_values(columns, count))?);
            return Ok(());
        }
        let target = self.target(store, session)?;
        let create = match &self.binding.create {
            Some(create) => Some(create.clone()),
            None if target.tags.iter().all(|(_, fixed)| fixed.is_some()) => target.create(&[], 0)?,
            None => None,
        };
        let table = target.table.clone().or_else(|| self.binding.table.clone()).ok_or_else(name_needed)?;
        let write = columns.with(|columns| target.write(&table, create, columns))?;
        self.binding.bound.push(write);
        Ok(())
    }

    pub fn add_batch(&mut self) -> Result<(), Fail> {
        for write in std::mem::take(&mut self.binding.bound) {
            self.wait(write)?;
        }
        Ok(())
    }

    /// Writes the batch. Straight after a failed `bind` the real adapter crashes (FACTS F34); here it is the code of a
    /// misused statement, and a line in the log.
    pub fn execute(&mut self, store: &Store, session: &Session) -> Result<u64, Fail> {
        if let Prepared::Query(query) = self.prepared()? {
            let values = self.binding.values.as_ref().ok_or_else(misuse)?;
            let sql = query.with_values(values);
            self.run(store, session, &sql)?;
            return Ok(0);
        }
        if self.writes.is_empty() {
            tracing::warn!("exec of a statement with nothing in its batch: after a failed bind the real adapter crashes");
            return Err(misuse());
        }
        self.flush(store)
    }

    pub fn tag_fields(&self, store: &Store, session: &Session) -> Result<Vec<StmtField>, Fail> {
        let target = self.target(store, session)?;
        Ok(Target::bound(&target.tags).map(|field| stmt_field(field, target.precision, None)).collect())
    }

    pub fn column_fields(&self, store: &Store, session: &Session) -> Result<Vec<StmtField>, Fail> {
        let target = self.target(store, session)?;
        Ok(Target::bound(&target.columns).map(|field| stmt_field(field, target.precision, None)).collect())
    }

    /// The number of question marks that `bind` fills.
    pub fn parameters(&self, store: &Store, session: &Session) -> Result<usize, Fail> {
        match self.prepared()? {
            Prepared::Query(query) => Ok(query.parameters()),
            Prepared::Insert(_) => Ok(self.column_fields(store, session)?.len()),
        }
    }
}

/// The first row's values as SQL.
fn query_values(columns: &[&dyn Bound], count: usize) -> Result<Vec<String>, Fail> {
    if columns.len() != count || columns.iter().any(|column| column.rows() == 0) {
        return Err(misuse());
    }
    let any = Field::new("", ColumnType::varchar(0), 0);
    let text = |column: &&dyn Bound| {
        let value = column.get(0, &any, Precision::Milliseconds)?;
        Ok(value.to_sql(any.column_type))
    };
    columns.iter().map(text).collect()
}
