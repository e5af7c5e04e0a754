//! The store: one folder, opened by one process, shared by clones of [`Store`].

use std::sync::Arc;

use tdengine_wire::block::BlockView;

use crate::config::StoreConfig;
use crate::database::{Consumer, Database, Subscription, Topic, User};
use crate::entry::Entry;
use crate::error::{Result, ServerError, code};
use crate::result::Outcome;
use crate::schema::{Stable, TableSchema};
use crate::session::Session;
use crate::table::Table;
use crate::{Version, VgroupId};

/// A store that is open. Clones share it; every call takes short locks and is safe from any thread.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: StoreConfig,
}

/// A child to be made by a write, if it is missing (`INSERT … USING`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateChild {
    /// The super table.
    pub stable: String,
    /// Names of the tags that are given; `None` for all of them in order.
    pub tag_names: Option<Vec<String>>,
    /// Their values: little-endian bytes of the tag's width, or bytes without prefix; `None` for NULL.
    pub tag_values: Vec<Option<Vec<u8>>>,
}

/// Rows for one table.
#[derive(Debug)]
pub struct TableWrite<'a> {
    /// The table.
    pub table: &'a str,
    /// The rows.
    pub block: BlockView<'a>,
    /// Names of the block's columns; `None` binds them by position.
    pub names: Option<Vec<&'a str>>,
    /// How to make the table when it is missing.
    pub create: Option<CreateChild>,
    /// 0x8 for replicated rows.
    pub flags: u8,
}

/// A field as it stands behind the block in action 5 (PROTOCOL 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawField {
    /// Its name.
    pub name: String,
    /// Its type code.
    pub data_type: u8,
    /// Its width, 0 for unknown.
    pub bytes: i32,
}

fn unsupported<T>() -> Result<T> {
    Err(ServerError::new(code::OPERATION_NOT_SUPPORTED, "Operation not supported"))
}

/// Opening and what there is one of.
impl Store {
    /// Opens the folder, and makes it when missing. What a crash left is repaired: a torn tail is cut, a half-written
    /// snapshot is ignored.
    ///
    /// # Errors
    /// When another process has it open, a file is damaged in its middle (the text has file and offset), or the disk
    /// fails.
    pub fn open(config: StoreConfig) -> Result<Self> {
        Ok(Self { inner: Arc::new(Inner { config }) })
    }

    /// As it was opened.
    pub fn config(&self) -> &StoreConfig {
        &self.inner.config
    }

    /// The cluster's id (FACTS F54); a new folder has a new one.
    pub fn cluster_id(&self) -> i64 {
        0
    }

    /// Writes snapshots, drops log segments that are past their retention, and forces everything to the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Whether this user has this password.
    pub fn authenticate(&self, _user: &str, _password: &str) -> bool {
        false
    }
}

/// Statements.
impl Store {
    /// Runs the first statement of `sql` (FACTS F58). `USE` changes the session.
    ///
    /// # Errors
    /// The code and text that a real server gives.
    pub fn execute(&self, _session: &mut Session, _sql: &str) -> Result<Outcome> {
        unsupported()
    }
}

/// Writes that are not SQL.
impl Store {
    /// Writes rows of several tables of one database; those of one vgroup become one log entry. Names that a table does
    /// not have are refused. Types must be those of the target.
    ///
    /// # Errors
    /// The first refusal; tables of vgroups that were written before it stay written.
    pub fn write_tables(&self, _database: &str, _writes: &[TableWrite<'_>]) -> Result<u64> {
        unsupported()
    }

    /// Actions 4 (`fields` is `None`: by position) and 5 (by name), marked, as a real server does them in faithful
    /// mode: the silent shift after an unknown name, INT and FLOAT bits swapped (FACTS F25–F28).
    ///
    /// # Errors
    /// The codes of FACTS F27.
    pub fn write_raw_block(
        &self,
        _session: &Session,
        _table: &str,
        _fields: Option<&[RawField]>,
        _block: &[u8],
    ) -> Result<u64> {
        unsupported()
    }

    /// Action 3: raw data (2, 4) and raw meta (515, 517, 519, 531, 533, 535, 579) as `fetch_raw` delivered it.
    ///
    /// # Errors
    /// The codes of FACTS F9, F30–F32; malformed bodies 0x0115.
    pub fn apply_raw(&self, _session: &Session, _raw_type: u16, _body: &[u8]) -> Result<u64> {
        unsupported()
    }
}

/// Reading the catalog.
impl Store {
    /// Every database, by name.
    pub fn databases(&self) -> Vec<Arc<Database>> {
        Vec::new()
    }

    /// The database of this name.
    ///
    /// # Errors
    /// 0x0388 when there is none.
    pub fn database(&self, _name: &str) -> Result<Arc<Database>> {
        unsupported()
    }

    /// The super tables of a database, by name.
    pub fn stables(&self, _database: &str) -> Vec<Arc<Stable>> {
        Vec::new()
    }

    /// The super table of this name.
    pub fn stable(&self, _database: &str, _name: &str) -> Option<Arc<Stable>> {
        None
    }

    /// The children and normal tables of a database, by vgroup and then by name.
    pub fn tables(&self, _database: &str) -> Vec<Arc<Table>> {
        Vec::new()
    }

    /// The child or normal table of this name.
    pub fn table(&self, _database: &str, _name: &str) -> Option<Arc<Table>> {
        None
    }

    /// The children of a super table, by vgroup and then by name.
    pub fn children(&self, _database: &str, _suid: i64) -> Vec<Arc<Table>> {
        Vec::new()
    }

    /// Columns and tags of a super table, child or normal table.
    ///
    /// # Errors
    /// 0x0388 for the database, 0x2603 for the table.
    pub fn describe(&self, _database: &str, _table: &str) -> Result<TableSchema> {
        unsupported()
    }

    /// The number of a vgroup's tables.
    pub fn vgroup_tables(&self, _vgroup: VgroupId) -> usize {
        0
    }

    /// Every topic, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        Vec::new()
    }

    /// The topic of this name.
    ///
    /// # Errors
    /// 0x03E1 when there is none.
    pub fn topic(&self, _name: &str) -> Result<Arc<Topic>> {
        unsupported()
    }

    /// Every user, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        Vec::new()
    }

    /// Every consumer that is connected.
    pub fn consumers(&self) -> Vec<Consumer> {
        Vec::new()
    }

    /// Every committed offset.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        Vec::new()
    }
}

/// Logs, for consumers.
impl Store {
    /// First kept version and the next to be written (FACTS F38).
    ///
    /// # Errors
    /// 0x0503 when there is no such vgroup (any more).
    pub fn wal_range(&self, _vgroup: VgroupId) -> Result<(Version, Version)> {
        unsupported()
    }

    /// Changes whenever something is appended: holds the next version to be written.
    ///
    /// # Errors
    /// As [`Store::wal_range`].
    pub fn subscribe_appends(&self, _vgroup: VgroupId) -> Result<tokio::sync::watch::Receiver<Version>> {
        unsupported()
    }

    /// Entries from `from` on until `max_bytes` are passed; at least one when there is one. A `from` below the first
    /// kept version starts at that one (FACTS F40).
    ///
    /// # Errors
    /// As [`Store::wal_range`]; 0x1005 when an entry cannot be read.
    pub fn read_wal(&self, _vgroup: VgroupId, _from: Version, _max_bytes: usize) -> Result<Vec<Entry>> {
        unsupported()
    }

    /// The committed offset of a group, `None` when it never committed.
    pub fn committed(&self, _group: &str, _topic: &str, _vgroup: VgroupId) -> Option<Version> {
        None
    }

    /// Commits; this is an entry in the vgroup's log (FACTS F59).
    ///
    /// # Errors
    /// 0x4007 beyond the log's end or below 0; as [`Store::wal_range`].
    pub fn commit(&self, _group: &str, _topic: &str, _vgroup: VgroupId, _offset: Version) -> Result<()> {
        unsupported()
    }

    /// Writes the entry that a subscription leaves in each vgroup of the topic (FACTS F59).
    ///
    /// # Errors
    /// 0x03E1 for an unknown topic.
    pub fn mark_subscription(&self, _topic: &str) -> Result<()> {
        unsupported()
    }

    /// Adds or replaces a connected consumer; its topics cannot be dropped meanwhile (0x03EB).
    pub fn put_consumer(&self, _consumer: Consumer) {}

    /// Forgets a consumer that left.
    pub fn remove_consumer(&self, _id: i64) {}
}
