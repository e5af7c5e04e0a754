//! The sink: files that appear under their names when they are whole.
//!
//! Rows go to parts in a hidden folder beside the files. A flush makes the parts durable, then replaces the journal, then renames what
//! is whole. What a crash leaves is made whole by the next start, at the lengths that the journal tells, and messages up to its
//! positions are left out: each message is in exactly one file, as far as its source hands out the same messages again.

mod config;
mod partition;
mod encode;
mod journal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pipeline_sdk::{Connected, Context, Error, Message, Payload, Result, Sink, async_trait};

pub use config::FilesSinkConfig;

use crate::format::Format;
use encode::{Encoder, encode_text, failed, is_same_table};
use journal::{Entry, Journal, free_name};

/// The key under which the pipeline's state knows its journal.
const STATE_KEY: &str = "journal";

/// A file that is being written.
struct Part {
    name: String,
    folder: String,
    schema: SchemaRef,
    encoder: Encoder,
    begun: Instant,
    /// What it says of itself since the last flush; absent where something was written since.
    entry: Option<Entry>,
}

pub(crate) struct Files {
    config: FilesSinkConfig,
    format: Format,
    context: Context,
    workshop: PathBuf,
    /// Held while this instance lives: two pipelines cannot write the same files.
    lock: Option<File>,
    journal: Journal,
    open: Vec<Part>,
    /// Whole, to be renamed at the next flush.
    whole: Vec<Entry>,
    /// Positions of what was written since the last flush.
    reached: BTreeMap<String, i64>,
    next_part: u64,
}

impl Files {
    pub fn new(config: FilesSinkConfig, context: Context) -> Result<Self> {
        let (format, workshop) = (config.format()?, config.workshop());
        Ok(Self {
            config,
            format,
            context,
            workshop,
            lock: None,
            journal: Journal::default(),
            open: Vec::new(),
            whole: Vec::new(),
            reached: BTreeMap::new(),
            next_part: 1,
        })
    }

    /// Takes the folder, and finishes what was left there.
    fn begin(&mut self) -> Result<()> {
        let place = self.workshop.display().to_string();
        let at = |error: std::io::Error| failed(error).context(&place);
        std::fs::create_dir_all(&self.workshop).map_err(at)?;
        if self.lock.is_none() {
            let lock = File::create(self.workshop.join("lock")).map_err(at)?;
            lock.try_lock().map_err(|_| {
                let error = Error::disconnected(format!("`{}` is written by another sink", self.config.path)).code("files.locked");
                error.hint("give each sink a `path` of its own")
            })?;
            self.lock = Some(lock);
        }
        self.open.clear();
        self.whole.clear();
        self.reached.clear();
        self.journal = Journal::read(&self.workshop)?;
        let entries = std::mem::take(&mut self.journal.parts);
        for entry in &entries {
            self.recover(entry).map_err(at)?;
        }
        for entry in std::fs::read_dir(&self.workshop).map_err(at)?.flatten() {
            if entry.path().extension().is_some_and(|it| it == "part" || it == "whole") {
                std::fs::remove_file(entry.path()).map_err(at)?;
            }
        }
        let state = self.state()?;
        if self.journal.state != state {
            self.journal.lanes.clear();
            self.journal.state = state;
        }
        self.journal.write(&self.workshop).map_err(at)
    }

    fn recover(&self, entry: &Entry) -> std::io::Result<()> {
        let path = self.workshop.join(&entry.part);
        if !path.exists() {
            return Ok(());
        }
        if !entry.is_whole {
            encode::complete(&path, entry.format, entry.length, &entry.tail)?;
        }
        self.publish(entry)
    }

    /// A name for this pipeline's state: positions mean something together with it alone.
    fn state(&self) -> Result<String> {
        if let Some(known) = self.context.state().get(STATE_KEY)? {
            return Ok(String::from_utf8_lossy(&known).into_owned());
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let made = format!("{:x}-{:x}", now.as_nanos(), std::process::id());
        self.context.state().put(STATE_KEY, made.as_bytes())?;
        Ok(made)
    }

    fn publish(&self, entry: &Entry) -> std::io::Result<()> {
        let folder = self.config.folder().join(&entry.folder);
        std::fs::create_dir_all(&folder)?;
        let (stem, extension) = self.config.name();
        let name = free_name(&folder, &stem, &extension);
        std::fs::rename(self.workshop.join(&entry.part), &name)?;
        tracing::info!(file = %name.display(), "file is whole");
        self.context.count("files_written", 1);
        File::open(&folder)?.sync_all()
    }

    fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for (folder, rows) in partition::split(batch, &self.config.partition)? {
            let index = self.part(&folder, &rows.schema())?;
            let part = &mut self.open[index];
            part.entry = None;
            part.encoder.write(&rows)?;
            if self.config.roll_bytes.is_some_and(|limit| part.encoder.bytes() >= limit) {
                self.close(index)?;
            }
        }
        // The largest first, until what waits is within its bound.
        while self.open.iter().map(|part| part.encoder.waiting_bytes()).sum::<u64>() > self.config.row_group_bytes {
            let Some(largest) = self.open.iter_mut().max_by_key(|part| part.encoder.waiting_bytes()) else { break };
            largest.encoder.spill()?;
        }
        Ok(())
    }

    /// The part that takes rows of this folder and shape.
    fn part(&mut self, folder: &str, schema: &SchemaRef) -> Result<usize> {
        if let Some(index) = self.open.iter().position(|part| part.folder == folder) {
            if is_same_table(&self.open[index].schema, schema) {
                return Ok(index);
            }
            self.close(index)?;
        }
        if self.open.len() >= self.config.open_files_max as usize {
            self.close(0)?;
        }
        let name = format!("{}.part", self.next_part);
        self.next_part += 1;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(self.workshop.join(&name)).map_err(failed)?;
        let encoder = Encoder::new(file, schema, &self.config)?;
        self.open.push(Part { name, folder: folder.into(), schema: schema.clone(), encoder, begun: Instant::now(), entry: None });
        Ok(self.open.len() - 1)
    }

    /// Ends a part; it gets its name at the next flush.
    fn close(&mut self, index: usize) -> Result<()> {
        let Part { name, folder, encoder, .. } = self.open.remove(index);
        encoder.finish()?;
        self.whole.push(Entry { part: name, format: self.format, folder, length: 0, tail: Vec::new(), is_whole: true });
        Ok(())
    }

    fn store(&mut self) -> Result<()> {
        if let Some(age) = self.config.roll_age {
            while let Some(index) = self.open.iter().position(|part| part.begun.elapsed() >= age) {
                self.close(index)?;
            }
        }
        if self.reached.is_empty() && self.whole.is_empty() && self.open.iter().all(|part| part.entry.is_some()) {
            return Ok(());
        }
        for part in self.open.iter_mut().filter(|part| part.entry.is_none()) {
            let durable = part.encoder.durable()?;
            part.entry = Some(Entry {
                part: part.name.clone(),
                format: self.format,
                folder: part.folder.clone(),
                length: durable.length,
                tail: durable.tail,
                is_whole: false,
            });
        }
        self.journal.lanes.append(&mut self.reached);
        self.journal.parts = self.open.iter().filter_map(|part| part.entry.clone()).chain(self.whole.iter().cloned()).collect();
        self.journal.write(&self.workshop).map_err(failed)?;
        for entry in std::mem::take(&mut self.whole) {
            self.publish(&entry).map_err(failed)?;
        }
        Ok(())
    }

    /// Gives every file its name, where all of it is durable.
    fn end(&mut self) -> Result<()> {
        if self.lock.is_none() || !self.reached.is_empty() || self.open.iter().any(|part| part.entry.is_none()) {
            return Ok(());
        }
        while !self.open.is_empty() {
            self.close(0)?;
        }
        self.store()?;
        self.journal.parts.clear();
        self.journal.write(&self.workshop).map_err(failed)
    }
}

#[async_trait]
impl Sink for Files {
    async fn connect(&mut self) -> Result<Connected> {
        self.begin().map(|()| Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        let Payload::Rows(rows) = &message.payload else {
            // A file tells what was, not what is: changes of a schema show in the next file's columns.
            self.context.count("changes_left_out", 1);
            return Ok(());
        };
        let (lane, number) = (message.header.lane.as_str(), message.header.position.number);
        if number.is_some_and(|number| self.journal.lanes.get(lane).is_some_and(|known| number <= *known)) {
            self.context.count("rows_known", rows.batch.num_rows() as u64);
            return Ok(());
        }
        self.rows(&rows.batch)?;
        if let Some(number) = number.filter(|_| message.header.ends_position) {
            self.reached.insert(lane.to_owned(), number);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.store()
    }
}

impl Drop for Files {
    /// The end of a run: what is durable gets its name now. What is not is written again at the next start.
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            let path = &self.config.path;
            tracing::error!(path, %error, "files could not be finished; the next start does");
            self.context.incident("unfinished", format!("files of `{path}` could not be finished: {error}"), serde_json::Value::Null);
        }
    }
}

/// Standard output.
pub(crate) struct Standard {
    format: Format,
    delimiter: u8,
    /// Of CSV: whether the columns were named.
    has_header: bool,
    buffer: Vec<u8>,
}

impl Standard {
    pub fn new(config: FilesSinkConfig) -> Result<Self> {
        Ok(Self { format: config.format()?, delimiter: encode::delimiter(&config), has_header: !config.header, buffer: Vec::new() })
    }
}

#[async_trait]
impl Sink for Standard {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        let Payload::Rows(rows) = &message.payload else { return Ok(()) };
        self.buffer.clear();
        encode_text(&rows.batch, self.format, self.delimiter, std::mem::replace(&mut self.has_header, true), &mut self.buffer)?;
        std::io::stdout().write_all(&self.buffer).map_err(closed)
    }

    async fn flush(&mut self) -> Result<()> {
        std::io::stdout().flush().map_err(closed)
    }
}

fn closed(error: std::io::Error) -> Error {
    Error::fatal(format!("standard output: {error}")).code("files.standard-output")
}

/// For tests: what stands in a folder, hidden ones left out.
#[cfg(test)]
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}
