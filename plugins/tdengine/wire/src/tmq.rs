//! TMQ raw data, raw types 2 and 4 (PROTOCOL 8): read in place, cut, split and built.
//!
//! A type-2 body holds rows; a type-4 body holds rows and in its tail the requests that created tables for them. A raw
//! message is such a body, or that of a change, with its length and type in front (see [`pack`]).

mod build;
mod split;
mod view;

pub use build::{BlockParts, DataBuilder, enclose, encode_schema};
pub use split::{create_batch, create_requests, join, keep_tables, split};
pub(crate) use build::put_schema;
pub(crate) use view::decode_schema;
pub use view::{BlockEntry, Blocks, DataView, Fields, Offset, Tail};

use crate::cursor::Reader;
use crate::error::Result;

/// Raw type of rows.
pub const DATA: u16 = 2;
/// Raw type of rows with the creation of tables.
pub const METADATA: u16 = 4;

/// `u32 length, u16 type, body`: the form in which `fetch_raw` delivers a message and action 3 takes it back.
pub fn pack(raw_type: u16, body: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(PACK_BYTES + body.len());
    raw.extend_from_slice(&(body.len() as u32).to_le_bytes());
    raw.extend_from_slice(&raw_type.to_le_bytes());
    raw.extend_from_slice(body);
    raw
}

/// Type and body of what [`pack`] made.
///
/// # Errors
/// When bytes are missing.
pub fn unpack(raw: &[u8]) -> Result<(u16, &[u8])> {
    let mut reader = Reader::new(raw);
    let length = reader.u32("raw length")? as usize;
    let raw_type = reader.u16("raw type")?;
    Ok((raw_type, reader.take(length, "raw body")?))
}

/// Bytes before the body of a raw message.
pub const PACK_BYTES: usize = 6;

const VERSION: u8 = 100;
/// Bytes before a block in its entry.
const RETRIEVE_BYTES: usize = 18;

#[cfg(test)]
mod tests;
