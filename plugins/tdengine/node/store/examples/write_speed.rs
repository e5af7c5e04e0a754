//! Rows per second that a store takes by raw block on one core, log included: blocks of 4096 rows and 4 columns into 100
//! tables in 2 vgroups. `cargo run --release -p tdengine-store --example write_speed [blocks]`

use std::time::Instant;

use tdengine_store::{RawField, Session, Store, StoreConfig};
use tdengine_wire::block::{BlockBuilder, VERSION_QUERY};
use tdengine_wire::{ColumnType, DataType};

const ROWS: i64 = 4_096;
const TABLES: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let blocks: usize = std::env::args().nth(1).map_or(Ok(2_000), |count| count.parse())?;
    let dir = std::env::temp_dir().join(format!("tdengine-store-speed-{}", std::process::id()));
    let store = Store::open(StoreConfig::new(&dir))?;
    let mut session = Session::new("root");
    for sql in [
        "create database d vgroups 2",
        "use d",
        "create stable st(ts timestamp, current float, voltage int, phase float) tags(g int)",
    ] {
        store.execute(&mut session, sql)?;
    }
    for table in 0..TABLES {
        store.execute(&mut session, &format!("create table t{table} using st tags({table})"))?;
    }
    let types = [DataType::Timestamp, DataType::Float, DataType::Int, DataType::Float].map(ColumnType::of);
    let fields: Vec<RawField> = ["ts", "current", "voltage", "phase"]
        .iter()
        .zip(types)
        .map(|(name, column)| RawField {
            name: (*name).to_owned(),
            data_type: column.data_type.code(),
            bytes: column.bytes,
        })
        .collect();
    let mut spent = std::time::Duration::ZERO;
    for block in 0..blocks {
        let first = 1_700_000_000_000 + (block / TABLES) as i64 * ROWS;
        let mut builder = BlockBuilder::new(types);
        for row in 0..ROWS {
            builder.column(0).push_i64(first + row)?;
            builder.column(1).push_f32(row as f32 * 0.1)?;
            builder.column(2).push_i64(220 + row % 7)?;
            builder.column(3).push_f32(0.3)?;
        }
        let bytes = builder.encode(VERSION_QUERY)?;
        let start = Instant::now();
        store.write_raw_block(&session, &format!("t{}", block % TABLES), Some(&fields), &bytes)?;
        spent += start.elapsed();
    }
    let rows = blocks as f64 * ROWS as f64;
    println!("{rows} rows in {spent:?}: {:.2} M rows/s", rows / spent.as_secs_f64() / 1e6);
    let start = Instant::now();
    let mut read = 0;
    for table in store.tables("d") {
        read += table.rows.count(&store.describe("d", &table.name)?.columns)?;
    }
    println!("{read} rows merged in {:?}", start.elapsed());
    drop(store);
    let start = Instant::now();
    drop(Store::open(StoreConfig::new(&dir))?);
    println!("opened again in {:?}", start.elapsed());
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
