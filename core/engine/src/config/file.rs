//! A pipeline file as it was written: checked as far as that needs no plugin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline_sdk::Kind;

use super::problem::{Problem, Report};
use super::secret::Redactor;
use super::settings::{ComponentSettings, EngineSettings, PipelineSettings, PluginPin, WHEN_TRANSFORM};
use super::value::{Span, Table, Text};
use crate::cases::Case;

/// One file.
#[derive(Clone, Debug)]
pub struct File {
    /// As it was given on the command line.
    pub name: String,
    pub text: Arc<str>,
    /// Paths in the file are relative to it.
    pub folder: PathBuf,
    /// Where checkpoints and dead letters are kept.
    pub state: PathBuf,
    pub engine: EngineSettings,
    pub plugins: BTreeMap<String, PluginPin>,
    pub services: Vec<Component>,
    pub pipelines: Vec<Pipeline>,
    pub replicas: Vec<Replica>,
    pub cases: Vec<Case>,
    pub redactor: Redactor,
}

impl File {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path, environment: &super::Environment<'_>) -> Result<Self, Report> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = match error.kind() {
                std::io::ErrorKind::InvalidData => Problem::of_file("the file is not UTF-8"),
                _ => Problem::of_file(format!("cannot read the file: {error}")),
            };
            Report::new(&name, "", &Redactor::default(), vec![problem])
        })?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self::parse(&name, &text, folder, environment)
    }

    /// The types of its components and replicas, and of what its keys stand for.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        let components = || self.services.iter().chain(self.pipelines.iter().flat_map(Pipeline::components));
        let routes = components().filter(|it| it.settings.when.is_some()).map(|_| WHEN_TRANSFORM.0);
        let named = components().map(|it| &it.type_name).chain(self.replicas.iter().map(|it| &it.type_name));
        named.map(|name| name.value.as_str()).chain(routes)
    }

    /// A report on this file.
    pub fn report(&self, problems: Vec<Problem>) -> Report {
        Report::new(&self.name, &self.text, &self.redactor, problems)
    }

    /// The file's name without folder and ending: `replica` of `pipelines/replica.toml`.
    pub fn stem(&self) -> String {
        Path::new(&self.name).file_stem().map_or_else(|| "pipeline".into(), |stem| stem.to_string_lossy().into_owned())
    }
}

/// `[pipeline.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    pub name: String,
    /// Of the name in its header.
    pub span: Span,
    pub settings: PipelineSettings,
    /// The settings that the file gives, as they are written.
    pub given: Table,
    pub source: Component,
    pub transforms: Vec<Component>,
    pub sinks: Vec<Component>,
    /// The sink of rows that a component rejects.
    pub dead_letter: Option<Component>,
    /// The `[replica.NAME]` that it stands for, where it is not written out.
    pub replica: Option<String>,
}

impl Pipeline {
    /// Source, transforms, sinks and the sink of dead letters, in this order.
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        std::iter::once(&self.source).chain(&self.transforms).chain(&self.sinks).chain(&self.dead_letter)
    }
}

/// A source, transform, sink or service.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    pub kind: Kind,
    pub type_name: Text,
    pub type_span: Span,
    /// Unique within its pipeline; of a service: within the file.
    pub name: String,
    /// Whether the file gives the name.
    pub named: bool,
    /// Dotted path of its table: `pipeline.a-to-b.sink[1]`.
    pub path: String,
    /// Of its table, or of the table's header.
    pub span: Span,
    pub settings: ComponentSettings,
    /// The settings that the file gives, as they are written, without type and name.
    pub given: Table,
    /// The component's own keys, not checked yet.
    pub config: Table,
}

/// `[replica.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    pub name: String,
    pub span: Span,
    pub type_name: Text,
    pub type_span: Span,
    pub settings: PipelineSettings,
    /// The pipeline settings that the file gives, as they are written.
    pub given: Table,
    /// Name and address of each site, in the order of the file.
    pub sites: Table,
    /// Further keys: the source's, the sink's or both's.
    pub config: Table,
}
