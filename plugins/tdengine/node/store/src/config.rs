//! How a store is opened.

use std::path::PathBuf;
use std::time::Duration;

/// When an append to a log is forced to the disk. Whatever the policy, an acknowledged write survives the death of the
/// process; the policy decides about the death of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// Before every acknowledgement.
    Always,
    /// By a background thread, at most this long after the write.
    Interval(Duration),
    /// Never by us.
    Never,
}

/// How raw writes are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// As a real server does, mistakes included (FACTS F17–F32, F63–F70).
    #[default]
    Faithful,
    /// What would lose or misplace data is refused with a code, and drops carry the mark.
    Strict,
}

/// The version that is advertised; it decides what the node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion(pub [u16; 4]);

impl ServerVersion {
    /// As in the recordings: no stmt2, no batch meta, no DECIMAL.
    pub const V3_3_0_1: Self = Self([3, 3, 0, 1]);
    /// For today's clients.
    pub const V3_3_6_13: Self = Self([3, 3, 6, 13]);

    /// Four numeric parts with dots between them; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = [0; 4];
        let mut split = text.split('.');
        for part in &mut parts {
            *part = split.next()?.parse().ok()?;
        }
        split.next().is_none().then_some(Self(parts))
    }

    /// Whether `DECIMAL` columns exist (3.3.6).
    pub fn has_decimal(self) -> bool {
        self >= Self([3, 3, 6, 0])
    }

    /// Whether `stmt2` actions exist (3.3.6).
    pub fn has_stmt2(self) -> bool {
        self >= Self([3, 3, 6, 0])
    }

    /// Whether statements and whole messages may come in their newer binary forms: an adapter of the age of 3.3.0.1, or older,
    /// knows neither (FACTS F48a). 3.3.0.1 itself stands behind a newer one here.
    pub fn has_binary_query(self) -> bool {
        self >= Self::V3_3_0_1
    }

    /// Whether consecutive metas can come as one batch (3.3.2).
    pub fn has_batch_meta(self) -> bool {
        self >= Self([3, 3, 2, 0])
    }
}

impl Default for ServerVersion {
    fn default() -> Self {
        Self::V3_3_6_13
    }
}

impl std::fmt::Display for ServerVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch, build] = self.0;
        write!(formatter, "{major}.{minor}.{patch}.{build}")
    }
}

/// Everything that can be set about a store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Folder of all files; made when missing, locked while open.
    pub data_dir: PathBuf,
    /// Vgroups of a database whose CREATE names no number.
    pub vgroups: u32,
    /// See [`FsyncPolicy`].
    pub fsync: FsyncPolicy,
    /// See [`ServerVersion`].
    pub version: ServerVersion,
    /// See [`Mode`].
    pub mode: Mode,
    /// A log segment is closed when it passes this.
    pub wal_segment_bytes: u64,
    /// A vgroup whose log grew by this since its last snapshot gets a new one.
    pub snapshot_wal_bytes: u64,
    /// Topics of the store; one more is refused with 0x4004 (FACTS F46).
    pub topics_max: usize,
    /// Rows of a table that wait unmerged at most; see [`crate::rows`].
    pub unmerged_rows_max: usize,
    /// `WAL_RETENTION_PERIOD` in seconds of a database whose CREATE names none.
    pub wal_retention_period_s: i64,
}

impl StoreConfig {
    /// The defaults, in this folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            vgroups: 2,
            fsync: FsyncPolicy::Interval(Duration::from_millis(200)),
            version: ServerVersion::default(),
            mode: Mode::Faithful,
            wal_segment_bytes: 64 << 20,
            snapshot_wal_bytes: 256 << 20,
            topics_max: 20,
            unmerged_rows_max: 1 << 20,
            wal_retention_period_s: 3_600,
        }
    }
}

/// The maintenance thread looks at least this often whether a snapshot is due.
pub const MAINTENANCE_INTERVAL_MAX: Duration = Duration::from_secs(1);
