//! Making a raw block column by column.

use std::ops::Range;

use super::view::ColumnView;
use crate::error::{Result, WireError};
use crate::types::ColumnType;

/// Columns that grow row by row, then become a raw block.
///
/// The builder keeps its buffers over [`BlockBuilder::clear`], so that a long result needs no new memory per block.
#[derive(Debug, Clone)]
pub struct BlockBuilder {
    columns: Vec<ColumnBuilder>,
}

impl BlockBuilder {
    /// Empty columns of these types.
    pub fn new(types: impl IntoIterator<Item = ColumnType>) -> Self {
        Self { columns: types.into_iter().map(ColumnBuilder::new).collect() }
    }

    /// The columns.
    pub fn columns(&self) -> &[ColumnBuilder] {
        &self.columns
    }

    /// The columns, to push values into; each must get the same number of rows.
    pub fn columns_mut(&mut self) -> &mut [ColumnBuilder] {
        &mut self.columns
    }

    /// One column.
    ///
    /// # Panics
    /// When `index` is beyond the last.
    pub fn column(&mut self, index: usize) -> &mut ColumnBuilder {
        &mut self.columns[index]
    }

    /// Rows of the first column, which are the rows of all when the block is complete.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.rows)
    }

    /// Bytes that the block will have.
    pub fn encoded_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|column| 9 + column.nulls.len() + column.data.len()).sum();
        super::HEADER_BYTES + columns + 1
    }

    /// Empties the columns but keeps their memory.
    pub fn clear(&mut self) {
        for column in &mut self.columns {
            column.rows = 0;
            column.nulls.clear();
            column.data.clear();
        }
    }

    /// The block, with header `version` ([`super::VERSION_QUERY`] or [`super::VERSION_TMQ`]).
    ///
    /// # Errors
    /// When columns differ in rows, there is none, or the block passes 2 GiB.
    pub fn encode(&self, version: i32) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        self.encode_into(version, &mut out)?;
        Ok(out)
    }

    /// As [`BlockBuilder::encode`], appended to `out`.
    ///
    /// # Errors
    /// As [`BlockBuilder::encode`]; `out` is unchanged then.
    pub fn encode_into(&self, version: i32, out: &mut Vec<u8>) -> Result<()> {
        self.encode_with(version, super::FLAGS, true, out)
    }

    /// The form of stmt binds: flags 0xFFFFFFFF and no trailing byte (PROTOCOL 4.1).
    ///
    /// # Errors
    /// As [`BlockBuilder::encode`].
    pub fn encode_bind(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        self.encode_with(super::VERSION_QUERY, u32::MAX, false, &mut out)?;
        Ok(out)
    }

    fn encode_with(&self, version: i32, flags: u32, trailing_byte: bool, out: &mut Vec<u8>) -> Result<()> {
        let rows = self.rows();
        if self.columns.is_empty() || self.columns.iter().any(|column| column.rows != rows) {
            return Err(WireError::unencodable("block", "columns must exist and have equal numbers of rows"));
        }
        let length = self.encoded_bytes() - usize::from(!trailing_byte);
        let too_long = |_| WireError::unencodable("block", format!("{length} bytes pass 2 GiB"));
        let words = [version, i32::try_from(length).map_err(too_long)?, rows as i32, self.columns.len() as i32];
        out.reserve(length);
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        for column in &self.columns {
            out.push(column.column_type.data_type.code());
            out.extend_from_slice(&column.column_type.bytes.to_le_bytes());
        }
        for column in &self.columns {
            out.extend_from_slice(&(column.data.len() as i32).to_le_bytes());
        }
        for column in &self.columns {
            out.extend_from_slice(&column.nulls);
            out.extend_from_slice(&column.data);
        }
        if trailing_byte {
            out.push(0);
        }
        Ok(())
    }
}

/// One column under construction.
#[derive(Debug, Clone)]
pub struct ColumnBuilder {
    column_type: ColumnType,
    width: Option<usize>,
    rows: usize,
    nulls: Vec<u8>,
    data: Vec<u8>,
}

impl ColumnBuilder {
    fn new(column_type: ColumnType) -> Self {
        Self { column_type, width: column_type.data_type.width(), rows: 0, nulls: Vec::new(), data: Vec::new() }
    }

    /// Its type and width.
    pub fn column_type(&self) -> ColumnType {
        self.column_type
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn push_bit(&mut self, null: bool) {
        if self.rows.is_multiple_of(8) {
            self.nulls.push(0);
        }
        if let (true, Some(last)) = (null, self.nulls.last_mut()) {
            *last |= 0x80 >> (self.rows % 8);
        }
        self.rows += 1;
    }

    fn push_offset(&mut self, offset: i32) {
        self.nulls.extend_from_slice(&offset.to_le_bytes());
        self.rows += 1;
    }

    /// Appends NULL.
    pub fn push_null(&mut self) {
        match self.width {
            Some(width) => {
                self.data.resize(self.data.len() + width, 0);
                self.push_bit(true);
            }
            None => self.push_offset(-1),
        }
    }

    /// Appends a value given as little-endian bytes of exactly the type's width, or as the bytes of a variable value
    /// without prefix (NCHAR: UTF-32LE).
    ///
    /// # Errors
    /// When the width is wrong, or a variable value passes its prefix.
    pub fn push_bytes(&mut self, value: &[u8]) -> Result<()> {
        match self.width {
            Some(width) if width == value.len() => {
                self.data.extend_from_slice(value);
                self.push_bit(false);
                Ok(())
            }
            Some(width) => {
                let why = format!("{} bytes for {} of {width}", value.len(), self.column_type);
                Err(WireError::unencodable("value", why))
            }
            None => {
                let start = self.data.len();
                self.start_value(value.len())?;
                self.data.extend_from_slice(value);
                self.push_offset(start as i32);
                Ok(())
            }
        }
    }

    /// Appends `text` to VARCHAR or JSON as it is, to NCHAR as UTF-32LE.
    ///
    /// # Errors
    /// When the value passes its prefix or the column has a fixed width.
    pub fn push_str(&mut self, text: &str) -> Result<()> {
        if self.column_type.data_type != crate::types::DataType::Nchar {
            return self.push_bytes(text.as_bytes());
        }
        let start = self.data.len();
        self.start_value(text.chars().count() * 4)?;
        for character in text.chars() {
            self.data.extend_from_slice(&u32::from(character).to_le_bytes());
        }
        self.push_offset(start as i32);
        Ok(())
    }

    fn start_value(&mut self, length: usize) -> Result<()> {
        let prefix = self.column_type.data_type.prefix();
        let fits = if prefix == 2 { length <= usize::from(u16::MAX) } else { u32::try_from(length).is_ok() };
        if !fits || self.data.len() + prefix + length > i32::MAX as usize {
            return Err(WireError::unencodable("value", format!("{length} bytes for {}", self.column_type)));
        }
        self.data.extend_from_slice(&(length as u32).to_le_bytes()[..prefix]);
        Ok(())
    }

    /// Appends an integer, boolean or timestamp, cut to the width of the type.
    ///
    /// # Errors
    /// When the column has no fixed width.
    #[inline]
    pub fn push_i64(&mut self, value: i64) -> Result<()> {
        match self.width {
            Some(8) => self.push_bytes(&value.to_le_bytes()),
            Some(16) => self.push_bytes(&i128::from(value).to_le_bytes()),
            Some(width) => self.push_bytes(&value.to_le_bytes()[..width]),
            None => Err(WireError::unencodable("integer", format!("into a column of {}", self.column_type))),
        }
    }

    /// Appends an unsigned integer, cut to the width of the type.
    ///
    /// # Errors
    /// When the column has no fixed width.
    #[inline]
    pub fn push_u64(&mut self, value: u64) -> Result<()> {
        self.push_i64(value as i64)
    }

    /// Appends a FLOAT.
    ///
    /// # Errors
    /// When the column does not have 4 bytes.
    #[inline]
    pub fn push_f32(&mut self, value: f32) -> Result<()> {
        self.push_bytes(&value.to_le_bytes())
    }

    /// Appends a DOUBLE.
    ///
    /// # Errors
    /// When the column does not have 8 bytes.
    #[inline]
    pub fn push_f64(&mut self, value: f64) -> Result<()> {
        self.push_bytes(&value.to_le_bytes())
    }

    /// Appends many values of fixed width at once: little-endian bytes, and the null bitmap of just these rows (1 = null,
    /// the first in the highest bit) if any is NULL.
    ///
    /// # Errors
    /// When the column is variable, or the bytes are no whole number of values, or the bitmap is too short.
    pub fn extend_fixed(&mut self, values: &[u8], nulls: Option<&[u8]>) -> Result<()> {
        let width = self.width.filter(|width| values.len().is_multiple_of(*width));
        let count = values.len() / width.unwrap_or(1);
        if width.is_none() || nulls.is_some_and(|nulls| nulls.len() < count.div_ceil(8)) {
            let why = format!("{} bytes for {}", values.len(), self.column_type);
            return Err(WireError::unencodable("values", why));
        }
        self.data.extend_from_slice(values);
        match nulls {
            Some(nulls) if self.rows.is_multiple_of(8) => {
                self.nulls.extend_from_slice(&nulls[..count.div_ceil(8)]);
                self.rows += count;
                if let (Some(last), used @ 1..) = (self.nulls.last_mut(), self.rows % 8) {
                    *last &= !(0xff >> used);
                }
            }
            Some(nulls) => (0..count).for_each(|row| self.push_bit(nulls[row / 8] & (0x80 >> (row % 8)) != 0)),
            None => {
                self.rows += count;
                self.nulls.resize(self.rows.div_ceil(8), 0);
            }
        }
        Ok(())
    }

    /// Appends rows of a column of the same type.
    ///
    /// # Errors
    /// When the types differ.
    ///
    /// # Panics
    /// When the range passes the rows of `from`.
    pub fn extend_from(&mut self, from: &ColumnView<'_>, rows: Range<usize>) -> Result<()> {
        if from.data_type() != self.column_type.data_type {
            let why = format!("{} into {}", from.data_type(), self.column_type);
            return Err(WireError::unencodable("column", why));
        }
        assert!(rows.start <= rows.end && rows.end <= from.rows(), "rows {rows:?} of {}", from.rows());
        let Some(width) = self.width else {
            for row in rows {
                match from.bytes(row) {
                    None => self.push_offset(-1),
                    Some(value) => self.push_bytes(value)?,
                }
            }
            return Ok(());
        };
        self.data.extend_from_slice(&from.data()[rows.start * width..rows.end * width]);
        for row in rows {
            self.push_bit(from.is_null(row));
        }
        Ok(())
    }
}
