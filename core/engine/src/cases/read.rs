//! From a document that passed the schema to cases; what is wrong with a value is said with its place.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::DataType;
use pipeline_sdk::{Header, Lane, Mark, Message, Payload, Position, Rows, Run};
use serde_json::{Value as Json, json};

use super::{Case, Expected, LIMIT_DEFAULT, Row, rows};
use crate::config::problem::Problem;
use crate::config::units::{format_duration, parse_data_type, parse_duration};
use crate::config::value::{Data, Span, Table, Value, join};

/// The only lane of a case.
const LANE: &str = "test";

/// The schema of `test`.
pub(crate) fn schema() -> Json {
    let rows = |text: &str| json!({ "type": "array", "items": { "type": "object", "additionalProperties": true }, "description": text });
    let types = |text: &str| json!({ "type": "object", "additionalProperties": { "type": "string" }, "description": text });
    let text = |text: &str| json!({ "type": "string", "minLength": 1, "description": text });
    let expect = json!({ "anyOf": [
        rows("Rows in their order."),
        {
            "type": "object",
            "properties": { "rows": rows("Rows in their order."), "types": types("Types that columns must have: code = \"int\".") },
            "required": ["rows"],
            "additionalProperties": false,
        },
    ] });
    let case = json!({
        "type": "object",
        "properties": {
            "name": text("What the case shows."),
            "pipeline": text("The pipeline that is tested; the only one of the file where absent."),
            "from": text("The transform that the rows enter; those before it are left out."),
            "types": types("Types of input columns, where the values do not tell: ts = \"timestamp[ms]\", code = \"Int16\"."),
            "input": {
                "type": "array",
                "items": { "anyOf": [
                    { "type": "object", "additionalProperties": true },
                    { "type": "array", "items": { "type": "object", "additionalProperties": true } },
                ] },
                "description": "Rows of one message, or arrays of rows for several messages. A column that a row lacks is NULL in it.",
            },
            "table": text("The table that the rows are of."),
            "replicated": { "type": "boolean", "description": "The rows were written by a replica." },
            "expect": {
                "type": "object",
                "additionalProperties": expect,
                "description": "By name of a sink the rows that it gets, [] for none. Sinks that are not named are not looked at.",
            },
            "rejected": rows("Rows that become dead letters; `_error` is a part of the reason, `_component` who rejected them. None where absent."),
            "stops": text("The pipeline stops with an error that holds this text."),
            "limit": { "type": "string", "format": "duration", "default": format_duration(LIMIT_DEFAULT), "description": "How long it may take." },
        },
        "required": ["name", "input"],
        "additionalProperties": false,
    });
    json!({ "type": "array", "items": case, "description": "Cases that `pipeline test` runs: rows in, rows out." })
}

/// The cases of a document; `pipelines` are those that it writes out.
pub(crate) fn read(document: &Table, pipelines: &[String], problems: &mut Vec<Problem>) -> Vec<Case> {
    let Some(Data::Array(items)) = document.get("test").map(|it| &it.data) else { return Vec::new() };
    let mut cases: Vec<Case> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(table) = item.as_table() else { continue };
        let mut reader = Reader { table, path: format!("test[{index}]"), problems };
        let Some(case) = reader.case(pipelines) else { continue };
        if cases.iter().any(|other| other.name == case.name && other.pipeline == case.pipeline) {
            let problem = Problem::new(&case.span, join(&case.path, "name"), format!("two cases of `{}` are named `{}`", case.pipeline, case.name));
            problems.push(problem.hint("name what each of them shows"));
        }
        cases.push(case);
    }
    cases
}

struct Reader<'a> {
    table: &'a Table,
    path: String,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn case(&mut self, pipelines: &[String]) -> Option<Case> {
        let (name, span) = self.text("name")?;
        let (pipeline, pipeline_span) = match (self.text("pipeline"), pipelines) {
            (Some(given), _) => given,
            (None, [only]) => (only.clone(), span.clone()),
            (None, _) => {
                let known: Vec<&str> = pipelines.iter().map(String::as_str).collect();
                let problem = Problem::new(&span, self.path.clone(), "the case does not say which `pipeline` it tests");
                self.problems.push(problem.suggest("", known));
                return None;
            }
        };
        let types = self.types(self.table.get("types"), "types");
        let input = self.input(&types);
        let expected = self.expected();
        let rejected = self.table.get("rejected").map(rows_of);
        let stops = self.text("stops");
        if expected.is_empty() && rejected.is_none() && stops.is_none() {
            let problem = Problem::new(&span, self.path.clone(), "the case expects nothing");
            self.problems.push(problem.hint("give `expect = { SINK = [ROWS] }`, `rejected = [ROWS]` or `stops = \"TEXT\"`; [] stands for no rows"));
        }
        let limit = self.text("limit").and_then(|(text, _)| parse_duration(&text).ok()).unwrap_or(LIMIT_DEFAULT);
        let limit = limit.max(Duration::from_millis(1));
        Some(Case { name, span, path: self.path.clone(), pipeline, pipeline_span, from: self.text("from"), input, expected, rejected, stops, limit })
    }

    fn text(&self, key: &str) -> Option<(String, Span)> {
        let value = self.table.get(key)?;
        Some((value.as_text()?.value.clone(), value.span.clone()))
    }

    fn types(&mut self, value: Option<&Value>, key: &str) -> Vec<(String, DataType, Span)> {
        let mut types = Vec::new();
        for entry in value.and_then(Value::as_table).into_iter().flat_map(|table| &table.entries) {
            let Some(text) = entry.value.as_text() else { continue };
            match parse_data_type(&text.value) {
                Ok(data_type) => types.push((entry.key.clone(), data_type, entry.value.span.clone())),
                Err(message) => {
                    let path = join(&join(&self.path, key), &entry.key);
                    self.problems.push(Problem::new(&entry.value.span, path, message));
                }
            }
        }
        types
    }

    fn input(&mut self, types: &[(String, DataType, Span)]) -> Vec<Message> {
        let Some(value) = self.table.get("input") else { return Vec::new() };
        let Data::Array(items) = &value.data else { return Vec::new() };
        let is_nested = |item: &Value| matches!(item.data, Data::Array(_));
        if let Some(other) = items.iter().find(|item| is_nested(item) != is_nested(&items[0])) {
            let problem = Problem::new(&other.span, join(&self.path, "input"), "rows and arrays of rows do not go together");
            self.problems.push(problem.hint("rows of one message: [{…}, {…}]; several messages: [[{…}], [{…}]]"));
            return Vec::new();
        }
        let groups: Vec<Vec<Row>> = match items.first().is_some_and(is_nested) {
            true => items.iter().map(rows_of).collect(),
            false => vec![rows_of(value)],
        };
        let types: BTreeMap<&str, &DataType> = types.iter().map(|(name, data_type, _)| (name.as_str(), data_type)).collect();
        let mut messages = Vec::new();
        for group in groups.iter().filter(|group| !group.is_empty()) {
            match rows::batch(group, &types) {
                Ok(batch) => messages.push(self.message(batch, messages.len() as i64 + 1)),
                Err((span, message)) => {
                    let problem = Problem::new(&span, join(&self.path, "input"), message);
                    self.problems.push(problem.hint("`types = { COLUMN = \"TYPE\" }` of the case says what a column is"));
                }
            }
        }
        messages
    }

    fn message(&self, batch: arrow::array::RecordBatch, number: i64) -> Message {
        let mut header = Header::new(Lane::new(LANE), Position::from_number(number));
        if matches!(self.table.get("replicated").map(|it| &it.data), Some(Data::Boolean(true))) {
            header.mark = Mark::Replicated { site: None };
        }
        let table = self.text("table").map_or_else(String::new, |(name, _)| name);
        let runs = vec![Run { table: table.into(), ..Run::default() }];
        Message { header, payload: Payload::Rows(Rows { batch, runs }) }
    }

    fn expected(&mut self) -> Vec<Expected> {
        let Some(table) = self.table.get("expect").and_then(Value::as_table) else { return Vec::new() };
        let mut all = Vec::new();
        for entry in &table.entries {
            let (rows, types) = match entry.value.as_table() {
                Some(inner) => (inner.get("rows"), self.types(inner.get("types"), &format!("expect.{}.types", entry.key))),
                None => (Some(&entry.value), Vec::new()),
            };
            all.push(Expected { sink: entry.key.clone(), span: entry.key_span.clone(), rows: rows.map(rows_of).unwrap_or_default(), types });
        }
        all
    }
}

fn rows_of(value: &Value) -> Vec<Row> {
    let Data::Array(items) = &value.data else { return Vec::new() };
    let row = |item: &Value| Some(Row { columns: item.as_table()?.clone(), span: item.span.clone() });
    items.iter().filter_map(row).collect()
}
