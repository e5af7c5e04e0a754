//! Reading TMQ raw data in place.

use crate::block::{BlockHeader, BlockView};
use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};
use crate::types::{ColumnType, DataType, Field, Precision};

/// A place in a vgroup's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offset {
    /// A version of the log.
    Log(i64),
    /// Somewhere in stored files; the body as it came.
    Snapshot {
        /// Its kind byte.
        kind: i8,
        /// What follows.
        body: Vec<u8>,
    },
    /// A reset value: −1 latest, −2 earliest, −3 none.
    Reset(i8),
}

impl Offset {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let kind = reader.i8("offset kind")?;
        if kind < 0 {
            return Ok(Self::Reset(kind));
        }
        match kind & 0x0f {
            1 => Ok(Self::Log(reader.i64("log offset")?)),
            2 | 3 => {
                let mut body = reader.take(16, "snapshot offset")?.to_vec();
                if kind & 0x10 != 0 {
                    decode_key(reader, &mut body)?;
                }
                Ok(Self::Snapshot { kind, body })
            }
            _ => Err(WireError::invalid("offset kind", kind.to_string())),
        }
    }

    /// Writes the kind byte and the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Log(version) => {
                out.push(0x11);
                out.put(&version.to_le_bytes());
            }
            Self::Snapshot { kind, body } => {
                out.push(*kind as u8);
                out.put(body);
            }
            Self::Reset(kind) => out.push(*kind as u8),
        }
    }

    /// The version, if it is one of the log.
    pub fn version(&self) -> Option<i64> {
        if let Self::Log(version) = self { Some(*version) } else { None }
    }
}

/// The primary key that newer snapshot offsets end in.
fn decode_key(reader: &mut Reader<'_>, body: &mut Vec<u8>) -> Result<()> {
    let code = reader.u8("key type")?;
    body.push(code);
    match DataType::from_code(code) {
        Ok(data_type) if data_type.is_variable() => body.put_binary(reader.binary("key value")?),
        _ => body.put(reader.take(8, "key value")?),
    }
    Ok(())
}

/// The head of a message; its blocks are read one by one with [`DataView::blocks`].
#[derive(Debug, Clone)]
pub struct DataView<'a> {
    request: Offset,
    response: Offset,
    block_count: usize,
    with_table_name: bool,
    with_schema: bool,
    bytes: &'a [u8],
    blocks_at: usize,
}

impl<'a> DataView<'a> {
    /// Reads the head of a body of raw type 2 or 4.
    ///
    /// # Errors
    /// When the head is too short or says something impossible.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (request, response);
        if bytes.first().is_some_and(|version| (super::VERSION..0x80).contains(version)) {
            reader.u8("data version")?;
            let length = reader.i32("data head length")?;
            let length = usize::try_from(length).map_err(|_| WireError::invalid("head length", length.to_string()))?;
            let mut head = Reader::new(reader.take(length, "data head")?);
            (request, response) = (Offset::decode(&mut head)?, Offset::decode(&mut head)?);
        } else {
            (request, response) = (Offset::decode(&mut reader)?, Offset::decode(&mut reader)?);
        }
        let count = reader.i32("block count")?;
        let (mut with_table_name, mut with_schema) = (false, false);
        if count != 0 {
            with_table_name = reader.u8("with table name")? != 0;
            with_schema = reader.u8("with schema")? != 0;
        }
        let block_count = reader.count(i64::from(count), super::RETRIEVE_BYTES, "block count")?;
        let blocks_at = reader.position();
        Ok(Self { request, response, block_count, with_table_name, with_schema, bytes, blocks_at })
    }

    /// Where the message starts.
    pub fn request_offset(&self) -> &Offset {
        &self.request
    }

    /// Next offset to read after the message.
    pub fn response_offset(&self) -> &Offset {
        &self.response
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.block_count
    }

    /// Whether entries carry table names.
    pub fn with_table_name(&self) -> bool {
        self.with_table_name
    }

    /// Whether entries carry schemas.
    pub fn with_schema(&self) -> bool {
        self.with_schema
    }

    /// The blocks in order; ends after the first error.
    pub fn blocks(&self) -> Blocks<'a> {
        let rest = &self.bytes[self.blocks_at..];
        let (with_table_name, with_schema) = (self.with_table_name, self.with_schema);
        Blocks { reader: Reader::new(rest), left: self.block_count, with_table_name, with_schema }
    }

    /// What follows the blocks; `raw_type` tells how to read it.
    ///
    /// # Errors
    /// When the blocks or the tail are malformed, or `raw_type` is neither 2 nor 4.
    pub fn tail(&self, raw_type: u16) -> Result<Tail<'a>> {
        let mut blocks = self.blocks();
        for entry in &mut blocks {
            entry?;
        }
        blocks.tail(raw_type)
    }

    /// Everything before the blocks.
    pub(super) fn head(&self) -> &'a [u8] {
        &self.bytes[..self.blocks_at]
    }
}

/// What follows the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail<'a> {
    /// Type 2: milliseconds to wait before the next poll; 0 in what clients get.
    Sleep(i64),
    /// Type 4: requests as in a create-table entry of [`crate::meta`], each with its own length in front.
    Creates(Vec<&'a [u8]>),
}

/// Iterator over the blocks of a message.
#[derive(Debug, Clone)]
pub struct Blocks<'a> {
    reader: Reader<'a>,
    left: usize,
    with_table_name: bool,
    with_schema: bool,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<BlockEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let entry = self.entry();
        self.left = if entry.is_ok() { self.left - 1 } else { 0 };
        Some(entry)
    }
}

impl<'a> Blocks<'a> {
    /// The entries that were read, as they came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.reader.taken()
    }

    /// As [`DataView::tail`], for who has read all blocks already.
    ///
    /// # Errors
    /// When the tail is malformed, or `raw_type` is neither 2 nor 4.
    pub fn tail(self, raw_type: u16) -> Result<Tail<'a>> {
        let mut reader = self.reader;
        match raw_type {
            // Some servers leave the sleep time out.
            super::DATA if reader.left() == 0 => Ok(Tail::Sleep(0)),
            super::DATA => Ok(Tail::Sleep(reader.i64("sleep time")?)),
            super::METADATA => {
                let count = reader.i32("create table count")?;
                let count = reader.count(i64::from(count), 1, "create table count")?;
                Ok(Tail::Creates((0..count).map(|_| reader.binary("create table")).collect::<Result<_>>()?))
            }
            _ => Err(WireError::invalid("raw type", format!("{raw_type} holds no rows"))),
        }
    }

    fn entry(&mut self) -> Result<BlockEntry<'a>> {
        let start = self.reader.clone();
        let mut retrieve = Reader::new(self.reader.binary("block entry")?);
        retrieve.i64("retrieve kind")?;
        let rows = i64::from_be_bytes(retrieve.array("retrieve rows")?);
        retrieve.u8("retrieve compressed")?;
        let precision = Precision::from_code(i64::from(retrieve.i8("retrieve precision")?))?;
        let block = retrieve.rest();
        let header = BlockHeader::parse(block)?;
        if header.length != block.len() {
            return Err(WireError::invalid("block entry", format!("{} bytes hold {}", block.len(), header.length)));
        }
        if rows != header.rows as i64 {
            return Err(WireError::invalid("retrieve rows", format!("{rows}, the block has {}", header.rows)));
        }
        let fields = if self.with_schema { Some(Fields::skip(&mut self.reader)?) } else { None };
        let table = if self.with_table_name { Some(self.reader.cstr("table name")?) } else { None };
        let length = self.reader.position() - start.position();
        Ok(BlockEntry { header, precision, block, fields, table, bytes: &start.rest()[..length] })
    }
}

/// One block with its schema and table.
#[derive(Debug, Clone, Copy)]
pub struct BlockEntry<'a> {
    /// Rows and columns without looking into the block.
    pub header: BlockHeader,
    /// Of its timestamps.
    pub precision: Precision,
    /// The raw block, not checked beyond its header.
    pub block: &'a [u8],
    /// Names, ids and types of the columns.
    pub fields: Option<Fields<'a>>,
    /// The table, case as stored.
    pub table: Option<&'a str>,
    bytes: &'a [u8],
}

impl<'a> BlockEntry<'a> {
    /// Reads and checks the block.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn view(&self) -> Result<BlockView<'a>> {
        BlockView::parse(self.block)
    }

    /// The whole entry as it came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The schema of a block, read when asked.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    count: usize,
    version: i32,
}

impl<'a> Fields<'a> {
    fn skip(reader: &mut Reader<'a>) -> Result<Self> {
        let start = reader.clone();
        let count = reader.zigzag("schema columns")?;
        let version = reader.zigzag32("schema version")?;
        let count = reader.count(count, 6, "schema columns")?;
        for _ in 0..count {
            reader.take(2, "column type")?;
            reader.uvarint("column bytes")?;
            reader.uvarint("column id")?;
            reader.binary("column name")?;
        }
        let length = reader.position() - start.position();
        Ok(Self { bytes: &start.rest()[..length], count, version })
    }

    /// Version of the table's columns.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The schema that [`Self::as_bytes`] gave.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::skip(&mut Reader::new(bytes))
    }

    /// The schema as it came: equal bytes mean equal schemas, which spares decoding it again for each block.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The columns.
    ///
    /// # Errors
    /// When a type is unknown or a number does not fit.
    pub fn to_vec(&self) -> Result<Vec<Field>> {
        decode_schema(&mut Reader::new(self.bytes)).map(|(fields, _)| fields)
    }
}

/// Reads a schema as block entries and meta have it: the fields and their version.
pub(crate) fn decode_schema(reader: &mut Reader<'_>) -> Result<(Vec<Field>, i32)> {
    let count = reader.zigzag("schema columns")?;
    let version = reader.zigzag32("schema version")?;
    let count = reader.count(count, 6, "schema columns")?;
    let fields = (0..count).map(|_| decode_field(reader)).collect::<Result<_>>()?;
    Ok((fields, version))
}

fn decode_field(reader: &mut Reader<'_>) -> Result<Field> {
    let data_type = DataType::from_code(reader.u8("column type")?)?;
    let flags = reader.u8("column flags")?;
    let bytes = reader.zigzag32("column bytes")?;
    let id = reader.zigzag("column id")?;
    let id = i16::try_from(id).map_err(|_| WireError::invalid("column id", id.to_string()))?;
    let name = reader.cstr("column name")?.to_owned();
    Ok(Field { name, column_type: ColumnType { data_type, bytes }, id, flags })
}
