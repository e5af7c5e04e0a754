//! Intents on a disk: a file of their own beside the store, because one is stored before nearly every write of a replica. A record
//! and its fdatasync cost a hundredth of the processor time of a transaction of the store.
//!
//! Records of `u32 length, u32 CRC-32 of the rest, u16 length of the key, key, intent` (little endian) stand one behind the other; the
//! last one of a key counts, an empty intent forgets it. Behind them are zeros: room that is on the disk already, so that
//! a record changes no metadata. A full file is written anew. A record that was cut by a crash was never answered for, and ends the file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(super) const FILE: &str = "intents.log";
/// Size of the file, at least; and how much larger it is than what counts in it.
const BYTES_MIN: usize = 256 << 10;
const ROOM_FACTOR: usize = 4;
/// Length and CRC.
const HEAD: usize = 8;

/// The last intent of each key.
#[derive(Default)]
pub(super) struct Journal {
    latest: BTreeMap<String, Vec<u8>>,
    /// Absent for a journal that is forgotten.
    file: Option<Open>,
}

struct Open {
    file: File,
    path: PathBuf,
    /// Up to here there are records, from there on zeros.
    end: usize,
    size: usize,
}

impl Journal {
    /// Opens the journal in a folder, which it makes where it is missing.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut latest = BTreeMap::new();
        let mut rest = bytes.as_slice();
        while let Some((key, intent, behind)) = parse(rest) {
            match intent.is_empty() {
                true => latest.remove(key),
                false => latest.insert(key.to_owned(), intent.to_vec()),
            };
            rest = behind;
        }
        // What a crash cut must go: behind the next record it could be read as one that came later.
        let is_whole = bytes.len() >= BYTES_MIN && rest.iter().all(|byte| *byte == 0);
        let open = match is_whole {
            true => Open { file: OpenOptions::new().write(true).open(&path)?, path, end: bytes.len() - rest.len(), size: bytes.len() },
            false => write_anew(&path, &latest)?,
        };
        Ok(Self { latest, file: Some(open) })
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.latest.get(key).map(Vec::as_slice)
    }

    /// Keys that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.latest.range(prefix.to_owned()..).map(|(key, _)| key).take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Stores intents, empty ones to forget; durable when it returns `Ok`.
    pub fn put(&mut self, intents: Vec<(String, Vec<u8>)>) -> Result<()> {
        let mut bytes = Vec::new();
        for (key, intent) in intents {
            append(&mut bytes, &key, &intent);
            match intent.is_empty() {
                true => self.latest.remove(&key),
                false => self.latest.insert(key, intent),
            };
        }
        let Some(open) = &mut self.file else { return Ok(()) };
        if open.end + bytes.len() > open.size {
            *open = write_anew(&open.path, &self.latest)?;
            return Ok(());
        }
        open.file.write_all_at(&bytes, open.end as u64)?;
        open.file.sync_data()?;
        open.end += bytes.len();
        Ok(())
    }
}

/// Replaces the file by one that holds `latest` and room.
fn write_anew(path: &Path, latest: &BTreeMap<String, Vec<u8>>) -> Result<Open> {
    let mut bytes = Vec::new();
    latest.iter().for_each(|(key, intent)| append(&mut bytes, key, intent));
    let end = bytes.len();
    bytes.resize((end * ROOM_FACTOR).max(BYTES_MIN), 0);
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(Open { file, path: path.to_owned(), end, size: bytes.len() })
}

fn append(bytes: &mut Vec<u8>, key: &str, intent: &[u8]) {
    let at = bytes.len();
    bytes.extend([0; HEAD]);
    bytes.extend((key.len() as u16).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(intent);
    let (length, crc) = ((bytes.len() - at - HEAD) as u32, crc32fast::hash(&bytes[at + HEAD..]));
    bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    bytes[at + 4..at + HEAD].copy_from_slice(&crc.to_le_bytes());
}

/// The first record and what is behind it; `None` at the end, or where a record was cut.
fn parse(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (record, behind) = rest.split_at_checked(word(0) as usize)?;
    if crc32fast::hash(record) != word(4) {
        return None;
    }
    let (length, record) = record.split_at_checked(2)?;
    let (key, intent) = record.split_at_checked(usize::from(u16::from_le_bytes([length[0], length[1]])))?;
    Some((std::str::from_utf8(key).ok()?, intent, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, intent: &str) -> (String, Vec<u8>) {
        (key.into(), intent.into())
    }

    #[test]
    fn the_last_intent_of_each_key_is_there_after_opening_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.put(vec![entry("a", "1"), entry("ab", "2"), entry("b", "3")]).unwrap();
        journal.put(vec![entry("a", "4"), entry("b", "")]).unwrap();
        for journal in [journal, Journal::open(folder.path()).unwrap()] {
            assert_eq!((journal.get("a"), journal.get("b")), (Some(&b"4"[..]), None));
            assert_eq!(journal.keys("a"), ["a", "ab"]);
        }
    }

    #[test]
    fn a_full_file_is_written_anew_with_what_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        let long = "x".repeat(1_000);
        for number in 0..2 * BYTES_MIN / long.len() {
            journal.put(vec![entry(&format!("k{}", number % 7), &format!("{number}{long}"))]).unwrap();
        }
        let size = std::fs::metadata(folder.path().join(FILE)).unwrap().len();
        assert_eq!(size, BYTES_MIN as u64);
        let again = Journal::open(folder.path()).unwrap();
        assert_eq!(again.latest, journal.latest);
        assert_eq!(again.latest.len(), 7);
    }

    #[test]
    fn a_record_that_was_cut_ends_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.put(vec![entry("a", "1")]).unwrap();
        let end = journal.file.as_ref().unwrap().end;
        journal.put(vec![entry("a", "2")]).unwrap();
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for (what, expect, change) in [
            ("whole", "2", &(|_: &mut Vec<u8>| {}) as &dyn Fn(&mut Vec<u8>)),
            ("half of it written", "1", &|bytes| bytes[end + HEAD + 1..].fill(0)),
            ("only its head", "1", &|bytes| bytes.truncate(end + HEAD)),
            ("nothing of it", "1", &|bytes| bytes.truncate(end)),
        ] {
            let mut bytes = whole.clone();
            change(&mut bytes);
            std::fs::write(&path, &bytes).unwrap();
            let journal = Journal::open(folder.path()).unwrap();
            assert_eq!(journal.get("a"), Some(expect.as_bytes()), "{what}");
        }
    }
}
