//! Which folder a row belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pipeline_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// `"device"` or `"ts:day"`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Key {
    column: String,
    span: Option<Span>,
}

/// Of UTC.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Span {
    Year,
    Month,
    Day,
    Hour,
}

const SPANS: [(&str, Span, &str); 4] =
    [("year", Span::Year, "%Y"), ("month", Span::Month, "%Y-%m"), ("day", Span::Day, "%Y-%m-%d"), ("hour", Span::Hour, "%Y-%m-%dT%H")];

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some((column, span)) = text.rsplit_once(':') else { return Ok(Self { column: text, span: None }) };
        match SPANS.iter().find(|(name, ..)| *name == span) {
            Some((_, span, _)) => Ok(Self { column: column.into(), span: Some(*span) }),
            None => Err(format!("`{span}` of `{text}` is none of year, month, day, hour")),
        }
    }
}

/// A batch by folder; without keys it is one, of no folder.
///
/// # Errors
/// Rejected: a column that is not there, or has no time.
pub(super) fn split(batch: &RecordBatch, keys: &[Key]) -> Result<Vec<(String, RecordBatch)>> {
    if keys.is_empty() || batch.num_rows() == 0 {
        return Ok(vec![(String::new(), batch.clone())]);
    }
    let columns = keys.iter().map(|key| key.values(batch)).collect::<Result<Vec<_>>>()?;
    let failed = |error: ArrowError| Error::rejected(format!("rows cannot be divided: {error}")).code("files.partition");
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&columns)).map_err(failed)?;
    let mut groups: HashMap<&[u8], usize> = HashMap::new();
    let mut members: Vec<Vec<u32>> = Vec::new();
    for row in 0..rows.num_rows() {
        let group = *groups.entry(rows.row(row).data()).or_insert(members.len());
        if group == members.len() {
            members.push(Vec::new());
        }
        members[group].push(row as u32);
    }
    let part = |rows: Vec<u32>| {
        let first = rows[0] as usize;
        let folder: Vec<String> = keys.iter().zip(&columns).map(|(key, values)| key.folder(values, first)).collect();
        let batch = if rows.len() == batch.num_rows() { Ok(batch.clone()) } else { take_record_batch(batch, &UInt32Array::from(rows)) };
        batch.map(|batch| (folder.join("/"), batch)).map_err(failed)
    };
    members.into_iter().map(part).collect()
}

impl Key {
    /// What rows are divided by: the column, or the number of the span since the epoch.
    fn values(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let Some(column) = batch.column_by_name(&self.column) else {
            let error = Error::rejected(format!("the rows have no column `{}`", self.column)).code("files.partition");
            return Err(error.path("partition"));
        };
        let Some(span) = self.span else { return Ok(column.clone()) };
        let (units_per_second, seconds_per_unit) = match column.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => (1, 1),
            DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => (1_000, 1),
            DataType::Timestamp(TimeUnit::Microsecond, _) => (1_000_000, 1),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => (1_000_000_000, 1),
            DataType::Date32 => (1, 86_400),
            other => {
                let error = Error::rejected(format!("column `{}` is {other}, no time", self.column)).code("files.partition");
                return Err(error.path("partition").hint("cast it with `select` before"));
            }
        };
        let whole_numbers = match column.data_type() {
            DataType::Date32 => cast(column, &DataType::Int32).and_then(|it| cast(&it, &DataType::Int64)),
            _ => cast(column, &DataType::Int64),
        };
        let whole_numbers = whole_numbers.map_err(|error| Error::rejected(format!("column `{}`: {error}", self.column)))?;
        // Moments before 1970 are in the second that began before them.
        let seconds: Int64Array =
            whole_numbers.as_primitive::<Int64Type>().unary(|value| value.div_euclid(units_per_second) * seconds_per_unit);
        let whole = |seconds: i64| match span {
            Span::Hour => seconds.div_euclid(3_600) * 3_600,
            _ => seconds.div_euclid(86_400) * 86_400,
        };
        let coarse: Int64Array = match span {
            Span::Hour | Span::Day => seconds.unary(whole),
            Span::Year | Span::Month => seconds.unary(|seconds| begin(whole(seconds), span)),
        };
        Ok(Arc::new(coarse))
    }

    fn folder(&self, values: &ArrayRef, row: usize) -> String {
        let value = match self.span {
            _ if values.is_null(row) => "null".to_owned(),
            None => array_value_to_string(values, row).unwrap_or_default(),
            Some(span) => {
                let seconds = values.as_primitive::<Int64Type>().value(row);
                let pattern = SPANS.iter().find(|(_, known, _)| *known == span).map_or("%Y", |(.., pattern)| pattern);
                Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.strftime(pattern).to_string())
            }
        };
        format!("{}={}", escaped(&self.column), escaped(&value))
    }
}

/// When the month or year began.
fn begin(seconds: i64, span: Span) -> i64 {
    let Ok(at) = Timestamp::from_second(seconds) else { return seconds };
    let day = TimeZone::UTC.to_datetime(at).date();
    let first = if span == Span::Year { day.first_of_year() } else { day.first_of_month() };
    first.to_zoned_datetime(TimeZone::UTC).map_or(seconds, |it| it.timestamp().as_second())
}

/// As part of a path: what could leave the folder is written as `%2F`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '/' | '\\' | '%' | '=' | '\0'..='\x1f' => out.push_str(&format!("%{:02X}", u32::from(character))),
            _ => out.push(character),
        }
    }
    match out.as_str() {
        "" => "%".into(),
        "." | ".." => out.replace('.', "%2E"),
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn rows_are_divided_by_column_and_time() {
        let day = 86_400_000;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("d", Arc::new(StringArray::from(vec![Some("a"), Some("../b"), Some("a"), None, Some("a")]))),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![0, -1, day - 1, day, 31 * day]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let check = |keys: &[&str], expected: &[(&str, usize)]| {
            let keys: Vec<Key> = keys.iter().map(|key| Key::try_from((*key).to_owned()).unwrap()).collect();
            let mut parts: Vec<_> = split(&batch, &keys).unwrap().into_iter().map(|(folder, part)| (folder, part.num_rows())).collect();
            parts.sort();
            assert_eq!(parts.iter().map(|(folder, rows)| (folder.as_str(), *rows)).collect::<Vec<_>>(), expected);
        };
        check(&[], &[("", 5)]);
        check(&["d"], &[("d=..%2Fb", 1), ("d=a", 3), ("d=null", 1)]);
        check(&["t:day"], &[("t=1969-12-31", 1), ("t=1970-01-01", 2), ("t=1970-01-02", 1), ("t=1970-02-01", 1)]);
        check(&["t:month"], &[("t=1969-12", 1), ("t=1970-01", 3), ("t=1970-02", 1)]);
        check(&["d", "t:year"], &[("d=..%2Fb/t=1969", 1), ("d=a/t=1970", 3), ("d=null/t=1970", 1)]);
        assert!(Key::try_from("t:week".to_owned()).is_err());
        assert!(split(&batch, &[Key { column: "d".into(), span: Some(Span::Day) }]).unwrap_err().to_string().contains("no time"));
    }
}
