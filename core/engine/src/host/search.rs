//! Where libraries are looked for. The caller says where: this module reads no environment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Names of plugin libraries start so.
pub const FILE_PREFIX: &str = "libpipeline_plugin_";
/// Where a package manager puts plugins.
pub const SYSTEM_FOLDER: &str = "/usr/lib/pipeline/plugins";

/// Folders in the order in which they are looked through.
#[derive(Clone, Debug, Default)]
pub struct SearchPath {
    pub folders: Vec<PathBuf>,
}

impl SearchPath {
    /// `--plugin-path`, `PIPELINE_PLUGIN_PATH` (folders separated by `:`), beside the executable, the system's folder.
    pub fn new(given: &[PathBuf], variable: Option<&str>, executable: Option<&Path>) -> Self {
        let mut folders = given.to_vec();
        folders.extend(variable.unwrap_or_default().split(':').filter(|it| !it.is_empty()).map(PathBuf::from));
        folders.extend(executable.and_then(Path::parent).map(Path::to_owned));
        folders.push(SYSTEM_FOLDER.into());
        Self { folders }
    }

    /// The libraries: of two with one name the first folder's counts, so that an earlier folder can replace a plugin.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut names = BTreeSet::new();
        let mut files = Vec::new();
        for folder in &self.folders {
            let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| is_plugin(path))
                .collect();
            found.sort();
            files.extend(found.into_iter().filter(|path| names.insert(path.file_name().map(ToOwned::to_owned))));
        }
        files
    }
}

fn is_plugin(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(FILE_PREFIX) && name.ends_with(std::env::consts::DLL_SUFFIX)
}
