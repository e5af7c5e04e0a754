//! The table as the server has it, made and widened where that is wished; and the statements for a batch's columns.

use arrow::datatypes::{Schema, SchemaRef};
use pipeline_sdk::{Error, Result};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, error::SqlState};

use crate::config::{Mode, PostgresSinkConfig};
use crate::error::from_postgres;
use crate::kinds::{Kind, made_as};

/// Columns with their types, of domains the types below.
const COLUMNS: &str = "SELECT a.attname::text, b.typname::text, b.typtype::text, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '' \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
    JOIN pg_type t ON t.oid = a.atttypid JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END \
    WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
/// The last column of the rows that wait to be merged: their order.
pub const ROW_COLUMN: &str = "pipeline row";

/// How a batch of one schema is written.
pub struct Plan {
    pub schema: SchemaRef,
    pub kinds: Vec<Kind>,
    /// Types as the server calls them, for messages.
    pub types: Vec<String>,
    /// `COPY`, into the table or into the rows that wait.
    pub copy: String,
    /// Of `upsert`: what brings the waiting rows into the table.
    pub merge: Option<Merge>,
}

/// How rows get from where they wait into the table.
pub struct Merge {
    pub statement: String,
    /// Where they wait.
    pub waiting: String,
}

struct Known {
    name: String,
    kind: Option<Kind>,
    type_name: String,
    is_generated: bool,
}

/// Looks at the table and makes what it lacks.
///
/// # Errors
/// Rejected where the rows do not fit the table; otherwise as the server says.
pub async fn plan(client: &Client, config: &PostgresSinkConfig, schema: &SchemaRef, number: u64) -> Result<Plan> {
    let mut known = columns(client, config).await?;
    if known.is_empty() {
        if !config.create_table {
            let error = Error::fatal(format!("there is no table {}", shown(config))).code("postgres.42P01");
            return Err(error.hint("make it, or set `create-table = true`"));
        }
        execute_alone(client, &create(config, schema)?).await?;
        known = columns(client, config).await?;
    }
    let is_known = |name: &str| known.iter().any(|column| column.name == name);
    let missing: Vec<String> = schema.fields().iter().filter(|field| !is_known(field.name())).map(|field| field.name().clone()).collect();
    if !missing.is_empty() {
        if !config.add_columns {
            let error = Error::rejected(format!("{} has no column `{}`", shown(config), missing.join("`, `"))).code("postgres.42703");
            return Err(error.hint("add it, leave it out with `select`, or set `add-columns = true`"));
        }
        execute_alone(client, &add(config, schema, &missing)).await?;
        known = columns(client, config).await?;
    }
    let (mut kinds, mut types) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        let column = known.iter().find(|column| column.name == *field.name());
        let column = column.ok_or_else(|| Error::retry(format!("column `{}` of {} is gone again", field.name(), shown(config))))?;
        if column.is_generated {
            let error = Error::rejected(format!("column `{}` of {} is computed by the server", field.name(), shown(config)));
            return Err(error.code("postgres.428C9").hint("leave it out with `select`"));
        }
        let kind = column.kind.ok_or_else(|| {
            let text = format!("column `{}` of {} is {}, which this sink does not write", field.name(), shown(config), column.type_name);
            Error::rejected(text).code("postgres.type").hint("leave it out with `select`, or write into a text column that a trigger or view converts")
        })?;
        kinds.push(kind);
        types.push(column.type_name.clone());
    }
    let names: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let (copy, merge) = statements(client, config, &names, number).await?;
    Ok(Plan { schema: schema.clone(), kinds, types, copy, merge })
}

async fn columns(client: &Client, config: &PostgresSinkConfig) -> Result<Vec<Known>> {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] = [(&config.schema, Type::TEXT), (&config.table, Type::TEXT)];
    let rows = client.query_typed(COLUMNS, &parameters).await.map_err(|error| from_postgres(&error))?;
    let read = |row: &tokio_postgres::Row| {
        let (type_name, class): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let kind = Kind::of(&type_name, &class);
        Ok(Known { name: row.try_get(0)?, kind, type_name: row.try_get(3)?, is_generated: row.try_get(4)? })
    };
    rows.iter().map(read).collect::<std::result::Result<_, tokio_postgres::Error>>().map_err(|error| from_postgres(&error))
}

/// Runs what changes the table, one instance of all at a time.
async fn execute_alone(client: &Client, statement: &str) -> Result<()> {
    let text = format!("BEGIN; SELECT pg_advisory_xact_lock(hashtext('pipeline')); {statement}; COMMIT");
    match client.batch_execute(&text).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // Of a transaction that failed: nothing is left of it when this fails as well.
            let _ = client.batch_execute("ROLLBACK").await;
            // Somebody else made it at the same moment.
            let is_there = [SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_COLUMN, SqlState::UNIQUE_VIOLATION];
            if error.code().is_some_and(|code| is_there.contains(code)) { Ok(()) } else { Err(from_postgres(&error).context(statement)) }
        }
    }
}

fn create(config: &PostgresSinkConfig, schema: &Schema) -> Result<String> {
    if let Some(name) = config.key.iter().find(|name| schema.field_with_name(name).is_err()) {
        return Err(no_key(name));
    }
    let columns = schema.fields().iter().map(|field| format!("{} {}", quoted(field.name()), made_as(field.data_type())));
    let key = (!config.key.is_empty()).then(|| format!("PRIMARY KEY ({})", key(config)));
    let parts: Vec<String> = columns.chain(key).collect();
    Ok(format!("CREATE TABLE IF NOT EXISTS {} ({})", table(config), parts.join(", ")))
}

fn add(config: &PostgresSinkConfig, schema: &Schema, missing: &[String]) -> String {
    let fields = schema.fields().iter().filter(|field| missing.contains(field.name()));
    let parts: Vec<String> = fields.map(|field| format!("ADD COLUMN IF NOT EXISTS {} {}", quoted(field.name()), made_as(field.data_type()))).collect();
    format!("ALTER TABLE {} {}", table(config), parts.join(", "))
}

async fn statements(client: &Client, config: &PostgresSinkConfig, names: &[String], number: u64) -> Result<(String, Option<Merge>)> {
    let (table, columns) = (table(config), names.join(", "));
    if config.mode == Mode::Append {
        return Ok((format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)"), None));
    }
    if let Some(name) = config.key.iter().find(|name| !names.contains(&quoted(name))) {
        return Err(no_key(name));
    }
    // As the table's own columns are; the rows that wait are those of one transaction.
    let (waiting, row) = (format!("pg_temp.pipeline_rows_{number}"), quoted(ROW_COLUMN));
    let make = format!("CREATE TEMP TABLE pipeline_rows_{number} ON COMMIT DELETE ROWS AS SELECT {columns}, 0 AS {row} FROM {table} WITH NO DATA");
    client.batch_execute(&make).await.map_err(|error| from_postgres(&error))?;
    let key = key(config);
    let others: Vec<String> = names.iter().filter(|name| !config.key.iter().any(|key| quoted(key) == **name)).map(|name| format!("{name} = EXCLUDED.{name}")).collect();
    let action = if others.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", others.join(", ")) };
    // Of several rows of one key the last one counts. The order keeps lanes from waiting for each other in a circle.
    let statement = format!(
        "INSERT INTO {table} ({columns}) SELECT DISTINCT ON ({key}) {columns} FROM {waiting} ORDER BY {key}, {row} DESC ON CONFLICT ({key}) DO {action}"
    );
    Ok((format!("COPY {waiting} ({columns}, {row}) FROM STDIN (FORMAT binary)"), Some(Merge { statement, waiting })))
}

fn no_key(name: &str) -> Error {
    Error::rejected(format!("the rows have no column `{name}`, which is part of the key")).code("postgres.key").path("key")
}

fn key(config: &PostgresSinkConfig) -> String {
    config.key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn table(config: &PostgresSinkConfig) -> String {
    format!("{}.{}", quoted(&config.schema), quoted(&config.table))
}

/// For messages.
pub fn shown(config: &PostgresSinkConfig) -> String {
    format!("{}.{}", config.schema, config.table)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
