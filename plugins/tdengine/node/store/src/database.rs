//! Databases, topics, users and consumers: what the catalog lists.

use serde::{Deserialize, Serialize};
use tdengine_wire::Precision;

use crate::VgroupId;

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name, case as stored.
    pub name: String,
    /// Never used again; a database that was dropped and made anew has another one.
    pub id: i64,
    /// When it was made; with the cluster id it identifies this incarnation.
    pub created_ms: i64,
    /// Its vgroups in the order of their hash ranges.
    pub vgroups: Vec<VgroupId>,
    /// What CREATE and ALTER said.
    pub options: DatabaseOptions,
}

/// Options as `SHOW CREATE DATABASE` and `ins_databases` show them (FACTS F53).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseOptions {
    /// Code of the unit of its timestamps; see [`DatabaseOptions::precision`].
    pub precision_code: u8,
    /// `KEEP`: three durations in minutes; rows older than the first are refused with 0x060B.
    pub keep_minutes: [i64; 3],
    /// `DURATION` in minutes.
    pub duration_minutes: i64,
    /// `WAL_RETENTION_PERIOD` in seconds, −1 for ever.
    pub wal_retention_period_s: i64,
    /// `WAL_RETENTION_SIZE` in KiB, 0 or −1 without limit.
    pub wal_retention_size_kib: i64,
    /// `WAL_LEVEL`, 1 or 2.
    pub wal_level: i64,
    /// `WAL_FSYNC_PERIOD` in milliseconds; kept and shown, the store's own policy decides.
    pub wal_fsync_period_ms: i64,
    /// Every other option that was named: lower-case name and its text.
    pub others: Vec<(String, String)>,
}

impl DatabaseOptions {
    /// The unit of its timestamps.
    pub fn precision(&self) -> Precision {
        Precision::from_code(i64::from(self.precision_code)).unwrap_or_default()
    }

    /// The text of an option that has no field here.
    pub fn other(&self, name: &str) -> Option<&str> {
        self.others.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a topic reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicKind {
    /// Every table of the database.
    Database,
    /// The children of one super table.
    Stable {
        /// Its name.
        name: String,
        /// Its uid at the time of CREATE TOPIC.
        suid: i64,
        /// Text of the condition on tags, when there is one.
        condition: Option<String>,
    },
    /// Rows of a query.
    Select {
        /// The table that it reads.
        table: String,
        /// The names of the columns and tags that it uses; they cannot be dropped meanwhile (FACTS F69).
        columns: Vec<String>,
    },
}

/// Whether a topic delivers changes of schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicMeta {
    /// Rows only.
    None,
    /// `WITH META`.
    With,
    /// `ONLY META` (FACTS F66).
    Only,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its database.
    pub database: String,
    /// What it reads.
    pub kind: TopicKind,
    /// Whether with changes of schema.
    pub meta: TopicMeta,
    /// When it was made.
    pub created_ms: i64,
    /// The statement.
    pub sql: String,
    /// For `AS SELECT`: the text of the query.
    pub query: Option<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// A salted hash of the password.
    pub password_hash: String,
    /// `root` alone.
    pub is_super: bool,
    /// When it was made.
    pub created_ms: i64,
}

/// A consumer that is connected, as `perf_consumers` shows it. The server tells the store of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its id, unique while the store is open.
    pub id: i64,
    /// Its group.
    pub group: String,
    /// `client.id`.
    pub client: String,
    /// Who it is.
    pub user: String,
    /// `ready`, `rebalancing` and so on.
    pub status: String,
    /// What it subscribed to.
    pub topics: Vec<String>,
    /// What of it was given to it.
    pub lanes: Vec<(String, VgroupId)>,
    /// When it subscribed.
    pub subscribed_ms: i64,
}

/// What a group has of one vgroup of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// The vgroup.
    pub vgroup: VgroupId,
    /// The member that reads it.
    pub consumer: Option<i64>,
    /// The next version to read: where its last member stood, or what is committed; absent where neither is known.
    pub offset: Option<i64>,
    /// Rows handed out to members while the store is open.
    pub rows: u64,
}
