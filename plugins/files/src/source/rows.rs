//! A block of text to rows; of what is no row, which line it is.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use memchr::memchr_iter;
use pipeline_formats::{PlainObjects, json_reader};

use super::cut::{Block, Syntax};

/// What the rows of a file are.
pub(super) struct Shape {
    pub schema: SchemaRef,
    pub syntax: Syntax,
    /// Of NDJSON.
    pub ignores_unknown: bool,
}

/// A line that makes no row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wrong {
    /// Ends of lines before it in the block.
    pub lines_before: u64,
    /// It is the last line.
    pub is_last: bool,
    pub text: String,
}

impl Shape {
    /// # Errors
    /// The first line that makes no row.
    pub fn rows(&self, block: &Block) -> Result<RecordBatch, Wrong> {
        if let Some(batch) = self.plain(block) {
            return Ok(batch);
        }
        self.decode(&block.bytes, block.lines).map_err(|error| self.find(block, &error))
    }

    fn plain(&self, block: &Block) -> Option<RecordBatch> {
        let Syntax::Ndjson = self.syntax else { return None };
        let mut objects = PlainObjects::new(&self.schema, block.lines, self.ignores_unknown)?;
        objects.read(&block.bytes)?;
        objects.finish()
    }

    fn decode(&self, bytes: &[u8], lines: usize) -> Result<RecordBatch, ArrowError> {
        match self.syntax {
            Syntax::Ndjson => self.objects(bytes, lines),
            Syntax::Csv(delimiter) => self.records(bytes, lines, delimiter),
        }
    }

    /// Each within a line, so that it does not matter where blocks end.
    fn objects(&self, bytes: &[u8], lines: usize) -> Result<RecordBatch, ArrowError> {
        let builder = json_reader(self.schema.clone()).with_batch_size(lines);
        let mut decoder = builder.with_strict_mode(!self.ignores_unknown).build_decoder()?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(self.syntax.line(rest).unwrap_or(rest.len()));
            let read = decoder.decode(line)?;
            if decoder.has_partial_record() {
                return Err(ArrowError::JsonError("the line ends within an object".into()));
            }
            if !line[read..].trim_ascii().is_empty() {
                return Err(ArrowError::JsonError("more than one object in a line".into()));
            }
            rest = behind;
        }
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(self.schema.clone())))
    }

    fn records(&self, bytes: &[u8], lines: usize, delimiter: u8) -> Result<RecordBatch, ArrowError> {
        let builder = arrow_csv::ReaderBuilder::new(self.schema.clone()).with_batch_size(lines).with_delimiter(delimiter);
        let mut decoder = builder.build_decoder();
        // The last line may do without its end.
        for part in [bytes, &b"\n"[..]] {
            let mut rest = part;
            while !rest.is_empty() {
                match decoder.decode(rest)? {
                    0 if decoder.capacity() == 0 && rest.trim_ascii().is_empty() => break,
                    0 => return Err(ArrowError::CsvError("more rows than lines".into())),
                    read => rest = &rest[read..],
                }
            }
        }
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(self.schema.clone())))
    }

    /// The first line that makes no row by itself.
    fn find(&self, block: &Block, error: &ArrowError) -> Wrong {
        let mut begin = 0;
        while begin < block.bytes.len() {
            let rest = &block.bytes[begin..];
            let end = begin + self.syntax.line(rest).unwrap_or(rest.len());
            if let Err(error) = self.decode(&block.bytes[begin..end], 1) {
                let lines_before = memchr_iter(b'\n', &block.bytes[..begin]).count() as u64;
                return Wrong { lines_before, is_last: end == block.bytes.len(), text: without_line(&error.to_string()) };
            }
            begin = end;
        }
        Wrong { lines_before: 0, is_last: false, text: format!("from there on: {}", without_line(&error.to_string())) }
    }
}

/// Arrow counts the lines of what it was given; the caller knows which line that is.
fn without_line(text: &str) -> String {
    for before in [" for line ", " at line "] {
        if let Some(at) = text.find(before) {
            let behind = text[at + before.len()..].trim_start_matches(|it: char| it.is_ascii_digit());
            return format!("{}{behind}", &text[..at]);
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use bytes::Bytes;

    use super::*;

    fn read(text: &'static str, syntax: Syntax, types: &[DataType]) -> Result<usize, (u64, bool, String)> {
        let fields: Vec<Field> = types.iter().zip(["a", "b", "c"]).map(|(data_type, name)| Field::new(name, data_type.clone(), true)).collect();
        let shape = Shape { schema: Arc::new(Schema::new(fields)), syntax, ignores_unknown: false };
        let block = Block { bytes: Bytes::from(text), at: 0, lines: text.lines().count(), lines_before: 0, is_torn: !text.ends_with('\n') };
        shape.rows(&block).map(|batch| batch.num_rows()).map_err(|wrong| (wrong.lines_before, wrong.is_last, wrong.text))
    }

    #[test]
    fn the_first_line_that_is_no_row_is_found() {
        let check = |text: &'static str, syntax: Syntax, types: &[DataType], expected: Result<usize, (u64, bool, &str)>| {
            match (read(text, syntax, types), expected) {
                (Ok(rows), Ok(expected)) => assert_eq!(rows, expected, "{text:?}"),
                (Err((line, is_last, found)), Err((wanted, last, part))) => {
                    assert!(line == wanted && is_last == last && found.contains(part), "{text:?}: {line} {is_last} {found}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        };
        let (csv, int, text) = (Syntax::Csv(b','), DataType::Int64, DataType::Utf8);
        check("1,x\n\n2,\"y\ny\"\r\n3,z", csv, &[int.clone(), text.clone()], Ok(3));
        check("\n\n", csv, std::slice::from_ref(&int), Ok(0));
        check("1,\"x\nx\"\n2\n3,z\n", csv, &[int.clone(), text.clone()], Err((2, false, "incorrect number of fields, expected 2 got 1")));
        check("1,x\ny,z\n", csv, &[int.clone(), text.clone()], Err((1, true, "parsing value 'y' as type 'Int64' for column 0.")));
        let list = DataType::List(Arc::new(Field::new_list_field(int.clone(), true)));
        // Of plain columns and of others, which are read by way of a tape.
        for types in [[int.clone(), text.clone()], [int.clone(), list]] {
            let check = |text: &'static str, expected| check(text, Syntax::Ndjson, &types, expected);
            check("{\"a\":1}\n\n {\"a\":2} \r\n{}", Ok(3));
            check("{\"a\":1}\n{\"a\":\n2}\n", Err((1, false, "ends within an object")));
            check("{\"a\":1}\n{\"a\":1,\"z\":2}\n{\"a\":1}\n", Err((1, false, "'z'")));
            check("{\"a\":1}\n{\"a\":1.5}\n", Err((1, true, "Int64 cannot hold 1.5")));
            check("{\"a\":1}\n{\"a\":", Err((1, true, "ends within an object")));
        }
    }
}
