//! The tables of `information_schema` and `performance_schema`, with the columns of a real server (recording b4).

pub(super) mod empty;
mod geometry;
mod service;

use tdengine_wire::{ColumnType, DataType, Field, Precision};

use super::cell::Cell;
use super::relation::Memory;
use crate::database::Database;
use crate::ddl::database::is_system;
use crate::error::{Result, ServerError, code};
use crate::result::ResultField;
use crate::schema::{Stable, TagIndex, TagValues};
use crate::store::Store;
use crate::table::{Table, TableBody};

pub(super) use service::{cluster, consumers, dnodes, grants, mnodes, subscriptions, users, vgroups};
use service::topics;

/// The rows of a system table; `None` where the database is a user's.
///
/// # Errors
/// 0x2662 for a system table that is not known.
pub(super) fn table(store: &Store, database: &str, table: &str) -> Result<Option<Memory>> {
    if !is_system(database) {
        return Ok(None);
    }
    let memory = match table {
        "ins_databases" => databases(store),
        "ins_stables" => stables(store),
        "ins_tables" => tables(store),
        "ins_columns" => columns(store),
        "ins_tags" => tags(store, &|_, _| true),
        "ins_vgroups" => vgroups(store, None),
        "ins_topics" => topics(store),
        "ins_subscriptions" => subscriptions(store),
        "ins_cluster" => cluster(store),
        "ins_dnodes" => dnodes(store),
        "ins_mnodes" => mnodes(store),
        "ins_users" => users(store),
        "ins_indexes" => indexes(store, None),
        "ins_grants" => grants(),
        "perf_consumers" | "ins_consumers" => consumers(store),
        _ => match empty::table(table) {
            Some(memory) => memory,
            None => {
                let text = "Fail to get table info, error: Table does not exist";
                return Err(ServerError::new(code::TABLE_INFO, text));
            }
        },
    };
    Ok(Some(memory))
}

/// A type in the lists below: VARCHAR of a length, or a fixed one.
enum Of {
    Text(u32),
    Type(DataType),
}

fn memory(fields: &[(&str, Of)], rows: Vec<Vec<Cell>>) -> Memory {
    let field = |(name, of): &(&str, Of)| {
        let column_type = match of {
            Of::Text(length) => ColumnType::varchar(*length),
            Of::Type(data_type) => ColumnType::of(*data_type),
        };
        ResultField::new(*name, column_type)
    };
    Memory { fields: fields.iter().map(field).collect(), precision: Precision::Milliseconds, rows }
}

const INT: Of = Of::Type(DataType::Int);
const SMALLINT: Of = Of::Type(DataType::SmallInt);
const TINYINT: Of = Of::Type(DataType::TinyInt);
const BIGINT: Of = Of::Type(DataType::BigInt);
const TIME: Of = Of::Type(DataType::Timestamp);

fn databases(store: &Store) -> Memory {
    let mut rows: Vec<Vec<Cell>> = [("information_schema", 32), ("performance_schema", 5)]
        .into_iter()
        .map(|(name, tables)| {
            let mut row = vec![Cell::Null; 34];
            row[0] = Cell::text(name);
            row[1] = Cell::Time(store.created_ms());
            row[3] = Cell::Int(tables);
            row[14] = Cell::text("ms");
            row[15] = Cell::text("ready");
            row
        })
        .collect();
    rows.extend(store.databases().iter().map(|database| database_row(store, database)));
    memory(
        &[
            ("name", Of::Text(64)), ("create_time", TIME), ("vgroups", INT), ("ntables", BIGINT), ("replica", TINYINT),
            ("strict", Of::Text(4)), ("duration", Of::Text(10)), ("keep", Of::Text(32)), ("buffer", INT),
            ("pagesize", INT), ("pages", INT), ("minrows", INT), ("maxrows", INT), ("comp", TINYINT),
            ("precision", Of::Text(2)), ("status", Of::Text(10)), ("retentions", Of::Text(60)),
            ("single_stable", Of::Type(DataType::Bool)), ("cachemodel", Of::Text(11)), ("cachesize", INT),
            ("wal_level", TINYINT), ("wal_fsync_period", INT), ("wal_retention_period", INT),
            ("wal_retention_size", BIGINT), ("stt_trigger", SMALLINT), ("table_prefix", SMALLINT),
            ("table_suffix", SMALLINT), ("tsdb_pagesize", INT), ("keep_time_offset", INT), ("s3_chunksize", INT),
            ("s3_keeplocal", Of::Text(10)), ("s3_compact", TINYINT), ("with_arbitrator", TINYINT),
            ("encrypt_algorithm", Of::Text(16)),
        ],
        rows,
    )
}

/// Options as whole numbers where no field holds them, with a real server's defaults.
pub(super) fn option(database: &Database, name: &str, default: i64) -> i64 {
    database.options.other(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub(super) fn keep_text(database: &Database) -> String {
    database.options.keep_minutes.iter().map(|minutes| format!("{minutes}m")).collect::<Vec<_>>().join(",")
}

fn database_row(store: &Store, database: &Database) -> Vec<Cell> {
    let number = |name, default| Cell::Int(option(database, name, default));
    let options = &database.options;
    vec![
        Cell::text(database.name.as_str()),
        Cell::Time(database.created_ms),
        Cell::Int(database.vgroups.len() as i64),
        Cell::Int(store.tables(&database.name).len() as i64),
        number("replica", 1),
        Cell::text("on"),
        Cell::text(format!("{}m", options.duration_minutes)),
        Cell::text(keep_text(database)),
        number("buffer", 256),
        number("pagesize", 4),
        number("pages", 256),
        number("minrows", 100),
        number("maxrows", 4096),
        number("comp", 2),
        Cell::text(options.precision().name()),
        Cell::text("ready"),
        Cell::Null,
        Cell::Bool(option(database, "single_stable", 0) != 0),
        Cell::text(options.other("cachemodel").unwrap_or("none")),
        number("cachesize", 1),
        Cell::Int(options.wal_level),
        Cell::Int(options.wal_fsync_period_ms),
        Cell::Int(options.wal_retention_period_s),
        Cell::Int(options.wal_retention_size_kib),
        number("stt_trigger", 1),
        number("table_prefix", 0),
        number("table_suffix", 0),
        number("tsdb_pagesize", 4),
        Cell::Int(0),
        Cell::Int(262_144),
        Cell::text("5256000m"),
        Cell::Int(0),
        Cell::Int(0),
        Cell::text("none"),
    ]
}

/// Every super table with its database.
fn all_stables(store: &Store) -> Vec<(String, std::sync::Arc<Stable>)> {
    let of = |database: &std::sync::Arc<Database>| {
        let name = database.name.clone();
        store.stables(&database.name).into_iter().map(move |stable| (name.clone(), stable))
    };
    store.databases().iter().flat_map(of).collect()
}

fn all_tables(store: &Store) -> Vec<(String, std::sync::Arc<Table>)> {
    let of = |database: &std::sync::Arc<Database>| {
        let name = database.name.clone();
        store.tables(&database.name).into_iter().map(move |table| (name.clone(), table))
    };
    store.databases().iter().flat_map(of).collect()
}

/// Indexes of tags: all, or those of one super table.
pub(super) fn indexes(store: &Store, of: Option<(&str, &str)>) -> Memory {
    let stables = all_stables(store).into_iter();
    let wanted = stables.filter(|(database, stable)| of.is_none_or(|(of, name)| of == *database && name == stable.name));
    let rows = wanted.flat_map(|(database, stable)| {
        let row = |index: &TagIndex| {
            let tag = stable.tags.fields.iter().find(|tag| tag.id == index.tag);
            vec![
                Cell::text(index.name.as_str()),
                Cell::text(database.as_str()),
                Cell::text(stable.name.as_str()),
                Cell::Null,
                Cell::Time(index.created_ms),
                Cell::text(tag.map_or("", |tag| tag.name.as_str())),
                Cell::text("tag_index"),
            ]
        };
        stable.indexes.iter().map(row).collect::<Vec<_>>()
    });
    memory(
        &[
            ("index_name", Of::Text(192)), ("db_name", Of::Text(64)), ("table_name", Of::Text(192)), ("vgroup_id", INT),
            ("create_time", TIME), ("column_name", Of::Text(192)), ("index_type", Of::Text(192)),
        ],
        rows.collect(),
    )
}

fn comment(text: Option<&String>) -> Cell {
    text.map_or(Cell::Null, |text| Cell::text(text.as_str()))
}

/// A super table that was altered shows another time than that of its creation; when exactly is not kept: one millisecond a
/// change.
fn updated_ms(stable: &Stable) -> i64 {
    stable.created_ms + i64::from(stable.columns.version - 1) + i64::from(stable.tags.version - 1)
}

fn stables(store: &Store) -> Memory {
    let row = |(database, stable): (String, std::sync::Arc<Stable>)| {
        vec![
            Cell::text(stable.name.as_str()),
            Cell::text(database),
            Cell::Time(stable.created_ms),
            Cell::Int(stable.columns.fields.len() as i64),
            Cell::Int(stable.tags.fields.len() as i64),
            Cell::Time(updated_ms(&stable)),
            comment(stable.comment.as_ref()),
            Cell::text("5000a,5000a"),
            Cell::text("-1a,-1a"),
            Cell::text(""),
        ]
    };
    memory(
        &[
            ("stable_name", Of::Text(192)), ("db_name", Of::Text(64)), ("create_time", TIME), ("columns", INT),
            ("tags", INT), ("last_update", TIME), ("table_comment", Of::Text(1024)), ("watermark", Of::Text(64)),
            ("max_delay", Of::Text(64)), ("rollup", Of::Text(128)),
        ],
        all_stables(store).into_iter().map(row).collect(),
    )
}

/// The super table of a child, in a list of all.
fn stable_of<'a>(stables: &'a [(String, std::sync::Arc<Stable>)], database: &str, suid: i64) -> Option<&'a Stable> {
    let found = stables.iter().find(|(name, stable)| name == database && stable.suid == suid);
    found.map(|(_, stable)| &**stable)
}

fn tables(store: &Store) -> Memory {
    let stables = all_stables(store);
    let row = |(database, table): (String, std::sync::Arc<Table>)| {
        let meta = table.meta();
        let stable = stable_of(&stables, &database, meta.suid());
        let (columns, kind) = match &meta.body {
            TableBody::Child { .. } => (stable.map_or(0, |stable| stable.columns.fields.len()), "CHILD_TABLE"),
            TableBody::Normal { columns, .. } => (columns.fields.len(), "NORMAL_TABLE"),
        };
        vec![
            Cell::text(meta.name.as_str()),
            Cell::text(database),
            Cell::Time(meta.created_ms),
            Cell::Int(columns as i64),
            stable.map_or(Cell::Null, |stable| Cell::text(stable.name.as_str())),
            Cell::Int(meta.uid),
            Cell::Int(i64::from(table.vgroup)),
            Cell::Int(i64::from(meta.ttl_days)),
            comment(meta.comment.as_ref()),
            Cell::text(kind),
        ]
    };
    memory(
        &[
            ("table_name", Of::Text(192)), ("db_name", Of::Text(64)), ("create_time", TIME), ("columns", INT),
            ("stable_name", Of::Text(192)), ("uid", BIGINT), ("vgroup_id", INT), ("ttl", INT),
            ("table_comment", Of::Text(1024)), ("type", Of::Text(21)),
        ],
        all_tables(store).into_iter().map(row).collect(),
    )
}

fn column_row(table: &str, database: &str, kind: &str, field: &Field) -> Vec<Cell> {
    vec![
        Cell::text(table),
        Cell::text(database),
        Cell::text(kind),
        Cell::text(field.name.as_str()),
        match field.column_type.data_type {
            data_type @ (DataType::Varbinary | DataType::Geometry) => Cell::text(data_type.name()),
            _ => Cell::text(field.column_type.to_string()),
        },
        // Here, and nowhere else, with the prefix of a text.
        Cell::Int(i64::from(field.column_type.bytes)),
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ]
}

fn columns(store: &Store) -> Memory {
    let stables = all_stables(store);
    let mut rows = Vec::new();
    for (database, stable) in &stables {
        let row = |field| column_row(&stable.name, database, "SUPER_TABLE", field);
        rows.extend(stable.columns.fields.iter().map(row));
    }
    for (database, table) in all_tables(store) {
        let meta = table.meta();
        match &meta.body {
            TableBody::Child { suid, .. } => {
                let fields = stable_of(&stables, &database, *suid).into_iter().flat_map(|stable| &stable.columns.fields);
                rows.extend(fields.map(|field| column_row(&meta.name, &database, "CHILD_TABLE", field)));
            }
            TableBody::Normal { columns, .. } => {
                rows.extend(columns.fields.iter().map(|field| column_row(&meta.name, &database, "NORMAL_TABLE", field)));
            }
        }
    }
    memory(
        &[
            ("table_name", Of::Text(192)), ("db_name", Of::Text(64)), ("table_type", Of::Text(21)),
            ("col_name", Of::Text(64)), ("col_type", Of::Text(32)), ("col_length", INT), ("col_precision", INT),
            ("col_scale", INT), ("col_nullable", INT),
        ],
        rows,
    )
}

/// The text of a tag as `ins_tags` shows it.
fn tag_text(values: &TagValues, field: &Field) -> Cell {
    match (Cell::of(values.value(field), field.column_type), field.column_type.data_type) {
        (Cell::Null, _) => Cell::Null,
        (Cell::Float(value), _) => Cell::text(format!("{value:.5}")),
        (Cell::Double(value), _) => Cell::text(format!("{value:.9}")),
        (Cell::Bytes(bytes), DataType::Geometry) if let Some(text) = geometry::text(&bytes) => Cell::text(text),
        (other @ Cell::Bytes(_), _) => Cell::text(format!("\\x{}", other.shown())),
        (other, _) => Cell::text(other.shown()),
    }
}

/// Tags of the children that `takes` lets pass.
pub(super) fn tags(store: &Store, takes: &dyn Fn(&str, &Table) -> bool) -> Memory {
    let stables = all_stables(store);
    let mut rows = Vec::new();
    for (database, table) in all_tables(store) {
        let meta = table.meta();
        let TableBody::Child { suid, tags } = &meta.body else { continue };
        let (true, Some(stable)) = (takes(&database, &table), stable_of(&stables, &database, *suid)) else { continue };
        for field in &stable.tags.fields {
            rows.push(vec![
                Cell::text(meta.name.as_str()),
                Cell::text(database.as_str()),
                Cell::text(stable.name.as_str()),
                Cell::text(field.name.as_str()),
                Cell::text(field.column_type.to_string()),
                tag_text(tags, field),
            ]);
        }
    }
    memory(
        &[
            ("table_name", Of::Text(192)), ("db_name", Of::Text(64)), ("stable_name", Of::Text(192)),
            ("tag_name", Of::Text(64)), ("tag_type", Of::Text(32)), ("tag_value", Of::Text(16_384)),
        ],
        rows,
    )
}
