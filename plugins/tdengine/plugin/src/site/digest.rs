//! What two sites are compared by: definitions in a canonical form, and per table a count and a hash of all rows that does
//! not depend on their order, nor on the order of columns.
//!
//! Rows are read as raw blocks and hashed column by column; a NULL and an absent value are the same.

use std::collections::{BTreeMap, HashMap};

use pipeline_sdk::Result;
use pipeline_sdk::site::{Digest, TableDigest};
use serde_json::{Value as Json, json};
use tdengine_wire::Precision;
use tdengine_wire::block::{BlockView, ColumnView};
use tdengine_wire::escape::identifier;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::transport::Connection;
use crate::metadata::{self, Column, Definition};

/// Counts and hashes of every table, of rows in `[from, to)` nanoseconds where given.
pub async fn digest(connection: &Connection, database: &str, range: Option<(i64, i64)>) -> Result<Digest> {
    let Some(found) = metadata::database(connection, database).await? else { return Ok(Digest::default()) };
    let mut tables = BTreeMap::new();
    for stable in metadata::stables(connection, database).await? {
        stable_digest(connection, database, &stable, found.precision, range, &mut tables).await?;
    }
    for (table, stable) in metadata::tables(connection, database).await? {
        if stable.is_empty() {
            let Some(definition) = metadata::describe(connection, database, &table).await? else { continue };
            let mut one = TableDigest { schema: columns_text("table", &definition.columns), ..empty(&table) };
            let sql = select(database, &table, &definition, false, found.precision, range);
            let mut sums = Sums::default();
            read(connection, &sql, &definition, false, |_, hash| sums.add(hash)).await?;
            sums.store(&mut one);
            tables.insert(table, one);
        }
    }
    let tables: Vec<TableDigest> = tables.into_values().collect();
    Ok(Digest { rows: tables.iter().map(|table| table.rows).sum(), tables })
}

/// Definitions of a database: super tables, their children with tag values, normal tables.
pub async fn schema(connection: &Connection, database: &str) -> Result<Json> {
    let mut stables = BTreeMap::new();
    let mut tables = BTreeMap::new();
    for stable in metadata::stables(connection, database).await? {
        let Some(definition) = metadata::describe(connection, database, &stable).await? else { continue };
        for (table, tags) in tag_texts(connection, database, &stable, &definition).await? {
            tables.insert(table, json!({ "stable": stable, "tags": tags }));
        }
        let (columns, tags) = (columns_text("columns", &definition.columns), columns_text("tags", &definition.tags));
        stables.insert(stable, json!({ "columns": columns, "tags": tags }));
    }
    for (table, stable) in metadata::tables(connection, database).await? {
        if stable.is_empty()
            && let Some(definition) = metadata::describe(connection, database, &table).await?
        {
            tables.insert(table, json!({ "columns": columns_text("columns", &definition.columns) }));
        }
    }
    Ok(json!({ "stables": stables, "tables": tables }))
}

fn empty(table: &str) -> TableDigest {
    TableDigest { table: table.into(), schema: String::new(), rows: 0, hash: format!("{:016x}", 0) }
}

async fn stable_digest(
    connection: &Connection,
    database: &str,
    stable: &str,
    precision: Precision,
    range: Option<(i64, i64)>,
    tables: &mut BTreeMap<String, TableDigest>,
) -> Result<()> {
    let Some(definition) = metadata::describe(connection, database, stable).await? else { return Ok(()) };
    let columns = columns_text("columns", &definition.columns);
    for (table, tags) in tag_texts(connection, database, stable, &definition).await? {
        let schema = format!("of {stable} {columns} tags {tags}");
        let one = TableDigest { schema, ..empty(&table) };
        tables.insert(table, one);
    }
    let sql = select(database, stable, &definition, true, precision, range);
    let mut sums: HashMap<Vec<u8>, Sums> = HashMap::new();
    read(connection, &sql, &definition, true, |table, hash| match sums.get_mut(table) {
        Some(sums) => sums.add(hash),
        None => sums.entry(table.to_vec()).or_default().add(hash),
    })
    .await?;
    for (table, sums) in sums {
        let table = String::from_utf8_lossy(&table).into_owned();
        sums.store(tables.entry(table.clone()).or_insert_with(|| empty(&table)));
    }
    Ok(())
}

/// Name, type and key of every column, by name: the order may differ between sites.
pub(super) fn columns_text(what: &str, columns: &[Column]) -> String {
    let mut texts: Vec<String> = columns
        .iter()
        .map(|column| format!("{} {}{}", column.name, column.column_type, if column.is_primary_key { " key" } else { "" }))
        .collect();
    texts.sort();
    format!("{what} ({})", texts.join(", "))
}

/// Tag values of every child as `name=literal`, by name.
async fn tag_texts(
    connection: &Connection,
    database: &str,
    stable: &str,
    definition: &Definition,
) -> Result<Vec<(String, String)>> {
    let mut tags: Vec<&Column> = definition.tags.iter().collect();
    tags.sort_by(|a, b| a.name.cmp(&b.name));
    let names = tags.iter().map(|tag| identifier(&tag.name)).collect::<Vec<_>>().join(", ");
    let from = tdengine_wire::escape::qualified(database, stable);
    let result = connection.query(&format!("select distinct tbname, {names} from {from}")).await?;
    let mut texts = Vec::new();
    result.each_row(|values| {
        let Some(table) = values.first().and_then(tdengine_wire::value::Value::text) else { return };
        let one = |(tag, value): (&&Column, &tdengine_wire::value::Value<'_>)| {
            format!("{}={}", tag.name, value.to_sql(tag.column_type))
        };
        let of_table: Vec<String> = tags.iter().zip(&values[1..]).map(one).collect();
        texts.push((table, of_table.join(", ")));
    })?;
    Ok(texts)
}

fn select(
    database: &str,
    table: &str,
    definition: &Definition,
    with_name: bool,
    precision: Precision,
    range: Option<(i64, i64)>,
) -> String {
    let mut columns: Vec<String> = definition.columns.iter().map(|column| identifier(&column.name)).collect();
    let time = columns.first().cloned().unwrap_or_default();
    if with_name {
        columns.insert(0, "tbname".into());
    }
    let from = tdengine_wire::escape::qualified(database, table);
    let mut sql = format!("select {} from {from}", columns.join(", "));
    if let Some((from, to)) = range {
        let nanoseconds_each = 1_000_000_000 / precision.per_second();
        let (from, to) = (from.div_euclid(nanoseconds_each), to.div_euclid(nanoseconds_each));
        sql.push_str(&format!(" where {time} >= {from} and {time} < {to}"));
    }
    sql
}

/// Calls `each` with table name (empty without one) and hash of every row.
async fn read(
    connection: &Connection,
    sql: &str,
    definition: &Definition,
    with_name: bool,
    mut each: impl FnMut(&[u8], u64) + Send,
) -> Result<()> {
    let seeds: Vec<u64> = definition.columns.iter().map(|column| xxh3_64(column.name.as_bytes())).collect();
    let skip = usize::from(with_name);
    connection
        .query_each(sql, |_, block| {
            let hashes = hash_rows(block, skip, &seeds);
            for (row, hash) in hashes.into_iter().enumerate() {
                let table = if with_name { block.columns()[0].bytes(row).unwrap_or_default() } else { &[] };
                each(table, hash);
            }
            Ok(())
        })
        .await?;
    Ok(())
}

fn hash_rows(block: &BlockView<'_>, skip: usize, seeds: &[u64]) -> Vec<u64> {
    let mut hashes = vec![0u64; block.rows()];
    for (column, seed) in block.columns()[skip..].iter().zip(seeds) {
        hash_column(column, *seed, &mut hashes);
    }
    hashes.iter_mut().for_each(|hash| *hash = mix(*hash));
    hashes
}

fn hash_column(column: &ColumnView<'_>, seed: u64, hashes: &mut [u64]) {
    for (row, hash) in hashes.iter_mut().enumerate() {
        let Some(bytes) = column.bytes(row) else { continue };
        let value = match bytes.len() {
            length @ 1..=8 if !column.column_type().is_variable() => {
                let mut word = [0; 8];
                word[..length].copy_from_slice(bytes);
                mix(u64::from_le_bytes(word) ^ seed)
            }
            _ => xxh3_64_with_seed(bytes, seed),
        };
        // Addition: the order of columns does not matter.
        *hash = hash.wrapping_add(value);
    }
}

/// The finalizer of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[derive(Default)]
struct Sums {
    rows: u64,
    hash: u64,
}

impl Sums {
    fn add(&mut self, hash: u64) {
        self.rows += 1;
        self.hash = self.hash.wrapping_add(hash);
    }

    fn store(&self, table: &mut TableDigest) {
        table.rows = self.rows;
        table.hash = format!("{:016x}", self.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdengine_wire::block::{BlockBuilder, VERSION_QUERY};
    use tdengine_wire::{ColumnType, DataType};

    fn block(rows: &[(i64, Option<i64>, &str)], swapped: bool) -> Vec<u8> {
        let (int, text) = (ColumnType::of(DataType::Int), ColumnType::varchar(8));
        let types = if swapped { [text, int] } else { [int, text] };
        let mut builder = BlockBuilder::new([ColumnType::of(DataType::Timestamp)].into_iter().chain(types));
        let (at_int, at_text) = if swapped { (2, 1) } else { (1, 2) };
        for (time, number, text) in rows {
            builder.column(0).push_i64(*time).unwrap();
            match number {
                Some(number) => builder.column(at_int).push_i64(*number).unwrap(),
                None => builder.column(at_int).push_null(),
            }
            builder.column(at_text).push_str(text).unwrap();
        }
        builder.encode(VERSION_QUERY).unwrap()
    }

    fn sum(bytes: &[u8], swapped: bool) -> u64 {
        let view = BlockView::parse(bytes).unwrap();
        let seeds = if swapped { [1, 3, 2] } else { [1, 2, 3] };
        hash_rows(&view, 0, &seeds).into_iter().fold(0, u64::wrapping_add)
    }

    #[test]
    fn equal_rows_hash_equal_in_any_order_and_others_do_not() {
        let rows = [(1, Some(5), "a"), (2, None, "b"), (3, Some(-5), "")];
        let base = sum(&block(&rows, false), false);
        let reversed: Vec<_> = rows.iter().rev().copied().collect();
        assert_eq!(sum(&block(&reversed, false), false), base, "order of rows");
        assert_eq!(sum(&block(&rows, true), true), base, "order of columns");
        for (what, changed) in [
            ("a value", [(1, Some(6), "a"), (2, None, "b"), (3, Some(-5), "")]),
            ("a NULL", [(1, Some(5), "a"), (2, Some(0), "b"), (3, Some(-5), "")]),
            ("values swapped between rows", [(1, Some(-5), "a"), (2, None, "b"), (3, Some(5), "")]),
            ("an empty text", [(1, Some(5), "a"), (2, None, "b"), (3, Some(-5), "x")]),
        ] {
            assert_ne!(sum(&block(&changed, false), false), base, "{what}");
        }
    }
}
