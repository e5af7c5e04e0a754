//! Checks that CREATE and ALTER share (recordings/errors.jsonl).

use std::collections::HashSet;

use tdengine_wire::types::VALUE_BYTES_MAX;
use tdengine_wire::{ColumnType, DataType};

use super::ColumnSpec;
use crate::config::ServerVersion;
use crate::error::{Result, ServerError, code};
use crate::schema::Schema;
use crate::write::bind::can_be_key;

/// Longest row in bytes.
pub(crate) const ROW_BYTES_MAX: i64 = 65_531;
/// Columns and tags of a table together.
const COLUMNS_MAX: usize = 4_096;
/// Tags of a super table.
const TAGS_MAX: usize = 128;
/// Bytes of all tags.
pub(crate) const TAG_BYTES_MAX: i64 = 16_384;

/// The columns of a new table.
pub(crate) fn columns(columns: &[ColumnSpec], tags: &[ColumnSpec], version: ServerVersion) -> Result<()> {
    let first = columns.first().map(|column| column.column_type.data_type);
    if first != Some(DataType::Timestamp) {
        return Err(ServerError::new(code::FIRST_COLUMN_TIMESTAMP, "First column must be timestamp"));
    }
    if columns.len() < 2 || columns.len() + tags.len() > COLUMNS_MAX {
        return Err(ServerError::new(code::COLUMN_COUNT, "Illegal number of columns"));
    }
    let mut names = HashSet::new();
    if columns.iter().chain(tags).any(|column| !names.insert(column.name.as_str())) {
        return Err(duplicated());
    }
    for (place, column) in columns.iter().enumerate() {
        column_type(column.column_type, version)?;
        if column.column_type.data_type == DataType::Json {
            return Err(ServerError::new(code::SYNTAX, format!("syntax error near \"{}\"", column.name)));
        }
        primary_key(place, column)?;
    }
    row_bytes(columns.iter().map(|column| column.column_type), ROW_BYTES_MAX)
}

/// The tags of a new super table.
pub(crate) fn tags(tags: &[ColumnSpec], version: ServerVersion) -> Result<()> {
    if tags.is_empty() || tags.len() > TAGS_MAX {
        return Err(ServerError::new(code::TAG_COUNT, "Invalid number of tag columns"));
    }
    if tags.len() > 1 && tags.iter().any(|tag| tag.column_type.data_type == DataType::Json) {
        return Err(ServerError::new(code::JSON_TAG_ALONE, "Only one tag if there is a json tag"));
    }
    tags.iter().try_for_each(|tag| column_type(tag.column_type, version))?;
    row_bytes(tags.iter().map(|tag| tag.column_type), TAG_BYTES_MAX)
}

/// Whether this version of the server has the type, and the width is possible.
pub(crate) fn column_type(column_type: ColumnType, version: ServerVersion) -> Result<()> {
    let data_type = column_type.data_type;
    let is_decimal = matches!(data_type, DataType::Decimal | DataType::Decimal64);
    let is_blob = matches!(data_type, DataType::Blob | DataType::MediumBlob);
    if is_decimal && !version.has_decimal() || is_blob {
        return Err(ServerError::new(code::SYNTAX, format!("syntax error near \"{data_type}\"")));
    }
    let bytes = column_type.bytes - data_type.prefix() as i32;
    if data_type.is_variable() && bytes > VALUE_BYTES_MAX as i32 {
        return Err(ServerError::new(code::COLUMN_LENGTH, "Invalid column length for var length type"));
    }
    Ok(())
}

fn primary_key(place: usize, column: &ColumnSpec) -> Result<()> {
    if !column.primary_key {
        return Ok(());
    }
    if place != 1 {
        return Err(ServerError::new(code::PRIMARY_KEY_SECOND, "primary key column must be second column"));
    }
    if !can_be_key(column.column_type.data_type) {
        let text = "primary key column must be of type int, uint, bigint, ubigint, and varchar";
        return Err(ServerError::new(code::PRIMARY_KEY_TYPE, text));
    }
    Ok(())
}

fn row_bytes(types: impl Iterator<Item = ColumnType>, bytes_max: i64) -> Result<()> {
    let bytes: i64 = types.map(|column| column.data_type.width().map_or(i64::from(column.bytes), |width| width as i64)).sum();
    if bytes > bytes_max {
        return Err(ServerError::new(code::ROW_TOO_LONG, format!("Row length exceeds max length {bytes_max}")));
    }
    Ok(())
}

/// Whether a schema with one more column or a wider one still fits.
pub(crate) fn changed_row(schema: &Schema, bytes_max: i64) -> Result<()> {
    if schema.fields.len() > COLUMNS_MAX {
        return Err(ServerError::new(code::COLUMN_COUNT, "Illegal number of columns"));
    }
    row_bytes(schema.fields.iter().map(|field| field.column_type), bytes_max)
}

/// Whether `wider` is the same variable type with more room.
pub(crate) fn modify(old: ColumnType, wider: ColumnType, version: ServerVersion) -> Result<()> {
    let grows = old.data_type == wider.data_type && old.is_variable() && wider.bytes > old.bytes;
    if !grows || old.data_type == DataType::Json {
        let text = "Only varbinary/binary/nchar/geometry column length could be modified, and the length can only be increased, not decreased";
        return Err(ServerError::new(code::INVALID_MODIFY, text));
    }
    column_type(wider, version)
}

pub(crate) fn duplicated() -> ServerError {
    ServerError::new(code::DUPLICATED_COLUMN, "Duplicated column names")
}

