//! TMQ raw data, raw types 2 and 4 (PROTOCOL 8): read in place, cut, split and built.
//!
//! A type-2 body holds rows; a type-4 body holds rows and in its tail the requests that created tables for them.

mod build;
mod split;
mod view;

pub use build::{BlockParts, DataBuilder, encode_schema};
pub use split::{create_batch, join, keep_tables, split};
pub(crate) use build::put_schema;
pub(crate) use view::decode_schema;
pub use view::{BlockEntry, Blocks, DataView, Fields, Offset, Tail};

/// Raw type of rows.
pub const DATA: u16 = 2;
/// Raw type of rows with the creation of tables.
pub const METADATA: u16 = 4;

const VERSION: u8 = 100;
/// Bytes before a block in its entry.
const RETRIEVE_BYTES: usize = 18;

#[cfg(test)]
mod tests;
