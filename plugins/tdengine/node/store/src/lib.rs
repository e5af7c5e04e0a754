//! What the embedded node keeps: catalog, write-ahead logs, tables, topics, and the queries over them.
//!
//! It is for trying, developing and testing, and is no TDengine: one process, one copy of the data, all rows in memory.
//! What it does keep, it keeps well: whatever was acknowledged survives kill -9, and every outcome that a replicator can
//! see (log entries, marks, codes, silent mistakes) is that of a real server (PROTOCOL 10, FACTS F1–F72).
//!
//! Read in this order: [`config`], [`error`], [`session`], [`schema`], [`entry`], [`rows`], [`table`], [`result`],
//! [`store`].

pub mod config;
pub mod error;
pub mod session;
pub mod schema;
pub mod database;
pub mod entry;
pub mod rows;
pub mod table;
pub mod result;
pub mod faults;
pub mod store;

mod body;
mod catalog;
mod ddl;
mod dml;
mod execute;
mod literal;
mod query;
mod raw;
mod users;
mod vgroup;
mod wal;
mod write;

#[cfg(test)]
mod tests;

pub use config::{FsyncPolicy, Mode, ServerVersion, StoreConfig};
pub use entry::{Entry, EntryKind, SubmitTable};
pub use error::{ServerError, code};
pub use query::TopicFilter;
pub use result::{Outcome, ResultField, ResultSet};
pub use schema::{Schema, TableKind, TableSchema, TagValues};
pub use session::Session;
pub use store::{CreateChild, RawField, Store, TableWrite};

/// The id of a vgroup, unique in a store and never used again.
pub type VgroupId = i32;
/// The version of a log entry; the first of a vgroup is 0.
pub type Version = i64;
