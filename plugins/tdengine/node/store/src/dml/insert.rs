//! INSERT: literals become blocks, columns as the statement names them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tdengine_sql::ast::{self, Broken, Insert, InsertTable, InsertTarget, Literal, TimeBase, Using, Value};
use tdengine_sql::error::statement_shown;
use tdengine_wire::block::{BlockBuilder, BlockView, VERSION_TMQ};
use tdengine_wire::{DataType, Field};

use crate::database::Database;
use crate::ddl::database::is_system;
use crate::error::{Result, ServerError, code};
use crate::execute::convert;
use crate::literal::{Context, near};
use crate::schema::{Schema, Stable, TagValues};
use crate::session::Session;
use crate::store::inner::Inner;
use crate::write::child::{NewChild, put_tag};
use crate::write::{Columns, Write};

/// The timestamp is the first column that a table gets.
const TIMESTAMP_ID: i16 = 1;

/// Rows for one table, as a block of their own.
struct Prepared {
    table: String,
    names: Vec<String>,
    block: Bytes,
    create: Option<NewChild>,
}

/// Runs an INSERT and answers the number of rows.
pub(crate) fn run(inner: &Inner, session: &Session, sql: &str, insert: &Insert<'_>) -> Result<u64> {
    // Tables of one statement may be in several databases; each gets its entries.
    let mut by_database: Vec<(Arc<Database>, Vec<Prepared>)> = Vec::new();
    for (place, table) in insert.tables.iter().enumerate() {
        let broken = insert.broken.as_ref().filter(|_| place + 1 == insert.tables.len());
        let InsertTarget::Table(name) = &table.target else {
            return Err(near("?", "table name is expected"));
        };
        let database = database_of(inner, session, name)?;
        let context = convert::context(&database, session);
        let statement = Statement { inner, session, sql, database: &database, context, broken };
        let prepared = statement.prepare(&name.table, table)?;
        match by_database.iter_mut().find(|(known, _)| known.id == database.id) {
            Some((_, all)) => all.extend(prepared),
            None => by_database.push((database, prepared)),
        }
    }
    let mut rows = 0;
    for (database, prepared) in &by_database {
        let prepared = prepared.iter().filter(|prepared| !prepared.block.is_empty());
        rows += inner.write_rows(database, prepared.map(write).collect::<Result<_>>()?)?;
    }
    Ok(rows)
}

fn write(prepared: &Prepared) -> Result<Write<'_>> {
    let names = prepared.names.iter().map(String::as_str).collect();
    Ok(Write {
        table: &prepared.table,
        columns: Columns::Named(BlockView::parse(&prepared.block)?, names),
        create: prepared.create.clone(),
        flags: 0,
    })
}

fn database_of(inner: &Inner, session: &Session, name: &ast::Name) -> Result<Arc<Database>> {
    let database = name.database.as_ref().or(session.database.as_ref());
    let database = database.ok_or_else(|| ServerError::new(code::INVALID_OPERATION, "db is not specified"))?;
    if is_system(database) {
        return Err(ServerError::new(code::SYSTEM_TABLE, "System table not allowed"));
    }
    inner.database(database).ok_or_else(ServerError::database_missing)
}

/// One table of an INSERT.
struct Statement<'a> {
    inner: &'a Inner,
    session: &'a Session,
    sql: &'a str,
    database: &'a Database,
    context: Context,
    /// What ends this table's rows too early.
    broken: Option<&'a Broken>,
}

impl Statement<'_> {
    fn prepare(&self, table: &str, insert: &InsertTable<'_>) -> Result<Vec<Prepared>> {
        if table.len() > 191 {
            return Err(ServerError::new(code::INVALID_OPERATION, "name too long"));
        }
        let create = insert.using.as_ref().map(|using| self.child(using)).transpose()?;
        let stable = self.inner.catalog.read().stable(self.database.id, table).cloned();
        if let Some(stable) = stable {
            return match create {
                Some(_) => Err(ServerError::new(code::STABLE_NOT_MATCHED, "Table already exists in other stables")),
                None => self.children(&stable, insert),
            };
        }
        // What USING names is what the rows are read by.
        let schema = match (self.inner.find_table(self.database, table)?, &create) {
            (_, Some(child)) => child.stable.columns.clone(),
            (Some(found), None) => self.inner.vgroup(found.vgroup)?.index().columns(&found)?,
            (None, None) => return Err(ServerError::table_missing()),
        };
        let fields = self.fields(&schema, insert)?;
        self.check_timestamp(&fields, &schema)?;
        let all: Vec<Option<usize>> = (0..fields.len()).map(Some).collect();
        let mut rows = RowBuilder::new(&fields);
        self.each_row(insert, fields.len(), |row| rows.push(self, row, &all))?;
        let names = fields.iter().map(|field| field.name.clone()).collect();
        Ok(vec![Prepared { table: table.to_owned(), names, block: rows.finish()?, create }])
    }

    /// The child of `USING … TAGS`.
    ///
    /// # Errors
    /// 0x0388 and 0x2603 for the super table, 0x2602 for a tag's name, 0x0216 and 0x260D for the number of values.
    fn child(&self, using: &Using<'_>) -> Result<NewChild> {
        let of_stable = database_of(self.inner, self.session, &using.stable)?;
        let stable = self.inner.catalog.read().stable(of_stable.id, &using.stable.table).cloned();
        let stable = stable.filter(|_| of_stable.id == self.database.id).ok_or_else(ServerError::table_missing)?;
        let names = match &using.tags {
            None => stable.tags.fields.iter().map(|field| field.name.clone()).collect(),
            Some(_) => self.known(&stable.tags, using.tags.as_ref())?.iter().map(|field| field.name.clone()).collect::<Vec<_>>(),
        };
        let (wanted, given) = (names.len(), using.values.len());
        let child = convert::new_child(stable, names, using, &self.context, Some(self.sql))?;
        if given < wanted {
            return Err(near(&self.shown(using.end), "invalid data or symbol"));
        }
        if given > wanted {
            return Err(ServerError::new(code::TAGS_NOT_MATCHED, "Tags number not matched"));
        }
        Ok(child)
    }

    /// The columns of the statement: all of them, or those that it names.
    fn fields<'s>(&self, schema: &'s Schema, insert: &InsertTable<'_>) -> Result<Vec<&'s Field>> {
        self.known(schema, insert.columns.as_ref())
    }

    /// The fields with these names, each once; all of them without names.
    fn known<'s>(&self, schema: &'s Schema, names: Option<&Vec<String>>) -> Result<Vec<&'s Field>> {
        let Some(names) = names else { return Ok(schema.fields.iter().collect()) };
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(near(name, "duplicated column name"));
        }
        let field = |name: &String| {
            schema.field(name).ok_or_else(|| ServerError::invalid_column(name))
        };
        names.iter().map(field).collect()
    }

    fn check_timestamp(&self, fields: &[&Field], schema: &Schema) -> Result<()> {
        let keys = if schema.has_composite_key() { 2 } else { 1 };
        for (place, key) in schema.fields[..keys].iter().enumerate() {
            if !fields.iter().any(|field| field.id == key.id) {
                let what =
                    if place == 0 { "Primary timestamp column should not be null" } else { "Primary key column should not be none" };
                return Err(ServerError::new(code::INVALID_OPERATION, what));
            }
        }
        Ok(())
    }

    fn each_row<'v>(
        &self,
        insert: &'v InsertTable<'_>,
        columns: usize,
        mut take: impl FnMut(&'v [Value<'v>]) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        for row in &insert.rows {
            let end = start + row.length as usize;
            if end - start > columns {
                take(&insert.values[start..start + columns])?;
                return Err(ServerError::new(code::COLUMN_COUNT, "Illegal number of columns"));
            }
            take(&insert.values[start..end])?;
            if end - start < columns {
                return Err(self.expected(", expected", row.end));
            }
            start = end;
        }
        let Some(broken) = self.broken else { return Ok(()) };
        let rest = &insert.values[start..];
        if !rest.is_empty() {
            take(&rest[..rest.len().min(columns)])?;
        }
        Err(match broken {
            Broken::Error(error) => error.clone().into(),
            Broken::AfterValue { at } if rest.len() < columns => self.expected(", expected", *at),
            Broken::AfterValue { at } => self.expected(") expected", *at),
        })
    }

    /// 0x0216: what is expected at a place of the statement.
    fn expected(&self, what: &str, at: usize) -> ServerError {
        near(&self.shown(at), what)
    }

    /// `INSERT INTO stable (tbname, …)`: rows name their child, tags make it when it is missing.
    fn children(&self, stable: &Arc<Stable>, insert: &InsertTable<'_>) -> Result<Vec<Prepared>> {
        let names = insert.columns.as_ref().filter(|names| names.iter().any(|name| name == "tbname"));
        let Some(names) = names else {
            return Err(match insert.columns {
                Some(_) => ServerError::new(code::INVALID_OPERATION, "tbname column should not be null"),
                None => {
                    let why = "(...tbname, ts...) bounded cols is expected for supertable insertion";
                    near(&self.shown(insert.at.saturating_sub(1)), why)
                }
            });
        };
        let target = StableTarget::new(stable, names)?;
        self.check_timestamp(&target.fields, &stable.columns)?;
        let mut tables: Vec<(String, NewChild, RowBuilder)> = Vec::new();
        self.each_row(insert, names.len(), |row| {
            if row.len() < names.len() {
                return Ok(());
            }
            let (name, tags) = target.child(self, row)?;
            let place = tables.iter().position(|(known, ..)| *known == name);
            let place = place.unwrap_or_else(|| {
                let child = target.new_child(tags);
                tables.push((name, child, RowBuilder::new(&target.fields)));
                tables.len() - 1
            });
            tables[place].2.push(self, row, &target.columns)
        })?;
        let names: Vec<String> = target.fields.iter().map(|field| field.name.clone()).collect();
        let prepared = |(table, child, rows): (String, NewChild, RowBuilder)| {
            Ok(Prepared { table, names: names.clone(), block: rows.finish()?, create: Some(child) })
        };
        tables.into_iter().map(prepared).collect()
    }

    /// The statement from a place on, as errors show it.
    fn shown(&self, at: usize) -> String {
        statement_shown(self.sql.get(at..).unwrap_or_default())
    }

    /// What an error shows of a value.
    fn shown_value(&self, value: &Value<'_>) -> String {
        match &value.literal {
            Literal::Text(text) => ast::unescape(text).into_owned(),
            _ => self.shown(value.at),
        }
    }
}

/// What the columns of an INSERT into a super table are.
struct StableTarget<'a> {
    stable: &'a Arc<Stable>,
    fields: Vec<&'a Field>,
    /// For each value of a row: its place among `fields`.
    columns: Vec<Option<usize>>,
    /// Places of values that are tags.
    tags: Vec<(usize, &'a Field)>,
    table: usize,
}

impl<'a> StableTarget<'a> {
    fn new(stable: &'a Arc<Stable>, names: &[String]) -> Result<Self> {
        let (mut fields, mut columns, mut tags, mut table) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (place, name) in names.iter().enumerate() {
            if names[..place].contains(name) {
                return Err(near(name, "duplicated column name"));
            }
            let column = stable.columns.field(name);
            columns.push(column.map(|_| fields.len()));
            match (column, stable.tags.field(name)) {
                (Some(field), _) => fields.push(field),
                (None, Some(field)) => tags.push((place, field)),
                (None, None) if name == "tbname" => table = place,
                (None, None) => return Err(ServerError::invalid_column(name)),
            }
        }
        Ok(Self { stable, fields, columns, tags, table })
    }

    fn child(&self, statement: &Statement<'_>, row: &[Value<'_>]) -> Result<(String, TagValues)> {
        let refused = |why: &str| ServerError::new(code::INVALID_OPERATION, why);
        let name = match &row[self.table].literal {
            Literal::Text("") => return Err(refused("tbname can not be empty")),
            Literal::Text(text) => ast::unescape(text),
            Literal::Number(text) => Cow::Borrowed(text.as_ref()),
            Literal::Null => return Err(refused("tbname can not be null value")),
            _ => return Err(near(&statement.shown(row[self.table].at), "tbname is expected")),
        };
        let mut tags = TagValues::default();
        for (place, field) in &self.tags {
            let mut bytes = Vec::new();
            let (context, sql) = (&statement.context, Some(statement.sql));
            let there = convert::write(context, sql, &row[*place], field.column_type, &field.name, &mut bytes)?;
            put_tag(&mut tags, &self.stable.tags, &field.name, there.then_some(bytes))?;
        }
        Ok((name.into_owned(), tags))
    }

    fn new_child(&self, tags: TagValues) -> NewChild {
        let tag_names = self.tags.iter().map(|(_, field)| field.name.clone()).collect();
        NewChild { stable: self.stable.clone(), tag_names, tags, ttl_days: 0, comment: None }
    }
}

/// A block that grows by rows of literals.
struct RowBuilder {
    builder: BlockBuilder,
    names: Vec<String>,
    /// Place of the timestamp, which cannot be NULL.
    timestamp: Option<usize>,
    /// Place of the second column of the key, which cannot be NULL either.
    key: Option<usize>,
    scratch: Vec<u8>,
}

impl RowBuilder {
    /// Ids begin with that of the timestamp, which is never dropped.
    fn new(fields: &[&Field]) -> Self {
        let builder = BlockBuilder::new(fields.iter().map(|field| field.column_type));
        let timestamp = fields.iter().position(|field| field.id == TIMESTAMP_ID);
        let names = fields.iter().map(|field| field.name.clone()).collect();
        let key = fields.iter().position(|field| field.is_primary_key() && field.id != TIMESTAMP_ID);
        Self { builder, names, timestamp, key, scratch: Vec::new() }
    }

    /// Appends the values whose place in `columns` is a column.
    fn push(&mut self, statement: &Statement<'_>, row: &[Value<'_>], columns: &[Option<usize>]) -> Result<()> {
        for (at, (value, place)) in row.iter().zip(columns).enumerate() {
            let Some(place) = *place else { continue };
            let column = self.builder.column(place);
            let column_type = column.column_type();
            if let Literal::Time { base, offsets, sign_at } = &value.literal
                && column_type.data_type != DataType::Timestamp
                && !(offsets.is_empty() && matches!(base, TimeBase::Now | TimeBase::Today))
            {
                // Only a point in time goes on behind a sign.
                let is_last = at + 1 == columns.len();
                return Err(statement.expected(if is_last { ") expected" } else { ", expected" }, *sign_at));
            }
            if matches!(value.literal, Literal::Text("")) && is_numeric(column_type.data_type) {
                return Err(near("", "invalid numeric data"));
            }
            self.scratch.clear();
            if convert::write(&statement.context, Some(statement.sql), value, column_type, &self.names[place], &mut self.scratch)? {
                column.push_bytes(&self.scratch)?;
            } else if Some(place) == self.timestamp {
                return Err(near(&statement.shown_value(value), "Primary timestamp column should not be null"));
            } else if self.key == Some(place) {
                return Err(ServerError::new(code::PRIMARY_KEY_NULL, "Primary key column should not be null"));
            } else {
                column.push_null();
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Bytes> {
        Ok(self.builder.encode(VERSION_TMQ)?.into())
    }
}

fn is_numeric(data_type: DataType) -> bool {
    use DataType::{BigInt, Double, Float, Int, SmallInt, TinyInt, UBigInt, UInt, USmallInt, UTinyInt};
    matches!(data_type, TinyInt | SmallInt | Int | BigInt | UTinyInt | USmallInt | UInt | UBigInt | Float | Double)
}
