//! A log on the disk: numbered records in segment files. A vgroup has one, and so has the catalog.
//!
//! Guarantees: a version is given once; what [`Wal::append`] returned is in the file; a record that was cut by a crash
//! at the end of the last segment is removed when the log is opened; any other damage is refused with file and offset;
//! a failed append leaves the log as it was.
//!
//! A segment is a header of 32 bytes (magic, format, owner, first version, CRC) and records: magic `u32`, length of the
//! payload `u32`, CRC of version and payload `u32`, version `i64`, payload.

mod open;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::Version;
use segment::Segment;
use segment::RECORD_BYTES;
pub(crate) use segment::sync_dir;

/// How a log is kept.
#[derive(Debug, Clone)]
pub(crate) struct WalOptions {
    /// Its folder.
    pub dir: PathBuf,
    /// Written into every segment: the vgroup, 0 for the catalog.
    pub owner: i32,
    /// A segment that passes this is closed.
    pub segment_bytes: u64,
    /// Whether an append waits for the disk.
    pub sync_appends: bool,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Wal {
    options: WalOptions,
    /// Closed ones and, last, the one that is written.
    segments: Vec<Arc<Segment>>,
    /// Offset of every record of the last segment.
    offsets: Vec<u64>,
    file: File,
    bytes: u64,
    next: Version,
    /// Appended since the last fsync.
    dirty: bool,
    /// Bytes appended since the log was opened or [`Wal::forget_growth`] was called.
    growth: u64,
}

impl Wal {
    /// Opens the folder and passes every record to `visit`. A log without any record starts at `first`.
    ///
    /// # Errors
    /// When the disk fails, a segment is damaged, or `visit` refuses a record.
    pub fn open(
        options: WalOptions,
        first: Version,
        visit: &mut dyn FnMut(Version, Bytes) -> io::Result<()>,
    ) -> io::Result<Self> {
        open::open(options, first, visit)
    }

    /// The oldest kept version and the next to be written.
    pub fn range(&self) -> (Version, Version) {
        (self.segments.first().map_or(self.next, |segment| segment.first), self.next)
    }

    /// Bytes appended since the last [`Wal::forget_growth`].
    pub fn growth(&self) -> u64 {
        self.growth
    }

    /// Starts counting [`Wal::growth`] anew.
    pub fn forget_growth(&mut self) {
        self.growth = 0;
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let closed = self.segments.len() - 1;
        self.segments[..closed].iter().map(|segment| segment.closed().map_or(0, |closed| closed.bytes)).sum::<u64>() + self.bytes
    }

    /// An empty record to write a payload behind.
    pub fn record() -> Vec<u8> {
        vec![0; RECORD_BYTES]
    }

    /// Appends a record begun with [`Wal::record`] and returns its version and its payload.
    ///
    /// # Errors
    /// When the disk is full or fails; the log is then as before.
    pub fn append(&mut self, mut record: Vec<u8>) -> io::Result<(Version, Bytes)> {
        if self.bytes > self.options.segment_bytes && !self.offsets.is_empty() {
            self.roll()?;
        }
        segment::finish_record(&mut record, self.next)?;
        if let Err(error) = self.write(&record) {
            // What was written of it must not stay: the next record would stand behind garbage.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        let version = self.next;
        self.offsets.push(self.bytes);
        self.bytes += record.len() as u64;
        self.growth += record.len() as u64;
        self.next += 1;
        Ok((version, Bytes::from(record).slice(RECORD_BYTES..)))
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        // A failed append may have left the file longer than the log.
        if self.file.metadata()?.len() != self.bytes {
            self.file.set_len(self.bytes)?;
        }
        self.file.write_all(record)?;
        self.dirty = true;
        if self.options.sync_appends { self.sync() } else { Ok(()) }
    }

    /// Forces what was appended to the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Closes the segment that is written, if it has records, and starts another.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn roll(&mut self) -> io::Result<()> {
        if self.offsets.is_empty() {
            return Ok(());
        }
        self.file.sync_data()?;
        self.dirty = false;
        let (segment, file) = Segment::create(&self.options, self.next)?;
        let last = self.segments.last().ok_or_else(|| io::Error::other("log without a segment"))?;
        last.close(std::mem::take(&mut self.offsets), self.bytes, SystemTime::now());
        self.segments.push(Arc::new(segment));
        self.file = file;
        self.bytes = segment::HEADER_BYTES;
        Ok(())
    }

    /// Removes closed segments, oldest first, while all their versions are below `below` and `expired` says so of the
    /// time at which it was closed and the bytes of the log behind it.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn drop_segments(&mut self, below: Version, expired: impl Fn(SystemTime, u64) -> bool) -> io::Result<()> {
        while let [first, second, ..] = self.segments.as_slice() {
            let Some(closed) = first.closed() else { break };
            if second.first > below || !expired(closed.at, self.bytes()) {
                break;
            }
            fs::remove_file(&first.path)?;
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Where records from `from` on stand, to be read without holding the log: a version below the oldest kept starts
    /// there. Ends after `max_bytes`, but has one record when there is one.
    pub fn locate(&self, from: Version, max_bytes: usize) -> Vec<Location> {
        let mut locations = Vec::new();
        let mut bytes = 0;
        let from = from.max(self.range().0);
        let start = self.segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
        for (index, segment) in self.segments.iter().enumerate().skip(start) {
            let closed = segment.closed();
            let (offsets, end) = match &closed {
                Some(closed) if index + 1 < self.segments.len() => (closed.offsets.as_slice(), closed.bytes),
                _ => (self.offsets.as_slice(), self.bytes),
            };
            let first = usize::try_from(from - segment.first).unwrap_or(0);
            for place in first..offsets.len() {
                let next = offsets.get(place + 1).copied().unwrap_or(end);
                let length = (next - offsets[place]) as usize;
                if bytes > 0 && bytes + length > max_bytes {
                    return locations;
                }
                bytes += length;
                let version = segment.first + place as Version;
                locations.push(Location { segment: segment.clone(), version, offset: offsets[place], length });
            }
        }
        locations
    }
}

/// A record in a file that stays readable even when the log drops its segment meanwhile.
#[derive(Debug)]
pub(crate) struct Location {
    segment: Arc<Segment>,
    /// Its version.
    pub version: Version,
    offset: u64,
    length: usize,
}

impl Location {
    /// The payload, checked.
    ///
    /// # Errors
    /// When the disk fails or the record is damaged.
    pub fn read(&self) -> io::Result<Bytes> {
        self.segment.read(self.version, self.offset, self.length)
    }
}
