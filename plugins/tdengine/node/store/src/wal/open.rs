//! Opening a log: every record is checked, a torn tail is cut.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::segment::{self, HEADER_BYTES, RECORD_BYTES, Segment};
use super::{Wal, WalOptions};
use crate::Version;

pub(super) fn open(
    options: WalOptions,
    first: Version,
    visit: &mut dyn FnMut(Version, Bytes) -> io::Result<()>,
) -> io::Result<Wal> {
    fs::create_dir_all(&options.dir)?;
    let mut paths = segment_paths(&options.dir)?;
    remove_unborn(&mut paths, options.owner)?;
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    let mut next = None;
    let mut last = None;
    for (index, path) in paths.iter().enumerate() {
        let is_last = index + 1 == paths.len();
        let scan = Scan::run(path, options.owner, next, is_last, visit)?;
        let segment = Segment::open(path, scan.first)?;
        next = Some(scan.first + scan.offsets.len() as Version);
        if is_last {
            last = Some((scan.offsets, scan.bytes));
        } else {
            segment.close(scan.offsets, scan.bytes, fs::metadata(path)?.modified()?);
        }
        segments.push(Arc::new(segment));
    }
    let next = next.unwrap_or(first);
    let (file, (offsets, bytes)) = match (segments.last(), last) {
        (Some(segment), Some(last)) if next >= first => (OpenOptions::new().append(true).open(&segment.path)?, last),
        _ => return start(options, segments, first.max(next)),
    };
    Ok(Wal { options, segments, offsets, file, bytes, next, dirty: false, growth: bytes })
}

/// A log without records that is to be continued at `first`: a new one, or one whose tail the machine lost although a
/// snapshot has what was in it.
fn start(options: WalOptions, old: Vec<Arc<Segment>>, first: Version) -> io::Result<Wal> {
    for segment in old {
        fs::remove_file(&segment.path)?;
    }
    let (segment, file) = Segment::create(&options, first)?;
    let segments = vec![Arc::new(segment)];
    Ok(Wal { options, segments, offsets: Vec::new(), file, bytes: HEADER_BYTES, next: first, dirty: false, growth: 0 })
}

fn segment_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A crash while a segment was being made leaves a last file without a header.
fn remove_unborn(paths: &mut Vec<PathBuf>, owner: i32) -> io::Result<()> {
    let Some(path) = paths.last() else { return Ok(()) };
    let bytes = fs::read(path)?;
    let unborn = bytes.len() <= HEADER_BYTES as usize && segment::parse_header(&bytes, owner).is_none();
    if unborn {
        tracing::warn!(file = %path.display(), "removing a log segment that a crash left without a header");
        fs::remove_file(path)?;
        paths.pop();
    }
    Ok(())
}

struct Scan {
    first: Version,
    offsets: Vec<u64>,
    bytes: u64,
}

impl Scan {
    fn run(
        path: &Path,
        owner: i32,
        expected: Option<Version>,
        is_last: bool,
        visit: &mut dyn FnMut(Version, Bytes) -> io::Result<()>,
    ) -> io::Result<Self> {
        let bytes = Bytes::from(fs::read(path)?);
        let first = segment::parse_header(&bytes, owner);
        let first = first.ok_or_else(|| segment::damaged(path, 0, "not a log segment of this owner and format"))?;
        if let Some(expected) = expected.filter(|expected| *expected != first) {
            let why = format!("it starts at version {first}, but the segment before it ends before {expected}");
            return Err(segment::damaged(path, 0, &why));
        }
        let mut offsets = Vec::new();
        let mut at = HEADER_BYTES as usize;
        while at < bytes.len() {
            let version = first + offsets.len() as Version;
            let Some(length) = segment::parse_record(&bytes[at..], version) else {
                cut(path, &bytes, at, version, is_last)?;
                break;
            };
            visit(version, bytes.slice(at + RECORD_BYTES..at + length))?;
            offsets.push(at as u64);
            at += length;
        }
        Ok(Self { first, offsets, bytes: at as u64 })
    }
}

/// Cuts the file at `at` if what stands there can only be the rest of an unfinished append.
fn cut(path: &Path, bytes: &[u8], at: usize, version: Version, is_last: bool) -> io::Result<()> {
    if !is_last {
        return Err(segment::damaged(path, at as u64, "record is damaged and later segments follow"));
    }
    if let Some(sound) = segment::find_record(bytes, at + 1, version) {
        let why = format!("record is damaged, but a sound one follows at offset {sound}");
        return Err(segment::damaged(path, at as u64, &why));
    }
    tracing::warn!(file = %path.display(), offset = at, bytes = bytes.len() - at, "cutting the torn tail of a log");
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()
}
