//! Rows to payloads.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pipeline_sdk::{Error, Result};

use crate::{Format, PAYLOAD, write_objects};

/// A payload for each row, one behind the other.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Lines {
    /// Each row's payload, without the end of its line.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| {
            let line = &self.bytes[start..*end];
            line.strip_suffix(b"\n").unwrap_or(line)
        })
    }
}

/// A payload for each row: a JSON object, a line of CSV, or the column `payload`.
///
/// # Errors
/// Rejected: the rows have types that the format cannot say, or no column `payload`.
pub fn encode_lines(batch: &RecordBatch, format: Format, delimiter: u8) -> Result<Lines> {
    let rejected = |text: String| Error::rejected(format!("these rows make no payloads: {text}")).code("payload.rows");
    let mut lines = Lines::default();
    match format {
        Format::Ndjson => {
            write_objects(batch, &mut lines.bytes).map_err(|error| rejected(error.to_string()))?;
            lines.ends = ends(&lines.bytes);
        }
        Format::Csv => {
            let mut writer = arrow_csv::WriterBuilder::new().with_header(false).with_delimiter(delimiter).build(&mut lines.bytes);
            writer.write(batch).map_err(|error| rejected(error.to_string()))?;
            drop(writer);
            lines.ends = ends_outside_quotes(&lines.bytes);
        }
        Format::Raw => {
            let column = batch.column_by_name(PAYLOAD).ok_or_else(|| rejected(format!("`raw` takes the column `{PAYLOAD}`")))?;
            for row in 0..batch.num_rows() {
                match column.data_type() {
                    _ if column.is_null(row) => {}
                    DataType::Binary => lines.bytes.extend(column.as_binary::<i32>().value(row)),
                    DataType::Utf8 => lines.bytes.extend(column.as_string::<i32>().value(row).as_bytes()),
                    other => return Err(rejected(format!("column `{PAYLOAD}` has type {other}: `raw` takes texts and binary"))),
                }
                lines.ends.push(lines.bytes.len());
            }
        }
    }
    if lines.ends.len() != batch.num_rows() {
        return Err(rejected(format!("{} rows became {} lines", batch.num_rows(), lines.ends.len())));
    }
    Ok(lines)
}

/// The line that names the columns.
///
/// # Errors
/// Rejected: names that make no line.
pub fn csv_header(schema: &SchemaRef, delimiter: u8) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut writer = arrow_csv::WriterBuilder::new().with_header(true).with_delimiter(delimiter).build(&mut line);
    let names: Vec<ArrayRef> = schema.fields().iter().map(|_| Arc::new(StringArray::from(vec![""])) as ArrayRef).collect();
    let texts: Vec<Field> = schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, false)).collect();
    let written = RecordBatch::try_new(Arc::new(Schema::new(texts)), names).and_then(|batch| writer.write(&batch));
    drop(writer);
    written.map_err(|error| Error::rejected(format!("these names make no header: {error}")).code("payload.rows"))?;
    let end = ends_outside_quotes(&line).first().copied().unwrap_or(line.len());
    line.truncate(end);
    Ok(line)
}

/// JSON has no end of a line within a value.
fn ends(bytes: &[u8]) -> Vec<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect()
}

fn ends_outside_quotes(bytes: &[u8]) -> Vec<usize> {
    let mut is_quoted = false;
    let mut ends = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\n' if !is_quoted => ends.push(at + 1),
            _ => {}
        }
    }
    ends
}
