//! A table with rows: a child or a normal table.

use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::VgroupId;
use crate::rows::Rows;
use crate::schema::{Schema, TableKind, TagValues};

/// What a table is besides its rows. A change makes a new one, so whoever holds one sees one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMeta {
    /// Never used again.
    pub uid: i64,
    /// Its name, case as stored.
    pub name: String,
    /// When it was made.
    pub created_ms: i64,
    /// `TTL` in days, 0 for none.
    pub ttl_days: i32,
    /// `COMMENT`.
    pub comment: Option<String>,
    /// What it hangs on.
    pub body: TableBody,
}

/// The part that differs between children and normal tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableBody {
    /// A child.
    Child {
        /// Its super table.
        suid: i64,
        /// Its tags.
        tags: Arc<TagValues>,
    },
    /// A normal table.
    Normal {
        /// Its columns.
        columns: Arc<Schema>,
        /// The id that the next column gets.
        next_id: i16,
    },
}

impl TableMeta {
    /// Child or normal.
    pub fn kind(&self) -> TableKind {
        match self.body {
            TableBody::Child { .. } => TableKind::Child,
            TableBody::Normal { .. } => TableKind::Normal,
        }
    }

    /// The super table's uid, 0 for a normal table.
    pub fn suid(&self) -> i64 {
        match self.body {
            TableBody::Child { suid, .. } => suid,
            TableBody::Normal { .. } => 0,
        }
    }

    /// The tags of a child.
    pub fn tags(&self) -> Option<&Arc<TagValues>> {
        match &self.body {
            TableBody::Child { tags, .. } => Some(tags),
            TableBody::Normal { .. } => None,
        }
    }

    /// The columns of a normal table.
    pub fn columns(&self) -> Option<&Arc<Schema>> {
        match &self.body {
            TableBody::Child { .. } => None,
            TableBody::Normal { columns, .. } => Some(columns),
        }
    }
}

/// A table with its rows.
#[derive(Debug)]
pub struct Table {
    /// Its uid.
    pub uid: i64,
    /// Its name, which never changes.
    pub name: Arc<str>,
    /// Where its log is.
    pub vgroup: VgroupId,
    meta: RwLock<Arc<TableMeta>>,
    /// Its rows.
    pub rows: Rows,
}

impl Table {
    pub(crate) fn new(meta: TableMeta, vgroup: VgroupId, rows: Rows) -> Self {
        Self { uid: meta.uid, name: meta.name.as_str().into(), vgroup, meta: RwLock::new(Arc::new(meta)), rows }
    }

    /// Its state now.
    pub fn meta(&self) -> Arc<TableMeta> {
        self.meta.read().clone()
    }

    pub(crate) fn set_meta(&self, meta: TableMeta) {
        *self.meta.write() = Arc::new(meta);
    }
}
