//! What a change says, in the terms of the binary form: it holds more than JSON (ids, versions, texts, uids).

use super::tags::TagBlob;
use crate::types::{DataType, Field};

/// A change of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    /// 531.
    CreateStable(Stable),
    /// 533; the super table as it is afterwards.
    AlterStable(Stable),
    /// 535.
    DropStable {
        /// Its name.
        name: String,
        /// Its uid.
        suid: i64,
        /// What newer servers append.
        rest: Vec<u8>,
    },
    /// 515.
    CreateTables {
        /// In the order of the statement.
        tables: Vec<CreateTable>,
        /// See [`super::SOURCE_REPLICA`].
        source: u8,
        /// What newer servers append.
        rest: Vec<u8>,
    },
    /// 517.
    AlterTable(AlterTable),
    /// 519.
    DropTables {
        /// In the order of the statement.
        tables: Vec<DropTable>,
        /// What newer servers append.
        rest: Vec<u8>,
    },
    /// 579.
    Delete(Delete),
}

/// A super table.
#[derive(Debug, Clone, PartialEq)]
pub struct Stable {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub suid: i64,
    /// 0; with another one, all that follows the tags is in `rest` and is not known.
    pub rollup: i8,
    /// Columns, the timestamp first.
    pub columns: Vec<Field>,
    /// Counts changes of columns, from 1.
    pub column_version: i32,
    /// Tags.
    pub tags: Vec<Field>,
    /// Counts changes of tags, from 1.
    pub tag_version: i32,
    /// The request that altered it, empty for CREATE; read it with [`StableRequest::decode`].
    pub request: Vec<u8>,
    /// See [`super::SOURCE_REPLICA`].
    pub source: u8,
    /// Column id and compression (see [`compression`]) of each column; `None` from servers before 3.3.
    pub compression: Option<Vec<(i16, u32)>>,
    /// Version of the compression.
    pub compression_version: i32,
    /// What newer servers append.
    pub rest: Vec<u8>,
}

/// The ALTER that stands inside a 533 entry.
#[derive(Debug, Clone, PartialEq)]
pub struct StableRequest {
    /// `1.database.stable`.
    pub full_name: String,
    /// One of [`alter_type`].
    pub action: u8,
    /// Type code (0 for none), width or compression, and name: of a rename the old and the new.
    pub fields: Vec<(u8, i32, String)>,
    /// Days to live.
    pub ttl: i32,
    /// A new comment.
    pub comment: Option<String>,
    /// The statement with its comments (FACTS F60).
    pub sql: String,
}

/// One table of a CREATE.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    /// Not 0 with IF NOT EXISTS.
    pub flags: i32,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: i64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Days to live, 0 for ever.
    pub ttl: i32,
    /// Its comment (FACTS F61).
    pub comment: Option<String>,
    /// Child or normal.
    pub body: TableBody,
    /// A statement, of views and such; normally empty.
    pub sql: Vec<u8>,
    /// Compression of a normal table's columns (see [`Stable::compression`]).
    pub compression: Option<Vec<(i16, u32)>>,
    /// Version of the compression.
    pub compression_version: i32,
    /// What newer servers append.
    pub rest: Vec<u8>,
}

/// What a table is.
#[derive(Debug, Clone, PartialEq)]
pub enum TableBody {
    /// Child of a super table.
    Child {
        /// The super table.
        stable: String,
        /// Its uid.
        suid: i64,
        /// Number of its tags.
        tag_count: u8,
        /// The values that are not NULL.
        tags: TagBlob,
        /// Names of those values, in their order.
        names: Vec<String>,
    },
    /// A table of its own.
    Normal {
        /// Columns, the timestamp first.
        columns: Vec<Field>,
        /// Counts changes of columns.
        version: i32,
    },
}

/// ALTER TABLE of a child or normal table.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterTable {
    /// The table.
    pub name: String,
    /// Id of the column or tag, 0 where it has none yet.
    pub column_id: i32,
    /// What is done.
    pub action: TableAction,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// See [`super::SOURCE_REPLICA`].
    pub source: u8,
    /// What newer servers append.
    pub rest: Vec<u8>,
}

/// What an [`AlterTable`] does.
#[derive(Debug, Clone, PartialEq)]
pub enum TableAction {
    /// 4.
    SetTag {
        /// The tag.
        name: String,
        /// Its type.
        data_type: DataType,
        /// The new value without prefix, `None` for NULL.
        value: Option<Vec<u8>>,
    },
    /// 5, or 14 with a compression.
    AddColumn {
        /// The column.
        name: String,
        /// Its type.
        data_type: DataType,
        /// See [`crate::types::flags`].
        flags: u8,
        /// Its width as in raw block schemas.
        bytes: i32,
        /// See [`compression`]; newer servers.
        compression: Option<u32>,
    },
    /// 6.
    DropColumn {
        /// The column.
        name: String,
    },
    /// 7.
    ModifyColumn {
        /// The column.
        name: String,
        /// Its type.
        data_type: DataType,
        /// Its new width as in raw block schemas.
        bytes: i32,
    },
    /// 9.
    Options {
        /// Days to live, if they change.
        ttl: Option<i32>,
        /// The comment, if it changes; may be empty.
        comment: Option<String>,
    },
    /// 10.
    RenameColumn {
        /// As it was.
        name: String,
        /// As it is.
        new_name: String,
    },
    /// 13.
    Compress {
        /// The column.
        name: String,
        /// See [`compression`].
        compression: u32,
    },
    /// Of a newer server: what stands between the column id and the time is not known, nor where it ends.
    Other {
        /// Its number.
        action: u8,
        /// Everything after the column id, time and source included.
        body: Vec<u8>,
    },
}

impl TableAction {
    /// Its number, one of [`alter_type`].
    pub fn code(&self) -> u8 {
        match self {
            Self::SetTag { .. } => alter_type::SET_TAG,
            Self::AddColumn { compression: None, .. } => alter_type::ADD_COLUMN,
            Self::AddColumn { .. } => alter_type::ADD_COLUMN_COMPRESSED,
            Self::DropColumn { .. } => alter_type::DROP_COLUMN,
            Self::ModifyColumn { .. } => alter_type::MODIFY_COLUMN,
            Self::Options { .. } => alter_type::OPTIONS,
            Self::RenameColumn { .. } => alter_type::RENAME_COLUMN,
            Self::Compress { .. } => alter_type::COMPRESS_COLUMN,
            Self::Other { action, .. } => *action,
        }
    }
}

/// One table of a DROP.
#[derive(Debug, Clone, PartialEq)]
pub struct DropTable {
    /// Its name.
    pub name: String,
    /// Uid of its super table, 0 for a normal table.
    pub suid: i64,
    /// Not 0 with IF EXISTS.
    pub if_exists: u8,
    /// What newer servers append.
    pub rest: Vec<u8>,
}

/// A deleted range.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// The super table, 0 for a normal table.
    pub suid: i64,
    /// The tables that were meant: the only trace of a tag condition (FACTS F18).
    pub uids: Vec<i64>,
    /// First timestamp.
    pub from: i64,
    /// Last timestamp.
    pub to: i64,
    /// Rows hit.
    pub affected: i64,
    /// The table that the statement named, a super table included.
    pub table: String,
    /// Its timestamp column.
    pub timestamp: String,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// See [`super::SOURCE_REPLICA`].
    pub source: u8,
    /// What newer servers append.
    pub rest: Vec<u8>,
}

/// What an ALTER does, in binary and in JSON (PROTOCOL 9.4).
pub mod alter_type {
    pub const ADD_TAG: u8 = 1;
    pub const DROP_TAG: u8 = 2;
    pub const RENAME_TAG: u8 = 3;
    pub const SET_TAG: u8 = 4;
    pub const ADD_COLUMN: u8 = 5;
    pub const DROP_COLUMN: u8 = 6;
    pub const MODIFY_COLUMN: u8 = 7;
    pub const MODIFY_TAG: u8 = 8;
    pub const OPTIONS: u8 = 9;
    pub const RENAME_COLUMN: u8 = 10;
    pub const ADD_INDEX: u8 = 11;
    pub const DROP_INDEX: u8 = 12;
    pub const COMPRESS_COLUMN: u8 = 13;
    pub const ADD_COLUMN_COMPRESSED: u8 = 14;
    pub const SET_TAGS: u8 = 15;
}

/// The compression word of a column: encoding · 2²⁴ + compression · 2⁸ + level. 0 leaves a part unchanged.
pub mod compression {
    const ENCODINGS: [(u32, &str); 5] =
        [(1, "simple8b"), (2, "delta-i"), (3, "bit-packing"), (4, "delta-d"), (0xff, "disabled")];
    const METHODS: [(u32, &str); 6] =
        [(1, "lz4"), (2, "zlib"), (3, "zstd"), (4, "tsz"), (5, "xz"), (0xff, "disabled")];
    const LEVELS: [(u32, &str); 4] = [(1, "low"), (2, "medium"), (3, "high"), (0xff, "disabled")];

    fn name(names: &[(u32, &'static str)], code: u32) -> Option<&'static str> {
        names.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
    }

    fn code(names: &[(u32, &'static str)], text: &str) -> Option<u32> {
        names.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(code, _)| *code)
    }

    /// The encoding of a word, as SQL's ENCODE names it.
    pub fn encode(word: u32) -> Option<&'static str> {
        name(&ENCODINGS, word >> 24)
    }

    /// The method of a word, as SQL's COMPRESS names it.
    pub fn compress(word: u32) -> Option<&'static str> {
        name(&METHODS, word >> 8 & 0xffff)
    }

    /// The level of a word, as SQL's LEVEL names it.
    pub fn level(word: u32) -> Option<&'static str> {
        name(&LEVELS, word & 0xff)
    }

    /// The word with these names; absent ones are 0. `None` when one is unknown.
    pub fn word(encode: Option<&str>, compress: Option<&str>, level: Option<&str>) -> Option<u32> {
        let part = |names: &[(u32, &'static str)], text: Option<&str>| match text {
            None => Some(0),
            Some(text) => code(names, text),
        };
        Some(part(&ENCODINGS, encode)? << 24 | part(&METHODS, compress)? << 8 | part(&LEVELS, level)?)
    }
}
