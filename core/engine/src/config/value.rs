//! A TOML document as values that know their place, with `${…}` replaced.
//!
//! `toml`'s own values lose the span under `serde(flatten)` and `serde(tag)`; here every key and value keeps it. A value that
//! came from `${…}` keeps the text that was written as well: that text is what is shown.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problem::Problem;
use super::secret::{Environment, Redactor, interpolate};

/// Bytes of the file's text.
pub type Span = Range<usize>;

#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub span: Span,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Text(Text),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// In RFC 3339, as it was written.
    Datetime(String),
    Array(Vec<Value>),
    Table(Table),
}

/// A string, and how it was written where it holds `${…}`.
#[derive(Clone, PartialEq)]
pub struct Text {
    pub value: String,
    pub template: Option<String>,
}

impl Text {
    /// What may be printed.
    pub fn shown(&self) -> &str {
        self.template.as_deref().unwrap_or(&self.value)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

/// Entries in the order of the file; keys are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Value,
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The entries whose keys `keep` accepts.
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Table {
        Table { entries: self.entries.iter().filter(|entry| keep(&entry.key)).cloned().collect() }
    }

    /// As JSON, secrets in clear: for components only.
    pub fn to_json(&self) -> serde_json::Value {
        self.json(&|text| text.value.clone())
    }

    /// As JSON that may be printed.
    pub fn to_shown_json(&self) -> serde_json::Value {
        self.json(&|text| text.shown().to_owned())
    }

    fn json(&self, text: &dyn Fn(&Text) -> String) -> serde_json::Value {
        self.entries.iter().map(|entry| (entry.key.clone(), entry.value.json(text))).collect()
    }

    /// The place of a dotted path such as `limits.rows` or `databases[1]`: the deepest part of it that exists.
    pub fn locate(&self, path: &str) -> Option<Span> {
        let mut found = None;
        let mut table = Some(self);
        for step in path.split('.') {
            let (key, index) = match step.split_once('[') {
                Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
                None => (step, None),
            };
            let Some(mut value) = table.and_then(|table| table.get(key)) else { break };
            if let (Some(index), Data::Array(items)) = (index, &value.data)
                && let Some(item) = items.get(index)
            {
                value = item;
            }
            found = Some(value.span.clone());
            table = match &value.data {
                Data::Table(table) => Some(table),
                _ => None,
            };
        }
        found
    }
}

impl Value {
    pub fn as_table(&self) -> Option<&Table> {
        match &self.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&Text> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn to_json(&self) -> serde_json::Value {
        self.json(&|text| text.value.clone())
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Text(_) => "a string",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a float",
            Data::Boolean(_) => "a boolean",
            Data::Datetime(_) => "a date and time",
            Data::Array(_) => "an array",
            Data::Table(_) => "a table",
        }
    }

    fn json(&self, text: &dyn Fn(&Text) -> String) -> serde_json::Value {
        match &self.data {
            Data::Text(value) => text(value).into(),
            Data::Integer(value) => (*value).into(),
            Data::Float(value) => (*value).into(),
            Data::Boolean(value) => (*value).into(),
            Data::Datetime(value) => value.clone().into(),
            Data::Array(items) => items.iter().map(|item| item.json(text)).collect(),
            Data::Table(table) => table.json(text),
        }
    }
}

/// A dotted path with one more key; a key that is not bare is quoted, as TOML would have it.
pub(crate) fn join(path: &str, key: &str) -> String {
    let key = quoted_key(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

pub(crate) fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { key.to_owned() } else { quoted(key) }
}

/// A TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// What a document is read with, and what is wrong with it so far.
pub(super) struct Reading<'a> {
    pub text: &'a str,
    pub folder: &'a Path,
    pub environment: &'a Environment<'a>,
    pub redactor: Redactor,
    pub problems: Vec<Problem>,
}

impl Reading<'_> {
    pub fn table(&mut self, table: &DeTable<'_>, path: &str) -> Table {
        let mut entries: Vec<Entry> =
            table.iter().map(|(key, value)| self.entry(key, value, path)).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Table { entries }
    }

    fn entry(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>, path: &str) -> Entry {
        let name = key.get_ref().to_string();
        let value = self.value(&name, value, &join(path, &name));
        Entry { key: name, key_span: key.span(), value }
    }

    fn value(&mut self, key: &str, value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        let span = value.span();
        let data = match value.get_ref() {
            DeValue::String(text) => Data::Text(self.string(key, text, &span, path)),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Data::Integer(value),
                Err(_) => {
                    self.problems.push(Problem::new(&span, path, "the integer does not fit into 64 bits"));
                    Data::Integer(0)
                }
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(value) => Data::Float(value),
                Err(_) => {
                    self.problems.push(Problem::new(&span, path, "the number is not readable"));
                    Data::Float(0.0)
                }
            },
            DeValue::Boolean(value) => Data::Boolean(*value),
            DeValue::Datetime(value) => Data::Datetime(value.to_string()),
            DeValue::Array(items) => {
                let item = |(index, item)| self.value(key, item, &format!("{path}[{index}]"));
                Data::Array(items.iter().enumerate().map(item).collect())
            }
            DeValue::Table(table) => Data::Table(self.table(table, path)),
        };
        Value { span, data }
    }

    fn string(&mut self, key: &str, text: &str, span: &Span, path: &str) -> Text {
        match interpolate(text, self.environment, self.folder, &mut self.redactor) {
            Ok(Some(value)) => Text { value, template: Some(text.to_owned()) },
            Ok(None) => {
                self.redactor.add_literal(key, text);
                Text { value: text.to_owned(), template: None }
            }
            Err(bad) => {
                // The caret goes under the reference itself, unless escapes hide it.
                let within = self.text[span.clone()].find(&bad.reference).map(|at| {
                    let start = span.start + at;
                    start..start + bad.reference.len()
                });
                let place = within.unwrap_or_else(|| span.clone());
                self.problems.push(Problem::new(&place, path, bad.message).hint(bad.hint));
                // Nothing else shall be said about a value that is not known.
                Text { value: String::new(), template: Some(text.to_owned()) }
            }
        }
    }
}
