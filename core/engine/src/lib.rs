//! The engine: TOML to a checked graph to running tasks. It knows no database, no file format, no broker.

pub mod config;
pub mod buffer;
pub mod cases;
pub mod folder;
pub mod graph;
pub mod host;
pub mod state;
pub mod metrics;
pub mod runtime;
