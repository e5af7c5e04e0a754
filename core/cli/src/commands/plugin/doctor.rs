//! `pipeline plugin doctor`: what is found where, and why something is not used.

use std::path::PathBuf;

use pipeline_engine::config::reference::keys;
use pipeline_engine::host::{FILE_PREFIX, Plugins};
use serde::Serialize;

use crate::error::{CommandError, CommandResult};
use crate::output::{Output, fit, table, table_text};

/// Say what is found where, and why a library is not used
///
/// Looks through every folder of the search path: what loads, with version and components; what does not, with the reason and what to
/// do; what an earlier folder hides. Give the files that pin libraries to check their hashes. Exit code 1 where something is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Pipeline files whose `[plugin.NAME]` pins are checked as well
    pub files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline plugin doctor
  pipeline plugin doctor pipelines/*.toml --json";

#[derive(Serialize)]
struct Folder {
    path: PathBuf,
    exists: bool,
    libraries: Vec<Library>,
}

#[derive(Serialize)]
struct Library {
    file: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Loaded,
    NotLoaded,
    /// A library of the same name stands in an earlier folder.
    Hidden,
}

impl Args {
    pub fn run(self, plugins: &Plugins, output: &Output) -> CommandResult {
        let folders: Vec<Folder> = plugins.folders().iter().map(|folder| look(folder.clone(), plugins)).collect();
        if self.json {
            output.json(&folders);
        } else {
            print(&folders, output);
        }
        match plugins.problems().len() {
            0 => Ok(()),
            1 => Err(CommandError::failed("1 library was not loaded").hint("what is said beside it mends it; or take it out of the folder")),
            count => Err(CommandError::failed(format!("{count} libraries were not loaded")).hint("what is said beside each mends it")),
        }
    }
}

fn look(path: PathBuf, plugins: &Plugins) -> Folder {
    let mut files: Vec<PathBuf> = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(FILE_PREFIX) && name.ends_with(std::env::consts::DLL_SUFFIX)
    });
    files.sort();
    let libraries = files.iter().map(|file| library(file, plugins)).collect();
    Folder { exists: path.is_dir(), path, libraries }
}

fn library(path: &PathBuf, plugins: &Plugins) -> Library {
    let mut found = Library {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        state: State::Hidden,
        plugin: None,
        version: None,
        sha256: None,
        components: Vec::new(),
        code: None,
        reason: None,
        hint: None,
    };
    if let Some(plugin) = plugins.loaded().iter().find(|plugin| plugin.path.as_ref() == Some(path)) {
        let description = &plugin.description;
        found.state = State::Loaded;
        found.plugin = Some(description.name.clone());
        found.version = Some(description.version.clone());
        found.sha256 = Some(plugin.sha256.clone());
        let count = |keys: usize| if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") };
        let shown = |it: &pipeline_sdk::ComponentDescription| format!("{} {} ({})", it.kind, it.type_name, count(keys(it).len()));
        found.components = description.components.iter().map(shown).collect();
    } else if let Some(problem) = plugins.problems().iter().find(|problem| problem.path == *path) {
        found.state = State::NotLoaded;
        found.code = Some(problem.error.code.clone());
        found.reason = Some(problem.error.message.clone());
        found.hint.clone_from(&problem.error.hint);
    } else {
        found.reason = Some("a library of this name stands in an earlier folder".to_owned());
    }
    found
}

fn print(folders: &[Folder], output: &Output) {
    for folder in folders {
        let what = match (folder.exists, folder.libraries.len()) {
            (false, _) => "is not there".to_owned(),
            (true, 0) => "has no library".to_owned(),
            (true, count) => format!("has {count}"),
        };
        output.line(&format!("{} {what}", folder.path.display()));
        if folder.libraries.is_empty() {
            continue;
        }
        let mut rows = table(["  LIBRARY", "", "PLUGIN", "VERSION", "PROVIDES, OR WHY NOT"]);
        for library in &folder.libraries {
            let state = match library.state {
                State::Loaded => "loaded",
                State::NotLoaded => "NOT LOADED",
                State::Hidden => "hidden",
            };
            let mut lines = library.components.clone();
            lines.extend(library.reason.as_ref().map(|reason| match &library.code {
                Some(code) => format!("{reason} [{code}]"),
                None => reason.clone(),
            }));
            lines.extend(library.hint.as_ref().map(|hint| format!("hint: {hint}")));
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            rows.add_row([format!("  {}", library.file), state.to_owned(), text(&library.plugin), text(&library.version), lines.join("\n")]);
        }
        fit(&mut rows);
        output.line(&table_text(&rows));
    }
}
