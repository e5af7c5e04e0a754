//! SHOW and DESCRIBE.

use tdengine_sql::ast::{Name, Show, TableKind as Listed};
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, DataType, Field, Precision, escape};

use super::cell::Cell;
use super::function::like;
use super::relation::Memory;
use super::{database_of, output, system};
use crate::error::{Result, ServerError, code};
use crate::result::{ResultField, ResultSet};
use crate::schema::{Schema, TableKind, TableSchema};
use crate::session::Session;
use crate::store::Store;
use crate::table::TableBody;

pub(super) fn run(store: &Store, session: &Session, show: &Show<'_>) -> Result<ResultSet> {
    let memory = match show {
        Show::Databases { user } => databases(store, *user),
        Show::Tables { database, like, kind } => tables(store, of_show(session, database)?, *like, *kind)?,
        Show::Stables { database, like: pattern } => stables(store, of_show(session, database)?, *pattern)?,
        Show::Vgroups { database } => system::vgroups(store, Some(of_show(session, database)?)),
        Show::Topics => names("topic_name", 192, store.topics().iter().map(|topic| topic.name.clone())),
        Show::Consumers => system::consumers(store),
        Show::Subscriptions => system::subscriptions(store),
        Show::Dnodes => system::dnodes(store),
        Show::Mnodes => system::mnodes(store),
        Show::Cluster => system::cluster(store),
        Show::ClusterAlive | Show::Alive { .. } => status(),
        Show::Grants => system::grants(),
        Show::Users => system::users(store),
        Show::Variables | Show::LocalVariables => variables(store),
        Show::Tags { table } => table_tags(store, session, table)?,
        Show::CreateDatabase(name) => create_database(store, name)?,
        Show::CreateTable(name) | Show::CreateStable(name) => create_table(store, session, name)?,
        Show::Indexes { table } => system::indexes(store, Some((of_show(session, &table.database)?, &table.table))),
        Show::Licences => system::grants(),
        Show::Streams => names("stream_name", 192, std::iter::empty()),
        Show::Functions => names("name", 64, std::iter::empty()),
        Show::Views => nothing("ins_views"),
        Show::Qnodes | Show::Snodes => nothing("ins_qnodes"),
        Show::Connections => nothing("perf_connections"),
        Show::Queries => nothing("perf_queries"),
        Show::Transactions => nothing("perf_trans"),
    };
    result(memory)
}

fn result(memory: Memory) -> Result<ResultSet> {
    output::of_cells(memory.fields, memory.precision, memory.rows)
}

/// The columns of a system table that is always empty here.
fn nothing(table: &str) -> Memory {
    system::empty::table(table).unwrap_or_default()
}

/// SHOW without a database is a syntax error of its own (recording errors.jsonl).
fn of_show<'a>(session: &'a Session, named: &'a Option<String>) -> Result<&'a str> {
    database_of(session, named.as_deref()).map_err(|_| ServerError::new(code::SYNTAX, "database not specified"))
}

fn names(field: &str, length: u32, names: impl Iterator<Item = String>) -> Memory {
    let rows = names.map(|name| vec![Cell::text(name)]).collect();
    let fields = vec![ResultField::new(field, ColumnType::varchar(length))];
    Memory { fields, precision: Precision::Milliseconds, rows }
}

/// `show cluster alive`: 1 on a single node that works; a real one says 2 while a vgroup has no leader (recording b4).
fn status() -> Memory {
    let fields = vec![ResultField::new("status", ColumnType::of(DataType::Int))];
    Memory { fields, precision: Precision::Milliseconds, rows: vec![vec![Cell::Int(1)]] }
}

fn databases(store: &Store, user: bool) -> Memory {
    let system = ["information_schema", "performance_schema"].map(str::to_owned);
    let system = system.into_iter().filter(|_| !user);
    names("name", 64, system.chain(store.databases().iter().map(|database| database.name.clone())))
}

fn passes(pattern: Option<&str>, name: &str) -> bool {
    pattern.is_none_or(|pattern| like(name, pattern))
}

fn tables(store: &Store, database: &str, pattern: Option<&str>, kind: Listed) -> Result<Memory> {
    store.database(database)?;
    let listed = store.tables(database).into_iter().filter(|table| {
        let is_child = matches!(table.meta().body, TableBody::Child { .. });
        let wanted = match kind {
            Listed::All => true,
            Listed::Child => is_child,
            Listed::Normal => !is_child,
        };
        wanted && passes(pattern, &table.name)
    });
    Ok(names("table_name", 192, listed.map(|table| table.name.to_string())))
}

fn stables(store: &Store, database: &str, pattern: Option<&str>) -> Result<Memory> {
    store.database(database)?;
    let listed = store.stables(database).into_iter().filter(|stable| passes(pattern, &stable.name));
    Ok(names("stable_name", 192, listed.map(|stable| stable.name.clone())))
}

fn variables(store: &Store) -> Memory {
    let fields = vec![
        ResultField::new("name", ColumnType::varchar(30)),
        ResultField::new("value", ColumnType::varchar(62)),
        ResultField::new("scope", ColumnType::varchar(6)),
    ];
    let row = |name: &str, value: String| vec![Cell::text(name), Cell::text(value), Cell::text("server")];
    let rows = vec![
        row("version", store.config().version.to_string()),
        row("tmqMaxTopicNum", store.config().topics_max.to_string()),
        row("timezone", "UTC (UTC, +0000)".to_owned()),
        row("charset", "UTF-8".to_owned()),
    ];
    Memory { fields, precision: Precision::Milliseconds, rows }
}

/// `SHOW TAGS FROM child` lists tags, from a super table one row a child.
fn table_tags(store: &Store, session: &Session, name: &Name) -> Result<Memory> {
    let database = database_of(session, name.database.as_deref())?;
    let schema = store.describe(database, &name.table).ok();
    let Some(schema) = schema.filter(|schema| schema.kind == TableKind::Super) else {
        let wanted = |of: &str, table: &crate::table::Table| of == database && *table.name == *name.table;
        return Ok(system::tags(store, &wanted));
    };
    let mut fields = vec![ResultField::new("tbname", ColumnType::varchar(270))];
    fields.extend(schema.tags.fields.iter().map(|tag| ResultField::new(tag.name.clone(), tag.column_type)));
    let rows = store.children(database, schema.suid).into_iter().map(super::relation::StoredTable::new).map(|table| {
        let tags = schema.tags.fields.iter().map(|tag| table.tag(tag));
        std::iter::once(Cell::text(&*table.table.name)).chain(tags).collect()
    });
    Ok(Memory { precision: store.database(database)?.options.precision(), rows: rows.collect(), fields })
}

const fn encode_name(code: u8) -> &'static str {
    match code {
        1 => "simple8b",
        2 => "delta-i",
        3 => "bit-packing",
        4 => "delta-d",
        _ => "disabled",
    }
}

const fn compress_name(code: u8) -> &'static str {
    match code {
        1 => "lz4",
        2 => "zlib",
        3 => "zstd",
        4 => "tsz",
        5 => "xz",
        _ => "disabled",
    }
}

const fn level_name(code: u8) -> &'static str {
    match code {
        1 => "low",
        2 => "medium",
        3 => "high",
        _ => "disabled",
    }
}

/// Encode, compress and level of a column.
fn compression(schema: &Schema, at: usize) -> [&'static str; 3] {
    let [level, compress, _, encode] = schema.compression.get(at).copied().unwrap_or(0).to_le_bytes();
    [encode_name(encode), compress_name(compress), level_name(level)]
}

pub(super) fn describe(store: &Store, session: &Session, name: &Name) -> Result<ResultSet> {
    let database = database_of(session, name.database.as_deref())?;
    store.database(database)?;
    let schema = store.describe(database, &name.table).map_err(|_| ServerError::table_missing())?;
    let with_compression = schema.kind != TableKind::Child;
    let mut fields = vec![
        ResultField::new("field", ColumnType::varchar(64)),
        ResultField::new("type", ColumnType::varchar(20)),
        ResultField::new("length", ColumnType::of(DataType::Int)),
        ResultField::new("note", ColumnType::varchar(16)),
    ];
    if with_compression {
        fields.extend(["encode", "compress", "level"].map(|name| ResultField::new(name, ColumnType::varchar(12))));
    }
    let row = |field: &Field, note: &str| {
        vec![
            Cell::text(field.name.as_str()),
            Cell::text(field.column_type.data_type.name()),
            Cell::Int(i64::from(field.column_type.query_length())),
            Cell::text(note),
        ]
    };
    let mut rows = Vec::new();
    for (at, field) in schema.columns.fields.iter().enumerate() {
        let mut cells = row(field, if field.is_primary_key() { "PRIMARY KEY" } else { "" });
        if with_compression {
            cells.extend(compression(&schema.columns, at).map(Cell::text));
        }
        rows.push(cells);
    }
    for field in &schema.tags.fields {
        let mut cells = row(field, "TAG");
        if with_compression {
            cells.extend(["disabled"; 3].map(Cell::text));
        }
        rows.push(cells);
    }
    result(Memory { fields, precision: Precision::Milliseconds, rows })
}

fn created(of: &str, lengths: (u32, u32), name: &str, text: impl Into<Vec<u8>>) -> Memory {
    let fields = vec![
        ResultField::new(of, ColumnType::varchar(lengths.0)),
        ResultField::new(format!("Create {of}"), ColumnType::varchar(lengths.1)),
    ];
    Memory { fields, precision: Precision::Milliseconds, rows: vec![vec![Cell::text(name), Cell::Text(text.into())]] }
}

fn create_database(store: &Store, name: &str) -> Result<Memory> {
    let database = store.database(name)?;
    let option = |option: &str, default| system::option(&database, option, default);
    let options = &database.options;
    let text = format!(
        "CREATE DATABASE `{name}` BUFFER {} CACHESIZE {} CACHEMODEL '{}' COMP {} DURATION {}m WAL_FSYNC_PERIOD {} \
         MAXROWS {} MINROWS {} STT_TRIGGER {} KEEP {} PAGES {} PAGESIZE {} PRECISION '{}' REPLICA {} WAL_LEVEL {} \
         VGROUPS {} SINGLE_STABLE {} TABLE_PREFIX {} TABLE_SUFFIX {} TSDB_PAGESIZE {} WAL_RETENTION_PERIOD {} \
         WAL_RETENTION_SIZE {} KEEP_TIME_OFFSET {} ENCRYPT_ALGORITHM '{}' S3_CHUNKSIZE {} S3_KEEPLOCAL {} S3_COMPACT {}",
        option("buffer", 256),
        option("cachesize", 1),
        options.other("cachemodel").unwrap_or("none"),
        option("comp", 2),
        options.duration_minutes,
        options.wal_fsync_period_ms,
        option("maxrows", 4096),
        option("minrows", 100),
        option("stt_trigger", 1),
        system::keep_text(&database),
        option("pages", 256),
        option("pagesize", 4),
        options.precision().name(),
        option("replica", 1),
        options.wal_level,
        database.vgroups.len(),
        option("single_stable", 0),
        option("table_prefix", 0),
        option("table_suffix", 0),
        option("tsdb_pagesize", 4),
        options.wal_retention_period_s,
        options.wal_retention_size_kib,
        option("keep_time_offset", 0),
        options.other("encrypt_algorithm").unwrap_or("none"),
        option("s3_chunksize", 262_144),
        options.other("s3_keeplocal").unwrap_or("5256000m"),
        option("s3_compact", 0),
    );
    Ok(created("Database", (63, 65_517), name, text))
}

fn create_table(store: &Store, session: &Session, name: &Name) -> Result<Memory> {
    let database = database_of(session, name.database.as_deref())?;
    let schema = store.describe(database, &name.table)?;
    let text = match schema.kind {
        TableKind::Child => create_child(store, database, &name.table, &schema)?,
        kind => create_parent(&name.table, &schema, kind).into_bytes(),
    };
    Ok(created("Table", (193, 3_145_726), &name.table, text))
}

fn create_parent(name: &str, schema: &TableSchema, kind: TableKind) -> String {
    let column = |(at, field): (usize, &Field)| {
        let [encode, compress, level] = compression(&schema.columns, at);
        let key = if field.is_primary_key() { " PRIMARY KEY" } else { "" };
        let column_type = field.column_type;
        format!("`{}` {column_type} ENCODE '{encode}' COMPRESS '{compress}' LEVEL '{level}'{key}", field.name)
    };
    let columns: Vec<String> = schema.columns.fields.iter().enumerate().map(column).collect();
    let tags: Vec<String> =
        schema.tags.fields.iter().map(|field| format!("`{}` {}", field.name, field.column_type)).collect();
    match kind {
        TableKind::Super => format!("CREATE STABLE `{name}` ({}) TAGS ({})", columns.join(", "), tags.join(", ")),
        _ => format!("CREATE TABLE `{name}` ({})", columns.join(", ")),
    }
}

fn create_child(store: &Store, database: &str, name: &str, schema: &TableSchema) -> Result<Vec<u8>> {
    let table = store.table(database, name).ok_or_else(ServerError::table_missing)?;
    let meta = table.meta();
    let TableBody::Child { tags, .. } = &meta.body else { return Err(ServerError::table_missing()) };
    let names: Vec<String> = schema.tags.fields.iter().map(|field| format!("`{}`", field.name)).collect();
    let stable = schema.stable.clone().unwrap_or_default();
    let (name, stable) = (escape::identifier(name), escape::identifier(&stable));
    let mut text = format!("CREATE TABLE {name} USING {stable} ({}) TAGS (", names.join(", ")).into_bytes();
    for (at, field) in schema.tags.fields.iter().enumerate() {
        if at > 0 {
            text.extend_from_slice(b", ");
        }
        shown_tag(tags.value(field), field, &mut text);
    }
    text.push(b')');
    Ok(text)
}

/// A tag as a real server writes it: texts in double quotes, not escaped; geometries by their bytes.
fn shown_tag(value: Value<'_>, field: &Field, out: &mut Vec<u8>) {
    let quoted = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
    };
    match value {
        Value::Varchar(_) | Value::Nchar(_) | Value::Json(_) => {
            quoted(out, value.text().unwrap_or_default().as_bytes());
        }
        Value::Varbinary(_) => {
            let cell = Cell::of(value, field.column_type);
            quoted(out, format!("\\x{}", cell.shown()).as_bytes());
        }
        Value::Geometry(bytes) => quoted(out, bytes),
        Value::Float(value) => out.extend_from_slice(scientific(f64::from(value)).as_bytes()),
        Value::Double(value) => out.extend_from_slice(scientific(value).as_bytes()),
        other => out.extend_from_slice(other.to_sql(field.column_type).as_bytes()),
    }
}

/// `1.500000e+00`
fn scientific(value: f64) -> String {
    let text = format!("{value:.6e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
