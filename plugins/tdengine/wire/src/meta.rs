//! Changes of the log: schema changes and deletes, in the binary C layout and as JSON (PROTOCOL 9).

mod json;
mod model;
mod raw;
mod render;
mod tags;

pub use json::{
    AlterJson, ChildJson, ColumnJson, MetaJson, TableKind, TagJson, parse_json, to_json, to_json_batch,
};
pub use model::{
    AlterTable, CreateTable, Delete, DropTable, Meta, Stable, StableRequest, TableAction, TableBody, alter_type,
    compression,
};
pub use raw::{RawMeta, with_head};
pub use render::{Rendering, render};
pub use tags::{TagBlob, TagEntry, TagKey};

/// Raw types of changes (PROTOCOL 9.2).
pub mod kind {
    /// Several changes in one message; newer servers.
    pub const BATCH: u16 = 5;
    /// Child and normal tables.
    pub const CREATE_TABLE: u16 = 515;
    /// A tag value of a child; columns of a normal table; options of either.
    pub const ALTER_TABLE: u16 = 517;
    /// Child and normal tables.
    pub const DROP_TABLE: u16 = 519;
    /// A super table.
    pub const CREATE_STABLE: u16 = 531;
    /// Columns, tags and options of a super table.
    pub const ALTER_STABLE: u16 = 533;
    /// A super table with its children.
    pub const DROP_STABLE: u16 = 535;
    /// A range of rows.
    pub const DELETE: u16 = 579;
    /// All that are one change.
    pub const ALL: [u16; 7] = [CREATE_TABLE, ALTER_TABLE, DROP_TABLE, CREATE_STABLE, ALTER_STABLE, DROP_STABLE, DELETE];
}

/// Source byte of what a user's statement made.
pub const SOURCE_LOCAL: u8 = 0;
/// Source byte of what was written raw: the loop mark (PROTOCOL 10.1).
pub const SOURCE_REPLICA: u8 = 8;

/// Puts the head of 8 bytes before what `body` writes: total length and vgroup, little endian as `fetch_raw` delivers.
pub(crate) fn put_head(out: &mut Vec<u8>, vgroup_id: i32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&vgroup_id.to_le_bytes());
    body(out);
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests;
