//! What a site says about itself: identity, databases, vgroups, tables, definitions. Read by SQL.

use std::collections::BTreeMap;

use pipeline_sdk::{Error, Result};
use tdengine_wire::escape::{identifier, literal, qualified};
use tdengine_wire::{ColumnType, DataType, Precision};

use crate::client::ClientError;
use crate::transport::Connection;
use crate::names;

/// Codes of a table, super table or database that is not there (FACTS F58).
const MISSING: [u32; 6] = [0x2603, 0x2662, 0x0362, 0x0388, 0x0618, 0x2616];

/// The cluster id (FACTS F54).
pub async fn cluster_id(connection: &Connection) -> Result<String> {
    let rows = connection.query("select id from information_schema.ins_cluster").await?.texts()?;
    let id = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    id.ok_or_else(|| Error::fatal(format!("{} does not say its cluster id", connection.place())))
}

/// The server's version, like `3.3.6.13`.
pub async fn version(connection: &Connection) -> Result<String> {
    let rows = connection.query("select server_version()").await?.texts()?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
}

/// The first three numbers of a version, to compare; 0 for what is none.
pub fn version_numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or_default());
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Databases but the system's own and ours, by name.
pub async fn databases(connection: &Connection) -> Result<Vec<String>> {
    let rows = connection.query("select name from information_schema.ins_databases").await?.texts()?;
    let mut names: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    names.retain(|name| !names::is_reserved_database(name));
    names.sort();
    Ok(names)
}

/// A database as its site describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    /// In the site's own unit; another one is another database of the same name.
    pub created: i64,
    pub precision: Precision,
    /// How long its log is kept at least; absent where that is for ever.
    pub retention_seconds: Option<i64>,
}

/// The database, `None` where there is none of this name.
pub async fn database(connection: &Connection, name: &str) -> Result<Option<Database>> {
    let sql = format!(
        "select create_time, `precision`, `wal_retention_period` from information_schema.ins_databases where name = {}",
        literal(name)
    );
    let rows = connection.query(&sql).await?.texts()?;
    let Some(row) = rows.first() else { return Ok(None) };
    let created = row[0].as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
    let precision = row[1].as_deref().and_then(Precision::from_name).unwrap_or_default();
    let retention_seconds = row[2].as_deref().and_then(|text| text.parse().ok()).filter(|seconds| *seconds >= 0);
    Ok(Some(Database { name: name.into(), created, precision, retention_seconds }))
}

/// The vgroups of a database.
pub async fn vgroups(connection: &Connection, database: &str) -> Result<Vec<i32>> {
    let sql = format!("select vgroup_id from information_schema.ins_vgroups where db_name = {}", literal(database));
    let rows = connection.query(&sql).await?.texts()?;
    let mut ids: Vec<i32> = rows.iter().filter_map(|row| row[0].as_deref()?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The statement that makes a database with the same options (FACTS F53).
pub async fn create_database_statement(connection: &Connection, name: &str) -> Result<String> {
    let rows = connection.query(&format!("show create database {}", identifier(name))).await?.texts()?;
    let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
    text.ok_or_else(|| Error::fatal(format!("{} does not show how `{name}` was created", connection.place())))
}

/// How long the log of a database is kept, from the statement that makes it; negative is for ever.
pub fn retention_seconds(statement: &str) -> Option<i64> {
    let mut words = statement.split_whitespace().skip_while(|word| *word != "WAL_RETENTION_PERIOD");
    let seconds: i64 = words.nth(1)?.parse().ok()?;
    (seconds >= 0).then_some(seconds)
}

/// A column or tag of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub column_type: ColumnType,
    pub is_primary_key: bool,
}

/// A table's or super table's columns and tags, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    pub columns: Vec<Column>,
    pub tags: Vec<Column>,
    /// When the super table was made, in the server's milliseconds: another time is another incarnation. Absent for other tables.
    pub created: Option<i64>,
}

impl Definition {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn tag(&self, name: &str) -> Option<&Column> {
        self.tags.iter().find(|tag| tag.name == name)
    }
}

/// Makes the adapter's client library forget the definitions that it remembers.
pub async fn reset_query_cache(connection: &Connection) -> Result<(), ClientError> {
    match connection.exec("reset query cache").await {
        // A site without such a cache does not know the statement.
        Ok(_) | Err(ClientError::Server { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What `describe` says; `None` where there is no such table.
pub async fn describe(connection: &Connection, database: &str, table: &str) -> Result<Option<Definition>> {
    let result = match connection.query(&format!("describe {}", qualified(database, table))).await {
        Ok(result) => result,
        Err(ClientError::Server { code, .. }) if MISSING.contains(&code) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut definition = Definition::default();
    for row in result.texts()? {
        let text = |index: usize| row.get(index).and_then(Option::as_deref).unwrap_or_default();
        let column = Column {
            name: text(0).into(),
            column_type: column_type(text(1), text(2).parse().unwrap_or_default())?,
            is_primary_key: text(3).eq_ignore_ascii_case("PRIMARY KEY"),
        };
        if text(3).eq_ignore_ascii_case("TAG") {
            definition.tags.push(column);
        } else {
            definition.columns.push(column);
        }
    }
    if !definition.tags.is_empty() {
        definition.created = created(connection, database, table).await?;
    }
    Ok(Some(definition))
}

/// When a super table was made.
async fn created(connection: &Connection, database: &str, stable: &str) -> Result<Option<i64>> {
    let (database, stable) = (literal(database), literal(stable));
    let of = format!("information_schema.ins_stables where db_name = {database} and stable_name = {stable}");
    let rows = connection.query(&format!("select create_time from {of}")).await?.texts()?;
    Ok(rows.first().and_then(|row| row[0].as_deref()?.parse().ok()))
}

/// `VARCHAR`, 16; `DECIMAL(10, 2)`, 8.
fn column_type(name: &str, length: u32) -> Result<ColumnType> {
    let (base, arguments) = name.split_once('(').unwrap_or((name, ""));
    let unknown = || Error::fatal(format!("unknown column type `{name}`"));
    let data_type = DataType::from_name(base).ok_or_else(unknown)?;
    if data_type == DataType::Decimal {
        let mut numbers = arguments.trim_end_matches(')').split(',').map(|part| part.trim().parse::<u8>());
        let (Some(Ok(precision)), Some(Ok(scale))) = (numbers.next(), numbers.next()) else { return Err(unknown()) };
        return Ok(ColumnType::decimal(precision, scale));
    }
    Ok(ColumnType::sized(data_type, length))
}

/// A table as `information_schema.ins_tables` lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Empty for a normal table.
    pub stable: String,
    pub comment: String,
}

/// The table of this name, `None` where there is none. Super tables are not listed here.
pub async fn table(connection: &Connection, database: &str, name: &str) -> Result<Option<Table>> {
    let sql = format!(
        "select stable_name, table_comment from information_schema.ins_tables where db_name = {} and table_name = {}",
        literal(database),
        literal(name)
    );
    let rows = connection.query(&sql).await?.texts()?;
    Ok(rows.into_iter().next().map(|mut row| Table {
        stable: row[0].take().unwrap_or_default(),
        comment: row[1].take().unwrap_or_default(),
    }))
}

/// Those of the tables that exist, with their super table, empty for normal tables.
pub async fn tables_named(
    connection: &Connection,
    database: &str,
    names: &[&str],
) -> Result<BTreeMap<String, String>> {
    const NAMES_PER_QUERY: usize = 500;
    let mut found = BTreeMap::new();
    for chunk in names.chunks(NAMES_PER_QUERY) {
        let list = chunk.iter().map(|name| literal(name)).collect::<Vec<_>>().join(",");
        let sql = format!(
            "select table_name, stable_name from information_schema.ins_tables where db_name = {} and table_name in ({list})",
            literal(database)
        );
        let rows = connection.query(&sql).await?.texts()?;
        found.extend(rows.into_iter().filter_map(|mut row| Some((row[0].take()?, row[1].take().unwrap_or_default()))));
    }
    Ok(found)
}

/// Every table of a database with its super table, empty for normal tables.
pub async fn tables(connection: &Connection, database: &str) -> Result<BTreeMap<String, String>> {
    let sql = format!(
        "select table_name, stable_name from information_schema.ins_tables where db_name = {}",
        literal(database)
    );
    let rows = connection.query(&sql).await?.texts()?;
    Ok(rows
        .into_iter()
        .filter_map(|mut row| Some((row[0].take()?, row[1].take().unwrap_or_default())))
        .collect())
}

/// The super tables of a database.
pub async fn stables(connection: &Connection, database: &str) -> Result<Vec<String>> {
    let sql = format!("select stable_name from information_schema.ins_stables where db_name = {}", literal(database));
    let rows = connection.query(&sql).await?.texts()?;
    let mut names: Vec<String> = rows.into_iter().filter_map(|mut row| row[0].take()).collect();
    names.sort();
    Ok(names)
}

/// Topics that read tables or columns of a database: those that can forbid a change. Topics on the whole database, ours among
/// them, forbid only that it is dropped.
pub async fn topics_of_users(connection: &Connection, database: &str) -> Result<Vec<String>> {
    let sql = format!(
        "select topic_name from information_schema.ins_topics where db_name = {} and `type` <> 'db'",
        literal(database)
    );
    let rows = connection.query(&sql).await?.texts()?;
    Ok(rows.into_iter().filter_map(|mut row| row[0].take()).collect())
}

/// Whether a super table was altered since it was made: its creation and last update differ, or are not told.
pub async fn stable_was_altered(connection: &Connection, database: &str, name: &str) -> Result<bool> {
    let sql = format!(
        "select create_time, last_update from information_schema.ins_stables where db_name = {} and stable_name = {}",
        literal(database),
        literal(name)
    );
    let rows = connection.query(&sql).await?.texts()?;
    Ok(rows.first().is_none_or(|row| row[0].is_none() || row[0] != row[1]))
}

/// Names of the tables that have these uids, those that still exist (FACTS F18).
pub async fn tables_of_uids(connection: &Connection, database: &str, uids: &[i64]) -> Result<Vec<String>> {
    const UIDS_PER_QUERY: usize = 500;
    let mut names = Vec::new();
    for chunk in uids.chunks(UIDS_PER_QUERY) {
        let list = chunk.iter().map(|uid| uid.to_string()).collect::<Vec<_>>().join(",");
        let sql = format!(
            "select table_name from information_schema.ins_tables where db_name = {} and uid in ({list})",
            literal(database)
        );
        let rows = connection.query(&sql).await?.texts()?;
        names.extend(rows.into_iter().filter_map(|mut row| row[0].take()));
    }
    Ok(names)
}
