//! Rows of the log as this plugin needs them: every block with its table and its schema. Read in place; a frame of ten
//! thousand tables costs no allocation per table until its fields are asked for.

use std::ops::Range;

use tdengine_wire::tmq::{self, BlockParts, DataView, Fields, Offset, Tail};
use tdengine_wire::{Field, Precision, Result, WireError};

/// A message of rows.
#[derive(Debug)]
pub struct DataMessage<'a> {
    /// Where the lane goes on after this message; absent where the server did not say.
    pub next_offset: Option<i64>,
    pub blocks: Vec<Block<'a>>,
    /// The blocks with their tables and schemas as they came.
    pub entries: &'a [u8],
    /// Encoded requests to create tables, of type 4 only.
    pub creates: Vec<&'a [u8]>,
}

/// The rows of one table with one set of columns.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    pub precision: Precision,
    /// The raw block.
    pub bytes: &'a [u8],
    pub rows: usize,
    /// Version of the columns that the rows were written under.
    pub schema_version: i32,
    /// The schema as it came: equal bytes are equal columns.
    pub schema: &'a [u8],
    pub table: &'a str,
}

impl<'a> DataMessage<'a> {
    /// Where the lane goes on behind this message, which begins at `begin`: a server that does not say so cannot be resumed behind it.
    pub fn ends(&self, begin: i64) -> i64 {
        self.next_offset.unwrap_or(begin + 1)
    }

    /// Reads the body of a message of raw type 2 or 4.
    ///
    /// # Errors
    /// When bytes are missing or impossible, a block has no table or schema, or stored files were read, which is never
    /// asked for.
    pub fn parse(raw_type: u16, body: &'a [u8]) -> Result<Self> {
        let view = DataView::parse(body)?;
        let next_offset = match view.response_offset() {
            Offset::Log(version) => Some(*version),
            Offset::Reset(_) => None,
            Offset::Snapshot { kind, .. } => {
                let why = format!("{kind}: the server reads stored files first");
                return Err(WireError::Invalid { what: "offset kind", why });
            }
        };
        let mut blocks = Vec::with_capacity(view.block_count());
        let mut entries = view.blocks();
        for entry in &mut entries {
            let entry = entry?;
            let (Some(fields), Some(table)) = (entry.fields, entry.table) else {
                return Err(WireError::Invalid { what: "block entry", why: "no schema or no table".to_owned() });
            };
            blocks.push(Block {
                precision: entry.precision,
                bytes: entry.block,
                rows: entry.header.rows,
                schema_version: fields.version(),
                schema: fields.as_bytes(),
                table,
            });
        }
        let bytes = entries.as_bytes();
        let creates = match entries.tail(raw_type)? {
            Tail::Creates(creates) => creates,
            Tail::Sleep(_) => Vec::new(),
        };
        Ok(Self { next_offset, blocks, entries: bytes, creates })
    }

    pub fn rows(&self) -> u64 {
        self.blocks.iter().map(|block| block.rows as u64).sum()
    }
}

impl Block<'_> {
    /// Name, type and id of the columns.
    ///
    /// # Errors
    /// When a type is unknown.
    pub fn fields(&self) -> Result<Vec<Field>> {
        Fields::from_bytes(self.schema)?.to_vec()
    }
}

/// Builds a message of type 2 that a server takes back: tables with blocks of their own.
#[derive(Debug)]
pub struct DataBuilder(tmq::DataBuilder);

impl Default for DataBuilder {
    fn default() -> Self {
        // A server that takes a message back does not look at where it came from.
        Self(tmq::DataBuilder::new(&Offset::Log(0), &Offset::Log(0)))
    }
}

impl DataBuilder {
    pub fn is_empty(&self) -> bool {
        self.0.blocks() == 0
    }

    /// Adds a raw block (header version 2).
    ///
    /// # Errors
    /// When the block and its fields do not fit each other.
    pub fn push(&mut self, parts: &BlockParts<'_>) -> Result<()> {
        self.0.push(parts)
    }

    /// The whole message in the form that is written back.
    pub fn finish(self) -> Vec<u8> {
        tmq::pack(tmq::DATA, &self.0.finish())
    }
}

/// Splits a range of rows at the positions where `differs` is true, for callers that leave out single rows.
pub fn runs_of(rows: usize, keep: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in (0..rows).filter(|row| keep(*row)) {
        match runs.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}
