//! From the columns of a block to those of a table, checked.

use std::sync::Arc;

use bytes::Bytes;
use tdengine_wire::block::{BlockView, ColumnView, FLAGS, HEADER_BYTES, VERSION_TMQ};
use tdengine_wire::{DataType, Field, Precision};

use crate::database::Database;
use crate::error::{Result, ServerError, code};
use crate::rows::timestamps;
use crate::schema::Schema;
use crate::store::inner::now_ms;

/// A block in the form in which it is logged and kept: header version 2, columns in the order of the table, each of the
/// table's type, the timestamp first.
#[derive(Debug)]
pub(crate) struct Bound {
    pub ids: Arc<[i16]>,
    pub block: Bytes,
    pub rows: usize,
    oldest: i64,
    newest: i64,
}

/// Binds by name.
///
/// # Errors
/// 0x2602 for a name that the table does not have; see [`bind`].
pub(crate) fn by_name(view: &BlockView<'_>, names: &[&str], columns: &Schema) -> Result<Bound> {
    if names.len() != view.columns().len() {
        return Err(ServerError::invalid_message());
    }
    let place = |name: &&str| columns.position(name).ok_or_else(|| ServerError::invalid_column(name));
    let places = names.iter().map(place).collect::<Result<Vec<_>>>()?;
    bind(view, &places, columns)
}

/// Binds the first columns of the table.
///
/// # Errors
/// 0x0118 for more columns than the table has; see [`bind`].
pub(crate) fn by_position(view: &BlockView<'_>, columns: &Schema) -> Result<Bound> {
    let count = view.columns().len();
    if count > columns.fields.len() {
        return Err(ServerError::invalid_parameter("Invalid parameters"));
    }
    bind(view, &(0..count).collect::<Vec<_>>(), columns)
}

/// Binds the columns of `view` to these places of the table.
///
/// # Errors
/// 0x0118 for another type, 0x0115 for a key that is missing or NULL or a column that is there twice, 0x2653 for a value
/// that is too long.
pub(crate) fn bind(view: &BlockView<'_>, places: &[usize], columns: &Schema) -> Result<Bound> {
    let mut order: Vec<(usize, &ColumnView<'_>)> = places.iter().copied().zip(view.columns()).collect();
    order.sort_by_key(|(place, _)| *place);
    if order.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(ServerError::invalid_message());
    }
    let mut bound = Vec::with_capacity(order.len());
    for (place, column) in order {
        let field = &columns.fields[place];
        if field.column_type.data_type != column.data_type() {
            return Err(ServerError::invalid_parameter("Invalid parameters"));
        }
        check_values(column, field)?;
        bound.push((field, column));
    }
    check_keys(&bound, columns)?;
    let block = encode(view, &bound);
    let ids = bound.iter().map(|(field, _)| field.id).collect();
    finish(ids, block.into())
}

/// A block that is already in the form of the table.
pub(crate) fn finish(ids: Arc<[i16]>, block: Bytes) -> Result<Bound> {
    let view = BlockView::parse(&block)?;
    let oldest = timestamps(&view).min().unwrap_or(i64::MAX);
    let newest = timestamps(&view).max().unwrap_or(i64::MIN);
    Ok(Bound { ids, rows: view.rows(), oldest, newest, block: block.clone() })
}

/// Whether the key columns are there and not NULL.
pub(crate) fn check_keys(bound: &[(&Field, &ColumnView<'_>)], columns: &Schema) -> Result<()> {
    let keys = if columns.has_composite_key() { 2 } else { 1 };
    for key in &columns.fields[..keys] {
        let column = bound.iter().find(|(field, _)| field.id == key.id);
        if column.is_none_or(|(_, column)| column.null_count() > 0) {
            return Err(ServerError::invalid_message());
        }
    }
    Ok(())
}

/// Whether every value of a variable column fits it.
pub(crate) fn check_values(column: &ColumnView<'_>, field: &Field) -> Result<()> {
    if !field.column_type.is_variable() {
        return Ok(());
    }
    let room = (field.column_type.bytes as usize).saturating_sub(field.column_type.data_type.prefix());
    let longest = (0..column.rows()).filter_map(|row| column.bytes(row)).map(<[u8]>::len).max().unwrap_or(0);
    if longest > room { Err(ServerError::new(code::VALUE_TOO_LONG, "Value too long for column/tag")) } else { Ok(()) }
}

fn encode(view: &BlockView<'_>, bound: &[(&Field, &ColumnView<'_>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(view.as_bytes().len() + 1);
    let words = [VERSION_TMQ, 0, view.rows() as i32, bound.len() as i32];
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.extend_from_slice(&FLAGS.to_le_bytes());
    out.resize(HEADER_BYTES, 0);
    for (field, _) in bound {
        out.push(field.column_type.data_type.code());
        out.extend_from_slice(&field.column_type.bytes.to_le_bytes());
    }
    bound.iter().for_each(|(_, column)| out.extend_from_slice(&(column.data().len() as i32).to_le_bytes()));
    for (_, column) in bound {
        match column.bitmap() {
            Some(bitmap) => out.extend_from_slice(bitmap),
            None => column.offsets().for_each(|offset| out.extend_from_slice(&offset.to_le_bytes())),
        }
        out.extend_from_slice(column.data());
    }
    out.push(0);
    let length = out.len() as i32;
    out[4..8].copy_from_slice(&length.to_le_bytes());
    out
}

impl Bound {
    /// Whether no row is older than the database keeps (FACTS F28), nor newer than a server takes.
    ///
    /// # Errors
    /// 0x060B.
    pub fn check_range(&self, database: &Database) -> Result<()> {
        if self.oldest < oldest_kept(database) || self.newest > newest(database.options.precision()) {
            return Err(ServerError::new(code::TIMESTAMP_OUT_OF_RANGE, "Timestamp data out of range"));
        }
        Ok(())
    }
}

/// The newest timestamp that a server takes: the year 2970, or 2262 in nanoseconds (recording errors-insert).
fn newest(precision: Precision) -> i64 {
    match precision {
        Precision::Milliseconds => 31_556_995_200_000,
        Precision::Microseconds => 31_556_995_200_000_000,
        Precision::Nanoseconds => 9_214_646_400_000_000_000,
    }
}

/// The oldest timestamp that `KEEP` allows, in the precision of the database.
pub(crate) fn oldest_kept(database: &Database) -> i64 {
    let options = &database.options;
    let kept_ms = options.keep_minutes.iter().copied().max().unwrap_or(0).saturating_mul(60_000);
    let scale = options.precision().per_second() / 1_000;
    now_ms().saturating_sub(kept_ms).saturating_mul(scale)
}

/// Whether a type can be the second key column.
pub(crate) fn can_be_key(data_type: DataType) -> bool {
    matches!(data_type, DataType::Int | DataType::UInt | DataType::BigInt | DataType::UBigInt | DataType::Varchar)
}
