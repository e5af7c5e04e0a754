//! One file of a log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::Bytes;

use super::WalOptions;
use crate::Version;

/// Bytes before the first record.
pub(super) const HEADER_BYTES: u64 = 32;
/// Bytes before the payload of a record.
pub(crate) const RECORD_BYTES: usize = 20;
/// Longest payload; a longer claim is damage.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"TDNODLOG";
const FORMAT: u32 = 1;
const RECORD_MAGIC: u32 = 0x5ec0_4d1a;

/// A segment. Reads go through a handle of its own, so that they outlive the file's name.
#[derive(Debug)]
pub(super) struct Segment {
    pub first: Version,
    pub path: PathBuf,
    file: File,
    closed: OnceLock<Closed>,
}

/// What is known of a segment that no longer grows.
#[derive(Debug)]
pub(super) struct Closed {
    /// Offset of each record.
    pub offsets: Vec<u64>,
    /// Bytes of the file.
    pub bytes: u64,
    /// When it was closed.
    pub at: SystemTime,
}

impl Segment {
    /// Makes the file and the handle that appends to it.
    pub fn create(options: &WalOptions, first: Version) -> io::Result<(Self, File)> {
        let path = options.dir.join(format!("{first:020}.log"));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&options.owner.to_le_bytes());
        header.extend_from_slice(&first.to_le_bytes());
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        header.resize(HEADER_BYTES as usize, 0);
        if let Err(error) = file.write_all(&header) {
            std::fs::remove_file(&path)?;
            return Err(error);
        }
        file.sync_data()?;
        sync_dir(&options.dir)?;
        let segment = Self { first, file: File::open(&path)?, path: path.clone(), closed: OnceLock::new() };
        drop(file);
        Ok((segment, OpenOptions::new().append(true).open(&path)?))
    }

    /// A segment that is there already.
    pub fn open(path: &Path, first: Version) -> io::Result<Self> {
        Ok(Self { first, path: path.to_owned(), file: File::open(path)?, closed: OnceLock::new() })
    }

    pub fn close(&self, offsets: Vec<u64>, bytes: u64, at: SystemTime) {
        // A segment is closed once; a second call would only repeat the first.
        let _ = self.closed.set(Closed { offsets, bytes, at });
    }

    pub fn closed(&self) -> Option<&Closed> {
        self.closed.get()
    }

    pub fn read(&self, version: Version, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut record = vec![0; length];
        self.file.read_exact_at(&mut record, offset)?;
        match parse_record(&record, version) {
            Some(end) if end == length => Ok(Bytes::from(record).slice(RECORD_BYTES..)),
            _ => Err(damaged(&self.path, offset, "record does not match its checksum")),
        }
    }
}

/// Fills the head of a record.
pub(super) fn finish_record(record: &mut [u8], version: Version) -> io::Result<()> {
    let length = record.len() - RECORD_BYTES;
    if length > PAYLOAD_BYTES_MAX {
        return Err(io::Error::other(format!("a log entry of {length} bytes passes {PAYLOAD_BYTES_MAX}")));
    }
    record[12..20].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&record[12..]);
    record[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    record[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    record[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes)
}

fn version_at(bytes: &[u8], at: usize) -> Option<i64> {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(i64::from_le_bytes)
}

/// The length of the whole record at the start of `bytes` if it is sound and has this version.
pub(super) fn parse_record(bytes: &[u8], version: Version) -> Option<usize> {
    let length = word(bytes, 4)? as usize;
    let end = RECORD_BYTES.checked_add(length).filter(|end| *end <= bytes.len())?;
    let sound = word(bytes, 0)? == RECORD_MAGIC
        && version_at(bytes, 12)? == version
        && word(bytes, 8)? == crc32fast::hash(&bytes[12..end]);
    sound.then_some(end)
}

/// Offset of the first sound record behind `from`, of any version above `version`: what shows that damage before it is
/// no torn tail.
pub(super) fn find_record(bytes: &[u8], from: usize, version: Version) -> Option<usize> {
    let magic = RECORD_MAGIC.to_le_bytes();
    let mut at = from;
    while let Some(offset) = bytes.get(at..)?.windows(4).position(|window| window == magic) {
        let start = at + offset;
        let found = version_at(bytes, start + 12).filter(|found| *found > version);
        if found.and_then(|found| parse_record(&bytes[start..], found)).is_some() {
            return Some(start);
        }
        at = start + 1;
    }
    None
}

/// The first version that a segment's header gives; `None` when the header is damaged.
pub(super) fn parse_header(bytes: &[u8], owner: i32) -> Option<Version> {
    let sound = bytes.get(..8)? == MAGIC
        && word(bytes, 8)? == FORMAT
        && word(bytes, 12)? == owner as u32
        && word(bytes, 24)? == crc32fast::hash(bytes.get(..24)?);
    if sound { version_at(bytes, 16) } else { None }
}

/// An error that names the place.
pub(super) fn damaged(path: &Path, offset: u64, why: &str) -> io::Error {
    let text = format!("{} is damaged at offset {offset}: {why}; restore the file from a copy, or remove the folder to start empty", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Makes names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
