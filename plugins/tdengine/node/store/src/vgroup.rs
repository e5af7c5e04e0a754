//! A vgroup: a log, and the tables that its entries make.
//!
//! Whatever changes a vgroup is an entry of its log first. Writers of one vgroup wait for each other, those of different
//! vgroups do not; readers never wait for the disk.

mod index;
mod payload;
mod snapshot;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use tdengine_wire::meta::with_head;
use tokio::sync::watch;

use crate::entry::{Entry, EntryKind, SubmitTable};
use crate::error::{Result, ServerError, code};
use crate::faults::Faults;
use crate::wal::{Wal, WalOptions};
use crate::{Version, VgroupId};

pub(crate) use index::Index;
pub(crate) use payload::{CreateRecord, Effect, MetaRecord, Payload, SubmitRecord};

/// How a vgroup is opened.
#[derive(Debug, Clone)]
pub(crate) struct VgroupOptions {
    pub id: VgroupId,
    pub dir: PathBuf,
    pub segment_bytes: u64,
    pub sync_appends: bool,
    pub snapshot_wal_bytes: u64,
    pub unmerged_rows_max: usize,
    pub faults: Arc<Faults>,
}

/// How long a log is kept behind a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// A closed segment older than this goes; `None` keeps it.
    pub period: Option<Duration>,
    /// The oldest segments of a log larger than this go; `None` for no limit.
    pub bytes: Option<u64>,
}

/// An open vgroup.
#[derive(Debug)]
pub(crate) struct Vgroup {
    pub id: VgroupId,
    options: VgroupOptions,
    log: Mutex<Log>,
    index: RwLock<Index>,
    /// One snapshot at a time.
    snapshot: Mutex<SnapshotState>,
    appended: watch::Sender<Version>,
    frozen: AtomicBool,
}

#[derive(Debug)]
struct Log {
    wal: Wal,
    /// Entries of changes that the catalog has decided and the disk refused: they come before anything else.
    owed: VecDeque<Payload>,
}

#[derive(Debug)]
struct SnapshotState {
    /// The last version in it; −1 for none.
    version: Version,
    bytes: u64,
}

impl Vgroup {
    /// Opens or makes the vgroup's folder, and replays the log behind the last snapshot.
    ///
    /// # Errors
    /// When the disk fails or a file is damaged.
    pub fn open(options: VgroupOptions) -> std::io::Result<Self> {
        std::fs::create_dir_all(&options.dir)?;
        let loaded = snapshot::load(&options.dir, options.id, options.unmerged_rows_max)?;
        let (state, mut index) = match loaded {
            Some(loaded) => (SnapshotState { version: loaded.version, bytes: loaded.bytes }, loaded.index),
            None => {
                let index = Index::new(options.id, options.unmerged_rows_max);
                (SnapshotState { version: -1, bytes: 0 }, index)
            }
        };
        let wal_options = WalOptions {
            dir: options.dir.clone(),
            owner: options.id,
            segment_bytes: options.segment_bytes,
            sync_appends: options.sync_appends,
        };
        let mut wal = Wal::open(wal_options, state.version + 1, &mut |version, payload| {
            if version <= state.version {
                return Ok(());
            }
            let apply = Payload::decode(&payload).and_then(|payload| index.apply(&payload));
            apply.map_err(|error| replay_failed(options.id, version, &error))
        })?;
        if wal.range().0 > state.version + 1 {
            return Err(gap(&options, state.version, wal.range().0));
        }
        // As a real server's log does: so that the first statement's entry is version 1.
        if wal.range().1 == 0 {
            let marker = Payload::Marker(Effect::Nothing).encode().map_err(std::io::Error::other)?;
            wal.append(marker)?;
        }
        let next = wal.range().1;
        Ok(Self {
            id: options.id,
            options,
            log: Mutex::new(Log { wal, owed: VecDeque::new() }),
            index: RwLock::new(index),
            snapshot: Mutex::new(state),
            appended: watch::Sender::new(next),
            frozen: AtomicBool::new(false),
        })
    }

    /// The tables and what belongs to them, to read.
    pub fn index(&self) -> parking_lot::RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    /// Lets `plan` look at the state, appends the entry that it makes, and applies it. Nothing comes between.
    ///
    /// # Errors
    /// What `plan` says; when the disk fails, and then nothing was done.
    pub fn write<T>(&self, plan: impl FnOnce(&Index) -> Result<(Option<Payload>, T)>) -> Result<T> {
        if self.frozen.load(Ordering::Relaxed) {
            return Err(ServerError::new(0x000B, "Unable to establish connection"));
        }
        let mut log = self.log.lock();
        self.pay_owed(&mut log)?;
        let (payload, answer) = plan(&self.index.read())?;
        if let Some(payload) = payload {
            self.append(&mut log, &payload)?;
        }
        Ok(answer)
    }

    /// Appends an entry of a change that the catalog has decided. When the disk refuses, it is kept and comes before
    /// the next entry; after a crash the catalog gives it again.
    pub fn must_write(&self, payload: Payload) {
        let mut log = self.log.lock();
        log.owed.push_back(payload);
        if let Err(error) = self.pay_owed(&mut log) {
            tracing::error!(vgroup = self.id, %error, "an entry of a schema change waits for the disk");
        }
    }

    fn pay_owed(&self, log: &mut Log) -> Result<()> {
        while let Some(payload) = log.owed.pop_front() {
            if let Err(error) = self.append(log, &payload) {
                log.owed.push_front(payload);
                return Err(error);
            }
        }
        Ok(())
    }

    fn append(&self, log: &mut Log, payload: &Payload) -> Result<()> {
        let record = payload.encode()?;
        self.options.faults.take_disk(record.len())?;
        let (version, _) = log.wal.append(record)?;
        match payload {
            Payload::Submit(records) if records.iter().all(|record| record.makes_no_table()) => {
                self.index.read().apply_rows(records)?;
            }
            _ => self.index.write().apply(payload)?,
        }
        self.appended.send_replace(version + 1);
        self.options.faults.appended();
        Ok(())
    }

    /// First kept version and the next to be written.
    pub fn range(&self) -> (Version, Version) {
        self.log.lock().wal.range()
    }

    /// Holds the next version to be written.
    pub fn appends(&self) -> watch::Receiver<Version> {
        self.appended.subscribe()
    }

    /// Makes every write fail until it is called with `false`.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Forces the log to the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> std::io::Result<()> {
        self.log.lock().wal.sync()
    }

    /// Entries from `from` on, see [`crate::Store::read_wal`].
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn read(&self, from: Version, max_bytes: usize) -> Result<Vec<Entry>> {
        let locations = self.log.lock().wal.locate(from, max_bytes);
        let read = |location: &crate::wal::Location| {
            let payload = location.read().map_err(|error| {
                tracing::error!(vgroup = self.id, version = location.version, %error, "a log entry cannot be read");
                ServerError::new(code::WAL_ENTRY_MISSING, "WAL log not exist")
            })?;
            Ok(Entry { version: location.version, kind: self.entry(Payload::decode(&payload)?) })
        };
        locations.iter().map(read).collect()
    }

    fn entry(&self, payload: Payload) -> EntryKind {
        match payload {
            Payload::Marker(_) => EntryKind::Marker,
            Payload::Meta(MetaRecord { raw_type, source, suid, body, .. }) => {
                EntryKind::Meta { raw_type, source, suid, body: with_head(self.id, &body).into() }
            }
            Payload::Submit(records) => {
                let index = self.index();
                EntryKind::Submit(records.into_iter().filter_map(|record| submit_table(&index, record)).collect())
            }
        }
    }

    /// Writes a snapshot of everything that is in the log now, then drops what retention no longer keeps.
    /// `changes_from` is the first change that the catalog would do again after a crash.
    ///
    /// # Errors
    /// When the disk fails; the last snapshot stays valid then.
    pub fn flush(&self, changes_from: u64, retention: Retention) -> Result<()> {
        let mut state = self.snapshot.lock();
        let (version, image, rows) = {
            let mut log = self.log.lock();
            self.pay_owed(&mut log)?;
            let version = log.wal.range().1 - 1;
            log.wal.roll()?;
            self.index.write().forget_changes(changes_from);
            let index = self.index.read();
            let image = index.image();
            let rows = index.tables().map(|table| table.rows.scan(&*index.columns(table)?)).collect::<Result<Vec<_>>>()?;
            log.wal.forget_growth();
            (version, image, rows)
        };
        if version > state.version {
            state.bytes = snapshot::save(&self.options, version, &image, &rows)?;
            state.version = version;
        }
        self.drop_segments(version + 1, retention)
    }

    /// Whether the log grew enough since the last snapshot: by the configured bytes, or half of a larger snapshot, so
    /// that snapshots cost no more than the log.
    pub fn wants_snapshot(&self) -> bool {
        let last = self.snapshot.lock().bytes;
        self.log.lock().wal.growth() > self.options.snapshot_wal_bytes.max(last / 2)
    }

    fn drop_segments(&self, below: Version, retention: Retention) -> Result<()> {
        let now = SystemTime::now();
        self.log.lock().wal.drop_segments(below, |closed, bytes| {
            let age = now.duration_since(closed).unwrap_or_default();
            retention.period.is_some_and(|period| age >= period) || retention.bytes.is_some_and(|limit| bytes > limit)
        })?;
        Ok(())
    }

    /// Drops every log segment below `before`, as retention would.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn truncate(&self, before: Version, changes_from: u64) -> Result<()> {
        self.flush(changes_from, Retention { period: None, bytes: None })?;
        self.drop_segments(before, Retention { period: Some(Duration::ZERO), bytes: None })
    }
}

fn submit_table(index: &Index, record: SubmitRecord) -> Option<SubmitTable> {
    index.table_of(record.uid)?;
    let owner = if record.suid == 0 { record.uid } else { record.suid };
    let fields = index.fields(owner, record.schema_version, &record.ids)?;
    Some(SubmitTable {
        flags: record.flags,
        uid: record.uid,
        suid: record.suid,
        schema_version: record.schema_version,
        table: record.name,
        block: record.block,
        fields,
        create: record.create.map(|create| create.body),
    })
}

fn gap(options: &VgroupOptions, snapshot: Version, oldest: Version) -> std::io::Error {
    let dir = options.dir.display();
    let text = format!(
        "{dir}: the snapshot ends at version {snapshot}, but the log starts at {oldest}; restore the missing file from a copy"
    );
    std::io::Error::new(std::io::ErrorKind::InvalidData, text)
}

fn replay_failed(vgroup: VgroupId, version: Version, error: &ServerError) -> std::io::Error {
    let text = format!("log of vgroup {vgroup}, version {version} cannot be applied: {error}");
    std::io::Error::new(std::io::ErrorKind::InvalidData, text)
}
