//! Payloads that a broker or a client hands over, to rows and back.
//!
//! Nothing but the payloads tells their columns, so these are learned as they come: a key that is new becomes a column, whole numbers
//! become numbers with a fraction where one comes, and a value that fits neither is an error of its payload alone. Once all columns
//! are known, payloads are decoded together. `columns` in a file fixes types from the start.

mod shape;
mod numbers;
mod objects;
mod lines;
mod decode;
mod encode;
mod undecodable;
mod pattern;
mod template;
mod beside;
mod count;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pipeline_sdk::{Error, Result, units};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use beside::{Beside, with_columns};
pub use count::{count_of, counted, foreign};
pub use encode::{Lines, csv_header, encode_lines};
pub use numbers::json_reader;
pub use lines::write_objects;
pub use objects::PlainObjects;
pub use pattern::{MQTT, NATS, Patterns, Syntax};
pub use template::{Piece, Wrong, pieces};
pub use undecodable::{UNDECODABLE, refuse, undecodable};

/// What one read of a broker takes of what waits, beside `batch-payloads`.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Shapes (headers of CSV) whose columns are remembered.
const SHAPES_MAX: usize = 64;

/// What a payload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON objects, one or several, a line each or not; an array of objects as well.
    #[default]
    Ndjson,
    /// Comma-separated values (RFC 4180).
    Csv,
    /// Bytes as they are, in the column `payload`.
    Raw,
}

/// The column of [`Format::Raw`].
pub const PAYLOAD: &str = "payload";

/// How payloads are read; what a component's keys say.
#[derive(Clone, Debug)]
pub struct Settings {
    pub format: Format,
    /// Types of columns by name, as [`units::parse_data_type`] takes them.
    pub columns: BTreeMap<String, String>,
    /// Of CSV: the first line of each payload names the columns; without, they are `column_1`, `column_2`, …
    pub header: bool,
    /// Of CSV.
    pub delimiter: u8,
}

/// What payloads became, in their order.
#[derive(Debug)]
pub enum Part {
    Rows {
        /// Index of the first payload that is in it.
        first: usize,
        batch: RecordBatch,
        /// How many rows each payload from there on made.
        rows: Vec<usize>,
    },
    /// Rejected.
    Bad { index: usize, error: Error },
}

/// Turns payloads into rows, and remembers the columns.
#[derive(Debug)]
pub struct Decoder {
    settings: Settings,
    types: BTreeMap<String, DataType>,
    /// By header, of CSV; else one.
    shapes: BTreeMap<Vec<u8>, SchemaRef>,
}

/// What a component's key `header` is where a file does not say it.
pub fn header() -> bool {
    true
}

/// What a source's key `batch-payloads` is where a file does not say it.
pub fn batch_payloads() -> u32 {
    16_384
}

/// What a component's key `delimiter` says.
pub fn delimiter(key: Option<&str>) -> u8 {
    key.and_then(|it| it.bytes().next()).unwrap_or(b',')
}

impl Settings {
    /// As a component's keys of these names say.
    pub fn new(format: Format, columns: &BTreeMap<String, String>, header: bool, delimiter: Option<&str>) -> Self {
        Self { format, columns: columns.clone(), header, delimiter: self::delimiter(delimiter) }
    }

    /// What is wrong with the types of columns, each with its key.
    pub fn lint(&self) -> Vec<Error> {
        let wrong = |(name, text): (&String, &String)| {
            let error = match units::parse_data_type(text) {
                Err(error) => error,
                Ok(_) if self.format == Format::Raw && name != PAYLOAD => format!("`raw` has one column, `{PAYLOAD}`"),
                Ok(_) => return None,
            };
            Some(Error::fatal(error).path(format!("columns.{name}")))
        };
        self.columns.iter().filter_map(wrong).collect()
    }
}

impl Decoder {
    /// # Errors
    /// As [`Settings::lint`].
    pub fn new(settings: Settings) -> Result<Self> {
        if let Some(error) = settings.lint().into_iter().next() {
            return Err(error);
        }
        let types = settings.columns.iter().filter_map(|(name, text)| Some((name.clone(), units::parse_data_type(text).ok()?)));
        Ok(Self { types: types.collect(), settings, shapes: BTreeMap::new() })
    }

    /// Rows of these payloads, in their order; those of equal columns together.
    pub fn decode(&mut self, payloads: &[&[u8]]) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < payloads.len() {
            // What is empty has no shape: it goes with the others.
            let header = payloads[at..].iter().find(|it| !it.is_empty()).map_or(&[][..], |it| self.header(it));
            let is_alike = |it: &&&[u8]| it.is_empty() || self.header(it) == header;
            let end = at + payloads[at..].iter().take_while(is_alike).count();
            let header = header.to_vec();
            self.decode_alike(&header, at, &payloads[at..end], &mut parts);
            at = end;
        }
        parts
    }

    /// The line that names the columns, with its end; empty where there is none.
    fn header<'p>(&self, payload: &'p [u8]) -> &'p [u8] {
        if self.settings.format != Format::Csv || !self.settings.header {
            return &[];
        }
        let end = payload.iter().position(|byte| *byte == b'\n').map_or(payload.len(), |at| at + 1);
        &payload[..end]
    }

    fn decode_alike(&mut self, header: &[u8], first: usize, payloads: &[&[u8]], parts: &mut Vec<Part>) {
        let bodies: Vec<&[u8]> = payloads.iter().map(|it| it.get(header.len()..).unwrap_or_default()).collect();
        if let Some(schema) = self.shapes.get(header)
            && let Ok((batch, rows)) = self.rows(schema, &bodies)
        {
            parts.push(Part::Rows { first, batch, rows });
            return;
        }
        let mut bad: BTreeMap<usize, Error> = BTreeMap::new();
        for (index, body) in bodies.iter().enumerate() {
            if let Err(error) = self.learn(header, body) {
                bad.insert(index, error);
            }
        }
        let schema = self.shapes.get(header).cloned().unwrap_or_else(|| Arc::new(Schema::empty()));
        let good = |bad: &BTreeMap<usize, Error>| (0..bodies.len()).filter(|index| !bad.contains_key(index)).collect::<Vec<_>>();
        let tried: Vec<&[u8]> = good(&bad).into_iter().map(|index| bodies[index]).collect();
        if self.rows(&schema, &tried).is_err() {
            for index in good(&bad) {
                if let Err(error) = self.rows(&schema, &[bodies[index]]) {
                    bad.insert(index, error);
                }
            }
        }
        let mut at = 0;
        while at < bodies.len() {
            if let Some(error) = bad.remove(&at) {
                parts.push(Part::Bad { index: first + at, error });
                at += 1;
                continue;
            }
            let end = bad.keys().next().copied().unwrap_or(bodies.len());
            match self.rows(&schema, &bodies[at..end]) {
                Ok((batch, rows)) => parts.push(Part::Rows { first: first + at, batch, rows }),
                // Each of them can be read, so this cannot be; but nothing is passed over.
                Err(error) => parts.extend((at..end).map(|index| Part::Bad { index: first + index, error: error.clone() })),
            }
            at = end;
        }
    }

    fn rows(&self, schema: &SchemaRef, bodies: &[&[u8]]) -> Result<(RecordBatch, Vec<usize>)> {
        let decoded = match self.settings.format {
            Format::Ndjson => decode::json(schema, bodies),
            Format::Csv => decode::csv(schema, bodies, self.settings.delimiter),
            Format::Raw => return decode::raw(&self.types, bodies),
        };
        let (batch, rows) = decoded.map_err(|error| rejected(&error.to_string()))?;
        Ok((decode::without_untyped(&batch), rows))
    }

    /// Takes the columns of a payload over.
    fn learn(&mut self, header: &[u8], body: &[u8]) -> Result<()> {
        let found = match self.settings.format {
            Format::Ndjson => shape::of_json(body),
            Format::Csv => shape::of_csv(header, body, self.settings.delimiter),
            Format::Raw => return Ok(()),
        };
        let found = found.map_err(|error| rejected(&error))?;
        let known = match self.shapes.get(header) {
            Some(known) => known.fields().iter().map(|field| field.as_ref().clone()).collect(),
            None if self.settings.format == Format::Ndjson => {
                self.types.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true)).collect()
            }
            None => Vec::new(),
        };
        let mut joined = shape::join(known, &found, &self.types).map_err(|error| rejected(&error))?;
        if self.settings.format == Format::Csv {
            // Whatever comes later, a text holds it; nobody would see that it is no NULL.
            for field in joined.iter_mut().filter(|field| field.data_type().is_null()) {
                *field = field.clone().with_data_type(DataType::Utf8);
            }
        }
        if self.shapes.len() >= SHAPES_MAX && !self.shapes.contains_key(header) {
            self.shapes.clear();
        }
        self.shapes.insert(header.to_vec(), Arc::new(Schema::new(joined)));
        Ok(())
    }
}

fn rejected(text: &str) -> Error {
    let error = Error::rejected(format!("a payload makes no rows: {text}")).code("payload.content");
    error.hint("see whether `format` fits it, or give a column another type: columns = { name = \"text\" }")
}
