//! `[[test]]`: cases that a pipeline file holds of its own pipelines, and running them.
//!
//! Guarantees: a case runs the engine itself — transforms, routes of the sinks, dead letters — with rows of the file in the place of the
//! source and collectors in the place of the sinks; nothing is connected to, nothing is stored, no service is started. What differs
//! is reported with the place in the file that expected it.

mod read;
mod rows;
mod diff;
mod ends;
mod run;
#[cfg(test)]
mod tests;

use std::time::Duration;

use pipeline_sdk::Message;

use crate::config::value::{Span, Table};

pub use diff::{Difference, Line};
pub(crate) use read::{read, schema};
pub(crate) use rows::batch_json;
pub use run::{Outcome, run};

/// How long a case may take where it does not say.
pub(crate) const LIMIT_DEFAULT: Duration = Duration::from_secs(10);

/// One `[[test]]`.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// Of the name.
    pub span: Span,
    pub path: String,
    pub pipeline: String,
    pub pipeline_span: Span,
    /// The transform that the rows enter; the first one where absent.
    pub from: Option<(String, Span)>,
    pub input: Vec<Message>,
    pub expected: Vec<Expected>,
    /// Rows that become dead letters; none are expected where absent.
    pub rejected: Option<Vec<Row>>,
    /// The pipeline stops with a message that holds this.
    pub stops: Option<(String, Span)>,
    pub limit: Duration,
}

/// What one sink is to get.
#[derive(Clone, Debug)]
pub struct Expected {
    pub sink: String,
    /// Of the sink's name.
    pub span: Span,
    pub rows: Vec<Row>,
    /// Types that columns are to have, by name.
    pub types: Vec<(String, arrow::datatypes::DataType, Span)>,
}

/// A row as the file has it: only the columns that are not NULL.
#[derive(Clone, Debug)]
pub struct Row {
    pub columns: Table,
    pub span: Span,
}
