//! The log of one buffer: appended to by one pipeline, read by another, in one process (the state folder's lock sees to that).

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline_sdk::{Error, Message, Result};
use tokio::sync::Notify;

use super::segment::{self, Found, MAGIC, Segment};
use super::{io, record};
use crate::config::{Buffer, Fsync, OnCorrupt, WhenFull};

/// A file is begun anew at an eighth of the whole, within these bounds: what was read is deleted file by file.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
const SEGMENTS: u64 = 8;
/// Who made the buffer: positions of another one are not its own.
const IDENTITY_FILE: &str = "identity";

/// What waits in a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    pub rows: u64,
    /// Of what was not read yet.
    pub bytes: u64,
}

pub(super) struct Log {
    pub folder: PathBuf,
    pub identity: String,
    state: Mutex<State>,
    /// The file that was read last, by its first record: records are read one after the other.
    reading: Mutex<Option<(u64, Arc<File>)>>,
    /// Something was appended.
    pub appended: Notify,
    /// Something was deleted, or may be written again.
    pub released: Notify,
}

struct State {
    settings: Buffer,
    segments: VecDeque<Segment>,
    /// The last segment.
    file: File,
    /// Sequence of the next record, and rows of all before it.
    next: u64,
    rows: u64,
    is_dirty: bool,
    /// How far the reader is, durably: sequence and rows before it, and its place.
    done: Mark,
}

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mark {
    pub sequence: u64,
    pub rows: u64,
    /// First record of the segment, and the place in it.
    pub segment: u64,
    pub at: u64,
}

/// What an append came to.
#[derive(Debug, PartialEq)]
pub(super) enum Appended {
    Done,
    /// The file system or the limit says no.
    Full(String),
}

/// What is read at a place.
pub(super) enum Read {
    Record { payload: Vec<u8>, behind: Mark },
    /// Nothing more was appended.
    Nothing,
    /// What stands there is no record; the next one is at `behind`, as many later.
    Damaged { place: String, lost: u64, behind: Mark },
}

impl Log {
    /// Opens a buffer, or makes it. What a crash cut off at its end is cut.
    ///
    /// # Errors
    /// It cannot be read or written, or is of another version.
    pub fn open(folder: &Path, settings: &Buffer) -> Result<Self> {
        crate::folder::make_private(folder).map_err(|error| io(folder, &error))?;
        let identity = identity(folder)?;
        let mut segments: VecDeque<Segment> = segment::list(folder).map_err(|error| io(folder, &error))?.into();
        let last = segments.pop_back().unwrap_or(Segment { first: 0, rows_before: 0, bytes: 0 });
        let path = last.path(folder);
        let (last, file, next, rows) = open_last(&path, last).map_err(|error| io(&path, &error))?.ok_or_else(|| {
            Error::fatal(format!("{} was not written by this version of the program", path.display()))
                .code("buffer.format")
                .hint("empty the buffer with the version that wrote it, or move its folder away")
        })?;
        segments.push_back(last);
        let first = &segments[0];
        let done = Mark { sequence: first.first, rows: first.rows_before, segment: first.first, at: MAGIC.len() as u64 };
        let state = State { settings: settings.clone(), segments, file, next, rows, is_dirty: false, done };
        Ok(Self { folder: folder.to_owned(), identity, state: Mutex::new(state), reading: Mutex::default(), appended: Notify::new(), released: Notify::new() })
    }

    pub fn set(&self, settings: &Buffer) {
        self.state.lock().settings = settings.clone();
        self.released.notify_one();
    }

    pub fn held(&self) -> Held {
        let state = self.state.lock();
        let behind: u64 = state.segments.iter().filter(|it| it.first >= state.done.segment).map(|it| it.bytes).sum();
        let headers = MAGIC.len() as u64 * state.segments.iter().filter(|it| it.first > state.done.segment).count() as u64;
        let bytes = behind.saturating_sub(headers).saturating_sub(state.done.at);
        Held { rows: state.rows.saturating_sub(state.done.rows), bytes }
    }

    /// First record that is kept, and the next that will be written.
    pub fn ends(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.segments[0].first, state.next)
    }

    pub fn when_full(&self) -> WhenFull {
        self.state.lock().settings.when_full
    }

    pub fn on_corrupt(&self) -> OnCorrupt {
        self.state.lock().settings.on_corrupt
    }

    /// Appends a message where there is room.
    ///
    /// # Errors
    /// It is larger than the whole buffer may be, or the disk fails.
    pub fn append(&self, message: &Message) -> Result<Appended> {
        let mut state = self.state.lock();
        let bytes = segment::frame(&record::encode(message, state.next, state.rows)?);
        let max = state.settings.max.unwrap_or(u64::MAX);
        if MAGIC.len() as u64 + bytes.len() as u64 > max {
            let text = format!("a message of {} bytes is larger than the whole buffer of {max} bytes", bytes.len());
            return Err(Error::rejected(text).code("buffer.large").hint("raise `max` of the buffer, or let the source make smaller messages"));
        }
        let written = state.append(&self.folder, &bytes, max);
        match written {
            Ok(true) => {}
            Ok(false) => return Ok(Appended::Full(format!("the buffer holds the {max} bytes that it may"))),
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => {
                return Ok(Appended::Full(format!("the disk is full: {}", self.folder.display())));
            }
            Err(error) => return Err(io(&self.folder, &error)),
        }
        state.next += 1;
        state.rows += message.row_count();
        let (must_sync, kept) = (state.settings.fsync == Fsync::Message, state.segments[0].first);
        drop(state);
        self.close_before(kept);
        if must_sync {
            self.sync()?;
        }
        self.appended.notify_one();
        Ok(Appended::Done)
    }

    /// Makes what was appended durable, as far as the settings want that.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.settings.fsync == Fsync::Never || !std::mem::take(&mut state.is_dirty) {
            return Ok(());
        }
        let synced = state.file.sync_data();
        state.is_dirty |= synced.is_err();
        synced.map_err(|error| io(&self.folder, &error))
    }

    /// The place of a record, for who begins to read. Records behind the end that were lost with the machine are stepped over.
    ///
    /// # Errors
    /// The disk fails.
    pub fn seek(&self, sequence: u64) -> Result<Mark> {
        let mut state = self.state.lock();
        if sequence > state.next {
            tracing::warn!(folder = %self.folder.display(), lost = sequence - state.next, "records that were read before are gone from the buffer");
            let rows = state.rows;
            state.next = sequence;
            state.begin(&self.folder).map_err(|error| io(&self.folder, &error))?;
            return Ok(Mark { sequence, rows, segment: sequence, at: MAGIC.len() as u64 });
        }
        let holder = state.segments.iter().rev().find(|it| it.first <= sequence).unwrap_or(&state.segments[0]).clone();
        drop(state);
        let mut mark = Mark { sequence: holder.first, rows: holder.rows_before, segment: holder.first, at: MAGIC.len() as u64 };
        while mark.sequence < sequence {
            match self.read(&mark)? {
                Read::Record { behind, .. } | Read::Damaged { behind, .. } => mark = behind,
                Read::Nothing => break,
            }
        }
        Ok(mark)
    }

    /// What stands at a place.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read(&self, mark: &Mark) -> Result<Read> {
        let (holder, following, next) = {
            let state = self.state.lock();
            let at = state.segments.iter().position(|it| it.first == mark.segment);
            let following = state.segments.iter().find(|it| it.first > mark.segment).cloned();
            (at.map(|at| state.segments[at].clone()), following, state.next)
        };
        if mark.sequence >= next {
            return Ok(Read::Nothing);
        }
        let to_following = |segment: &Segment| Mark { sequence: segment.first, rows: segment.rows_before, segment: segment.first, at: MAGIC.len() as u64 };
        // The end of a file that is full, or of one that was deleted as everything in it was done.
        if let Some(following) = following.as_ref().filter(|it| it.first == mark.sequence) {
            return self.read(&to_following(following));
        }
        let Some(holder) = holder else {
            let behind = following.as_ref().map_or(*mark, to_following);
            return Ok(Read::Damaged { place: format!("{} is gone", self.folder.display()), lost: behind.sequence - mark.sequence, behind });
        };
        let path = holder.path(&self.folder);
        let file = self.opened(&holder).map_err(|error| io(&path, &error))?;
        if let Found::Record(payload, at) = segment::read_at(&file, mark.at, holder.bytes).map_err(|error| io(&path, &error))?
            && let Some(numbers) = record::numbers(&payload).filter(|it| it.sequence == mark.sequence)
        {
            let behind = match &following {
                Some(following) if at >= holder.bytes => to_following(following),
                _ => Mark { sequence: numbers.sequence + 1, rows: numbers.rows_behind, segment: holder.first, at },
            };
            return Ok(Read::Record { payload, behind });
        }
        let place = format!("{} at byte {}", path.display(), mark.at);
        let behind = match segment::next_whole(&file, mark.at, holder.bytes, mark.sequence).map_err(|error| io(&path, &error))? {
            Some((at, sequence)) => Mark { sequence, rows: mark.rows, segment: holder.first, at },
            None => following.as_ref().map_or(Mark { sequence: next, rows: mark.rows, segment: holder.first, at: holder.bytes }, to_following),
        };
        Ok(Read::Damaged { place, lost: behind.sequence - mark.sequence, behind })
    }

    /// The file of a segment, open for reading.
    fn opened(&self, segment: &Segment) -> std::io::Result<Arc<File>> {
        let mut reading = self.reading.lock();
        if let Some((first, file)) = &*reading
            && *first == segment.first
        {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(segment.path(&self.folder))?);
        *reading = Some((segment.first, file.clone()));
        Ok(file)
    }

    /// A file that was deleted keeps its room for as long as it is open.
    fn close_before(&self, kept: u64) {
        self.reading.lock().take_if(|(first, _)| *first < kept);
    }

    /// Everything before `mark` is durable at the sink: files that hold nothing else are deleted.
    pub fn release(&self, mark: Mark) {
        let mut state = self.state.lock();
        state.done = mark;
        while state.segments.len() > 1 && state.segments[1].first <= mark.sequence {
            let Some(gone) = state.segments.pop_front() else { break };
            // What cannot be deleted now is deleted when it is read again.
            let _ = std::fs::remove_file(gone.path(&self.folder));
        }
        let kept = state.segments[0].first;
        drop(state);
        self.close_before(kept);
        self.released.notify_one();
    }
}

impl State {
    /// Whether there was room.
    fn append(&mut self, folder: &Path, bytes: &[u8], max: u64) -> std::io::Result<bool> {
        let segment_max = (max / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let length = bytes.len() as u64;
        let last = self.last().bytes;
        let is_empty = last == MAGIC.len() as u64;
        let total: u64 = self.segments.iter().map(|it| it.bytes).sum();
        // Everything was read: its room is free as soon as another file is begun.
        let is_read = self.done.sequence == self.next && !is_empty;
        if total + length > max && !is_read {
            return Ok(false);
        }
        if (last + length > segment_max || total + length > max) && !is_empty {
            self.begin(folder)?;
            if is_read {
                while self.segments.len() > 1 {
                    let Some(gone) = self.segments.pop_front() else { break };
                    std::fs::remove_file(gone.path(folder))?;
                }
                self.done = Mark { sequence: self.next, rows: self.rows, segment: self.next, at: MAGIC.len() as u64 };
            }
        }
        let at = self.last().bytes;
        if let Err(error) = self.file.write_all(bytes) {
            // Part of it may be there: the next record begins where this one did.
            self.file.set_len(at)?;
            return Err(error);
        }
        self.last_mut().bytes += length;
        self.is_dirty = true;
        Ok(true)
    }

    /// Begins another file; the one before is durable then.
    fn begin(&mut self, folder: &Path) -> std::io::Result<()> {
        if self.settings.fsync != Fsync::Never {
            self.file.sync_data()?;
        }
        let segment = Segment { first: self.next, rows_before: self.rows, bytes: MAGIC.len() as u64 };
        self.file = create(&segment.path(folder))?;
        self.segments.push_back(segment);
        Ok(())
    }

    fn last(&self) -> &Segment {
        self.segments.back().expect("there is always a last one")
    }

    fn last_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always a last one")
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.set_len(0)?;
    file.write_all(&MAGIC)?;
    if let Some(folder) = path.parent() {
        // Its name must be as durable as what will be in it.
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

/// The last file with what a crash cut off taken away; sequence and rows behind it. `None` for one of another format.
fn open_last(path: &Path, mut segment: Segment) -> std::io::Result<Option<(Segment, File, u64, u64)>> {
    if segment.bytes < MAGIC.len() as u64 {
        let file = create(path)?;
        segment.bytes = MAGIC.len() as u64;
        let (first, rows) = (segment.first, segment.rows_before);
        return Ok(Some((segment, file, first, rows)));
    }
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let mut magic = [0; MAGIC.len()];
    std::io::Read::read_exact(&mut file, &mut magic)?;
    if magic != MAGIC {
        return Ok(None);
    }
    let (mut at, mut next, mut rows) = (MAGIC.len() as u64, segment.first, segment.rows_before);
    while at < segment.bytes {
        match segment::read_at(&file, at, segment.bytes)? {
            Found::Record(payload, behind) => {
                let numbers = record::numbers(&payload).unwrap_or(record::Numbers { sequence: next, rows_behind: rows });
                (at, next, rows) = (behind, numbers.sequence + 1, numbers.rows_behind);
            }
            Found::Nothing => match segment::next_whole(&file, at, segment.bytes, next)? {
                // Whole records follow: the reader says what is wrong here.
                Some((behind, sequence)) => (at, next) = (behind, sequence),
                None => {
                    tracing::warn!(file = %path.display(), at, bytes = segment.bytes - at, "a record that a crash cut off is taken away");
                    file.set_len(at)?;
                    file.sync_data()?;
                    segment.bytes = at;
                }
            },
        }
    }
    Ok(Some((segment, file, next, rows)))
}

fn identity(folder: &Path) -> Result<String> {
    let path = folder.join(IDENTITY_FILE);
    if let Ok(text) = std::fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let fresh = format!("buffer-{:016x}", rand::random::<u64>());
    let written = std::fs::write(&path, &fresh).and_then(|()| File::open(&path)?.sync_all());
    written.map_err(|error| io(&path, &error))?;
    Ok(fresh)
}
