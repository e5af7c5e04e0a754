//! Pipeline files: TOML text to a checked model, with exact errors.
//!
//! Guarantees: an error names file, line, column and dotted path; an unknown key is an error; `${…}` is replaced in string
//! values only, after parsing; what it brought is never shown. This module reads files that it is pointed to and nothing else:
//! environment variables come in through a closure. What needs to know plugins is in [`crate::graph`].

pub mod file;
pub mod settings;
mod parse;
pub mod value;
pub mod secret;
pub mod schema;
pub mod document;
pub mod reference;
pub mod problem;

pub use pipeline_sdk::units;
pub use document::file_schema;
pub use file::{Component, File, Pipeline, Replica};
pub use problem::{Place, Problem, Report};
pub use schema::Schema;
pub use secret::{Environment, Redactor};
pub use settings::{
    Batching, Buffer, BufferType, ComponentSettings, EngineSettings, Freshness, Fsync, Isolation, IsolationLimits, OnCorrupt, OnError,
    OnRejectedChange, PipelineSettings, PluginPin, Throttle, WhenFull, reserved_key,
};
