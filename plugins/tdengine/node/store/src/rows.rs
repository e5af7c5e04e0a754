//! The rows of one table: blocks as they were written, merged when somebody reads.
//!
//! A write only appends its block ([`Rows::push`]). A read ([`Rows::scan`]) first merges what was appended since into
//! sorted runs with one row a key: rows of the same key are laid over each other from old to new, and each overwrites
//! exactly the columns that it assigned, with NULLs where it says NULL (PROTOCOL 13.2). Blocks and runs have one format,
//! the raw block, in memory, in logs, in snapshots and on the wire.

mod merge;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tdengine_wire::block::{BlockView, ColumnView};

use crate::error::Result;
use crate::schema::Schema;

/// Rows of the largest run that merging makes.
pub const RUN_ROWS_MAX: usize = 16_384;
/// Blocks that wait unmerged at most, whatever their rows.
pub const UNMERGED_BLOCKS_MAX: usize = 4_096;

/// Rows in raw block form with the ids of their columns. The first column is the timestamp.
#[derive(Debug, Clone)]
pub struct Run {
    ids: Arc<[i16]>,
    block: Bytes,
    rows: usize,
    first: i64,
    last: i64,
}

impl Run {
    /// A block whose columns have these ids.
    ///
    /// # Errors
    /// When the block is malformed or `ids` does not fit it.
    pub fn new(ids: Arc<[i16]>, block: Bytes) -> Result<Self> {
        let view = BlockView::parse(&block)?;
        let (first, last) = timestamps(&view).fold((i64::MAX, i64::MIN), |(low, high), ts| (low.min(ts), high.max(ts)));
        let rows = view.rows();
        if view.columns().len() != ids.len() {
            return Err(crate::ServerError::invalid_message());
        }
        Ok(Self { ids, block, rows, first, last })
    }

    /// Ids of its columns, in the order of the block.
    pub fn ids(&self) -> &Arc<[i16]> {
        &self.ids
    }

    /// The block's bytes.
    pub fn block(&self) -> &Bytes {
        &self.block
    }

    /// Rows, at least 1.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Lowest and highest timestamp.
    pub fn range(&self) -> (i64, i64) {
        (self.first, self.last)
    }

    /// The block, to read. It was checked when the run was made; parsing it again costs time, so keep the view.
    ///
    /// # Errors
    /// Never for a run that was made by [`Run::new`].
    pub fn view(&self) -> Result<BlockView<'_>> {
        Ok(BlockView::parse(&self.block)?)
    }

    /// The column with this id; `None` when no row here ever assigned it: all NULL.
    pub fn column<'a>(&self, view: &BlockView<'a>, id: i16) -> Option<ColumnView<'a>> {
        let index = self.ids.iter().position(|candidate| *candidate == id)?;
        view.column(index).copied()
    }
}

/// The timestamps of a block, which are its first column.
pub fn timestamps<'a>(view: &BlockView<'a>) -> impl ExactSizeIterator<Item = i64> + use<'a> {
    let data = view.column(0).map_or(&[][..], |column| column.data());
    let (values, _) = data.as_chunks::<8>();
    values.iter().map(|value| i64::from_le_bytes(*value))
}

/// What a deletion hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Rows.
    pub rows: u64,
    /// Lowest timestamp among them.
    pub first: i64,
    /// Highest timestamp among them.
    pub last: i64,
}

/// The rows of one table.
#[derive(Debug, Default)]
pub struct Rows {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Sorted, one row a key, ranges of timestamps in order.
    merged: Arc<[Arc<Run>]>,
    /// As written, oldest first.
    fresh: Vec<Run>,
    fresh_rows: usize,
}

impl Rows {
    pub(crate) fn from_merged(runs: Vec<Arc<Run>>) -> Self {
        Self { inner: Mutex::new(Inner { merged: runs.into(), ..Inner::default() }) }
    }

    /// Appends a block. `schema` is the table's now; at most `unmerged_rows_max` rows stay unmerged.
    pub(crate) fn push(&self, run: Run, schema: &Schema, unmerged_rows_max: usize) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.fresh_rows += run.rows;
        inner.fresh.push(run);
        if inner.fresh_rows > unmerged_rows_max || inner.fresh.len() >= UNMERGED_BLOCKS_MAX {
            inner.merge(schema)?;
        }
        Ok(())
    }

    /// The rows now: runs in order of time, each sorted by key, no key twice. Columns are those of `schema` that any
    /// row assigned.
    ///
    /// # Errors
    /// When a stored block contradicts the schema.
    pub fn scan(&self, schema: &Schema) -> Result<Arc<[Arc<Run>]>> {
        let mut inner = self.inner.lock();
        inner.merge(schema)?;
        Ok(inner.merged.clone())
    }

    /// The number of rows.
    ///
    /// # Errors
    /// As [`Rows::scan`].
    pub fn count(&self, schema: &Schema) -> Result<u64> {
        Ok(self.scan(schema)?.iter().map(|run| run.rows as u64).sum())
    }

    /// The rows with `from <= ts <= to` that a deletion would hit.
    pub(crate) fn hits(&self, schema: &Schema, from: i64, to: i64) -> Result<Option<Deleted>> {
        let mut inner = self.inner.lock();
        inner.merge(schema)?;
        let mut total: Option<Deleted> = None;
        for run in inner.merged.iter().filter(|run| from <= to && run.first <= to && run.last >= from) {
            let view = run.view()?;
            for ts in timestamps(&view).filter(|ts| (from..=to).contains(ts)) {
                let deleted = total.get_or_insert(Deleted { rows: 0, first: ts, last: ts });
                deleted.rows += 1;
                deleted.first = deleted.first.min(ts);
                deleted.last = deleted.last.max(ts);
            }
        }
        Ok(total)
    }

    /// Removes the rows with `from <= ts <= to`.
    pub(crate) fn delete(&self, schema: &Schema, from: i64, to: i64) -> Result<()> {
        if from > to {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        inner.merge(schema)?;
        inner.merged = merge::without(&inner.merged, from, to)?.into();
        Ok(())
    }
}

impl Inner {
    fn merge(&mut self, schema: &Schema) -> Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        self.merged = merge::fold(&self.merged, &self.fresh, schema)?.into();
        self.fresh = Vec::new();
        self.fresh_rows = 0;
        Ok(())
    }
}
