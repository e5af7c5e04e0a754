//! Files as source and sink: CSV, NDJSON, Parquet, Arrow IPC; standard input and output.
//!
//! A file is a lane of the source; its position is a byte offset (text), a row (Parquet) or a batch (Arrow). What was read to a
//! position is the same batches whenever it is read, but for files that grow, and the sink remembers beside its files up to which
//! position they hold each lane: so rows from a finite source are written once, whatever is killed when.

mod format;
mod source;
mod sink;

use pipeline_sdk::Plugin;

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("files", env!("CARGO_PKG_VERSION"), "CSV, NDJSON, Parquet and Arrow files as source and sink")
        .source::<source::FilesSourceConfig>()
        .sink::<sink::FilesSinkConfig>()
}
