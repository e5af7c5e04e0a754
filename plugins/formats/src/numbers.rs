//! Numbers of JSON in columns of whole numbers and times, which arrow would cut a fraction off.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow_json::{ArrayDecoder, DecoderContext, DecoderFactory, ReaderBuilder, Tape, TapeElement};

/// A reader of JSON as it is to be set up further: what a column cannot hold is an error.
pub fn json_reader(schema: SchemaRef) -> ReaderBuilder {
    ReaderBuilder::new(schema).with_decoder_factory(Arc::new(WholeNumbers))
}

#[derive(Debug)]
struct WholeNumbers;

impl DecoderFactory for WholeNumbers {
    fn make_default_decoder(
        &self,
        context: &DecoderContext,
        field: &FieldRef,
        is_nullable: bool,
    ) -> Result<Option<Box<dyn ArrayDecoder>>, ArrowError> {
        let data_type = field.data_type();
        if !data_type.is_integer() && !data_type.is_temporal() {
            return Ok(None);
        }
        let inner = context.make_builtin_decoder(field, is_nullable)?;
        Ok(Some(Box::new(Whole { inner, data_type: data_type.clone() })))
    }
}

struct Whole {
    inner: Box<dyn ArrayDecoder>,
    data_type: DataType,
}

impl ArrayDecoder for Whole {
    fn decode(&mut self, tape: &Tape<'_>, positions: &[u32]) -> Result<ArrayRef, ArrowError> {
        for position in positions {
            if let TapeElement::Number(index) = tape.get(*position)
                && !is_whole(tape.get_string(index))
            {
                let text = format!("{} cannot hold {}", self.data_type, tape.get_string(index));
                return Err(ArrowError::JsonError(text));
            }
        }
        self.inner.decode(tape, positions)
    }
}

/// Whether it is a whole number of at most 64 bits, however it is written: `2.0` and `1e3` are.
fn is_whole(text: &str) -> bool {
    if !text.contains(['.', 'e', 'E']) {
        return true;
    }
    const END: f64 = (1u128 << 64) as f64;
    text.parse::<f64>().is_ok_and(|number| number.fract() == 0.0 && number.abs() < END)
}
