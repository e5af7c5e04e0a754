//! Columns that stand beside a payload: levels of its topic, the topic, the time of arrival.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMillisecondArray};
use arrow::datatypes::{Field, Schema};
use pipeline_sdk::{Error, Result};

use crate::pattern::Patterns;

/// Which columns rows get beside those of their payloads; they win where a payload has one of the same name.
#[derive(Debug)]
pub struct Beside {
    pub patterns: Patterns,
    /// The name of a column for the whole topic.
    pub topic: Option<String>,
    /// The name of a column for the time of arrival.
    pub time: Option<String>,
}

impl Beside {
    /// Adds them to rows; `rows` says how many each payload made, `topics` where each came from.
    ///
    /// # Errors
    /// Fatal: the numbers do not fit together.
    pub fn add<'t>(&self, batch: RecordBatch, rows: &[usize], topics: impl Iterator<Item = &'t str>) -> Result<RecordBatch> {
        let names: Vec<&str> = self.patterns.columns().iter().map(String::as_str).chain(self.topic.as_deref()).collect();
        if names.is_empty() && self.time.is_none() {
            return Ok(batch);
        }
        let count = batch.num_rows();
        let mut builders: Vec<StringBuilder> = names.iter().map(|_| StringBuilder::new()).collect();
        let mut levels = Vec::new();
        for (topic, rows) in topics.zip(rows) {
            self.patterns.levels(topic, &mut levels);
            let texts = levels.iter().copied().chain(self.topic.is_some().then_some(Some(topic)));
            for (builder, text) in builders.iter_mut().zip(texts) {
                (0..*rows).for_each(|_| builder.append_option(text));
            }
        }
        let mut more: Vec<(&str, ArrayRef)> = names.iter().zip(&mut builders).map(|(name, it)| (*name, Arc::new(it.finish()) as ArrayRef)).collect();
        if let Some(name) = &self.time {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            more.push((name, Arc::new(TimestampMillisecondArray::from_value(i64::try_from(now).unwrap_or(i64::MAX), count))));
        }
        with_columns(&batch, more)
    }
}

/// Rows with more columns, which win over those of the same name.
///
/// # Errors
/// Fatal: they have not as many rows.
pub fn with_columns(batch: &RecordBatch, more: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let schema = batch.schema();
    let kept = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| more.iter().all(|(name, _)| name != field.name()));
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = kept.map(|(field, column)| (field.clone(), column.clone())).unzip();
    for (name, column) in more {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(|error| Error::fatal(error.to_string()))
}
