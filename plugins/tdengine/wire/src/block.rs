//! The raw block: TDengine's columnar batch of rows, the same in query results, TMQ data, stmt binds and raw writes
//! (PROTOCOL 7).
//!
//! [`BlockView`] reads one without copying, and checks every length and offset once, when it is made; after that no
//! accessor can fail. [`BlockBuilder`] makes one, column by column, without allocating per value.

mod build;
mod view;

pub use build::{BlockBuilder, ColumnBuilder};
pub use view::{BlockHeader, BlockView, ColumnView};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 28;
/// Header version of query results and stmt binds.
pub const VERSION_QUERY: i32 = 1;
/// Header version of blocks in TMQ data.
pub const VERSION_TMQ: i32 = 2;
/// The flag word that C writes; ignored when read.
pub const FLAGS: u32 = 0x8000_0000;
/// Rows of the largest block that the server sends.
pub const ROWS_MAX: usize = 4_096;

#[cfg(test)]
pub(crate) mod tests;
