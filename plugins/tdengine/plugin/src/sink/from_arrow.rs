//! Arrow rows as a raw block of the target's columns.
//!
//! Columns are matched by name and take the target's types; where the Arrow type is another, it is cast once per column.

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType as ArrowType;
use arrow::record_batch::RecordBatch;
use pipeline_sdk::{Error, Result};
use tdengine_wire::arrow::{column_type_of, field_of, from_columns};
use tdengine_wire::block::VERSION_TMQ;
use tdengine_wire::{ColumnType, Field, Precision};

use super::target::Target;
use crate::transport::Connection;
use crate::metadata;

/// A block with header version 2, its fields, and the unit of its times. `first_row` is the batch's first row in its message.
pub async fn block_of(
    target: &mut Target,
    connection: &Connection,
    table: &str,
    batch: &RecordBatch,
    first_row: usize,
) -> Result<(Vec<u8>, Vec<Field>, Precision)> {
    let precision = precision_of(target, connection).await?;
    let here = target.shared.table(connection, &target.database, table).await?;
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (index, (field, column)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let known = here.as_ref().and_then(|here| here.definition.column(field.name()));
        let column_type = match known {
            Some(known) => known.column_type,
            None => column_type_of(field).map_err(|error| Error::rejected(error.to_string()).code("tdengine.type"))?,
        };
        let wanted = field_of(field.name(), column_type, precision);
        // Bytes go into a column of any text as they are: a VARCHAR need not be UTF-8.
        let fits = column.data_type() == wanted.data_type()
            || (column.data_type() == &ArrowType::Binary && column_type.is_variable());
        columns.push(if fits { column.clone() } else { converted(column, wanted.data_type(), first_row).map_err(|error| {
            let what = format!("column `{}` of `{table}` cannot become {column_type}", field.name());
            error.context(what).code("tdengine.cast").hint("make the column's type at the target one that holds these values")
        })? });
        fields.push(Field::new(field.name().clone(), column_type, index as i16 + 1));
    }
    let types: Vec<ColumnType> = fields.iter().map(|field| field.column_type).collect();
    let block = from_columns(&columns, &types, VERSION_TMQ).map_err(|error| {
        Error::rejected(format!("rows of `{table}` do not fit their columns: {error}")).code("tdengine.values")
    })?;
    Ok((block, fields, precision))
}

/// The column as another type; a value that does not fit is an error with its row, never a NULL.
fn converted(column: &ArrayRef, wanted: &ArrowType, first_row: usize) -> Result<ArrayRef> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, wanted, &exact).map_err(|error| {
        let lossy = cast_with_options(column, wanted, &CastOptions { safe: true, ..CastOptions::default() });
        let is_lost = |row: &usize| lossy.as_ref().is_ok_and(|lossy| lossy.is_null(*row) && !column.is_null(*row));
        let rows = (0..column.len()).filter(is_lost).map(|row| (first_row + row) as u64).collect();
        Error { rows, ..Error::rejected(error.to_string()) }
    })
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
