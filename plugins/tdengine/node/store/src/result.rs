//! What a statement answers.

use bytes::Bytes;
use tdengine_wire::{ColumnType, Precision};

use crate::error::Result;

/// The outcome of a statement.
#[derive(Debug)]
pub enum Outcome {
    /// Rows, to be fetched block by block.
    Rows(ResultSet),
    /// Anything else.
    Update {
        /// Rows written or deleted, 0 for DDL.
        affected: u64,
    },
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultField {
    /// Its name or alias.
    pub name: String,
    /// Type and width; `column_type.query_length()` is what replies give in `fields_lengths`.
    pub column_type: ColumnType,
}

impl ResultField {
    /// A named column.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Self {
        Self { name: name.into(), column_type }
    }
}

type Blocks = Box<dyn Iterator<Item = Result<Bytes>> + Send>;

/// Rows of a query: raw blocks of header version 1 with at least 1 and at most 4096 rows.
pub struct ResultSet {
    /// The columns.
    pub fields: Vec<ResultField>,
    /// Unit of the timestamps in it.
    pub precision: Precision,
    blocks: Blocks,
}

impl std::fmt::Debug for ResultSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ResultSet").field("fields", &self.fields).field("precision", &self.precision).finish()
    }
}

impl ResultSet {
    /// Rows that `blocks` makes when they are asked for.
    pub fn new(
        fields: Vec<ResultField>,
        precision: Precision,
        blocks: impl Iterator<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self { fields, precision, blocks: Box::new(blocks) }
    }

    /// The next block, `None` at the end.
    ///
    /// # Errors
    /// When making it failed; nothing comes after.
    pub fn next_block(&mut self) -> Result<Option<Bytes>> {
        self.blocks.next().transpose()
    }
}
