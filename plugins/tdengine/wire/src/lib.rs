//! TDengine 3's wire formats without any I/O: what a client, the embedded node and tests share.
//!
//! Bytes or text go in, typed values come out, and the other way round. Every decoder takes untrusted input: it
//! answers an error or a value, and never panics. Sources of the facts are named `PROTOCOL n` and `FACTS Fn` after the
//! project's notes on the protocol.
//!
//! Read in this order: [`types`], [`block`], [`arrow`], [`tmq`], [`meta`], [`envelope`], [`stmt2`].

pub mod types;
pub mod error;
pub mod cursor;
pub mod value;
pub mod block;
pub mod arrow;
pub mod tmq;
pub mod meta;
pub mod envelope;
pub mod stmt2;
pub mod escape;
pub mod geometry;
pub mod murmur;

pub use error::{Result, WireError};
pub use types::{ColumnType, DataType, Field, Precision};

#[cfg(test)]
mod tests;
