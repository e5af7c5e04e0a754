//! Payloads of known columns to one batch, and how many rows each made.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use pipeline_sdk::{Error, Result};

use crate::{PAYLOAD, PlainObjects, json_reader, rejected};

type Decoded = std::result::Result<(RecordBatch, Vec<usize>), ArrowError>;

pub(crate) fn json(schema: &SchemaRef, bodies: &[&[u8]]) -> Decoded {
    if let Some(decoded) = plain_json(schema, bodies) {
        return Ok(decoded);
    }
    // As many rows as there can be: a batch that is full in the middle of an array could not be handed out.
    let rows_max = bodies.iter().map(|body| body.iter().filter(|byte| **byte == b'{').count()).sum::<usize>() + 1;
    let builder = json_reader(schema.clone()).with_batch_size(rows_max).with_strict_mode(true);
    let mut decoder = builder.with_coerce_primitive(true).with_flatten(true).build_decoder()?;
    let mut rows = Vec::with_capacity(bodies.len());
    for body in bodies {
        let before = decoder.len();
        let read = decoder.decode(body)?;
        if read < body.len() || decoder.has_partial_record() {
            return Err(ArrowError::JsonError("it ends within an object".into()));
        }
        rows.push(decoder.len() - before);
    }
    Ok((decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())), rows))
}

fn plain_json(schema: &SchemaRef, bodies: &[&[u8]]) -> Option<(RecordBatch, Vec<usize>)> {
    let mut objects = PlainObjects::new(schema, bodies.len(), false)?;
    let rows = bodies.iter().map(|body| objects.read(body)).collect::<Option<Vec<_>>>()?;
    Some((objects.finish()?, rows))
}

pub(crate) fn csv(schema: &SchemaRef, bodies: &[&[u8]], delimiter: u8) -> Decoded {
    let rows_max = bodies.iter().map(|body| body.iter().filter(|byte| **byte == b'\n').count() + 1).sum::<usize>() + 1;
    let mut decoder = arrow_csv::ReaderBuilder::new(schema.clone()).with_batch_size(rows_max).with_delimiter(delimiter).build_decoder();
    let mut rows = Vec::with_capacity(bodies.len());
    for body in bodies {
        if body.iter().filter(|byte| **byte == b'"').count() % 2 != 0 {
            return Err(ArrowError::CsvError("a quote has no end".into()));
        }
        let before = decoder.capacity();
        for part in [body, &b"\n"[..]] {
            let mut rest = part;
            while !rest.is_empty() {
                match decoder.decode(rest)? {
                    0 => return Err(ArrowError::CsvError("it has more lines than ends of lines".into())),
                    read => rest = &rest[read..],
                }
            }
        }
        rows.push(before - decoder.capacity());
    }
    Ok((decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())), rows))
}

/// One row a payload.
pub(crate) fn raw(types: &BTreeMap<String, DataType>, bodies: &[&[u8]]) -> Result<(RecordBatch, Vec<usize>)> {
    let data_type = types.get(PAYLOAD).unwrap_or(&DataType::Binary);
    let column: ArrayRef = match data_type {
        DataType::Binary => Arc::new(BinaryArray::from_iter_values(bodies)),
        other => {
            let texts = bodies.iter().map(|body| std::str::from_utf8(body)).collect::<std::result::Result<Vec<_>, _>>();
            let texts: ArrayRef = Arc::new(StringArray::from(texts.map_err(|error| rejected(&error.to_string()))?));
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&texts, other, &options).map_err(|error| rejected(&error.to_string()))?
        }
    };
    let schema = Arc::new(Schema::new(vec![Field::new(PAYLOAD, data_type.clone(), true)]));
    let batch = RecordBatch::try_new(schema, vec![column]).map_err(|error| Error::fatal(error.to_string()))?;
    Ok((batch, vec![1; bodies.len()]))
}

/// Without the columns of which only NULLs were seen so far: nobody knows their type.
pub(crate) fn without_untyped(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    if schema.fields().iter().all(|field| !field.data_type().is_null()) {
        return batch.clone();
    }
    let kept = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| !field.data_type().is_null());
    let (fields, columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = kept.map(|(field, column)| (field.clone(), column.clone())).unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap_or_else(|_| batch.clone())
}
