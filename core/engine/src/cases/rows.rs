//! Rows of a file as Arrow columns, Arrow columns as rows to show, and whether one is the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value as Json, json};

use super::Row;
use crate::config::value::{Data, Span, Value};

/// A value's place and what is wrong with it.
type Wrong = (Span, String);

/// The rows of one message. Columns come in the order in which rows name them, then those that only `types` names.
pub(super) fn batch(rows: &[Row], types: &BTreeMap<&str, &DataType>) -> Result<RecordBatch, Wrong> {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| &row.columns.entries).map(|entry| entry.key.as_str()).chain(types.keys().copied()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err((rows[0].span.clone(), "a row without columns".into()));
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for name in names {
        let values: Vec<Option<&Value>> = rows.iter().map(|row| row.columns.get(name)).collect();
        let data_type = match types.get(name) {
            Some(data_type) => (*data_type).clone(),
            None => inferred(&values.iter().flatten().copied().collect::<Vec<_>>())?,
        };
        columns.push(column(name, &values, &data_type)?);
        fields.push(Field::new(name, data_type, true));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| (rows[0].span.clone(), error.to_string()))
}

fn column(name: &str, values: &[Option<&Value>], data_type: &DataType) -> Result<ArrayRef, Wrong> {
    let cells: Vec<Json> = values.iter().map(|value| value.map_or(Json::Null, cell)).collect();
    decoded(&cells, data_type).map_err(|error| {
        // The one that is to blame, where one is alone.
        let is_wrong = |value: &&Value| decoded(&[cell(value)], data_type).is_err();
        let blamed = values.iter().flatten().copied().find(is_wrong).or_else(|| values.iter().flatten().copied().next());
        let span = blamed.map_or(0..0, |value| value.span.clone());
        (span, format!("column `{name}` of type {data_type} cannot hold this: {error}"))
    })
}

/// Cells as a column, the way JSON becomes Arrow: text for timestamps and decimals, hexadecimal for binary.
fn decoded(cells: &[Json], data_type: &DataType) -> Result<ArrayRef, String> {
    const NAME: &str = "v";
    if cells.iter().all(Json::is_null) {
        return Ok(new_null_array(data_type, cells.len()));
    }
    if let Some(number) = cells.iter().find_map(|cell| fraction(cell, data_type)) {
        return Err(format!("{number} has a fraction"));
    }
    let schema = Arc::new(Schema::new(vec![Field::new(NAME, data_type.clone(), true)]));
    let rows: Vec<Json> = cells.iter().map(|cell| json!({ NAME: cell })).collect();
    let read = || {
        let mut decoder = arrow_json::ReaderBuilder::new(schema).with_batch_size(rows.len()).build_decoder()?;
        decoder.serialize(&rows)?;
        decoder.flush()
    };
    let batch = read().map_err(|error| error.to_string())?;
    batch.map(|batch| batch.column(0).clone()).ok_or_else(|| "there is nothing in it".into())
}

/// A number with a fraction where whole numbers stand: Arrow would cut it.
fn fraction(cell: &Json, data_type: &DataType) -> Option<f64> {
    match (cell, data_type) {
        (Json::Number(number), whole) if whole.is_integer() || whole.is_temporal() => number.as_f64().filter(|it| it.fract() != 0.0),
        (Json::Array(items), DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) => {
            items.iter().find_map(|cell| fraction(cell, item.data_type()))
        }
        (Json::Object(cells), DataType::Struct(fields)) => {
            fields.iter().find_map(|field| fraction(cells.get(field.name())?, field.data_type()))
        }
        _ => None,
    }
}

fn cell(value: &Value) -> Json {
    match &value.data {
        Data::Float(number) if !number.is_finite() => number.to_string().into(),
        Data::Array(items) => items.iter().map(cell).collect(),
        Data::Table(table) => table.entries.iter().map(|entry| (entry.key.clone(), cell(&entry.value))).collect(),
        _ => value.to_json(),
    }
}

/// The type that values have in common; a date and time as precise as it is written, as in a CSV file.
fn inferred(values: &[&Value]) -> Result<DataType, Wrong> {
    let mut found: Option<DataType> = None;
    for value in values {
        let own = match &value.data {
            Data::Text(_) => DataType::Utf8,
            Data::Integer(_) => DataType::Int64,
            Data::Float(_) => DataType::Float64,
            Data::Boolean(_) => DataType::Boolean,
            Data::Datetime(text) => datetime(text).ok_or_else(|| (value.span.clone(), "a time without a date needs a type".to_owned()))?,
            Data::Array(_) | Data::Table(_) => return nested(values),
        };
        found = Some(match (found, own) {
            (None, own) => own,
            (Some(one), own) if one == own => own,
            (Some(DataType::Int64), DataType::Float64) | (Some(DataType::Float64), DataType::Int64) => DataType::Float64,
            (Some(DataType::Timestamp(one, _)), DataType::Timestamp(other, _)) => DataType::Timestamp(finer(one, other), None),
            (Some(one), _) => return Err((value.span.clone(), format!("{} in a column of {one}", value.kind()))),
        });
    }
    Ok(found.unwrap_or(DataType::Utf8))
}

fn nested(values: &[&Value]) -> Result<DataType, Wrong> {
    if let Some(items) = values.iter().map(|it| if let Data::Array(items) = &it.data { Some(items) } else { None }).collect::<Option<Vec<_>>>() {
        let inner = inferred(&items.into_iter().flatten().collect::<Vec<_>>())?;
        return Ok(DataType::List(Arc::new(Field::new_list_field(inner, true))));
    }
    let Some(tables) = values.iter().map(|it| it.as_table()).collect::<Option<Vec<_>>>() else {
        let other = values.iter().find(|it| std::mem::discriminant(&it.data) != std::mem::discriminant(&values[0].data)).unwrap_or(&values[0]);
        return Err((other.span.clone(), format!("{} in a column of {}", other.kind(), values[0].kind())));
    };
    let mut names: Vec<&str> = tables.iter().flat_map(|table| &table.entries).map(|entry| entry.key.as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let field = |name: &str| {
        let inner = inferred(&tables.iter().filter_map(|table| table.get(name)).collect::<Vec<_>>())?;
        Ok(Field::new(name, inner, true))
    };
    Ok(DataType::Struct(names.into_iter().map(field).collect::<Result<Fields, Wrong>>()?))
}

/// `None` for a time of no day.
fn datetime(text: &str) -> Option<DataType> {
    if text.find(':').is_some_and(|at| at < 4) {
        return None;
    }
    if !text.contains(':') {
        return Some(DataType::Date32);
    }
    let digits = text.split_once('.').map_or(0, |(_, fraction)| fraction.chars().take_while(char::is_ascii_digit).count());
    let unit = match digits {
        0 => TimeUnit::Second,
        1..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    };
    Some(DataType::Timestamp(unit, None))
}

fn finer(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    one.max(other)
}

/// Whether a cell holds what the file expects of it.
pub(super) fn holds(array: &ArrayRef, row: usize, expected: &Value) -> bool {
    if array.is_null(row) || !may_hold(array.data_type(), expected) {
        return false;
    }
    match decoded(&[cell(expected)], array.data_type()) {
        Ok(wanted) => wanted.to_data() == array.slice(row, 1).to_data(),
        Err(_) => false,
    }
}

/// JSON is lax where the type says more: "200" is no number, though it could be read as one.
fn may_hold(data_type: &DataType, expected: &Value) -> bool {
    let is_number = data_type.is_integer() || data_type.is_floating() || *data_type == DataType::Boolean;
    match &expected.data {
        Data::Text(_) => !is_number || *data_type == DataType::UInt64,
        Data::Integer(_) => *data_type != DataType::Boolean,
        Data::Float(_) => data_type.is_floating() || matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..)),
        Data::Boolean(_) => *data_type == DataType::Boolean,
        Data::Datetime(_) => data_type.is_temporal(),
        Data::Array(_) | Data::Table(_) => data_type.is_nested(),
    }
}

/// Rows as JSON objects without what is NULL, `limit` at most; text where JSON has no form for a type.
pub(crate) fn batch_json(batch: &RecordBatch, limit: usize) -> Vec<Map<String, Json>> {
    let part = batch.slice(0, batch.num_rows().min(limit));
    let mut out = arrow_json::ArrayWriter::new(Vec::new());
    let written = out.write(&part).and_then(|()| out.finish());
    match written.ok().and_then(|()| serde_json::from_slice(&out.into_inner()).ok()) {
        Some(rows) if part.num_rows() > 0 => rows,
        _ => (0..part.num_rows()).map(|row| as_text(&part, row)).collect(),
    }
}

fn as_text(batch: &RecordBatch, row: usize) -> Map<String, Json> {
    let options = FormatOptions::default().with_display_error(true);
    let schema = batch.schema();
    let cells = schema.fields().iter().zip(batch.columns()).filter(|(_, array)| !array.is_null(row));
    let text = |array: &ArrayRef| match ArrayFormatter::try_new(array.as_ref(), &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => error.to_string(),
    };
    cells.map(|(field, array)| (field.name().clone(), text(array).into())).collect()
}
