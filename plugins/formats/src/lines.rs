//! Rows as JSON objects, a line each: the same text as arrow's writer makes of them.
//!
//! Numbers and texts, which most columns are, go straight into the buffer; arrow encodes whatever else there is.

use arrow::array::{Array, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use arrow_json::EncoderOptions;
use arrow_json::writer::{NullableEncoder, make_encoder};
use lexical_core::FormattedSize;

use crate::objects::plain_length;

/// A column with its key.
struct Column<'b> {
    /// Behind a comma: `,"name":`.
    key: Vec<u8>,
    nulls: Option<&'b NullBuffer>,
    values: Values<'b>,
}

enum Values<'b> {
    Int64(&'b Int64Array),
    Float64(&'b Float64Array),
    Utf8(&'b StringArray),
    Other(NullableEncoder<'b>),
}

/// Appends an object and the end of a line for each row; what is NULL is left out.
///
/// # Errors
/// A column has a type that JSON cannot say.
pub fn write_objects(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let (schema, options) = (batch.schema_ref(), EncoderOptions::default());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let mut key = vec![b','];
        write_text(field.name(), &mut key);
        key.push(b':');
        let values = match array.data_type() {
            DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Values::Utf8(array.as_string()),
            _ => Values::Other(make_encoder(field, array, &options)?),
        };
        columns.push(Column { key, nulls: array.nulls(), values });
    }
    for row in 0..batch.num_rows() {
        let begin = out.len();
        for column in &mut columns {
            column.write(row, out);
        }
        // The first comma is where the brace is to be.
        match out.get_mut(begin) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.extend_from_slice(b"}\n");
    }
    Ok(())
}

impl Column<'_> {
    fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        let is_null = match &self.values {
            Values::Other(encoder) => encoder.is_null(row),
            _ => self.nulls.is_some_and(|nulls| nulls.is_null(row)),
        };
        if is_null {
            return;
        }
        out.extend_from_slice(&self.key);
        match &mut self.values {
            Values::Int64(values) => {
                out.extend_from_slice(lexical_core::write(values.value(row), &mut [0; i64::FORMATTED_SIZE]));
            }
            Values::Float64(values) => match values.value(row) {
                value if value.is_finite() => out.extend_from_slice(lexical_core::write(value, &mut [0; f64::FORMATTED_SIZE])),
                _ => out.extend_from_slice(b"null"),
            },
            Values::Utf8(values) => write_text(values.value(row), out),
            Values::Other(encoder) => encoder.encode(row, out),
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    if plain_length(text.as_bytes()) < text.len() {
        // A text can always be written to memory.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int32Array, ListArray, NullArray, TimestampMillisecondArray};
    use arrow::datatypes::Int32Type;
    use proptest::prelude::*;

    use super::*;

    /// What arrow writes.
    fn check(columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
        let (mut found, mut expected) = (b"before".to_vec(), b"before".to_vec());
        write_objects(&batch, &mut found).unwrap();
        let mut writer = arrow_json::LineDelimitedWriter::new(&mut expected);
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(String::from_utf8(found), String::from_utf8(expected));
    }

    #[test]
    fn lines_are_those_of_arrow() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        check(vec![
            ("i", Arc::new(Int64Array::from(vec![None, Some(i64::MIN), Some(0)]))),
            ("a \"key\"\n", Arc::new(StringArray::from(vec![None, Some("plain"), Some("\"\\\u{1}\u{7f}é\r")]))),
            ("f", Arc::new(Float64Array::from(vec![None, Some(f64::NAN), Some(-0.0)]))),
            ("n", Arc::new(NullArray::new(3))),
            ("b", Arc::new(BooleanArray::from(vec![None, Some(true), Some(false)]))),
            ("int", Arc::new(Int32Array::from(vec![None, Some(7), None]))),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![None, Some(1_767_225_600_001), Some(-1)]))),
            ("l", Arc::new(list)),
        ]);
        check(vec![("i", Arc::new(Int64Array::from(vec![None, Some(1)])))]);
        check(vec![("i", Arc::new(Int64Array::from(Vec::<i64>::new())))]);
        // What begins within a larger array.
        let part = Int64Array::from(vec![None, Some(1), None, Some(2)]).slice(1, 3);
        check(vec![("i", Arc::new(part)), ("s", Arc::new(StringArray::from(vec!["a", "b", "c", "d"]).slice(1, 3)))]);
    }

    proptest! {
        #[test]
        fn values_are_those_of_arrow(numbers: [Option<f64>; 8], whole: [Option<i64>; 8], texts: [Option<String>; 8]) {
            check(vec![
                ("f", Arc::new(Float64Array::from(numbers.to_vec()))),
                ("i", Arc::new(Int64Array::from(whole.to_vec()))),
                ("s", Arc::new(StringArray::from(texts.to_vec()))),
            ]);
        }
    }
}
