//! Entries of a vgroup's log, as a consumer reads them.

use std::sync::Arc;

use bytes::Bytes;
use tdengine_wire::Field;

use crate::Version;

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its version; each entry has the one after its predecessor's.
    pub version: Version,
    /// What it says.
    pub kind: EntryKind,
}

/// What an entry says.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// Rows. Tables that were dropped since are left out (FACTS F11), so it can be empty.
    Submit(Vec<SubmitTable>),
    /// A change of schema, a tag, or a deletion.
    Meta {
        /// 515, 517, 519, 531, 533, 535 or 579 (PROTOCOL 9.2).
        raw_type: u16,
        /// 0x8 for what was replicated; drops never have it in faithful mode.
        source: u8,
        /// Head of 8 bytes and the struct in C layout (PROTOCOL 9.3).
        body: Bytes,
        /// The super table that it is about, 0 when it is about normal tables; for topics on one super table.
        suid: i64,
    },
    /// A subscription, a commit or the vgroup's first entry: a version of its own and nothing to deliver (FACTS F59).
    Marker,
}

/// The rows of one table in an entry.
#[derive(Debug, Clone)]
pub struct SubmitTable {
    /// 0x8 for replicated rows, 0x1 when `create` is there.
    pub flags: u8,
    /// The table.
    pub uid: i64,
    /// Its super table, 0 for a normal table.
    pub suid: i64,
    /// Version of the columns at the time of the write.
    pub schema_version: i32,
    /// The table's name.
    pub table: Arc<str>,
    /// Raw block, header version 2, holding the columns that the writer assigned and no others.
    pub block: Bytes,
    /// Those columns, with ids and the names that they had then.
    pub fields: Arc<[Field]>,
    /// One encoded create-table request (PROTOCOL 9.3) when the write made the table, or could have (FACTS F13).
    pub create: Option<Bytes>,
}
