//! `select`: columns, their order, names and types, and new ones from expressions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema};
use pipeline_sdk::{
    ComponentDescription, Context, Error, Kind, Message, Output, Payload, Result, Rows, Transform, TransformConfig,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expression::Expression;

/// Chooses, computes, casts and renames columns, in this order.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SelectConfig {
    /// New columns (or new values of a column) by name, each an expression over the columns that came in.
    set: BTreeMap<String, Expression>,
    /// What is passed on, in this order; all columns where absent.
    columns: Option<Vec<String>>,
    /// What is left out.
    drop: Vec<String>,
    /// Column to type: `bool`, `int`, `double`, `text`, `date`, `timestamp[ms]`, or an Arrow type such as `Int16`.
    cast: BTreeMap<String, String>,
    /// Old name to new name.
    rename: BTreeMap<String, String>,
    /// What a value that cannot be cast comes to.
    on_cast_error: OnCastError,
    /// What a named column that is not there comes to.
    on_missing: OnMissing,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum OnCastError {
    /// The rows are rejected.
    #[default]
    Reject,
    /// NULL.
    Null,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum OnMissing {
    /// The rows are rejected.
    #[default]
    Reject,
    /// It stays absent.
    Skip,
}

impl TransformConfig for SelectConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("select", Kind::Transform, "Chooses, computes, casts and renames columns")
    }

    fn lint(&self) -> Vec<Error> {
        let casts = self.cast.iter().filter_map(|(name, text)| {
            data_type(text).err().map(|error| error.path(format!("cast.{name}")))
        });
        let mut problems: Vec<Error> = casts.collect();
        if self.columns.as_ref().is_some_and(Vec::is_empty) {
            problems.push(Error::fatal("no column would be left").path("columns"));
        }
        problems
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        let casts = self.cast.iter().map(|(name, text)| Ok((name.clone(), data_type(text)?))).collect::<Result<_>>()?;
        Ok(Box::new(Select { casts, config: self }))
    }
}

struct Select {
    config: SelectConfig,
    casts: BTreeMap<String, DataType>,
}

impl Transform for Select {
    fn apply(&mut self, mut message: Message, out: &mut Output) -> Result<()> {
        if let Payload::Rows(rows) = &mut message.payload {
            rows.batch = self.select(rows)?;
        }
        out.push(message);
        Ok(())
    }
}

impl Select {
    fn select(&self, rows: &Rows) -> Result<RecordBatch> {
        let schema = rows.batch.schema();
        let fields = schema.fields().iter().map(|field| field.as_ref().clone());
        let mut columns: Vec<(Field, ArrayRef)> = fields.zip(rows.batch.columns().iter().cloned()).collect();
        for (name, expression) in &self.config.set {
            let array = expression.column(rows)?;
            let field = Field::new(name, array.data_type().clone(), true);
            match columns.iter_mut().find(|(known, _)| known.name() == name) {
                Some(column) => *column = (field, array),
                None => columns.push((field, array)),
            }
        }
        columns = self.chosen(columns)?;
        for (field, array) in &mut columns {
            if let Some(to) = self.casts.get(field.name()) {
                *array = self.cast(field.name(), array, to)?;
                *field = field.clone().with_data_type(to.clone()).with_nullable(true);
            }
            if let Some(name) = self.config.rename.get(field.name()) {
                *field = field.clone().with_name(name);
            }
        }
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| Error::rejected(format!("the chosen columns make no batch: {error}")))
    }

    fn chosen(&self, columns: Vec<(Field, ArrayRef)>) -> Result<Vec<(Field, ArrayRef)>> {
        let SelectConfig { columns: wanted, drop, cast, rename, on_missing, .. } = &self.config;
        if *on_missing == OnMissing::Reject {
            let named = wanted.iter().flatten().chain(drop).chain(cast.keys()).chain(rename.keys());
            if let Some(missing) = named.into_iter().find(|name| !columns.iter().any(|(field, _)| field.name() == *name)) {
                let known: Vec<&str> = columns.iter().map(|(field, _)| field.name().as_str()).collect();
                let error = Error::rejected(format!("the rows have no column `{missing}`")).code("select.column");
                return Err(error.hint(format!("they have {}; `on-missing = \"skip\"` goes on without", known.join(", "))));
            }
        }
        let kept = match wanted {
            None => columns,
            Some(wanted) => {
                wanted.iter().filter_map(|name| columns.iter().find(|(field, _)| field.name() == name).cloned()).collect()
            }
        };
        Ok(kept.into_iter().filter(|(field, _)| !drop.contains(field.name())).collect())
    }

    fn cast(&self, name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        let options = CastOptions { safe: self.config.on_cast_error == OnCastError::Null, ..CastOptions::default() };
        cast_with_options(array, to, &options).map_err(|error| {
            let error = Error::rejected(format!("column `{name}` cannot become {to}: {error}")).code("select.cast");
            error.of_rows(misfits(array, to)).hint("`on-cast-error = \"null\"` puts NULL where a value does not fit")
        })
    }
}

/// # Errors
/// The text names no type.
fn data_type(text: &str) -> Result<DataType> {
    pipeline_sdk::units::parse_data_type(text).map_err(Error::fatal)
}

/// Rows whose value does not fit; none where that cannot be told, which stands for all of them.
fn misfits(array: &ArrayRef, to: &DataType) -> Vec<u64> {
    let Ok(fitting) = cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() }) else { return Vec::new() };
    (0..array.len()).filter(|row| fitting.is_null(*row) && !array.is_null(*row)).map(|row| row as u64).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use pipeline_sdk::{Header, Lane, Position};
    use serde_json::json;

    use super::*;

    fn apply(config: serde_json::Value) -> Result<RecordBatch> {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int64Array::from(vec![1, 2]))),
            ("b", Arc::new(StringArray::from(vec!["7", "x"]))),
            ("c", Arc::new(Int64Array::from(vec![10, 20]))),
        ];
        let rows = Rows::plain(RecordBatch::try_from_iter(columns).unwrap());
        let config: SelectConfig = serde_json::from_value(config).unwrap();
        let message = Message { header: Header::new(Lane::new("1"), Position::from_number(1)), payload: Payload::Rows(rows) };
        let mut out = Output::default();
        config.build(Context::detached())?.apply(message, &mut out)?;
        match out.messages.remove(0).payload {
            Payload::Rows(rows) => Ok(rows.batch),
            _ => panic!("rows stay rows"),
        }
    }

    #[test]
    fn columns_are_chosen_computed_cast_and_renamed() {
        let check = |config: serde_json::Value, expected: &str| {
            let batch = apply(config).unwrap();
            let fields: Vec<String> = batch.schema().fields().iter().map(|it| format!("{}:{}", it.name(), it.data_type())).collect();
            assert_eq!(fields.join(" "), expected);
        };
        check(json!({}), "a:Int64 b:Utf8 c:Int64");
        check(json!({ "columns": ["c", "a"] }), "c:Int64 a:Int64");
        check(json!({ "drop": ["b"], "rename": { "c": "d" } }), "a:Int64 d:Int64");
        check(json!({ "set": { "sum": "a + c" }, "cast": { "sum": "double", "a": "Int16" } }), "a:Int16 b:Utf8 c:Int64 sum:Float64");
        check(json!({ "columns": ["b", "z"], "on-missing": "skip" }), "b:Utf8");
        let nulls = apply(json!({ "cast": { "b": "int" }, "on-cast-error": "null" })).unwrap();
        assert_eq!(nulls.column(1).null_count(), 1);
        let misfits = apply(json!({ "cast": { "b": "int" } })).unwrap_err().rows;
        assert_eq!(misfits.len(), 1, "the one row, and no other: {misfits:?}");
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        for (config, expected) in [
            (json!({ "columns": ["z"] }), "no column `z`"),
            (json!({ "cast": { "b": "int" } }), "column `b` cannot become Int64"),
        ] {
            let error = apply(config).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.reaction, pipeline_sdk::Reaction::Rejected);
        }
        let config: SelectConfig = serde_json::from_value(json!({ "cast": { "a": "integer" } })).unwrap();
        assert_eq!(config.lint()[0].path.as_deref(), Some("cast.a"));
    }
}
