//! Changes of schema: checks, then the entry that the log gets and the state that follows.

pub(crate) mod alter_stable;
pub(crate) mod alter_table;
pub(crate) mod check;
pub(crate) mod database;
pub(crate) mod index;
pub(crate) mod stable;
pub(crate) mod table;
pub(crate) mod topic;

use tdengine_wire::ColumnType;

use crate::catalog::Catalog;
use crate::database::{Database, TopicKind};

/// A column or tag as a statement gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnSpec {
    pub name: String,
    pub column_type: ColumnType,
    pub primary_key: bool,
    pub compression: Compression,
}

/// `ENCODE`, `COMPRESS` and `LEVEL`; `None` for what is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Compression {
    pub encode: Option<u8>,
    pub compress: Option<u8>,
    pub level: Option<u8>,
}

impl Compression {
    /// The word with what is given put over `old`.
    pub fn over(self, old: u32) -> u32 {
        let [level, compress, _, encode] = old.to_le_bytes();
        let encode = self.encode.unwrap_or(encode);
        u32::from_le_bytes([self.level.unwrap_or(level), self.compress.unwrap_or(compress), 0, encode])
    }
}

/// What ALTER can ask for, of a super table or of another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AlterKind {
    AddColumn(ColumnSpec),
    DropColumn(String),
    ModifyColumn { name: String, column_type: ColumnType },
    RenameColumn { from: String, to: String },
    CompressColumn { name: String, compression: Compression },
    AddTag(ColumnSpec),
    DropTag(String),
    ModifyTag { name: String, column_type: ColumnType },
    RenameTag { from: String, to: String },
    Options { ttl_days: Option<i32>, comment: Option<String> },
}

/// A topic with a query keeps what it uses of a table as it is (FACTS F69).
fn is_used_by_topic(catalog: &Catalog, database: &Database, table: &str, kind: &AlterKind) -> bool {
    let touched = match kind {
        AlterKind::DropColumn(name) | AlterKind::DropTag(name) => name,
        AlterKind::ModifyColumn { name, .. } | AlterKind::ModifyTag { name, .. } => name,
        AlterKind::RenameTag { from, .. } | AlterKind::RenameColumn { from, .. } => from,
        _ => return false,
    };
    catalog.topics.values().filter(|topic| topic.database == database.name).any(|topic| {
        matches!(&topic.kind, TopicKind::Select { table: of, columns } if of == table && columns.contains(touched))
    })
}
