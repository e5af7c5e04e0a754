//! The folder of pipeline files: what is in it, whether a file changed, and writing one so that nobody sees half of it.

use std::collections::BTreeMap;
use std::io::{Result, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ENDING: &str = "toml";

/// Tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    seconds: i64,
    nanoseconds: i64,
    bytes: u64,
    inode: u64,
}

impl Fingerprint {
    pub fn of(path: &Path) -> Result<Self> {
        let data = std::fs::metadata(path)?;
        Ok(Self { seconds: data.mtime(), nanoseconds: data.mtime_nsec(), bytes: data.len(), inode: data.ino() })
    }
}

/// The pipeline files of a folder, by id. Hidden ones are left out.
pub fn scan(folder: &Path) -> Result<BTreeMap<String, Fingerprint>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(id) = id_of(&path) else { continue };
        // One that goes away meanwhile is not there.
        if let Ok(print) = Fingerprint::of(&path) {
            found.insert(id, print);
        }
    }
    Ok(found)
}

/// `replica` of `folder/replica.toml`; `None` where it is no pipeline file.
pub fn id_of(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    (path.extension()?.to_str()? == ENDING && !stem.starts_with('.')).then(|| stem.to_owned())
}

pub fn path_of(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.{ENDING}"))
}

/// What is wrong with an id that is to become a file's name.
pub fn id_problem(id: &str) -> Option<String> {
    /// With what is put around it, it must stay a file's name.
    const LENGTH_MAX: usize = 100;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !id.is_empty() && id.len() <= LENGTH_MAX && !id.starts_with(['.', '-']) && id.chars().all(is_plain);
    (!fits).then(|| format!("`{id}` cannot be an id: take letters, digits, `-`, `_` and `.`, at most {LENGTH_MAX}"))
}

/// Writes a file that only its owner can read: all of it is there, or what was there before.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Made with mode 0600.
    let mut file = tempfile::Builder::new().prefix(".").suffix(".new").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // That it is there is durable with the folder.
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_the_files_that_end_so_and_a_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", ".hidden.toml", "notes.txt", ".a.state"] {
            write(&folder.path().join(name), "x").unwrap();
        }
        let before = scan(folder.path()).unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "b"]);
        write(&path_of(folder.path(), "a"), "x").unwrap();
        let after = scan(folder.path()).unwrap();
        assert!(before["a"] != after["a"] && before["b"] == after["b"]);
        assert!(id_problem("plant-1.b").is_none());
        assert!(["", "../x", ".x", "a b", "-f"].iter().all(|id| id_problem(id).is_some()));
    }
}
