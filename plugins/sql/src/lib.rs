//! SQL over the rows of each message, with DataFusion.
//!
//! A query sees one batch and nothing else: no files, no network, no clock, no other batch. So what comes out depends on the batch
//! alone, whenever it is read again. DataFusion's arrow is this library's arrow: the SDK takes it too (see `Cargo.toml`).

mod config;
mod statement;
mod plan;
mod tables;
mod transform;
#[cfg(test)]
mod tests;

use pipeline_sdk::Plugin;

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("sql", env!("CARGO_PKG_VERSION"), "SQL over the rows of each message").transform::<config::SqlConfig>()
}
