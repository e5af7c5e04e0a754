//! PostgreSQL as a sink: each batch one transaction of `COPY … (FORMAT binary)`.
//!
//! A write that returned is committed. After a lost connection messages come again from the last checkpoint: rows that are appended
//! are there at least once, rows that are written by key (`mode = "upsert"`) once.

mod config;
mod connection;
mod encode;
mod error;
mod kinds;
mod sink;
mod table;

use pipeline_sdk::Plugin;

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("postgres", env!("CARGO_PKG_VERSION"), "PostgreSQL as a sink").sink::<config::PostgresSinkConfig>()
}
