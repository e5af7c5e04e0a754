//! Rows per second of raw block → Arrow → raw block, for `docs/performance.md`:
//! `cargo run --release -p tdengine-wire --example throughput`

use std::time::Instant;

use tdengine_wire::arrow::{from_columns, to_columns};
use tdengine_wire::block::{BlockBuilder, BlockView, VERSION_TMQ};
use tdengine_wire::{ColumnType, DataType, Precision, Result};

const ROWS: i64 = 4_096;
const ROUNDS: i64 = 5_000;

fn main() -> Result<()> {
    let numbers = [DataType::Timestamp, DataType::Float, DataType::Int, DataType::Float].map(ColumnType::of);
    let mut with_text = numbers;
    with_text[3] = ColumnType::varchar(24);
    for (name, types) in [("4 fixed columns", numbers), ("3 fixed and 1 VARCHAR", with_text)] {
        let mut block = BlockBuilder::new(types);
        for row in 0..ROWS {
            for column in block.columns_mut() {
                if column.column_type().is_variable() {
                    column.push_str("a text of some length")?;
                } else {
                    column.push_i64(row)?;
                }
            }
        }
        let bytes = block.encode(VERSION_TMQ)?;
        let start = Instant::now();
        let mut total = 0;
        for _ in 0..ROUNDS {
            let columns = to_columns(&BlockView::parse(&bytes)?, Precision::Milliseconds)?;
            total += from_columns(&columns, &types, VERSION_TMQ)?.len();
        }
        let rate = (ROWS * ROUNDS) as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!("{name}: {rate:.1} million rows/s there and back ({total} bytes)");
    }
    Ok(())
}
