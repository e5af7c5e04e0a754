//! The parts of an open store and the rules that hold them together.
//!
//! Changes of super tables run side by side, one at a time per super table, and reach the vgroups of a database each in
//! an order of its own (FACTS F64). Every other change of the catalog runs alone, and so does a checkpoint.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fs4::fs_std::FileExt as _;
use parking_lot::{Mutex, RwLock};

use crate::catalog::{Catalog, CatalogLog, Change, ChangeEntry, ChangeRecord};
use crate::config::{FsyncPolicy, StoreConfig};
use crate::database::{Consumer, Database, User};
use crate::error::{Result, ServerError, code};
use crate::faults::Faults;
use crate::users;
use crate::vgroup::{Retention, Vgroup, VgroupOptions};
use crate::{Version, VgroupId, config};

/// Locks for changes of super tables, shared by hash of the name.
const STABLE_LOCKS: usize = 64;
/// How long opening waits for another holder of the folder.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Inner {
    pub config: StoreConfig,
    pub faults: Arc<Faults>,
    pub catalog: RwLock<Catalog>,
    catalog_log: Mutex<CatalogLog>,
    vgroups: RwLock<HashMap<VgroupId, Arc<Vgroup>>>,
    /// Held shared by a change of a super table, alone by every other change and by a checkpoint.
    gate: RwLock<()>,
    stable_locks: Vec<Mutex<()>>,
    /// When the last super table was made, milliseconds since 1970.
    stable_made_ms: AtomicI64,
    pub consumers: Mutex<BTreeMap<i64, Consumer>>,
    /// By topic, group and vgroup.
    pub handed_out: Mutex<BTreeMap<(String, String, VgroupId), HandedOut>>,
    closing: AtomicBool,
    /// Held for as long as the store is open.
    _lock: File,
}

/// What a group was given of one vgroup while the store is open.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HandedOut {
    /// Next version to read.
    pub position: Version,
    pub rows: u64,
}

/// Milliseconds since 1970 by the machine's clock.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// A positive id that no other cluster gives either: a source keyed by cluster and suid relies on it.
pub(crate) fn new_uid() -> i64 {
    (rand::random::<u64>() >> 2) as i64 | 1
}

impl Inner {
    pub fn open(config: StoreConfig) -> io::Result<Self> {
        fs::create_dir_all(&config.data_dir)?;
        let lock = lock_folder(&config)?;
        let faults = Arc::new(Faults::default());
        let sync = config.fsync == FsyncPolicy::Always;
        let new = || Catalog::new(new_uid(), now_ms(), users::root(now_ms()));
        let opened = CatalogLog::open(&config.data_dir.join("catalog"), sync, faults.clone(), new)?;
        let inner = Self {
            faults,
            catalog: RwLock::new(opened.catalog),
            catalog_log: Mutex::new(opened.log),
            vgroups: RwLock::default(),
            gate: RwLock::default(),
            stable_locks: (0..STABLE_LOCKS).map(|_| Mutex::default()).collect(),
            stable_made_ms: AtomicI64::default(),
            consumers: Mutex::default(),
            handed_out: Mutex::default(),
            closing: AtomicBool::new(false),
            config,
            _lock: lock,
        };
        inner.open_vgroups()?;
        for (change, entry) in opened.owed {
            inner.pay(change, &entry);
        }
        Ok(inner)
    }

    fn open_vgroups(&self) -> io::Result<()> {
        let ids: Vec<VgroupId> = self.catalog.read().databases.values().flat_map(|database| database.vgroups.clone()).collect();
        self.remove_orphans(&ids)?;
        for id in ids {
            self.open_vgroup(id)?;
        }
        Ok(())
    }

    /// Folders of vgroups that the catalog does not know: of a database whose making or dropping a crash cut short.
    fn remove_orphans(&self, known: &[VgroupId]) -> io::Result<()> {
        for entry in fs::read_dir(&self.config.data_dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.strip_prefix("vgroup-").and_then(|id| id.parse::<VgroupId>().ok());
            if id.is_some_and(|id| !known.contains(&id)) {
                tracing::info!(folder = %path.display(), "removing a vgroup that belongs to no database");
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    pub fn open_vgroup(&self, id: VgroupId) -> io::Result<()> {
        let options = VgroupOptions {
            id,
            dir: self.config.data_dir.join(format!("vgroup-{id}")),
            segment_bytes: self.config.wal_segment_bytes,
            sync_appends: self.config.fsync == FsyncPolicy::Always,
            snapshot_wal_bytes: self.config.snapshot_wal_bytes,
            unmerged_rows_max: self.config.unmerged_rows_max,
            faults: self.faults.clone(),
        };
        self.vgroups.write().insert(id, Arc::new(Vgroup::open(options)?));
        Ok(())
    }

    /// Forgets a vgroup and removes its files; whoever still holds it sees it to the end.
    pub fn remove_vgroup(&self, id: VgroupId) {
        self.vgroups.write().remove(&id);
        let dir = self.config.data_dir.join(format!("vgroup-{id}"));
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(folder = %dir.display(), %error, "files of a dropped vgroup stay until the next start");
        }
    }

    pub fn vgroup(&self, id: VgroupId) -> Result<Arc<Vgroup>> {
        let found = self.vgroups.read().get(&id).cloned();
        found.ok_or_else(|| ServerError::new(code::VNODE_CLOSED, "Vnode is closed or removed"))
    }

    pub fn all_vgroups(&self) -> Vec<Arc<Vgroup>> {
        let mut all: Vec<_> = self.vgroups.read().values().cloned().collect();
        all.sort_by_key(|vgroup| vgroup.id);
        all
    }

    /// The vgroups of a database in its order.
    pub fn vgroups_of(&self, database: &Database) -> Result<Vec<Arc<Vgroup>>> {
        database.vgroups.iter().map(|id| self.vgroup(*id)).collect()
    }

    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        self.catalog.read().databases.get(name).cloned()
    }

    /// A change that nothing else runs beside. `plan` checks it against the catalog; `None` changes nothing.
    ///
    /// # Errors
    /// What `plan` says; when the disk fails.
    pub fn change(&self, plan: impl FnOnce(&Catalog) -> Result<Option<Change>>) -> Result<()> {
        let _alone = self.gate.write();
        let change = plan(&self.catalog.read())?;
        let Some(change) = change else { return Ok(()) };
        let record = ChangeRecord { change, entry: None };
        self.catalog_log.lock().append(&record)?;
        self.catalog.write().apply(&record.change);
        Ok(())
    }

    /// A change of the super table with this name and its entry in every vgroup of the database.
    ///
    /// # Errors
    /// What `plan` says; when the disk fails before the change was decided.
    pub fn change_stable(
        &self,
        database: &Database,
        name: &str,
        plan: impl FnOnce(&Catalog) -> Result<Option<(Change, ChangeEntry)>>,
    ) -> Result<()> {
        let _beside = self.gate.read();
        let hash = tdengine_wire::murmur::hash(name.as_bytes()) as usize;
        let _one_at_a_time = self.stable_locks[hash % STABLE_LOCKS].lock();
        let planned = plan(&self.catalog.read())?;
        let Some((change, mut entry)) = planned else { return Ok(()) };
        entry.vgroups = database.vgroups.clone();
        let first = hash % entry.vgroups.len().max(1);
        entry.vgroups.rotate_left(first);
        let record = ChangeRecord { change, entry: Some(entry) };
        let number = self.catalog_log.lock().append(&record)?;
        // What is dropped must not be found while vgroups drop it; what is made, not before they have it.
        let drops = matches!(record.change, Change::DropStable { .. });
        if drops {
            self.catalog.write().apply(&record.change);
        }
        if let Some(entry) = &record.entry {
            self.pay(number, entry);
        }
        if !drops {
            self.catalog.write().apply(&record.change);
        }
        Ok(())
    }

    /// The time of a super table that is made now, milliseconds since 1970. Making one takes a real server longer than a millisecond, so
    /// that no two have one time, and a client may tell incarnations of one name apart by it: so here, however quick the machine is.
    pub fn next_stable_ms(&self) -> i64 {
        let now = now_ms();
        let next = |last: i64| now.max(last.saturating_add(1));
        let last = self.stable_made_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.expect("there is always a next one"))
    }

    fn pay(&self, change: u64, entry: &ChangeEntry) {
        for id in &entry.vgroups {
            // A database that was dropped since is owed nothing.
            let Ok(vgroup) = self.vgroup(*id) else { continue };
            if !vgroup.index().has_change(change) {
                vgroup.must_write(entry.payload(change));
            }
            std::thread::yield_now();
        }
    }

    /// Snapshots of the catalog and of these vgroups; drops what retention no longer keeps.
    ///
    /// # Errors
    /// When the disk fails; nothing is lost then.
    pub fn flush(&self, databases: &[Arc<Database>]) -> Result<()> {
        let _alone = self.gate.write();
        let mut log = self.catalog_log.lock();
        let changes_from = log.first();
        // Vgroups first: the catalog forgets an entry only when it is in their snapshots.
        for database in databases {
            for vgroup in self.vgroups_of(database)? {
                vgroup.flush(changes_from, retention(database))?;
            }
        }
        if databases.len() == self.catalog.read().databases.len() {
            log.save(&self.catalog.read())?;
        }
        Ok(())
    }

    /// What a background thread does: forces logs to the disk, and flushes vgroups whose logs grew.
    pub fn maintain(&self) {
        if matches!(self.config.fsync, FsyncPolicy::Interval(_)) {
            let synced = self.all_vgroups().iter().try_for_each(|vgroup| vgroup.sync());
            if let Err(error) = synced.and_then(|()| self.catalog_log.lock().sync()) {
                tracing::error!(%error, "a log cannot be forced to the disk");
            }
        }
        let databases: Vec<_> = self.catalog.read().databases.values().cloned().collect();
        for database in databases {
            let Ok(vgroups) = self.vgroups_of(&database) else { continue };
            let changes_from = self.catalog_log.lock().first();
            for vgroup in vgroups.iter().filter(|vgroup| vgroup.wants_snapshot()) {
                if let Err(error) = vgroup.flush(changes_from, retention(&database)) {
                    tracing::error!(vgroup = vgroup.id, %error, "a snapshot cannot be written");
                }
            }
        }
    }

    /// How long the maintenance thread sleeps.
    pub fn maintenance_interval(&self) -> Duration {
        match self.config.fsync {
            FsyncPolicy::Interval(interval) => interval.clamp(Duration::from_millis(10), config::MAINTENANCE_INTERVAL_MAX),
            FsyncPolicy::Always | FsyncPolicy::Never => config::MAINTENANCE_INTERVAL_MAX,
        }
    }

    /// Forces every log to the disk, whatever the policy; for a clean end.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let synced = self.all_vgroups().iter().try_for_each(|vgroup| vgroup.sync());
        if let Err(error) = synced.and_then(|()| self.catalog_log.lock().sync()) {
            tracing::error!(%error, "a log cannot be forced to the disk");
        }
    }

    /// Whether [`Inner::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Drops the log of a vgroup below `before`.
    pub fn truncate(&self, vgroup: VgroupId, before: Version) -> Result<()> {
        let changes_from = self.catalog_log.lock().first();
        self.vgroup(vgroup)?.truncate(before, changes_from)
    }

    /// The user with this name.
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.catalog.read().users.get(name).cloned()
    }
}

fn retention(database: &Database) -> Retention {
    let options = &database.options;
    Retention {
        period: u64::try_from(options.wal_retention_period_s).ok().map(Duration::from_secs),
        bytes: u64::try_from(options.wal_retention_size_kib).ok().filter(|kib| *kib > 0).map(|kib| kib * 1_024),
    }
}

fn lock_folder(config: &StoreConfig) -> io::Result<File> {
    let path = config.data_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    // A store that was just dropped may still be in its last round of maintenance.
    let last_try = Instant::now() + LOCK_WAIT_MAX;
    loop {
        if file.try_lock_exclusive()? {
            return Ok(file);
        }
        if Instant::now() >= last_try {
            break;
        }
        std::thread::sleep(LOCK_RETRY);
    }
    let text = format!("{} is open in another process; stop that one, or choose another folder", config.data_dir.display());
    Err(io::Error::new(io::ErrorKind::WouldBlock, text))
}
