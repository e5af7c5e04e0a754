//! The state folder: checkpoints, intents, plugins' own state, dead letters and what an operator wants.
//!
//! Guarantees: one process at a time; what a call returned `Ok` for is on the disk (an fsync'ed commit); commits that wait at the
//! same time share one fsync; a store of a newer version is refused, never misread.

mod error;
mod intent;
mod journal;
mod key;
mod letters;
mod lock;
mod store;
#[cfg(test)]
mod tests;

pub use intent::{Intent, RowCounts};
pub use key::{Scope, TaskKey};
pub use letters::DeadLetter;
pub(crate) use letters::payload_json;
pub use lock::Lock;
pub use store::{Change, FORMAT, Store};

/// What a store keeps in its folder.
pub const FILES: [&str; 3] = [store::FILE, journal::FILE, lock::FILE];
