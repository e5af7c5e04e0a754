//! Texts with columns in them: `events-{type}`.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pipeline_formats::{Piece, pieces};
use pipeline_sdk::{Error, Result};

/// A text whose names in braces are columns.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A template over the columns of one batch.
pub struct Bound<'a> {
    pieces: Vec<BoundPiece<'a>>,
}

enum BoundPiece<'a> {
    Text(&'a str),
    Column(&'a ArrayRef, ArrayFormatter<'a>),
}

impl Template {
    /// # Errors
    /// Fatal, with `path`: a brace without its other one, an empty name.
    pub fn new(text: &str, path: impl Into<String>) -> Result<Self> {
        let pieces = pieces(text).map_err(|wrong| Error::fatal(format!("`{text}`: {wrong}")).path(path))?;
        Ok(Self { pieces })
    }

    /// # Errors
    /// Rejected: the batch lacks a column, or it has no text form.
    pub fn bind<'a>(&'a self, batch: &'a RecordBatch, options: &'a FormatOptions<'a>) -> Result<Bound<'a>> {
        let bound = |piece: &'a Piece| match piece {
            Piece::Text(text) => Ok(BoundPiece::Text(text)),
            Piece::Column(name) => {
                let column = batch.column_by_name(name).ok_or_else(|| Error::rejected(format!("the rows have no column `{name}`")).code("kafka.template"))?;
                let formatter = ArrayFormatter::try_new(column.as_ref(), options);
                Ok(BoundPiece::Column(column, formatter.map_err(|error| Error::rejected(format!("column `{name}`: {error}")).code("kafka.template"))?))
            }
        };
        Ok(Bound { pieces: self.pieces.iter().map(bound).collect::<Result<_>>()? })
    }
}

impl Bound<'_> {
    /// Puts the text of a row into `text`; false where one of its columns is NULL.
    pub fn write(&self, row: usize, text: &mut String) -> bool {
        use std::fmt::Write;
        text.clear();
        self.pieces.iter().all(|piece| match piece {
            BoundPiece::Text(part) => {
                text.push_str(part);
                true
            }
            BoundPiece::Column(column, formatter) => !column.is_null(row) && write!(text, "{}", formatter.value(row)).is_ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn columns_stand_in_braces() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        let batch = RecordBatch::try_from_iter([("t", texts), ("n", numbers)]).unwrap();
        let options = FormatOptions::default();
        let template = Template::new("x-{t}.{n}", "topic").unwrap();
        let bound = template.bind(&batch, &options).unwrap();
        let mut text = String::new();
        assert!(bound.write(0, &mut text) && text == "x-a.7");
        assert!(!bound.write(1, &mut text));
        let plain = Template::new("plain", "topic").unwrap();
        assert!(plain.bind(&batch, &options).unwrap().write(1, &mut text) && text == "plain");
        assert!(Template::new("{no}", "topic").unwrap().bind(&batch, &options).is_err());
        assert_eq!(Template::new("a{", "topic").unwrap_err().to_string(), "topic: `a{`: a brace has no end");
    }
}
