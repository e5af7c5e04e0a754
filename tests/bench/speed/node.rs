//! Rows that an embedded node takes by raw block: it must not be what other figures measure.

use std::path::Path;

use anyhow::Result;
use pipeline_tests::start_node;
use tdengine_wire::block::{BlockBuilder, VERSION_QUERY};
use tdengine_wire::envelope::WriteField;
use tdengine_wire::{ColumnType, DataType};

use crate::load::{self, Address, TABLES};
use crate::options::Options;
use crate::process::cpu_seconds;
use crate::report::{Report, Wanted};

const ROWS_PER_BLOCK: u64 = 4_096;
const BLOCKS: u64 = 500;
const COLUMNS: [(&str, DataType); 4] =
    [("ts", DataType::Timestamp), ("current", DataType::Float), ("voltage", DataType::Int), ("phase", DataType::Float)];

/// Rows per second of processor time: other processes do not count.
pub fn measure(options: &Options, folder: &Path, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (site, process) = start_node(&folder.join("taker"), None)?;
    let address = Address::new(&site.dsn())?;
    let mut rates = Vec::new();
    for round in 0..options.rounds {
        let database = format!("bench_take_{round}");
        let connection = runtime.block_on(load::create(&address, &database))?;
        let blocks: Vec<Vec<u8>> = (0..BLOCKS / TABLES).map(block).collect::<Result<_>>()?;
        let fields: Vec<WriteField> =
            COLUMNS.iter().map(|(name, data_type)| WriteField::new(*name, ColumnType::of(*data_type))).collect();
        let before = cpu_seconds(process.id())?;
        runtime.block_on(async {
            for block in &blocks {
                for table in 0..TABLES {
                    connection.write_block(&format!("t{table}"), block, fields.clone()).await?;
                }
            }
            anyhow::Ok(())
        })?;
        let seconds = cpu_seconds(process.id())? - before;
        rates.push((blocks.len() as u64 * TABLES * ROWS_PER_BLOCK) as f64 / seconds / 1e6);
        runtime.block_on(load::clean(&address, &database))?;
    }
    report.add("node takes raw blocks, per core", "M rows/s", Wanted::AtLeast(1.0), rates);
    Ok(())
}

fn block(number: u64) -> Result<Vec<u8>> {
    let mut builder = BlockBuilder::new(COLUMNS.map(|(_, data_type)| ColumnType::of(data_type)));
    for row in 0..ROWS_PER_BLOCK {
        builder.column(0).push_i64((1_700_000_000_000 + number * ROWS_PER_BLOCK + row) as i64)?;
        builder.column(1).push_f32(row as f32 * 0.1)?;
        builder.column(2).push_i64(220 + row as i64 % 7)?;
        builder.column(3).push_f32(0.3)?;
    }
    Ok(builder.encode(VERSION_QUERY)?)
}
