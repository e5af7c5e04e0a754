//! The lock that makes one process the owner of a state folder. The system releases it when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use pipeline_sdk::{Error, Result};

pub(super) const FILE: &str = "lock";

/// Held as long as this value lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// Another process holds the folder, or it cannot be written.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        Self::take_for(folder, |owner| {
            Error::fatal(format!("another run{owner} uses the state folder {}", folder.display()))
                .code("state.locked")
                .hint("stop it first, or give this run a state folder of its own with --state")
        })
    }

    /// Takes a folder that exists. `held` makes the error where another process holds it; it is given ` (process N)` where that is
    /// known.
    ///
    /// # Errors
    /// That, or the folder cannot be written.
    pub fn take_for(folder: &Path, held: impl FnOnce(&str) -> Error) -> Result<Self> {
        let path = folder.join(FILE);
        let failed = |error: std::io::Error| super::error::io(&path, &error);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Only to name the owner: nothing depends on it.
                let _ = file.read_to_string(&mut owner);
                let by = if owner.is_empty() { String::new() } else { format!(" (process {})", owner.trim()) };
                return Err(held(&by));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
