//! Reading a raw block in place.

use crate::cursor::Reader;
use crate::error::{Result, WireError};
use crate::types::{ColumnType, DataType};
use crate::value::Value;

/// The first 28 bytes: enough to route and count a block without looking into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// 1 in query results, 2 in TMQ data.
    pub version: i32,
    /// Bytes of the whole block, header and trailing byte included.
    pub length: usize,
    /// Rows.
    pub rows: usize,
    /// Columns, at least 1.
    pub columns: usize,
    /// 0x80000000 from C, 0xFFFFFFFF from the Rust connector.
    pub flags: u32,
    /// 0.
    pub group: u64,
}

impl BlockHeader {
    /// Reads the header and checks that `bytes` holds the length that it claims.
    ///
    /// # Errors
    /// When bytes are missing or the claims contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.i32("block version")?;
        let length = reader.i32("block length")?;
        let rows = reader.i32("block rows")?;
        let columns = reader.i32("block columns")?;
        let flags = reader.u32("block flags")?;
        let group = reader.u64("block group")?;
        let length = usize::try_from(length).ok().filter(|length| *length >= super::HEADER_BYTES);
        let length = length.ok_or_else(|| WireError::invalid("block length", "shorter than its header"))?;
        if length > bytes.len() {
            return Err(WireError::Truncated { what: "block", at: 0, need: length, left: bytes.len() });
        }
        let rows = usize::try_from(rows).map_err(|_| WireError::invalid("block rows", rows.to_string()))?;
        let columns = usize::try_from(columns).ok().filter(|columns| *columns > 0);
        let columns = columns.ok_or_else(|| WireError::invalid("block columns", "must be at least 1"))?;
        Ok(Self { version, length, rows, columns, flags, group })
    }
}

/// A checked raw block.
#[derive(Debug, Clone)]
pub struct BlockView<'a> {
    header: BlockHeader,
    bytes: &'a [u8],
    columns: Vec<ColumnView<'a>>,
}

impl<'a> BlockView<'a> {
    /// Reads the block at the start of `bytes`; whatever follows its own total length is left alone.
    ///
    /// # Errors
    /// When any length, offset or type in it is impossible.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let header = BlockHeader::parse(bytes)?;
        let bytes = &bytes[..header.length];
        let mut reader = Reader::new(bytes);
        reader.take(super::HEADER_BYTES, "block header")?;
        let count = reader.count(header.columns as i64, 9, "block columns")?;
        let mut schema = Reader::new(reader.take(count * 5, "block schema")?);
        let mut lengths = Reader::new(reader.take(count * 4, "block lengths")?);
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let data_type = DataType::from_code(schema.u8("column type")?)?;
            let column_type = ColumnType { data_type, bytes: schema.i32("column bytes")? };
            let length = lengths.i32("column length")?;
            columns.push(ColumnView::parse(&mut reader, column_type, header.rows, length)?);
        }
        Ok(Self { header, bytes, columns })
    }

    /// The header.
    pub fn header(&self) -> BlockHeader {
        self.header
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.header.rows
    }

    /// The columns in order.
    pub fn columns(&self) -> &[ColumnView<'a>] {
        &self.columns
    }

    /// One column, `None` beyond the last.
    pub fn column(&self, index: usize) -> Option<&ColumnView<'a>> {
        self.columns.get(index)
    }

    /// The whole block as it came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// One column of a checked block.
#[derive(Debug, Clone, Copy)]
pub struct ColumnView<'a> {
    column_type: ColumnType,
    rows: usize,
    /// Fixed types: the null bitmap. Variable types: the offsets.
    nulls: &'a [u8],
    data: &'a [u8],
}

impl<'a> ColumnView<'a> {
    fn parse(reader: &mut Reader<'a>, column_type: ColumnType, rows: usize, length: i32) -> Result<Self> {
        let length = usize::try_from(length).map_err(|_| WireError::invalid("column length", length.to_string()))?;
        let nulls = match column_type.data_type.width() {
            Some(_) => reader.take(rows.div_ceil(8), "null bitmap")?,
            None => reader.take(rows.saturating_mul(4), "column offsets")?,
        };
        let data = reader.take(length, "column data")?;
        let column = Self { column_type, rows, nulls, data };
        match column_type.data_type.width() {
            Some(width) => column.check_fixed(width)?,
            None => column.check_variable()?,
        }
        Ok(column)
    }

    fn check_fixed(&self, width: usize) -> Result<()> {
        let need = self.rows.saturating_mul(width);
        if self.data.len() == need {
            return Ok(());
        }
        let why = format!("{} bytes for {} rows of {}", self.data.len(), self.rows, self.column_type.data_type);
        Err(WireError::invalid("column length", why))
    }

    fn check_variable(&self) -> Result<()> {
        let prefix = self.column_type.data_type.prefix();
        for (row, offset) in self.offsets().enumerate() {
            if offset == -1 {
                continue;
            }
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let fits = start
                .checked_add(prefix)
                .filter(|value| *value <= self.data.len())
                .is_some_and(|value| read_prefix(&self.data[start..value]) <= self.data.len() - value);
            if !fits {
                let why = format!("{offset} in row {row} with {} bytes of data", self.data.len());
                return Err(WireError::invalid("column offset", why));
            }
        }
        Ok(())
    }

    /// Its type and width, as in the block's schema.
    pub fn column_type(&self) -> ColumnType {
        self.column_type
    }

    /// Its type.
    pub fn data_type(&self) -> DataType {
        self.column_type.data_type
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Fixed types: the null bitmap, 1 = null, row 0 in the highest bit of byte 0.
    pub fn bitmap(&self) -> Option<&'a [u8]> {
        (!self.column_type.is_variable()).then_some(self.nulls)
    }

    /// Variable types: the offset of each row in [`ColumnView::data`], −1 for null; fixed types: nothing.
    pub fn offsets(&self) -> impl ExactSizeIterator<Item = i32> + 'a {
        let (offsets, _) = if self.column_type.is_variable() { self.nulls.as_chunks::<4>() } else { (&[][..], &[][..]) };
        offsets.iter().map(|offset| i32::from_le_bytes(*offset))
    }

    /// The data part: values of fixed width, or prefixed values where the offsets point.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Whether the value is NULL.
    ///
    /// # Panics
    /// When `row` is beyond the last.
    pub fn is_null(&self, row: usize) -> bool {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        if self.column_type.is_variable() {
            self.nulls[row * 4..row * 4 + 4] == [0xff; 4]
        } else {
            self.nulls[row / 8] & (0x80 >> (row % 8)) != 0
        }
    }

    /// The number of NULLs.
    pub fn null_count(&self) -> usize {
        if self.column_type.is_variable() {
            return self.offsets().filter(|offset| *offset == -1).count();
        }
        let whole = &self.nulls[..self.rows / 8];
        let mut count = whole.iter().map(|byte| byte.count_ones() as usize).sum();
        if !self.rows.is_multiple_of(8) {
            count += (self.nulls[self.rows / 8] & !(0xff >> (self.rows % 8))).count_ones() as usize;
        }
        count
    }

    /// The bytes of a value without its length prefix; `None` for NULL.
    ///
    /// # Panics
    /// When `row` is beyond the last.
    pub fn bytes(&self, row: usize) -> Option<&'a [u8]> {
        if self.is_null(row) {
            return None;
        }
        if let Some(width) = self.column_type.data_type.width() {
            return Some(&self.data[row * width..(row + 1) * width]);
        }
        let (offsets, _) = self.nulls.as_chunks::<4>();
        let start = i32::from_le_bytes(offsets[row]) as usize;
        Some(self.value_at(start))
    }

    /// The value whose length prefix stands at `start`, an offset that was checked when the block was parsed.
    pub(crate) fn value_at(&self, start: usize) -> &'a [u8] {
        let value = start + self.column_type.data_type.prefix();
        let length = read_prefix(&self.data[start..value]);
        &self.data[value..value + length]
    }

    /// A value with its type; for texts and tests, not for the data plane.
    ///
    /// # Panics
    /// When `row` is beyond the last.
    pub fn value(&self, row: usize) -> Value<'a> {
        match self.bytes(row) {
            None => Value::Null,
            Some(bytes) => Value::read(self.data_type(), bytes).unwrap_or(Value::Null),
        }
    }
}

fn read_prefix(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte))
}
