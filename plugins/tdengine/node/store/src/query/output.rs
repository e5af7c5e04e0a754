//! Results as raw blocks.

use bytes::Bytes;
use tdengine_wire::block::BlockBuilder;

use super::cell::Cell;
use crate::error::Result;
use crate::result::{ResultField, ResultSet};

/// Rows of a result block, and its bytes beyond which it ends early (PROTOCOL 13.3).
pub(super) const BLOCK_ROWS_MAX: usize = 4_096;
pub(super) const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Rows of cells as a result.
pub(super) fn of_cells(
    fields: Vec<ResultField>,
    precision: tdengine_wire::Precision,
    rows: Vec<Vec<Cell>>,
) -> Result<ResultSet> {
    let types: Vec<_> = fields.iter().map(|field| field.column_type).collect();
    let mut blocks = Blocks::new(&types);
    for row in &rows {
        for (cell, column) in row.iter().zip(blocks.builder.columns_mut()) {
            cell.push(column)?;
        }
        blocks.row_added()?;
    }
    Ok(ResultSet::new(fields, precision, blocks.finish()?.into_iter().map(Ok)))
}

/// Collects rows and cuts them into blocks.
pub(super) struct Blocks {
    pub builder: BlockBuilder,
    /// Of the longest row that the columns allow.
    row_bytes_max: usize,
    done: Vec<Bytes>,
}

impl Blocks {
    pub fn new(types: &[tdengine_wire::ColumnType]) -> Self {
        const OFFSET_BYTES: usize = 4;
        let bytes_max = |column: &tdengine_wire::ColumnType| column.data_type.width().unwrap_or(column.bytes.max(0) as usize);
        let row_bytes_max = types.iter().map(|column| bytes_max(column) + OFFSET_BYTES).sum::<usize>().max(1);
        Self { builder: BlockBuilder::new(types.iter().copied()), row_bytes_max, done: Vec::new() }
    }

    /// Rows that may be added at once: all of them fit, whatever is in them. One always may.
    pub fn room(&self) -> usize {
        let bytes = BLOCK_BYTES_MAX.saturating_sub(self.builder.encoded_bytes());
        (bytes / self.row_bytes_max).clamp(1, BLOCK_ROWS_MAX - self.builder.rows())
    }

    /// Called when every column has its rows: cuts a block where it is full.
    pub fn row_added(&mut self) -> Result<()> {
        if self.builder.rows() >= BLOCK_ROWS_MAX || self.builder.encoded_bytes() >= BLOCK_BYTES_MAX {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        if self.builder.rows() > 0 {
            self.done.push(self.builder.encode(1)?.into());
            self.builder.clear();
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Vec<Bytes>> {
        self.cut()?;
        Ok(self.done)
    }
}
