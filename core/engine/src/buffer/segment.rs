//! The files of a buffer: their names, and the records in them.
//!
//! `SEQUENCE-ROWS.segment`, both with twenty digits: the first record in it, and how many rows came before. A file starts with eight bytes that name the
//! format; records of `u32 length, u32 CRC-32, payload` (little endian) follow, and every payload starts with its sequence, the rows
//! before it and its own.

use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record;

/// Name and version of the format.
pub(super) const MAGIC: [u8; 8] = *b"plbuf\0\0\x02";
/// Length and CRC.
pub(super) const HEAD: usize = 8;
const SUFFIX: &str = ".segment";

/// One file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    /// Sequence of its first record.
    pub first: u64,
    /// Rows in all records before it.
    pub rows_before: u64,
    /// Of the file.
    pub bytes: u64,
}

impl Segment {
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}-{:020}{SUFFIX}", self.first, self.rows_before))
    }
}

/// All files of a folder in the order of their records.
pub(super) fn list(folder: &Path) -> Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let numbers = name.strip_suffix(SUFFIX).and_then(|stem| stem.split_once('-'));
        if let Some((Ok(first), Ok(rows_before))) = numbers.map(|(first, rows)| (first.parse(), rows.parse())) {
            found.push(Segment { first, rows_before, bytes: entry.metadata()?.len() });
        }
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// Whether a folder holds records.
pub(super) fn has_records(folder: &Path) -> bool {
    list(folder).is_ok_and(|segments| segments.iter().any(|segment| segment.bytes > MAGIC.len() as u64))
}

pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A whole record of this payload, and where the next one begins.
    Record(Vec<u8>, u64),
    /// No whole record.
    Nothing,
}

/// Reads the record at `at` of a file with `end` bytes.
pub(super) fn read_at(file: &File, at: u64, end: u64) -> Result<Found> {
    let mut head = [0; HEAD];
    if at + HEAD as u64 > end {
        return Ok(Found::Nothing);
    }
    file.read_exact_at(&mut head, at)?;
    let length = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let behind = at + HEAD as u64 + length;
    if behind > end || length < record::LENGTH_MIN {
        return Ok(Found::Nothing);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact_at(&mut payload, at + HEAD as u64)?;
    Ok(if crc32fast::hash(&payload) == crc { Found::Record(payload, behind) } else { Found::Nothing })
}

/// The next whole record behind a damaged one: its place, and its sequence. `expected` is that of the damaged one.
pub(super) fn next_whole(mut file: &File, damaged_at: u64, end: u64, expected: u64) -> Result<Option<(u64, u64)>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(damaged_at))?;
    file.take(end.saturating_sub(damaged_at)).read_to_end(&mut bytes)?;
    for at in 1..bytes.len().saturating_sub(HEAD) {
        let length = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let Some(payload) = bytes.get(at + HEAD..at + HEAD + length) else { continue };
        // Nearly every place fails here, so that few checksums are made.
        let is_later = |it: &record::Numbers| it.sequence > expected && it.sequence - expected < end;
        let Some(numbers) = record::numbers(payload).filter(is_later) else { continue };
        let crc = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]);
        if crc32fast::hash(payload) == crc {
            return Ok(Some((damaged_at + at as u64, numbers.sequence)));
        }
    }
    Ok(None)
}
