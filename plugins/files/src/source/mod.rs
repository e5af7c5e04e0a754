//! The source: one lane a file, one file after the other; where it follows, all of them in turn.

mod config;
mod position;
mod cut;
mod rows;
mod threads;
mod text;
mod columnar;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use pipeline_sdk::{
    Checkpoint, Connected, Context, Error, Header, Lane, LaneProgress, Message, Payload, Polled, Position, Result, Rows,
    SOURCE_REPLACED, Source, async_trait,
};

pub use config::FilesSourceConfig;

use crate::format::Format;
use columnar::ColumnarReader;
use position::{Place, find_rotated, inode};
use text::TextReader;
use threads::Threads;

/// How often new files are looked for where the source follows.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The lane of standard input.
const STANDARD: &str = "-";
/// Code of the error that a file without its footer leaves.
const NOT_WHOLE: &str = "files.not-whole";

/// What reading on brought.
enum Read {
    Rows(RecordBatch),
    /// Nothing now; more may be appended.
    Wait,
    End,
}

enum Reader {
    Text(Box<TextReader>),
    Columnar(ColumnarReader),
}

/// A file and how far it was read.
struct Open {
    path: PathBuf,
    lane: Lane,
    /// `None` before it is opened and after its end.
    reader: Option<Reader>,
    /// Where to begin, then behind what was handed out.
    place: Option<Place>,
    sequence: u64,
    is_done: bool,
    /// A file that is not whole yet was reported.
    is_reported: bool,
}

pub(crate) struct Files {
    config: FilesSourceConfig,
    context: Context,
    threads: Arc<Threads>,
    open: Vec<Open>,
    /// Whose turn it is.
    turn: usize,
    looked_at: Instant,
    from: BTreeMap<Lane, Position>,
    /// Lanes that are read and stored to their end, not told to the engine yet.
    finished: Vec<Lane>,
    has_read: bool,
}

impl Files {
    pub fn new(config: FilesSourceConfig, context: Context) -> Self {
        let threads = Arc::new(Threads::new(config.threads(), config.ahead_bytes_max));
        let (open, finished) = (Vec::new(), Vec::new());
        Self { config, context, threads, open, turn: 0, looked_at: Instant::now(), from: BTreeMap::new(), finished, has_read: false }
    }

    /// Adds files that are new.
    fn look(&mut self) -> Result<()> {
        self.looked_at = Instant::now();
        if self.config.reads_standard_input() {
            if self.open.is_empty() {
                self.open.push(Open::new(PathBuf::from(STANDARD), None)?);
            }
            return Ok(());
        }
        let known: std::collections::BTreeSet<PathBuf> = self.open.iter().map(|it| it.path.clone()).collect();
        for path in self.config.files()? {
            if !known.contains(&path) {
                let stored = self.from.get(&lane_of(&path)).cloned();
                self.open.push(Open::new(path, stored.as_ref())?);
            }
        }
        Ok(())
    }

    /// The next rows of a file.
    fn read(&mut self, index: usize) -> Result<Option<Message>> {
        let open = &mut self.open[index];
        if open.reader.is_none() && !open.begin(&self.config, &self.context, &self.threads)? {
            return Ok(None);
        }
        let read = match &mut open.reader {
            Some(Reader::Text(reader)) => reader.next()?,
            Some(Reader::Columnar(reader)) => reader.next()?,
            None => Read::End,
        };
        match read {
            Read::Rows(batch) => {
                self.has_read = true;
                open.message(batch).map(Some)
            }
            Read::Wait => {
                open.look_behind(&self.context)?;
                Ok(None)
            }
            Read::End => {
                open.is_done = true;
                open.reader = None;
                Ok(None)
            }
        }
    }
}

fn replaced(place: &Place) -> Error {
    Error::fatal(format!("it is not the file any more that was read to {} before", place.at)).code(SOURCE_REPLACED)
}

fn lane_of(path: &Path) -> Lane {
    Lane::new(path.to_string_lossy())
}

impl Open {
    fn new(path: PathBuf, stored: Option<&Position>) -> Result<Self> {
        let lane = lane_of(&path);
        let place = stored.map(|stored| Place::decode(stored, lane.as_str())).transpose()?;
        Ok(Self { path, lane, reader: None, place, sequence: 0, is_done: false, is_reported: false })
    }

    /// Whether the file is the one that its stored place is in, before anything is read.
    ///
    /// # Errors
    /// It is another one.
    fn check(&self, config: &FilesSourceConfig) -> Result<()> {
        let Some(place) = self.place.as_ref().filter(|_| self.path.is_file()) else { return Ok(()) };
        let name = self.path.display().to_string();
        let failed = |error: std::io::Error| Error::disconnected(format!("{name}: {error}")).code("files.open");
        let mut file = File::open(&self.path).map_err(failed)?;
        if self.is_in(&mut file, place, config)? { Ok(()) } else { Err(replaced(place).context(&name)) }
    }

    /// Whether the file holds what was read to a place.
    fn is_in(&self, file: &mut File, place: &Place, config: &FilesSourceConfig) -> Result<bool> {
        let failed = |error: std::io::Error| Error::disconnected(error.to_string()).code("files.open");
        let is_text = Format::of(&self.path, config.format)?.is_text();
        Ok(place.is_of(file).map_err(failed)? && (!is_text || file.metadata().map_err(failed)?.len() >= place.at))
    }

    /// Opens the file where it is to go on; whether it could.
    fn begin(&mut self, config: &FilesSourceConfig, context: &Context, threads: &Arc<Threads>) -> Result<bool> {
        let format = Format::of(&self.path, config.format)?;
        if self.path == Path::new(STANDARD) {
            let reader = TextReader::standard(format, config, threads)?;
            self.is_done = reader.is_none();
            self.reader = reader.map(Box::new).map(Reader::Text);
            return Ok(self.reader.is_some());
        }
        let name = self.path.display().to_string();
        let failed = |error: std::io::Error| Error::disconnected(format!("{name}: {error}")).code("files.open");
        let mut file = File::open(&self.path).map_err(failed)?;
        if let Some(place) = self.place.clone() {
            file = self.resumed(file, &place, config, context).map_err(|error| error.context(&name))?;
        }
        let at = self.place.as_ref().map_or(0, |place| place.at);
        let length = file.metadata().map_err(failed)?.len();
        if format.is_text() {
            self.reader = TextReader::open(file, &name, format, at, config, threads)?.map(Box::new).map(Reader::Text);
            self.is_done = self.reader.is_none() && !config.follow;
        } else {
            match ColumnarReader::open(file, &self.path, format, at, config.batch_rows as usize) {
                Ok(reader) => self.reader = Some(Reader::Columnar(reader)),
                // Where files come and go, this one is looked at again.
                Err(error) if error.code == NOT_WHOLE && config.follow => {
                    if !std::mem::replace(&mut self.is_reported, true) {
                        context.incident("not-whole", error.message, serde_json::json!({ "bytes": length }));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.reader.is_some())
    }

    /// The file that a stored place is in, which may have been rotated away since.
    fn resumed(&mut self, mut file: File, place: &Place, config: &FilesSourceConfig, context: &Context) -> Result<File> {
        let failed = |error: std::io::Error| Error::disconnected(error.to_string()).code("files.open");
        let metadata = file.metadata().map_err(failed)?;
        if config.follow
            && inode(&metadata) != place.file
            && let Some(rotated) = find_rotated(&self.path, place.file)
        {
            return Ok(rotated);
        }
        if self.is_in(&mut file, place, config)? {
            return Ok(file);
        }
        if !config.follow {
            return Err(replaced(place).hint("do not change files while they are read; run again with `--accept-new-sources` to read all anew"));
        }
        let message = format!("{}: what was read to byte {} is gone; the file of that name is read from its start", self.path.display(), place.at);
        context.incident("hole", message, serde_json::json!({ "at": place.at }));
        self.place = Some(Place::new(0, place.base + place.at, &mut file).map_err(failed)?);
        Ok(file)
    }

    fn message(&mut self, batch: RecordBatch) -> Result<Message> {
        let base = self.place.as_ref().map_or(0, |place| place.base);
        let failed = |error: std::io::Error| Error::disconnected(format!("{}: {error}", self.path.display())).code("files.read");
        let place = match &mut self.reader {
            Some(Reader::Text(reader)) => {
                let at = reader.at();
                match reader.file() {
                    Some(file) => Place::new(at, base, file).map_err(failed)?,
                    None => Place::of_stream(at),
                }
            }
            Some(Reader::Columnar(reader)) => {
                let at = reader.at();
                let mut file = File::open(&self.path).map_err(failed)?;
                Place::new(at, base, &mut file).map_err(failed)?
            }
            None => return Err(Error::fatal("rows of a file that is not open")),
        };
        self.sequence += 1;
        let mut header = Header::new(self.lane.clone(), place.encode());
        header.sequence = self.sequence;
        self.place = Some(place);
        Ok(Message { header, payload: Payload::Rows(Rows::plain(batch)) })
    }

    /// At the end of a file that grows: another one may stand under its name.
    fn look_behind(&mut self, context: &Context) -> Result<()> {
        let Some(Reader::Text(reader)) = &mut self.reader else { return Ok(()) };
        let at = reader.at();
        let Some(file) = reader.file() else { return Ok(()) };
        let failed = |error: std::io::Error| Error::disconnected(error.to_string()).code("files.read");
        let here = file.metadata().map_err(failed)?;
        let is_shorter = here.len() < at;
        match std::fs::metadata(&self.path) {
            Ok(named) if inode(&named) != inode(&here) || is_shorter => {
                if is_shorter {
                    let message = format!("{}: cut to {} bytes, read to byte {at} before; read from its start", self.path.display(), here.len());
                    context.incident("truncated", message, serde_json::json!({ "at": at, "bytes": here.len() }));
                }
                let base = self.place.as_ref().map_or(0, |place| place.base) + at;
                let mut file = File::open(&self.path).map_err(failed)?;
                self.place = Some(Place::new(0, base, &mut file).map_err(failed)?);
                self.reader = None;
            }
            // Gone for now: who rotates makes the new one in a moment.
            _ => {}
        }
        Ok(())
    }

    fn progress(&self, config: &FilesSourceConfig) -> Option<LaneProgress> {
        let base = self.place.as_ref().map_or(0, |place| place.base);
        let at = self.place.as_ref().map_or(0, |place| place.at);
        let end = match &self.reader {
            Some(Reader::Columnar(reader)) => reader.end()?,
            None if self.is_done => at,
            _ if Format::of(&self.path, config.format).is_ok_and(Format::is_text) => std::fs::metadata(&self.path).ok()?.len(),
            _ => return None,
        };
        let position = |number: u64| Some(Position::from_number(i64::try_from(number).unwrap_or(i64::MAX)));
        Some(LaneProgress {
            lane: self.lane.clone(),
            oldest: position(base),
            current: position(base + at),
            latest: position(base + end.max(at)),
            retention_seconds: None,
            ends: !config.follow,
        })
    }
}

#[async_trait]
impl Source for Files {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        if self.config.reads_standard_input() && self.has_read {
            let error = Error::fatal("standard input cannot be read again: what was read and not written is lost");
            return Err(error.code("files.standard-input").hint("put what is piped in into a file, and read that"));
        }
        self.from.clone_from(&from.lanes);
        self.open.clear();
        self.finished.clear();
        self.turn = 0;
        self.look()?;
        if self.open.is_empty() && !self.config.follow {
            let error = Error::fatal(format!("nothing matches `{}`", self.config.patterns().join("`, `")));
            return Err(error.code("files.none").hint("paths are relative to the pipeline's file; `follow = true` waits for files"));
        }
        if !self.config.follow {
            // Here the engine can still begin anew, if it is told to.
            self.open.iter().try_for_each(|open| open.check(&self.config))?;
        }
        Ok(Connected::default())
    }

    async fn next(&mut self, _: Duration) -> Result<Polled> {
        if !self.finished.is_empty() {
            return Ok(Polled::Lanes { assigned: Vec::new(), revoked: std::mem::take(&mut self.finished) });
        }
        for _ in 0..self.open.len() {
            let index = self.turn % self.open.len();
            if !self.open[index].is_done
                && let Some(message) = self.read(index)?
            {
                // A finite file is read to its end, files that grow take turns.
                self.turn = if self.config.follow { index + 1 } else { index };
                return Ok(Polled::Messages(vec![message]));
            }
            self.turn = index + 1;
        }
        if !self.config.follow {
            return Ok(Polled::End);
        }
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.look()?;
        }
        Ok(Polled::Idle)
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        for open in self.open.iter().filter(|open| open.is_done && !self.config.follow) {
            let stored = upto.lanes.get(&open.lane).and_then(|position| position.number);
            let read = open.place.as_ref().map(|place| (place.base + place.at) as i64);
            if stored.is_some() && stored == read {
                self.finished.push(open.lane.clone());
            }
        }
        let finished = &self.finished;
        self.open.retain(|open| !finished.contains(&open.lane));
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        Ok(self.open.iter().filter_map(|open| open.progress(&self.config)).collect())
    }
}
