//! What most verbs need: plugins from the search path, and files checked against them.

use std::path::{Path, PathBuf};

use clap::Args;
use pipeline_engine::config::{File, Pipeline, Report};
use pipeline_engine::graph::{Catalog, Graph};
use pipeline_engine::host::{LoadOptions, Plugins, SearchPath};

use crate::error::CommandError;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(next_help_heading = "Plugins")]
pub struct HostArgs {
    /// A folder to look for plugins in, before `PIPELINE_PLUGIN_PATH`, the executable's and the system's; may be repeated
    #[arg(long, global = true, value_name = "FOLDER")]
    plugin_path: Vec<PathBuf>,
    /// Take plugins that are older than their sources as well
    #[arg(long, global = true)]
    accept_stale: bool,
}

impl HostArgs {
    /// Opens the plugins that files need; without a file, all. Those that do not load are warned of: nothing may need them.
    pub fn plugins(&self, files: &[File], copies: Option<PathBuf>, output: &Output) -> Plugins {
        let wanted = (!files.is_empty()).then(|| files.iter().flat_map(File::types).map(ToOwned::to_owned).collect());
        let options = LoadOptions { wanted, copies, ..self.options(files) };
        let mut plugins = Plugins::load(&options);
        let components = files.iter().flat_map(|file| file.services.iter().chain(file.pipelines.iter().flat_map(Pipeline::components)));
        if components.into_iter().any(|it| plugins.component(it.kind, &it.type_name.value).is_none()) {
            // What there is instead belongs into the error.
            plugins = Plugins::load(&LoadOptions { wanted: None, ..options });
        }
        for problem in plugins.problems() {
            output.error("warning", &format!("{} was not loaded: {}", problem.path.display(), problem.error));
        }
        plugins
    }

    /// Opens all plugins, with the pins of files, without a word on those that do not load.
    pub fn all_plugins(&self, files: &[File]) -> Plugins {
        Plugins::load(&self.options(files))
    }

    fn options(&self, files: &[File]) -> LoadOptions {
        let variable = std::env::var("PIPELINE_PLUGIN_PATH").ok();
        let executable = std::env::current_exe().ok();
        LoadOptions {
            search: SearchPath::new(&self.plugin_path, variable.as_deref(), executable.as_deref()),
            pins: files.iter().flat_map(|file| file.plugins.clone()).collect(),
            accept_stale: self.accept_stale,
            ..LoadOptions::default()
        }
    }
}

/// Reads files. Their secrets are known to `output` from then on.
///
/// # Errors
/// All that is wrong with all of them, as far as no plugin is needed to see it.
pub fn load_files(paths: &[PathBuf], output: &Output) -> Result<Vec<File>, CommandError> {
    let (files, reports) = split(paths.iter().map(|path| load_file(path)));
    files.iter().for_each(|file| output.learn(&file.redactor));
    if reports.is_empty() { Ok(files) } else { Err(CommandError::reports(reports)) }
}

pub fn load_file(path: &Path) -> Result<File, Report> {
    File::load(path, &|name| std::env::var(name).ok())
}

/// Reads a file for what connects to nothing: variables that are not set are empty.
pub fn load_unset(path: &Path) -> Result<File, Report> {
    File::load(path, &|name| Some(std::env::var(name).unwrap_or_default()))
}

/// Checks files against plugins and against each other.
///
/// # Errors
/// All that is wrong with all of them.
pub fn build_graphs(files: &[File], plugins: &Plugins) -> Result<Vec<Graph>, CommandError> {
    let (graphs, reports) = split(files.iter().map(|file| Graph::build(file, plugins)));
    if !reports.is_empty() {
        return Err(CommandError::reports(reports));
    }
    Graph::check_together(&graphs)?;
    Ok(graphs)
}

fn split<T>(results: impl Iterator<Item = Result<T, Report>>) -> (Vec<T>, Vec<Report>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(report) => bad.push(report),
        }
    }
    (good, bad)
}
