//! Raw blocks as Arrow record batches and back, for every type (PROTOCOL 12.2).
//!
//! The way there and back is exact: each Arrow field carries in its metadata what Arrow has no place for (type code and
//! schema `bytes`), under [`KEY_TYPE`] and [`KEY_BYTES`]. A batch from elsewhere, without these, is written by its Arrow
//! types. One copy per fixed column, one pass per variable one, nothing allocated per value.
//!
//! | TDengine | Arrow |
//! |---|---|
//! | BOOL, integers, FLOAT, DOUBLE | the same |
//! | TIMESTAMP | Timestamp of the precision, no zone |
//! | VARCHAR, NCHAR, JSON | Utf8; Binary when a value is no text, so that no byte is lost |
//! | VARBINARY, GEOMETRY, BLOB, MEDIUMBLOB | Binary |
//! | DECIMAL, DECIMAL64 | Decimal128 with precision and scale |

mod read;
mod write;

pub use read::{field_of, to_batch, to_columns};
pub use write::{column_type_of, from_batch, from_columns};

/// Field metadata: the type's code in decimal.
pub const KEY_TYPE: &str = "tdengine.type";
/// Field metadata: the width in the form of raw block schemas.
pub const KEY_BYTES: &str = "tdengine.bytes";

#[cfg(test)]
mod tests;
