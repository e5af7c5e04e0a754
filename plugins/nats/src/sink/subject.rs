//! The subject of a row from its columns: `meters.{device}`.

use std::fmt::Display;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pipeline_formats::{Piece, pieces};
use pipeline_sdk::{Error, Result};

#[derive(Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// # Errors
    /// Fatal: it makes no subject.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why: &dyn Display| Error::fatal(format!("`{text}` is no subject: {why}")).code("nats.subject").path("subject");
        let pieces = pieces(text).map_err(|why| wrong(&why))?;
        // With a letter for each column it must be one.
        let sample: String = pieces.iter().map(|piece| if let Piece::Text(text) = piece { text.as_str() } else { "x" }).collect();
        if !is_subject(&sample) {
            return Err(wrong(&"levels are separated by one `.`, without blanks and wildcards"));
        }
        Ok(Self { pieces })
    }

    /// The subject of each row; `None` where its columns make none.
    ///
    /// # Errors
    /// Rejected: there is no such column.
    pub fn subjects(&self, batch: &RecordBatch) -> Result<Vec<Option<String>>> {
        let options = FormatOptions::default().with_null("");
        let bound = |piece| Bound::new(piece, batch, &options);
        let pieces = self.pieces.iter().map(bound).collect::<Result<Vec<_>>>()?;
        let subject = |row: usize| {
            let mut subject = String::new();
            for piece in &pieces {
                match piece {
                    Bound::Text(text) => subject.push_str(text),
                    Bound::Column(formatter) => {
                        let text = formatter.value(row).try_to_string().ok()?;
                        // A dot would make a level of its own.
                        if text.is_empty() || text.contains('.') {
                            return None;
                        }
                        subject.push_str(&text);
                    }
                }
            }
            is_subject(&subject).then_some(subject)
        };
        Ok((0..batch.num_rows()).map(subject).collect())
    }
}

/// A piece over the columns of one batch.
enum Bound<'a> {
    Text(&'a str),
    Column(ArrayFormatter<'a>),
}

impl<'a> Bound<'a> {
    fn new(piece: &'a Piece, batch: &'a RecordBatch, options: &'a FormatOptions<'a>) -> Result<Self> {
        let name = match piece {
            Piece::Text(text) => return Ok(Self::Text(text)),
            Piece::Column(name) => name,
        };
        let column = batch.column_by_name(name).ok_or_else(|| {
            let error = Error::rejected(format!("the rows have no column `{name}`")).code("nats.subject").path("subject");
            let known: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            error.hint(format!("they have {}", known.join(", ")))
        })?;
        let formatter = ArrayFormatter::try_new(column, options);
        Ok(Self::Column(formatter.map_err(|error| Error::rejected(format!("column `{name}`: {error}")))?))
    }
}

fn is_subject(text: &str) -> bool {
    let is_level = |level: &str| !level.is_empty() && !level.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>');
    text.split('.').all(is_level)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn subjects_come_from_columns() {
        let texts = StringArray::from(vec![Some("d1"), Some("d.2"), None, Some("a b"), Some("é")]);
        let batch = RecordBatch::try_from_iter([("device", Arc::new(texts) as _), ("n", Arc::new(Int64Array::from_iter_values(0..5)) as _)]).unwrap();
        let subjects = |text: &str| Template::new(text).and_then(|it| it.subjects(&batch));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(subjects("m.{device}.{n}").unwrap(), [some("m.d1.0"), None, None, None, some("m.é.4")]);
        assert_eq!(subjects("m").unwrap()[2], some("m"));
        assert!(subjects("m.{x}").unwrap_err().to_string().contains("no column `x`"));
        for wrong in ["", "a..b", "a.*", "a.>", "a b", "a.{", "a.{}", "a.{b}.", "{a", "a}"] {
            assert!(Template::new(wrong).unwrap_err().to_string().starts_with("subject: "), "{wrong}");
        }
    }
}
