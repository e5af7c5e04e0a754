//! OpenTSDB's JSON protocol: an object, or an array of them, with `metric`, `timestamp`, `value` and `tags`; values and
//! times may be objects with `value` and `type`.

use serde_json::{Map, Value as Json};
use tdengine_wire::DataType;

use super::VALUE;
use super::line::integer;
use super::point::{Cell, Point, Time, invalid, unit_ns};
use super::telnet::time_by_digits;
use crate::error::Fail;

/// All points of a text.
pub(super) fn parse(text: &str) -> Result<Vec<Point>, Fail> {
    let json = serde_json::from_str(text).map_err(|_| Fail::new(0x0221, "Invalid JSON format"))?;
    let points = match json {
        Json::Array(points) => points,
        point => vec![point],
    };
    points.into_iter().map(point).collect()
}

fn point(json: Json) -> Result<Point, Fail> {
    let Json::Object(mut object) = json else {
        return Err(Fail::new(0x0221, "Invalid JSON format"));
    };
    let mut take = |key: &str| object.remove(key).ok_or_else(|| invalid(format!("{key} is missing")));
    let Json::String(measurement) = take("metric")? else {
        return Err(invalid("metric is no text"));
    };
    let time = time(&take("timestamp")?)?;
    let value = cell(take("value")?, Cell::Varchar)?;
    let Json::Object(tags) = take("tags")? else {
        return Err(invalid("tags are no object"));
    };
    let tags = tags.into_iter().map(|(name, value)| Ok((name, cell(value, Cell::Nchar)?)));
    let tags = tags.collect::<Result<_, Fail>>()?;
    Ok(Point { measurement, tags, fields: vec![(VALUE.to_owned(), value)], time })
}

fn time(json: &Json) -> Result<Time, Fail> {
    let wrong = || invalid("invalid timestamp");
    match json {
        Json::Object(typed) => {
            let value = typed.get("value").and_then(Json::as_i64).ok_or_else(wrong)?;
            let unit = typed.get("type").and_then(Json::as_str).ok_or_else(wrong)?;
            Ok(if value == 0 { Time::Now } else { Time::in_unit(value, unit_ns(unit)) })
        }
        number => time_by_digits(number.as_i64().ok_or_else(wrong)?),
    }
}

/// A bare number is a double; a bare text what `text` makes of it.
fn cell(json: Json, text: fn(String) -> Cell) -> Result<Cell, Fail> {
    match json {
        Json::Bool(value) => Ok(Cell::Bool(value)),
        Json::Number(number) => number.as_f64().map(Cell::Double).ok_or_else(|| invalid("invalid number")),
        Json::String(value) => Ok(text(value)),
        Json::Object(typed) => typed_cell(&typed),
        Json::Null | Json::Array(_) => Err(invalid("a value is null or an array")),
    }
}

fn typed_cell(typed: &Map<String, Json>) -> Result<Cell, Fail> {
    let (Some(value), Some(name)) = (typed.get("value"), typed.get("type").and_then(Json::as_str)) else {
        return Err(invalid("a typed value needs value and type"));
    };
    let text = || value.as_str().map(str::to_owned);
    let whole = |data_type| {
        let value = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))?;
        integer(value, data_type)
    };
    let cell = match name.to_ascii_lowercase().as_str() {
        "bool" => value.as_bool().map(Cell::Bool),
        "float" => value.as_f64().map(|value| Cell::Float(value as f32)),
        "double" => value.as_f64().map(Cell::Double),
        "binary" | "varchar" => text().map(Cell::Varchar),
        "nchar" => text().map(Cell::Nchar),
        other => DataType::from_name(&other.to_ascii_uppercase())
            .filter(|data_type| data_type.width().is_some())
            .and_then(whole),
    };
    cell.ok_or_else(|| invalid(format!("a value does not fit its type {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_and_typed_values() {
        let points = parse(
            r#"{"metric":"js.m2","timestamp":{"value":1700000000000,"type":"ms"},
                "value":{"value":3,"type":"int"},"tags":{"a":true,"b":"x","c":1}}"#,
        )
        .unwrap();
        let point = &points[0];
        assert_eq!((point.stable().as_str(), point.time), ("js_m2", Time::Nanoseconds(1_700_000_000_000_000_000)));
        assert_eq!(point.fields, [("_value".to_owned(), Cell::Integer(DataType::Int, 3))]);
        let tags: Vec<_> = point.tags.iter().map(|(_, cell)| cell.clone()).collect();
        assert_eq!(tags, [Cell::Bool(true), Cell::Nchar("x".into()), Cell::Double(1.0)]);
    }

    #[test]
    fn malformed_texts() {
        let check = |text: &str, code| assert_eq!(parse(text).unwrap_err().code, code, "{text}");
        check("{bad", 0x0221);
        check("[1]", 0x0221);
        check(r#"{"metric":"m","timestamp":1,"value":1,"tags":{}}"#, 0x3002);
        check(r#"{"metric":"m","timestamp":1700000000,"value":{"value":300,"type":"tinyint"},"tags":{}}"#, 0x3002);
        check(r#"{"metric":"m","timestamp":1700000000,"tags":{}}"#, 0x3002);
    }
}
