//! Making TMQ raw data from blocks.

use super::view::Offset;
use crate::block::BlockHeader;
use crate::cursor::Write;
use crate::error::{Result, WireError};
use crate::types::{Field, Precision};

/// One block for [`DataBuilder::push`].
#[derive(Debug, Clone, Copy)]
pub struct BlockParts<'a> {
    /// The table, case as stored.
    pub table: &'a str,
    /// Names and ids of the block's columns, in its order.
    pub fields: &'a [Field],
    /// Version of the table's columns.
    pub schema_version: i32,
    /// Of the timestamps.
    pub precision: Precision,
    /// A raw block with header version 2 and a trailing byte.
    pub block: &'a [u8],
}

/// A body of raw type 2 or 4 under construction: head, blocks, then one of the tails.
#[derive(Debug, Clone)]
pub struct DataBuilder {
    out: Vec<u8>,
    with_table_name: bool,
    count_at: usize,
    count: i32,
    rows: usize,
}

impl DataBuilder {
    /// Writes the head, for blocks with schema and table name.
    pub fn new(request: &Offset, response: &Offset) -> Self {
        Self::start(request, response, true)
    }

    /// Writes the head, for blocks with schema alone, as topics that select get them.
    pub fn without_table_names(request: &Offset, response: &Offset) -> Self {
        Self::start(request, response, false)
    }

    fn start(request: &Offset, response: &Offset, with_table_name: bool) -> Self {
        let mut out = vec![super::VERSION];
        out.put_framed(|out| {
            request.encode(out);
            response.encode(out);
        });
        let count_at = out.len();
        out.put(&[0, 0, 0, 0, u8::from(with_table_name), 1]);
        Self { out, with_table_name, count_at, count: 0, rows: 0 }
    }

    /// Appends a block.
    ///
    /// # Errors
    /// When the block's header is wrong, or it has another number of columns than `fields`.
    pub fn push(&mut self, parts: &BlockParts<'_>) -> Result<()> {
        let header = self.checked(parts.block)?;
        if header.columns != parts.fields.len() {
            let why = format!("{} columns for {} fields", header.columns, parts.fields.len());
            return Err(WireError::unencodable("block entry", why));
        }
        self.put_retrieve(header.rows, parts.precision, parts.block);
        put_schema(&mut self.out, parts.fields, parts.schema_version);
        self.put_table(parts.table);
        Ok(())
    }

    /// As [`DataBuilder::push`] with a schema that is encoded already (see [`encode_schema`]).
    ///
    /// # Errors
    /// When the block's header is wrong.
    pub fn push_encoded(&mut self, table: &str, schema: &[u8], precision: Precision, block: &[u8]) -> Result<()> {
        let header = self.checked(block)?;
        self.put_retrieve(header.rows, precision, block);
        self.out.put(schema);
        self.put_table(table);
        Ok(())
    }

    fn put_table(&mut self, table: &str) {
        if self.with_table_name {
            self.out.put_cstr(table);
        }
    }

    fn checked(&self, block: &[u8]) -> Result<BlockHeader> {
        let header = BlockHeader::parse(block)?;
        if header.length != block.len() {
            let why = format!("{} bytes, its header says {}", block.len(), header.length);
            return Err(WireError::unencodable("block entry", why));
        }
        Ok(header)
    }

    fn put_retrieve(&mut self, rows: usize, precision: Precision, block: &[u8]) {
        self.out.put_uvarint((super::RETRIEVE_BYTES + block.len()) as u64);
        self.out.put(&1i64.to_le_bytes());
        self.out.put(&(rows as i64).to_be_bytes());
        self.out.put(&[0, precision.code()]);
        self.out.put(block);
        self.count += 1;
        self.rows += rows;
    }

    /// Number of blocks so far; a message must have one at least (trap T20).
    pub fn blocks(&self) -> usize {
        self.count as usize
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Ends a body of type 2.
    pub fn finish(mut self) -> Vec<u8> {
        self.close();
        self.out.put(&0i64.to_le_bytes());
        self.out
    }

    /// Ends a body of type 4 with create-table requests, each with its own length in front.
    pub fn finish_with_creates<'c>(mut self, creates: impl ExactSizeIterator<Item = &'c [u8]>) -> Vec<u8> {
        self.close();
        super::split::put_creates(&mut self.out, creates);
        self.out
    }

    fn close(&mut self) {
        self.out[self.count_at..self.count_at + 4].copy_from_slice(&self.count.to_le_bytes());
        if self.count == 0 {
            // A real server leaves both flags out when there is no block.
            self.out.truncate(self.count_at + 4);
        }
    }
}

/// What stands before and behind `bytes` of entries (see [`super::Blocks::as_bytes`]), each with its table's name and schema, in a message
/// of type 2 in its packed form: so the entries of several messages become one without being touched.
pub fn enclose(blocks: usize, bytes: usize) -> (Vec<u8>, [u8; 8]) {
    let tail = 0i64.to_le_bytes();
    // A server that takes a message back does not look at where it came from.
    let mut body = DataBuilder::new(&Offset::Log(0), &Offset::Log(0));
    body.count = blocks as i32;
    body.close();
    let mut head = super::pack(super::DATA, &body.out);
    head[..4].copy_from_slice(&((body.out.len() + bytes + tail.len()) as u32).to_le_bytes());
    (head, tail)
}

/// Writes a schema as block entries and meta have it: zig-zag count and version, then the fields.
pub(crate) fn put_schema(out: &mut Vec<u8>, fields: &[Field], version: i32) {
    out.put_zigzag(fields.len() as i64);
    out.put_zigzag(i64::from(version));
    for field in fields {
        out.push(field.column_type.data_type.code());
        out.push(field.flags);
        out.put_zigzag(i64::from(field.column_type.bytes));
        out.put_zigzag(i64::from(field.id));
        out.put_cstr(&field.name);
    }
}

/// A schema for [`DataBuilder::push_encoded`].
pub fn encode_schema(fields: &[Field], version: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + fields.len() * 16);
    put_schema(&mut out, fields, version);
    out
}
