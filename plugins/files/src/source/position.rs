//! Where a file was read to, as it is stored.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use pipeline_sdk::{Error, Position, Result, SOURCE_REPLACED};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How much of a file's start tells it from another.
const HEAD_BYTES: u64 = 1_024;
const VERSION: u32 = 1;

/// Behind what was read of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    version: u32,
    /// Bytes of text, rows of Parquet, batches of Arrow.
    pub at: u64,
    /// The same of files that stood under this name before and were rotated away: positions of a lane grow.
    pub base: u64,
    /// Device and inode.
    pub file: (u64, u64),
    /// Hash of the first bytes, as many as were read, and how many.
    head: (u64, u64),
}

impl Place {
    /// # Errors
    /// The file cannot be read.
    pub fn new(at: u64, base: u64, file: &mut File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { version: VERSION, at, base, file: inode(&metadata), head: head(file, HEAD_BYTES.min(metadata.len()))? })
    }

    /// Of what cannot be read again.
    pub fn of_stream(at: u64) -> Self {
        Self { version: VERSION, at, ..Self::default() }
    }

    /// # Errors
    /// Another version stored it.
    pub fn decode(position: &Position, lane: &str) -> Result<Self> {
        let foreign = |what: String| {
            Error::fatal(format!("the stored position of `{lane}` {what}")).code(SOURCE_REPLACED)
        };
        let place: Self = serde_json::from_slice(&position.bytes)
            .map_err(|_| foreign(format!("(`{position}`) was not stored by this plugin, or by another version of it")))?;
        match place.version {
            VERSION => Ok(place),
            other => Err(foreign(format!("has version {other}, this plugin knows version {VERSION}"))),
        }
    }

    pub fn encode(&self) -> Position {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let number = i64::try_from(self.base + self.at).ok();
        Position { bytes: bytes.into(), number, display: Some(Arc::from(self.at.to_string())) }
    }

    /// Whether the file begins as the one that was read.
    pub fn is_of(&self, file: &mut File) -> std::io::Result<bool> {
        Ok(head(file, self.head.1)? == self.head)
    }
}

pub(super) fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn head(file: &mut File, bytes: u64) -> std::io::Result<(u64, u64)> {
    let before = file.stream_position()?;
    file.seek(SeekFrom::Start(0))?;
    let mut start = Vec::new();
    Read::by_ref(file).take(bytes).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(before))?;
    Ok((xxh3_64(&start), start.len() as u64))
}

/// The file of this inode beside `path`: where a rotation put it.
pub(super) fn find_rotated(path: &Path, wanted: (u64, u64)) -> Option<File> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?;
    let found = entries.flatten().find(|entry| entry.metadata().is_ok_and(|it| it.is_file() && inode(&it) == wanted))?;
    File::open(found.path()).ok()
}
