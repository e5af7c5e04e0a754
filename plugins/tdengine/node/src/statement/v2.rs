//! Version 2: `stmt2_prepare`, binary bind (9), `stmt2_exec`, and bind and execute at once (11) (PROTOCOL 4.2).

use tdengine_store::{Session, Store};
use tdengine_wire::envelope::StmtField;
use tdengine_wire::stmt2::{BindColumn, BindData, BindRows};
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, Field, Precision};

use super::Statement;
use super::parse::{Prepared, Query};
use super::template::{Parameter, Target, Template, misuse, name_needed};
use super::value::Bound;
use crate::error::Fail;

impl Bound for BindColumn<'_> {
    fn rows(&self) -> usize {
        self.rows()
    }

    fn get(&self, row: usize, _target: &Field, _precision: Precision) -> Result<Value<'_>, Fail> {
        Ok(self.value(row))
    }
}

/// Some rows of a column.
struct Part<'a> {
    column: &'a BindColumn<'a>,
    first: usize,
    rows: usize,
}

impl Bound for Part<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn get(&self, row: usize, _target: &Field, _precision: Precision) -> Result<Value<'_>, Fail> {
        Ok(self.column.value(self.first + row))
    }
}

impl Statement {
    /// The number of question marks and, for an INSERT whose client asked, their fields.
    pub fn parameter_fields(
        &self,
        store: &Store,
        session: &Session,
        wanted: bool,
    ) -> Result<(usize, Option<Vec<StmtField>>), Fail> {
        match self.prepared()? {
            Prepared::Query(query) => Ok((query.parameters(), None)),
            Prepared::Insert(template) if wanted => {
                let fields = template.target(store, session, None)?.parameter_fields();
                Ok((fields.len(), Some(fields)))
            }
            Prepared::Insert(template) => Ok((template.parameters(), None)),
        }
    }

    /// Binds the values of one or more tables; nothing is written before `stmt2_exec`.
    pub fn bind2(&mut self, store: &Store, session: &Session, data: &[u8]) -> Result<(), Fail> {
        let data = BindData::decode(data)?;
        let template = match self.prepared()? {
            Prepared::Query(query) => {
                let columns = data.tables.first().map(|table| table.columns.as_slice()).unwrap_or_default();
                self.query = Some(filled(query, columns)?);
                return Ok(());
            }
            Prepared::Insert(template) => template.clone(),
        };
        for table in &data.tables {
            let target = template.target(store, session, table.name)?;
            let name = table.name.map(str::to_owned).or_else(|| target.table.clone()).ok_or_else(name_needed)?;
            let tags: Vec<&dyn Bound> = table.tags.iter().map(|tag| tag as &dyn Bound).collect();
            let columns: Vec<&dyn Bound> = table.columns.iter().map(|column| column as &dyn Bound).collect();
            // A child that exists may be written without its tags.
            let create = if tags.is_empty() && needs_tags(&target) { None } else { target.create(&tags, 0)? };
            let write = target.write(&name, create, &columns)?;
            self.wait(write)?;
        }
        Ok(())
    }

    /// Binds rows whose values come in the order of the question marks, the table's name and the tags in each row.
    pub fn bind_rows(&mut self, store: &Store, session: &Session, data: &[u8]) -> Result<(), Fail> {
        let data = BindRows::decode(data)?;
        let template: Template = match self.prepared()? {
            Prepared::Query(query) => {
                self.query = Some(filled(query, &data.fields)?);
                return Ok(());
            }
            Prepared::Insert(template) => template.clone(),
        };
        let name_at = template.name_parameter();
        let rows = data.fields.first().map_or(0, |field| field.rows());
        let mut first = 0;
        while first < rows {
            let name = name_at.and_then(|at| data.fields.get(at)).and_then(|field| field.value(first).text());
            let same = |row: &usize| {
                name_at.and_then(|at| data.fields.get(at)).is_none_or(|field| field.value(*row).text() == name)
            };
            let count = (first..rows).take_while(same).count();
            let target = template.target(store, session, name.as_deref())?;
            let parts: Vec<Part<'_>> = data.fields.iter().map(|column| Part { column, first, rows: count }).collect();
            self.bind_part(&target, name, &parts)?;
            first += count;
        }
        Ok(())
    }

    fn bind_part(&mut self, target: &Target, name: Option<String>, parts: &[Part<'_>]) -> Result<(), Fail> {
        if parts.len() != target.parameters.len() {
            return Err(misuse());
        }
        let of = |wanted: fn(&Parameter) -> bool| -> Vec<&dyn Bound> {
            let pairs = target.parameters.iter().zip(parts);
            pairs.filter(|(parameter, _)| wanted(parameter)).map(|(_, part)| part as &dyn Bound).collect()
        };
        let create = target.create(&of(|parameter| matches!(parameter, Parameter::Tag(_))), 0)?;
        let name = name.or_else(|| target.table.clone()).ok_or_else(name_needed)?;
        let write = target.write(&name, create, &of(|parameter| matches!(parameter, Parameter::Column(_))))?;
        self.wait(write)
    }

    /// Writes what was bound, or runs the query; how many rows were written.
    pub fn execute2(&mut self, store: &Store, session: &Session) -> Result<u64, Fail> {
        match self.prepared()? {
            Prepared::Insert(_) if self.writes.is_empty() => Err(misuse()),
            Prepared::Insert(_) => self.flush(store),
            Prepared::Query(query) => {
                let without = (query.parameters() == 0).then(|| query.with_values(&[]));
                let sql = self.query.take().or(without).ok_or_else(misuse)?;
                self.run(store, session, &sql)?;
                Ok(0)
            }
        }
    }
}

fn needs_tags(target: &Target) -> bool {
    Target::bound(&target.tags).next().is_some()
}

/// A query with the first row's values in it.
fn filled(query: &Query, columns: &[BindColumn<'_>]) -> Result<String, Fail> {
    if columns.len() != query.parameters() || columns.iter().any(|column| column.rows() == 0) {
        return Err(misuse());
    }
    let values: Vec<String> = columns.iter().map(|column| column.value(0).to_sql(ColumnType::varchar(0))).collect();
    Ok(query.with_values(&values))
}

impl Template {
    /// The number of question marks.
    fn parameters(&self) -> usize {
        self.slots().filter(|is_bound| *is_bound).count() + usize::from(self.table.is_none())
    }

    /// Which question mark is the table's name.
    fn name_parameter(&self) -> Option<usize> {
        if self.table.is_none() {
            return Some(0);
        }
        let at = self.columns.as_ref()?.iter().position(|name| name == "tbname")?;
        let before = self.slots().take(at).filter(|is_bound| *is_bound).count();
        self.slots().nth(at).filter(|is_bound| *is_bound).map(|_| before)
    }

    /// For each value of the text, tags first: whether it is bound.
    fn slots(&self) -> impl Iterator<Item = bool> + '_ {
        let tags = self.using.iter().flat_map(|using| &using.tags);
        tags.chain(&self.values).map(|slot| *slot == super::template::Slot::Parameter)
    }
}
