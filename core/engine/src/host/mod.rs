//! The plugin host: finds shared libraries, checks and opens them, and answers what the graph asks of plugins.
//!
//! A library is opened from a copy under its own hash where a folder for copies is given, so that building anew under a running
//! process does not change what it runs; it is never unloaded. Libraries that say what they have are opened only when one of their
//! types is wanted. Linked-in root tables take the same way from there on, which is how
//! the simulation runs without a dlopen. What could not be loaded is kept, with what to do about it.

mod library;
pub mod process;
mod origin;
mod search;
mod stale;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pipeline_sdk::abi::TYPES_SYMBOL;
use pipeline_sdk::abi::import::Library;
use pipeline_sdk::abi::types::Root;
use pipeline_sdk::{Error, Kind, PluginDescription, Result};

use crate::config::{PluginPin, reserved_key};
use crate::graph::Catalog;

pub use origin::Origin;
pub use search::{FILE_PREFIX, SYSTEM_FOLDER, SearchPath};

/// A plugin that can be used.
pub struct LoadedPlugin {
    pub description: PluginDescription,
    /// The library file; absent where the plugin is linked in.
    pub path: Option<PathBuf>,
    /// SHA-256 of the file, hexadecimal; empty where the plugin is linked in.
    pub sha256: String,
    library: Library,
    /// The file that was opened.
    file: Option<PathBuf>,
}

impl LoadedPlugin {
    /// Opens one library, wherever it is and whatever its name.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self> {
        let mut plugins = Plugins::default();
        plugins.take(path, library::open(path, options)?, options)?;
        Ok(plugins.plugins.remove(0))
    }

    pub fn library(&self) -> Library {
        self.library
    }

    /// The library file that a process of one of its components opens.
    ///
    /// # Errors
    /// The plugin is linked into this program.
    pub fn file(&self) -> Result<&Path> {
        let linked = || {
            Error::fatal(format!("plugin `{}` is linked into this program: it has no process of its own", self.description.name))
                .code(process::START)
                .hint("leave `isolation` out, or use the plugin's library")
        };
        self.file.as_deref().ok_or_else(linked)
    }
}

/// A library that could not be used.
#[derive(Clone, Debug)]
pub struct LoadProblem {
    pub path: PathBuf,
    pub error: Error,
}

/// Where libraries are looked for and under which conditions they are opened.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    pub search: SearchPath,
    /// Libraries that say to have none of these types stay closed; `None` opens all.
    pub wanted: Option<BTreeSet<String>>,
    /// Libraries are copied here under their hash and opened from there; without, they are opened where they are.
    pub copies: Option<PathBuf>,
    /// By plugin name: no library with another hash is used.
    pub pins: BTreeMap<String, PluginPin>,
    /// Opens a library that is older than its sources as well, for those who edit while it runs.
    pub accept_stale: bool,
}

/// All known plugins.
#[derive(Default)]
pub struct Plugins {
    plugins: Vec<LoadedPlugin>,
    problems: Vec<LoadProblem>,
    folders: Vec<PathBuf>,
}

impl Plugins {
    /// Looks through the search path and opens the plugins in it that are wanted. What fails is in [`Plugins::problems`].
    ///
    /// Where a wanted type is nowhere, all are opened: what there is instead belongs into the error.
    pub fn load(options: &LoadOptions) -> Self {
        let mut plugins = Self { folders: options.search.folders.clone(), ..Self::default() };
        let files = options.search.files();
        let Some(mut wanted) = options.wanted.clone() else {
            plugins.open(files, options);
            return plugins;
        };
        let mut closed: Vec<_> = files.into_iter().map(|path| (library::types(&path), path)).collect();
        loop {
            let is_wanted = |(types, _): &mut (Option<BTreeSet<String>>, _)| types.as_ref().is_none_or(|types| !types.is_disjoint(&wanted));
            let batch: Vec<_> = closed.extract_if(.., is_wanted).map(|(_, path)| path).collect();
            if batch.is_empty() {
                break;
            }
            plugins.open(batch, options);
            let replicas = plugins.plugins.iter().filter_map(|plugin| plugin.description.replica.as_ref());
            wanted.extend(replicas.flat_map(|it| [&it.source, &it.transform, &it.sink, &it.site]).cloned());
        }
        let known: BTreeSet<&str> = plugins.plugins.iter().flat_map(|plugin| types_of(&plugin.description)).collect();
        if wanted.iter().any(|it| !known.contains(it.as_str())) {
            plugins.open(closed.into_iter().map(|(_, path)| path).collect(), options);
        }
        plugins
    }

    fn open(&mut self, files: Vec<PathBuf>, options: &LoadOptions) {
        // Hashing and copying take a start's time: each library in a thread of its own.
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = files.iter().map(|path| scope.spawn(|| library::open(path, options))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            threads.into_iter().map(join).collect()
        });
        for (path, opened) in files.into_iter().zip(opened) {
            let loaded = opened.and_then(|opened| self.take(&path, opened, options));
            if let Err(error) = loaded {
                self.problems.push(LoadProblem { path, error });
            }
        }
    }

    /// Plugins that are linked into this program.
    ///
    /// # Errors
    /// A root table of another version of the boundary, or a component type that two of them have.
    pub fn linked(roots: impl IntoIterator<Item = &'static Root>) -> Result<Self> {
        let mut plugins = Self::default();
        for root in roots {
            // SAFETY: a root table that the `root!` macro made is static and keeps to the boundary's rules.
            let library = unsafe { Library::new(root) }?;
            plugins.add(library, None)?;
        }
        Ok(plugins)
    }

    fn take(&mut self, path: &Path, opened: library::Opened, options: &LoadOptions) -> Result<()> {
        let description = opened.library.describe()?;
        let (has, name) = (types_of(&description).collect::<BTreeSet<_>>(), &description.name);
        if let Some(said) = opened.types.as_ref().filter(|said| !said.iter().map(String::as_str).eq(has.iter().copied())) {
            let list = |types: Vec<&str>| format!("`{}`", types.join("`, `"));
            let (said, has) = (list(said.iter().map(String::as_str).collect()), list(has.into_iter().collect()));
            return Err(Error::fatal(format!("plugin `{name}` says that it has {said} and has {has}"))
                .code("plugin.types")
                .hint(format!("its `{TYPES_SYMBOL}` must name the types of its components and its replica: in Rust, `plugin!`'s second argument")));
        }
        if let Some(pin) = options.pins.get(name).filter(|pin| !pin.sha256.eq_ignore_ascii_case(&opened.sha256)) {
            return Err(Error::fatal(format!(
                "plugin `{name}` is pinned to SHA-256 {}, this library has {}",
                pin.sha256, opened.sha256
            ))
            .code("plugin.pin")
            .hint(format!("put the pinned library in its place, or change `[plugin.{name}]` in the file")));
        }
        self.add(opened.library, Some((path, opened)))
    }

    fn add(&mut self, library: Library, opened: Option<(&Path, library::Opened)>) -> Result<()> {
        let description = library.describe()?;
        if let Some(other) = self.plugins.iter().find(|other| other.description.name == description.name) {
            return Err(Error::fatal(format!("plugin `{}` is already loaded{}", description.name, from(other)))
                .code("plugin.twice")
                .hint("remove one of the two libraries"));
        }
        for component in &description.components {
            let (kind, type_name) = (component.kind, &component.type_name);
            if let Some(other) = self.owner(kind, type_name) {
                let message = format!(
                    "its {kind} `{type_name}` is already that of plugin `{}`{}",
                    other.description.name,
                    from(other)
                );
                return Err(Error::fatal(message).code("plugin.component").hint("remove one of the two libraries"));
            }
            if let Some(key) = reserved_key(&component.schema) {
                return Err(Error::fatal(format!("its {kind} `{type_name}` has a key `{key}`, which is the engine's"))
                    .code("plugin.reserved")
                    .hint("the plugin must call it otherwise"));
            }
        }
        let path = opened.as_ref().map(|(path, _)| (*path).to_owned());
        let (sha256, file) = opened.map_or((String::new(), None), |(_, opened)| (opened.sha256, Some(opened.file)));
        self.plugins.push(LoadedPlugin { description, path, sha256, library, file });
        Ok(())
    }

    fn owner(&self, kind: Kind, type_name: &str) -> Option<&LoadedPlugin> {
        let has = |plugin: &&LoadedPlugin| {
            plugin.description.components.iter().any(|it| it.kind == kind && it.type_name == type_name)
        };
        self.plugins.iter().find(has)
    }

    pub fn loaded(&self) -> &[LoadedPlugin] {
        &self.plugins
    }

    pub fn problems(&self) -> &[LoadProblem] {
        &self.problems
    }

    /// Where libraries were looked for, in order.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The library that has a component.
    ///
    /// # Errors
    /// No plugin has it: names where libraries were looked for and what could not be loaded.
    pub fn library(&self, kind: Kind, type_name: &str) -> Result<Library> {
        Ok(self.plugin(kind, type_name)?.library)
    }

    /// The plugin that has a component.
    ///
    /// # Errors
    /// As of [`Plugins::library`].
    pub fn plugin(&self, kind: Kind, type_name: &str) -> Result<&LoadedPlugin> {
        self.owner(kind, type_name).ok_or_else(|| {
            let broken: Vec<String> =
                self.problems.iter().map(|it| format!("{}: {}", it.path.display(), it.error)).collect();
            let searched: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
            let message = match broken.is_empty() {
                true => format!("no plugin has a {kind} `{type_name}`; looked in {}", searched.join(", ")),
                false => format!("no usable plugin has a {kind} `{type_name}`; not loaded: {}", broken.join("; ")),
            };
            Error::fatal(message).code("plugin.missing").hint("build the plugins with `cargo build`, or give --plugin-path")
        })
    }
}

/// The types of its components and of its replica.
fn types_of(plugin: &PluginDescription) -> impl Iterator<Item = &str> {
    let components = plugin.components.iter().map(|component| component.type_name.as_str());
    components.chain(plugin.replica.iter().map(|replica| replica.type_name.as_str()))
}

fn from(plugin: &LoadedPlugin) -> String {
    plugin.path.as_ref().map_or_else(String::new, |path| format!(" from {}", path.display()))
}

impl Catalog for Plugins {
    fn plugins(&self) -> Vec<&PluginDescription> {
        self.plugins.iter().map(|plugin| &plugin.description).collect()
    }

    fn lint(&self, kind: Kind, type_name: &str, config: &serde_json::Value) -> Vec<Error> {
        self.library(kind, type_name).and_then(|library| library.lint(kind, type_name, config)).unwrap_or_else(|error| vec![error])
    }
}
