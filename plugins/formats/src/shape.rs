//! The columns of payloads, and what they are together.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::Value;

/// Columns that are learned; a payload with more is rejected.
const COLUMNS_MAX: usize = 4_096;

/// The columns of JSON objects. One that has only NULLs has no type yet.
pub(crate) fn of_json(body: &[u8]) -> Result<Vec<Field>, String> {
    let mut objects = Vec::new();
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        match value.map_err(|error| format!("it is no JSON: {error}"))? {
            Value::Array(items) => objects.extend(items),
            other => objects.push(other),
        }
    }
    if let Some(other) = objects.iter().find(|it| !it.is_object()) {
        let shown: String = other.to_string().chars().take(40).collect();
        return Err(format!("`{shown}` is no JSON object"));
    }
    let schema = arrow_json::reader::infer_json_schema_from_iterator(objects.iter().map(Ok)).map_err(|error| error.to_string())?;
    Ok(schema.fields().iter().map(|field| field.as_ref().clone()).collect())
}

/// The columns of lines. One that is always empty has no type yet.
pub(crate) fn of_csv(header: &[u8], body: &[u8], delimiter: u8) -> Result<Vec<Field>, String> {
    if header.is_empty() && body.is_empty() {
        return Ok(Vec::new());
    }
    let format = arrow_csv::reader::Format::default().with_header(!header.is_empty()).with_delimiter(delimiter).with_truncated_rows(true);
    let text = [header, body].concat();
    let (schema, _) = format.infer_schema(Cursor::new(text), None).map_err(|error| error.to_string())?;
    Ok(schema.fields().iter().map(|field| field.as_ref().clone()).collect())
}

/// Columns that are known with those that were found; `types` win over both.
pub(crate) fn join(mut known: Vec<Field>, found: &[Field], types: &BTreeMap<String, DataType>) -> Result<Vec<Field>, String> {
    for field in found {
        let name = field.name();
        let data_type = types.get(name).unwrap_or(field.data_type());
        match known.iter().position(|it| it.name() == name) {
            Some(_) if types.contains_key(name) => {}
            Some(index) => {
                let before = &mut known[index];
                let conflict = || format!("column `{name}` is {} here and was {} before", field.data_type(), before.data_type());
                let joined = widened(before.data_type(), data_type).ok_or_else(conflict)?;
                *before = before.clone().with_data_type(joined);
            }
            None if known.len() >= COLUMNS_MAX => return Err(format!("`{name}` would be more than the {COLUMNS_MAX}th column")),
            None => known.push(Field::new(name, data_type.clone(), true)),
        }
    }
    Ok(known)
}

/// The type that holds values of both; a text holds what JSON and CSV write as one word.
fn widened(one: &DataType, other: &DataType) -> Option<DataType> {
    match (one, other) {
        (one, other) if one == other => Some(one.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
        (DataType::Utf8, DataType::Int64 | DataType::Float64 | DataType::Boolean) => Some(DataType::Utf8),
        (DataType::List(one), DataType::List(other)) => {
            let item = widened(one.data_type(), other.data_type())?;
            Some(DataType::List(Arc::new(one.as_ref().clone().with_data_type(item))))
        }
        (DataType::Struct(one), DataType::Struct(other)) => {
            let mut fields: Vec<Field> = one.iter().map(|field| field.as_ref().clone()).collect();
            for field in other {
                match fields.iter_mut().find(|it| it.name() == field.name()) {
                    Some(before) => *before = before.clone().with_data_type(widened(before.data_type(), field.data_type())?),
                    None => fields.push(field.as_ref().clone()),
                }
            }
            Some(DataType::Struct(Fields::from(fields)))
        }
        _ => None,
    }
}
