//! What stands beside the files: which parts are durable to where, and up to which position they hold each lane.
//!
//! It is replaced as a whole, behind the data that it tells of: whatever is killed when, the parts are made whole at their durable
//! lengths, what is behind them is dropped, and messages up to the positions are not written again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use pipeline_sdk::{Error, Result};
use serde::{Deserialize, Serialize};

use super::encode;
use crate::format::Format;

const VERSION: u32 = 1;
const NAME: &str = "journal.json";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    /// The pipeline's state that the positions belong to: with another state, everything is new.
    pub state: String,
    pub lanes: BTreeMap<String, i64>,
    pub parts: Vec<Entry>,
}

/// A file that does not stand under its name yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// In the workshop.
    pub part: String,
    pub format: Format,
    /// The folder that it goes to, below the sink's.
    pub folder: String,
    pub length: u64,
    /// Bytes that make it whole.
    pub tail: Vec<u8>,
    pub is_whole: bool,
}

impl Journal {
    /// # Errors
    /// It cannot be read, or another version wrote it.
    pub fn read(workshop: &Path) -> Result<Self> {
        let path = workshop.join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(encode::failed(error).context(path.display())),
        };
        let journal: Self = serde_json::from_slice(&text).unwrap_or_default();
        if journal.version != VERSION {
            let text = format!("{}: written by another version of this plugin ({}, this one is {VERSION})", path.display(), journal.version);
            return Err(Error::fatal(text).code("files.journal").hint("run that version once more, so that its files are finished"));
        }
        Ok(journal)
    }

    pub fn write(&mut self, workshop: &Path) -> std::io::Result<()> {
        self.version = VERSION;
        let (path, new) = (workshop.join(NAME), workshop.join("journal.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(workshop)?.sync_all()
    }
}

/// The first name that nothing stands under: `rows.csv`, `rows-2.csv`, …
pub(super) fn free_name(folder: &Path, stem: &str, extension: &str) -> PathBuf {
    let numbered = |number: u64| match number {
        1 => folder.join(format!("{stem}{extension}")),
        number => folder.join(format!("{stem}-{number}{extension}")),
    };
    // Names are given in order: twice as far, then halfway back.
    let mut above = 1;
    while numbered(above).exists() {
        above *= 2;
    }
    let mut below = above / 2;
    while below + 1 < above {
        let middle = below.midpoint(above);
        if numbered(middle).exists() { below = middle } else { above = middle }
    }
    numbered(above)
}
