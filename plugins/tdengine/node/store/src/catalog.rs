//! What a store has one of: databases, super tables, topics, users. Kept as a log of changes and a snapshot.
//!
//! A change of a super table is also an entry in the log of every vgroup of its database. The change's record here holds
//! that entry, so that after a crash in between it is written to the vgroups that miss it: each vgroup gets it exactly
//! once, and a change is everywhere or nowhere.

mod state;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::VgroupId;
use crate::error::{Result, ServerError};
use crate::faults::Faults;
use crate::vgroup::{Effect, MetaRecord, Payload};
use crate::wal::{Wal, WalOptions, sync_dir};

pub(crate) use state::{Catalog, Change};

/// A change and the entry that it owes to vgroups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChangeRecord {
    pub change: Change,
    pub entry: Option<ChangeEntry>,
}

/// The entry of a super table's change, the same for each vgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChangeEntry {
    /// The vgroups in the order in which they get it.
    pub vgroups: Vec<VgroupId>,
    pub raw_type: u16,
    pub source: u8,
    pub suid: i64,
    pub effect: Effect,
    /// In C layout, without the head.
    pub body: Vec<u8>,
}

impl ChangeEntry {
    /// The entry as part of this change.
    pub fn payload(&self, change: u64) -> Payload {
        Payload::Meta(MetaRecord {
            change,
            raw_type: self.raw_type,
            source: self.source,
            suid: self.suid,
            effect: self.effect.clone(),
            body: self.body.clone().into(),
        })
    }
}

/// The catalog's files.
#[derive(Debug)]
pub(crate) struct CatalogLog {
    wal: Wal,
    path: PathBuf,
    faults: Arc<Faults>,
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct Image<T> {
    format: u32,
    /// The last change in it.
    version: i64,
    catalog: T,
}

const FORMAT: u32 = 1;

/// What opening the catalog gives.
pub(crate) struct Opened {
    pub catalog: Catalog,
    pub log: CatalogLog,
    /// Entries that vgroups may miss, with the number of their change.
    pub owed: Vec<(u64, ChangeEntry)>,
}

impl CatalogLog {
    /// Opens or makes the catalog in this folder; `new` makes the first one.
    ///
    /// # Errors
    /// When the disk fails or a file is damaged.
    pub fn open(dir: &Path, sync_appends: bool, faults: Arc<Faults>, new: impl FnOnce() -> Catalog) -> io::Result<Opened> {
        fs::create_dir_all(dir)?;
        let path = dir.join("catalog.snapshot");
        let image = match fs::read(&path) {
            Ok(bytes) => Some(parse(&path, &bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let is_new = image.is_none();
        // Change 0 would mean that an entry belongs to none.
        let Image { version, mut catalog, .. } =
            image.unwrap_or_else(|| Image { format: FORMAT, version: 0, catalog: new() });
        let options = WalOptions { dir: dir.to_owned(), owner: 0, segment_bytes: 16 << 20, sync_appends };
        let mut owed = Vec::new();
        let wal = Wal::open(options, version + 1, &mut |change, payload| {
            if change > version {
                let record: ChangeRecord = serde_json::from_slice(&payload)?;
                catalog.apply(&record.change);
                owed.extend(record.entry.map(|entry| (change as u64, entry)));
            }
            Ok(())
        })?;
        let mut log = Self { wal, path, faults };
        if is_new {
            // The cluster id must outlive a crash before the first change.
            log.save(&catalog)?;
        }
        Ok(Opened { catalog, log, owed })
    }

    /// Appends a change; its number identifies it.
    ///
    /// # Errors
    /// When the disk fails; nothing was changed then.
    pub fn append(&mut self, record: &ChangeRecord) -> Result<u64> {
        let mut bytes = Wal::record();
        serde_json::to_writer(&mut bytes, record).map_err(|error| ServerError::invalid_parameter(error.to_string()))?;
        self.faults.take_disk(bytes.len())?;
        let (version, _) = self.wal.append(bytes)?;
        self.faults.appended();
        Ok(version as u64)
    }

    /// The oldest change that would be done again after a crash.
    pub fn first(&self) -> u64 {
        self.wal.range().0 as u64
    }

    /// Writes a snapshot and drops the changes in it. No change may be under way.
    ///
    /// # Errors
    /// When the disk fails; the old snapshot stays valid then.
    pub fn save(&mut self, catalog: &Catalog) -> io::Result<()> {
        let version = self.wal.range().1 - 1;
        let json = serde_json::to_vec(&Image { format: FORMAT, version, catalog })?;
        let mut bytes = format!("{:08x}\n", crc32fast::hash(&json)).into_bytes();
        bytes.extend_from_slice(&json);
        self.faults.take_disk(bytes.len())?;
        let unfinished = self.path.with_extension("unfinished");
        fs::write(&unfinished, &bytes)?;
        fs::File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        self.wal.roll()?;
        self.wal.drop_segments(version + 1, |_, _| true)
    }

    /// Forces the log to the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self) -> io::Result<()> {
        self.wal.sync()
    }
}

fn parse(path: &Path, bytes: &[u8]) -> io::Result<Image<Catalog>> {
    let damaged = |why: String| {
        let text = format!("{} is damaged: {why}; restore it from a copy, or remove the folder to start empty", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let (crc, json) = bytes.split_at_checked(9).ok_or_else(|| damaged("shorter than its checksum".into()))?;
    if crc != format!("{:08x}\n", crc32fast::hash(json)).as_bytes() {
        return Err(damaged("its checksum is wrong".into()));
    }
    let image: Image<Catalog> = serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))?;
    if image.format == FORMAT { Ok(image) } else { Err(damaged(format!("format {}, expected {FORMAT}", image.format))) }
}
