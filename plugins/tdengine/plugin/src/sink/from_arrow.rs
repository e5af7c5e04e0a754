//! Arrow rows as a raw block of the target's columns.
//!
//! Columns are matched by name and take the target's types; where the Arrow type is another, it is cast once per column.


use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::record_batch::RecordBatch;
use pipeline_sdk::{Error, Result};
use tdengine_wire::arrow::{column_type_of, field_of, from_columns};
use tdengine_wire::block::VERSION_TMQ;
use tdengine_wire::{ColumnType, Field, Precision};

use super::target::Target;
use crate::transport::Connection;
use crate::errors::wire_error;
use crate::metadata;

/// A block with header version 2, its fields, and the unit of its times.
pub async fn block_of(
    target: &mut Target,
    connection: &Connection,
    table: &str,
    batch: &RecordBatch,
) -> Result<(Vec<u8>, Vec<Field>, Precision)> {
    let precision = precision_of(target, connection).await?;
    let here = target.shared.table(connection, &target.database, table).await?;
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (index, (field, column)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let known = here.as_ref().and_then(|here| here.definition.column(field.name()));
        let column_type = match known {
            Some(known) => known.column_type,
            None => column_type_of(field).map_err(wire_error)?,
        };
        let wanted = field_of(field.name(), column_type, precision);
        columns.push(if column.data_type() == wanted.data_type() {
            column.clone()
        } else {
            cast(column, wanted.data_type()).map_err(|error| {
                let message = format!("column `{}` of `{table}` cannot become {column_type}: {error}", field.name());
                Error::rejected(message).code("tdengine.cast")
            })?
        });
        fields.push(Field::new(field.name().clone(), column_type, index as i16 + 1));
    }
    let types: Vec<ColumnType> = fields.iter().map(|field| field.column_type).collect();
    let block = from_columns(&columns, &types, VERSION_TMQ).map_err(|error| {
        Error::rejected(format!("rows of `{table}` do not fit their columns: {error}")).code("tdengine.values")
    })?;
    Ok((block, fields, precision))
}

/// The unit of the target database's times, asked for once.
async fn precision_of(target: &mut Target, connection: &Connection) -> Result<Precision> {
    if let Some(precision) = target.precision {
        return Ok(precision);
    }
    let found = metadata::database(connection, &target.database).await?;
    let missing = || Error::retry(format!("database `{}` is missing", target.database));
    let precision = found.ok_or_else(missing)?.precision;
    target.precision = Some(precision);
    Ok(precision)
}
