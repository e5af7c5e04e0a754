//! Disk buffers: what a sink has not taken yet waits in files, for sources that cannot be asked again and sinks that stay away.
//!
//! A pipeline whose sink has a disk buffer is run as two: one from its source into the buffer, and one, named `PIPELINE.SINK`, from the
//! buffer into the sink. So checkpoints, retries, dead letters and drains are those of every pipeline, and what is durable in the buffer is
//! acknowledged to the source.
//!
//! Guarantees: order is kept; what a flush returned `Ok` for survives (with `fsync = "never"` a crash of the process, not of the machine); a
//! record that a crash cut off was never acknowledged and is cut; a record that is damaged otherwise is reported with its place, never
//! passed on; files take `max` bytes at most, and are deleted once the sink made what is in them durable.

mod record;
mod segment;
mod log;
mod ends;
mod expand;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pipeline_sdk::{Error, Result};

use crate::config::Buffer;

pub(crate) use expand::expand;
pub use log::Held;
use log::Log;

/// In the state folder: a folder for each buffer, named PIPELINE.SINK.
pub const FOLDER: &str = "buffers";
/// Type of the engine's own source and sink.
pub(crate) const TYPE: &str = "disk-buffer";
/// Code of the error with which a full buffer lets its writer wait.
pub(crate) const FULL: &str = "buffer.full";
/// The only lane of what comes out of a buffer.
pub(crate) const LANE: &str = "buffer";

/// The buffers that a run has open, by folder: both pipelines of a buffer use one and the same.
#[derive(Default)]
pub(crate) struct Buffers {
    open: Mutex<BTreeMap<PathBuf, Weak<Log>>>,
}

impl Buffers {
    fn log(&self, folder: &Path, settings: &Buffer) -> Result<Arc<Log>> {
        let mut open = self.open.lock();
        if let Some(log) = open.get(folder).and_then(Weak::upgrade) {
            log.set(settings);
            return Ok(log);
        }
        let log = Arc::new(Log::open(folder, settings)?);
        open.retain(|_, log| log.strong_count() > 0);
        open.insert(folder.to_owned(), Arc::downgrade(&log));
        Ok(log)
    }

    /// The first message that is kept, and the next that will be written; `None` where it is not open.
    pub fn next(&self, folder: &Path) -> Option<(u64, u64)> {
        self.open.lock().get(folder).and_then(Weak::upgrade).map(|log| log.ends())
    }

    /// What waits in a buffer; `None` where it is not open.
    pub fn held(&self, folder: &Path) -> Option<Held> {
        self.open.lock().get(folder).and_then(Weak::upgrade).map(|log| log.held())
    }
}

/// Folders under a state folder that hold something, and no pipeline of these reads.
pub(crate) fn left_behind(state: &Path, known: &[&Path]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state.join(FOLDER)).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| !known.contains(&path.as_path()) && segment::has_records(path)).collect()
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            Error::fatal(text).code("buffer.io").hint("the process must be able to write there")
        }
        _ => Error::retry(text).code("buffer.io").hint("look at the disk"),
    }
}
