//! The subject of a row from its columns: `meters.{device}`.

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pipeline_sdk::{Error, Result};

#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Column(String),
}

impl Template {
    /// # Errors
    /// Fatal: it makes no subject.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::fatal(format!("`{text}` is no subject: {why}")).code("nats.subject").path("subject");
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').map(|at| open + at).ok_or_else(|| wrong("a brace has no end"))?;
            let name = &rest[open + 1..close];
            if name.is_empty() || name.contains('{') {
                return Err(wrong("a column is named in braces: `{device}`"));
            }
            parts.push(Part::Text(rest[..open].to_owned()));
            parts.push(Part::Column(name.to_owned()));
            rest = &rest[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        // With a letter for each column it must be one.
        let sample: String = parts.iter().map(|part| if let Part::Text(text) = part { text.as_str() } else { "x" }).collect();
        if !is_subject(&sample) {
            return Err(wrong("levels are separated by one `.`, without blanks and wildcards"));
        }
        Ok(Self { parts })
    }

    /// The subject of each row; `None` where its columns make none.
    ///
    /// # Errors
    /// Rejected: there is no such column.
    pub fn subjects(&self, batch: &RecordBatch) -> Result<Vec<Option<String>>> {
        let options = FormatOptions::default().with_null("");
        let mut formatters = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let Part::Column(name) = part else {
                formatters.push(None);
                continue;
            };
            let column = batch.column_by_name(name).ok_or_else(|| {
                let error = Error::rejected(format!("the rows have no column `{name}`")).code("nats.subject").path("subject");
                let known: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
                error.hint(format!("they have {}", known.join(", ")))
            })?;
            let formatter = ArrayFormatter::try_new(column, &options).map_err(|error| Error::rejected(format!("column `{name}`: {error}")))?;
            formatters.push(Some(formatter));
        }
        let subject = |row: usize| {
            let mut subject = String::new();
            for (part, formatter) in self.parts.iter().zip(&formatters) {
                match (part, formatter) {
                    (Part::Text(text), _) => subject.push_str(text),
                    (Part::Column(_), Some(formatter)) => {
                        let text = formatter.value(row).try_to_string().ok()?;
                        // A dot would make a level of its own.
                        if text.is_empty() || text.contains('.') {
                            return None;
                        }
                        subject.push_str(&text);
                    }
                    (Part::Column(_), None) => return None,
                }
            }
            is_subject(&subject).then_some(subject)
        };
        Ok((0..batch.num_rows()).map(subject).collect())
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
        for wrong in ["", "a..b", "a.*", "a.>", "a b", "a.{", "a.{}", "a.{b}.", "{a"] {
            assert!(Template::new(wrong).unwrap_err().to_string().starts_with("subject: "), "{wrong}");
        }
    }
}
