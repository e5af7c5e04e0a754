//! Binding as libtaos 3.3.0 does it for raw writes (PROTOCOL 3, FACTS F25–F27).
//!
//! It walks the block with a pointer. A name that the table does not have moves neither the pointer nor the place in the
//! block's schema, so what follows is read from the wrong place; types are compared only together with widths, so equal
//! widths pass and bits are taken for something else. What C would read beyond the block is refused here.

use bytes::Bytes;
use tdengine_wire::block::{BlockBuilder, BlockHeader, BlockView, ColumnView, HEADER_BYTES, VERSION_TMQ};
use tdengine_wire::{ColumnType, Field};

use super::bind::{self, Bound};
use crate::error::{Result, ServerError};
use crate::schema::Schema;

/// By name; `None` for a block without rows.
pub(crate) fn by_name(block: &[u8], names: &[&str], columns: &Schema) -> Result<Option<Bound>> {
    let places: Vec<Option<usize>> = names.iter().map(|name| columns.position(name)).collect();
    run(block, &places, columns)
}

/// By position, every column of the table; `None` for a block without rows.
pub(crate) fn by_position(block: &[u8], columns: &Schema) -> Result<Option<Bound>> {
    let header = BlockHeader::parse(block)?;
    if header.columns != columns.fields.len() {
        return Err(ServerError::invalid_parameter("Invalid parameters"));
    }
    let places: Vec<Option<usize>> = (0..header.columns).map(Some).collect();
    run(block, &places, columns)
}

fn run(block: &[u8], places: &[Option<usize>], columns: &Schema) -> Result<Option<Bound>> {
    let header = BlockHeader::parse(block)?;
    if header.rows == 0 {
        return Ok(None);
    }
    if places.len() > columns.fields.len() {
        return Err(ServerError::invalid_parameter("Invalid parameters"));
    }
    // libtaos knows no offsets that cross columns or run backwards out of them: a sound block is read soundly.
    let view = BlockView::parse(block)?;
    if let Some(sound) = sound_places(&view, places, columns) {
        return bind::bind(&view, &sound, columns).map(Some);
    }
    Walk { block: view.as_bytes(), header, schema: HEADER_BYTES, data: HEADER_BYTES + header.columns * 9 }
        .run(places, columns)
        .map(Some)
}

/// The places, when every name is known and every type is that of the table: the ordinary case.
fn sound_places(view: &BlockView<'_>, places: &[Option<usize>], columns: &Schema) -> Option<Vec<usize>> {
    if places.len() != view.columns().len() {
        return None;
    }
    let pairs = places.iter().zip(view.columns());
    let sound = |(place, column): (&Option<usize>, &ColumnView<'_>)| {
        place.filter(|place| columns.fields[*place].column_type.data_type == column.data_type())
    };
    pairs.map(sound).collect()
}

/// The two pointers of libtaos.
struct Walk<'a> {
    block: &'a [u8],
    header: BlockHeader,
    schema: usize,
    data: usize,
}

impl<'a> Walk<'a> {
    fn run(mut self, places: &[Option<usize>], columns: &Schema) -> Result<Bound> {
        let mut found: Vec<(usize, Bytes)> = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let Some(place) = *place else { continue };
            if found.iter().any(|(other, _)| *other == place) {
                return Err(ServerError::invalid_message());
            }
            found.push((place, self.column(index, &columns.fields[place])?));
        }
        found.sort_by_key(|(place, _)| *place);
        self.assemble(&found, columns)
    }

    fn word(&self, at: usize) -> Result<i32> {
        let bytes = self.block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i32::from_le_bytes).ok_or_else(ServerError::invalid_message)
    }

    /// Reads a column as if it had the type of `field`, and moves the pointers on. Answers a block of this column.
    fn column(&mut self, index: usize, field: &Field) -> Result<Bytes> {
        let code = self.block.get(self.schema).copied().ok_or_else(ServerError::invalid_message)?;
        let (wanted, width) = (field.column_type, self.word(self.schema + 1)?);
        if code != wanted.data_type.code() && width != wanted.bytes {
            return Err(ServerError::invalid_parameter("Invalid parameters"));
        }
        if index >= self.header.columns {
            return Err(ServerError::invalid_message());
        }
        let length = self.word(HEADER_BYTES + self.header.columns * 5 + index * 4)?;
        let length = usize::try_from(length).map_err(|_| ServerError::invalid_message())?;
        let rows = self.header.rows;
        let nulls = if wanted.is_variable() { rows * 4 } else { rows.div_ceil(8) };
        let (start, end) = (self.data, self.data + nulls);
        let out = match wanted.data_type.width() {
            Some(fixed) => self.fixed(wanted, start, end, fixed),
            None => self.variable(wanted, start, end),
        }?;
        self.schema += 5;
        self.data = end + length;
        Ok(out)
    }

    fn fixed(&self, wanted: ColumnType, start: usize, end: usize, width: usize) -> Result<Bytes> {
        let (bitmap, data) = (self.block.get(start..end), self.block.get(end..end + width * self.header.rows));
        let (Some(bitmap), Some(data)) = (bitmap, data) else { return Err(ServerError::invalid_message()) };
        let mut builder = BlockBuilder::new([wanted]);
        for (row, value) in data.chunks_exact(width).enumerate() {
            if bitmap[row / 8] & (0x80 >> (row % 8)) != 0 {
                builder.column(0).push_null();
            } else {
                builder.column(0).push_bytes(value)?;
            }
        }
        Ok(builder.encode(VERSION_TMQ)?.into())
    }

    fn variable(&self, wanted: ColumnType, start: usize, end: usize) -> Result<Bytes> {
        let mut builder = BlockBuilder::new([wanted]);
        for row in 0..self.header.rows {
            let offset = self.word(start + row * 4)?;
            if offset == -1 {
                builder.column(0).push_null();
                continue;
            }
            let at = usize::try_from(offset).map_err(|_| ServerError::invalid_message())? + end;
            let value = self.block.get(at..).and_then(|rest| {
                let (prefix, rest) = rest.split_at_checked(wanted.data_type.prefix())?;
                let length = prefix.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
                rest.get(..length)
            });
            builder.column(0).push_bytes(value.ok_or_else(ServerError::invalid_message)?)?;
        }
        Ok(builder.encode(VERSION_TMQ)?.into())
    }

    fn assemble(&self, found: &[(usize, Bytes)], columns: &Schema) -> Result<Bound> {
        let views = found.iter().map(|(_, block)| BlockView::parse(block)).collect::<Result<Vec<_>, _>>()?;
        let fields: Vec<&Field> = found.iter().map(|(place, _)| &columns.fields[*place]).collect();
        let pairs: Vec<(&Field, &ColumnView<'_>)> =
            fields.iter().copied().zip(views.iter().filter_map(|view| view.column(0))).collect();
        for (field, column) in &pairs {
            bind::check_values(column, field)?;
        }
        bind::check_keys(&pairs, columns)?;
        let mut builder = BlockBuilder::new(fields.iter().map(|field| field.column_type));
        for (column, (_, source)) in builder.columns_mut().iter_mut().zip(&pairs) {
            column.extend_from(source, 0..self.header.rows)?;
        }
        let ids = fields.iter().map(|field| field.id).collect();
        bind::finish(ids, builder.encode(VERSION_TMQ)?.into())
    }
}
