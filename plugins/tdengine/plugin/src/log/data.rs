//! Rows of the log: TMQ raw data, types 2 and 4 (PROTOCOL 8). Read in place; a frame of ten thousand tables costs no
//! allocation per table until its fields are asked for.

use std::ops::Range;

use tdengine_wire::block::BlockHeader;
use tdengine_wire::cursor::{Reader, Write as _};
use tdengine_wire::{ColumnType, DataType, Field, Precision, Result, WireError};

/// First byte of the form with a head length.
const VERSION: u8 = 100;
/// Kind byte of an offset in a log.
const OFFSET_LOG: i8 = 0x11;
/// Bytes between a block's length and the block: marker, rows, compressed, precision.
const RETRIEVE_HEAD_BYTES: usize = 18;

/// A message of rows.
#[derive(Debug)]
pub struct DataMessage<'a> {
    /// Where the lane goes on after this message; absent while a server reads stored files.
    pub next_offset: Option<i64>,
    pub blocks: Vec<Block<'a>>,
    /// Encoded requests to create tables, of type 4 only.
    pub creates: Vec<&'a [u8]>,
    /// The body up to the tail, which is all that type 2 has but eight zero bytes.
    without_tail: &'a [u8],
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
    /// Reads the body of a message of raw type 2 or 4.
    ///
    /// # Errors
    /// When bytes are missing or impossible.
    pub fn parse(raw_type: u16, body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        if body.first().is_some_and(|first| *first >= VERSION) {
            reader.u8("data version")?;
            reader.i32("data head length")?;
        }
        read_offset(&mut reader)?;
        let next_offset = read_offset(&mut reader)?;
        let count = reader.i32("block count")?;
        let with_table = reader.u8("table name flag")? != 0;
        let with_schema = reader.u8("schema flag")? != 0;
        let count = reader.count(i64::from(count), RETRIEVE_HEAD_BYTES, "block count")?;
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(Block::parse(&mut reader, with_table, with_schema)?);
        }
        let without_tail = &body[..reader.position()];
        let mut creates = Vec::new();
        if raw_type == super::RAW_METADATA {
            let tables = reader.i32("created tables")?;
            for _ in 0..reader.count(i64::from(tables), 1, "created tables")? {
                creates.push(reader.binary("created table")?);
            }
        }
        Ok(Self { next_offset, blocks, creates, without_tail })
    }

    pub fn rows(&self) -> u64 {
        self.blocks.iter().map(|block| block.rows as u64).sum()
    }

    /// The same rows as a message of type 2, in the form that is written back.
    pub fn to_data(&self) -> Vec<u8> {
        let length = self.without_tail.len() + 8;
        let mut raw = Vec::with_capacity(6 + length);
        raw.put(&(length as u32).to_le_bytes());
        raw.put(&super::RAW_DATA.to_le_bytes());
        raw.put(self.without_tail);
        raw.put(&0i64.to_le_bytes());
        raw
    }
}

impl<'a> Block<'a> {
    fn parse(reader: &mut Reader<'a>, with_table: bool, with_schema: bool) -> Result<Self> {
        let entry = reader.binary("block entry")?;
        let mut head = Reader::new(entry);
        head.take(RETRIEVE_HEAD_BYTES - 1, "block head")?;
        let precision = Precision::from_code(i64::from(head.u8("precision")?))?;
        let bytes = head.rest();
        let header = BlockHeader::parse(bytes)?;
        let mut block =
            Block { precision, bytes: &bytes[..header.length], rows: header.rows, schema_version: 0, schema: &[], table: "" };
        if with_schema {
            let before = reader.rest();
            let start = reader.position();
            let columns = reader.zigzag("schema columns")?;
            block.schema_version = reader.zigzag32("schema version")?;
            for _ in 0..reader.count(columns, 5, "schema columns")? {
                skip_field(reader)?;
            }
            block.schema = &before[..reader.position() - start];
        }
        if with_table {
            block.table = reader.cstr("table name")?;
        }
        Ok(block)
    }

    /// Name, type and id of the columns.
    ///
    /// # Errors
    /// When a type is unknown.
    pub fn fields(&self) -> Result<Vec<Field>> {
        read_schema(&mut Reader::new(self.schema)).map(|(_, fields)| fields)
    }
}

fn skip_field(reader: &mut Reader<'_>) -> Result<()> {
    reader.take(2, "field type and flags")?;
    reader.zigzag("field bytes")?;
    reader.zigzag("field id")?;
    reader.binary("field name").map(|_| ())
}

/// Reads a schema: its version and its fields (PROTOCOL 9.3).
pub(super) fn read_schema(reader: &mut Reader<'_>) -> Result<(i32, Vec<Field>)> {
    let columns = reader.zigzag("schema columns")?;
    let version = reader.zigzag32("schema version")?;
    let count = reader.count(columns, 5, "schema columns")?;
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let data_type = DataType::from_code(reader.u8("field type")?)?;
        let flags = reader.u8("field flags")?;
        let bytes = reader.zigzag32("field bytes")?;
        let id = reader.zigzag("field id")?;
        let id = i16::try_from(id).map_err(|_| WireError::Invalid { what: "field id", why: id.to_string() })?;
        let name = reader.cstr("field name")?.to_owned();
        fields.push(Field { name, column_type: ColumnType { data_type, bytes }, id, flags });
    }
    Ok((version, fields))
}

fn read_offset(reader: &mut Reader<'_>) -> Result<Option<i64>> {
    let kind = reader.i8("offset kind")?;
    match kind {
        OFFSET_LOG | 1 => reader.i64("offset").map(Some),
        // Reset kinds have no body.
        i8::MIN..=-1 => Ok(None),
        _ => Err(WireError::Invalid {
            what: "offset kind",
            why: format!("{kind}: a server that reads stored files first, which is never asked for"),
        }),
    }
}

/// Builds a message of type 2 that a server takes back: tables with blocks of their own.
#[derive(Debug, Default)]
pub struct DataBuilder {
    entries: Vec<u8>,
    count: i32,
}

impl DataBuilder {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a raw block (header version 2) for `table`.
    pub fn push(&mut self, table: &str, block: &[u8], precision: Precision, fields: &[Field], schema_version: i32) {
        let rows = BlockHeader::parse(block).map_or(0, |header| header.rows as i64);
        self.entries.put_uvarint((RETRIEVE_HEAD_BYTES + block.len()) as u64);
        self.entries.put(&1i64.to_le_bytes());
        self.entries.put(&rows.to_be_bytes());
        self.entries.push(0);
        self.entries.push(precision.code());
        self.entries.put(block);
        self.entries.put_zigzag(fields.len() as i64);
        self.entries.put_zigzag(i64::from(schema_version));
        for field in fields {
            self.entries.push(field.column_type.data_type.code());
            self.entries.push(field.flags);
            self.entries.put_zigzag(i64::from(field.column_type.bytes));
            self.entries.put_zigzag(i64::from(field.id));
            self.entries.put_cstr(&field.name);
        }
        self.entries.put_cstr(table);
        self.count += 1;
    }

    /// Adds a block of another message as it is, for `table`.
    pub fn push_block(&mut self, block: &Block<'_>) {
        self.entries.put_uvarint((RETRIEVE_HEAD_BYTES + block.bytes.len()) as u64);
        self.entries.put(&1i64.to_le_bytes());
        self.entries.put(&(block.rows as i64).to_be_bytes());
        self.entries.push(0);
        self.entries.push(block.precision.code());
        self.entries.put(block.bytes);
        self.entries.put(block.schema);
        self.entries.put_cstr(block.table);
        self.count += 1;
    }

    /// The whole message in the form that is written back.
    pub fn finish(self) -> Vec<u8> {
        const OFFSETS_BYTES: i32 = 18;
        let mut body = Vec::with_capacity(self.entries.len() + 37);
        body.push(VERSION);
        body.put(&OFFSETS_BYTES.to_le_bytes());
        for _ in 0..2 {
            body.push(OFFSET_LOG as u8);
            body.put(&0i64.to_le_bytes());
        }
        body.put(&self.count.to_le_bytes());
        body.put(&[1, 1]);
        body.put(&self.entries);
        body.put(&0i64.to_le_bytes());
        super::envelope(super::RAW_DATA, &body)
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
