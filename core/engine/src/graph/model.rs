//! The checked graph: what the runtime makes tasks of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use pipeline_sdk::{Capability, ComponentDescription, Error, Kind, Result, Sink, Source};
use serde::Serialize;

use crate::buffer::Buffers;
use crate::cases::Case;
use crate::config::value::Span;
use crate::config::{ComponentSettings, EngineSettings, Isolation, PipelineSettings, PluginPin, Redactor};
use crate::metrics::{Counter, Labels, Registry};

/// By convention the source's key for how often to look for new values; 0 is never.
pub const DISCOVER_INTERVAL_KEY: &str = "new-database-interval";
/// By convention the source's key for values that `*` leaves out.
pub const EXCLUDE_KEY: &str = "exclude";
/// Every value of the source's task key.
pub(super) const ALL: &str = "*";

/// Everything of one file, resolved.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The file as it was given on the command line.
    pub file: String,
    pub folder: PathBuf,
    pub state: PathBuf,
    pub engine: EngineSettings,
    pub plugins: BTreeMap<String, PluginPin>,
    pub services: Vec<Node>,
    pub pipelines: Vec<PipelineGraph>,
    pub replicas: Vec<ReplicaGraph>,
    /// `[[test]]`, for `pipeline test` alone.
    pub cases: Vec<Case>,
    pub redactor: Redactor,
    /// Of the file, for reports.
    pub(crate) text: Arc<str>,
}

impl Graph {
    /// Those that the file declares or a replica stands for, without those that empty disk buffers.
    pub fn own_pipelines(&self) -> impl Iterator<Item = &PipelineGraph> {
        self.pipelines.iter().filter(|it| it.buffer_of.is_none())
    }
}

/// One pipeline: a chain that ends in one branch a sink.
#[derive(Clone, Debug)]
pub struct PipelineGraph {
    pub name: String,
    /// The replica that it is part of.
    pub replica: Option<String>,
    pub settings: PipelineSettings,
    pub source: Step,
    pub transforms: Vec<Step>,
    pub sinks: Vec<Step>,
    /// The sink of rows that a component rejects.
    pub dead_letter: Option<Node>,
    /// Values of the source's task key that the file lists, `*` among them; empty where it does not divide.
    pub task_values: Vec<String>,
    /// Type of the source whose plugin decodes frames: also where its messages come from elsewhere.
    pub decoder: String,
    /// The pipeline that fills the disk buffer that this one empties.
    pub buffer_of: Option<String>,
    /// Of its name in the file.
    pub(crate) span: Span,
}

/// A node, and what happens to frames before it.
#[derive(Clone, Debug)]
pub struct Step {
    pub node: Node,
    /// Formats of frames that arrive as frames.
    pub frames: BTreeSet<String>,
    /// Formats of frames that are turned into rows right before this node. Empty: no decoder.
    pub decodes: BTreeSet<String>,
    /// Of a sink: the transform that says which rows it gets.
    pub when: Option<Node>,
}

/// What the engine gives to a component of its own.
pub struct BuiltInHost<'a> {
    pub(crate) buffers: &'a Buffers,
    pub(crate) registry: &'a Registry,
    pub(crate) labels: Labels,
}

impl BuiltInHost<'_> {
    pub(crate) fn counter(&self, name: &str) -> Counter {
        self.registry.counter(name, &self.labels)
    }
}

/// A source or sink of the engine's own, where one stands in for a plugin's.
pub trait BuiltIn: Send + Sync {
    /// # Errors
    /// It cannot be made, or is no source.
    fn source(&self, _: &BuiltInHost<'_>) -> Result<Box<dyn Source>> {
        Err(Error::fatal("this is no source").code("engine.built-in"))
    }

    /// # Errors
    /// It cannot be made, or is no sink.
    fn sink(&self, _: &BuiltInHost<'_>) -> Result<Box<dyn Sink>> {
        Err(Error::fatal("this is no sink").code("engine.built-in"))
    }

    /// Its folder, where it is a disk buffer.
    fn buffer(&self) -> Option<&std::path::Path> {
        None
    }
}

/// One component, ready to be built.
#[derive(Clone)]
pub struct Node {
    pub kind: Kind,
    pub type_name: String,
    /// Unique in its pipeline.
    pub name: String,
    /// The site's name, where the file gives the component a name.
    pub site: Option<String>,
    /// Dotted path of its table in the file, for errors.
    pub path: String,
    pub plugin: String,
    pub description: Arc<ComponentDescription>,
    pub settings: ComponentSettings,
    /// For the component alone: secrets in clear, paths absolute or relative to this process.
    pub config: serde_json::Value,
    /// The same as it may be printed.
    pub shown: serde_json::Value,
    /// What other components ask of it and it provides.
    pub negotiated: BTreeSet<Capability>,
    /// Present where the engine makes it and no plugin.
    pub built_in: Option<Arc<dyn BuiltIn>>,
    /// Address of what it connects to, where its plugin tells which key holds it.
    pub(crate) address: Option<String>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("kind", &self.kind)
            .field("type", &self.type_name)
            .field("name", &self.name)
            .field("config", &self.shown)
            .finish_non_exhaustive()
    }
}

/// One `[replica.NAME]`, for commands that reach its sites.
#[derive(Clone, Debug)]
pub struct ReplicaGraph {
    pub name: String,
    pub type_name: String,
    /// Names of its pipelines.
    pub pipelines: Vec<String>,
    pub sites: Vec<SiteGraph>,
    /// Values of the source's task key (`databases`), `*` among them.
    pub task_values: Vec<String>,
    pub directions: Vec<Direction>,
}

/// What one sink of a replica's pipeline brings from one of [`ReplicaGraph::sites`] to another, both by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Direction {
    pub from: usize,
    pub to: usize,
    /// Values of the source's task key; everything where there are none, or `*` is among them.
    pub values: Vec<String>,
    /// What `*` leaves out.
    pub excluded: Vec<String>,
    /// Values that the sink writes under another name.
    pub renamed: BTreeMap<String, String>,
}

impl Direction {
    /// The name at the second site of what is `value` at the first; `None` where it is not brought.
    pub fn target<'d>(&'d self, value: &'d str) -> Option<&'d str> {
        let is_named = self.values.iter().any(|it| it == value);
        let is_one_of_all = self.is_all() && !self.excluded.iter().any(|it| it == value);
        (is_named || is_one_of_all).then(|| self.renamed.get(value).map_or(value, String::as_str))
    }

    pub fn is_all(&self) -> bool {
        self.values.is_empty() || self.values.iter().any(|it| it == ALL)
    }
}

/// A site of a replica, reached through its plugin's site facet.
#[derive(Clone)]
pub struct SiteGraph {
    pub name: String,
    /// Type of the site facet.
    pub type_name: String,
    pub plugin: String,
    /// For the facet alone: secrets in clear.
    pub config: serde_json::Value,
}

impl std::fmt::Debug for SiteGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteGraph").field("name", &self.name).field("type", &self.type_name).finish_non_exhaustive()
    }
}

impl PipelineGraph {
    /// Source, transforms and sinks, in this order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        std::iter::once(&self.source).chain(&self.transforms).chain(&self.sinks)
    }

    /// Folders of the disk buffers that it fills.
    pub fn fills(&self) -> impl Iterator<Item = &std::path::Path> {
        self.sinks.iter().filter_map(|step| step.node.built_in.as_ref()?.buffer())
    }

    /// Folder of the disk buffer that it empties.
    pub fn empties(&self) -> Option<&std::path::Path> {
        self.source.node.built_in.as_ref()?.buffer()
    }

    /// Whether what a replica wrote is left out and what is written is marked.
    pub fn is_replica(&self) -> bool {
        self.source.node.negotiated.contains(pipeline_sdk::describe::TELLS_REPLICATED)
            && self.sinks.iter().all(|sink| sink.node.negotiated.contains(pipeline_sdk::describe::MARKS_WRITES))
    }
}

impl PipelineGraph {
    /// Whether a task of `other` does exactly what the task of the same value does here: only which values there are, and how
    /// often new ones are looked for, may differ. Where something stands in the file is no difference.
    pub fn does_the_same(&self, other: &Self) -> bool {
        let beside = self.values_keys();
        self.name == other.name
            && self.replica == other.replica
            && self.settings == other.settings
            && self.source.does_the_same(&other.source, &beside)
            && same(&self.transforms, &other.transforms)
            && same(&self.sinks, &other.sinks)
            && match (&self.dead_letter, &other.dead_letter) {
                (Some(node), Some(other)) => node.does_the_same(other, &[]),
                (None, None) => true,
                _ => false,
            }
    }

    /// Whether nothing at all differs.
    pub fn is_same(&self, other: &Self) -> bool {
        let at = |graph: &Self, key: &str| graph.source.node.config.get(key).cloned();
        self.does_the_same(other)
            && self.task_values == other.task_values
            && self.values_keys().iter().all(|key| at(self, key) == at(other, key))
    }

    /// Values that `*` leaves out.
    pub fn excluded(&self) -> Vec<String> {
        let list = self.source.node.config.get(EXCLUDE_KEY).and_then(serde_json::Value::as_array);
        list.into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
    }

    /// Keys of the source that say which values there are.
    fn values_keys(&self) -> Vec<&str> {
        self.source.node.description.task_key.as_deref().into_iter().chain([DISCOVER_INTERVAL_KEY, EXCLUDE_KEY]).collect()
    }
}

fn same(steps: &[Step], others: &[Step]) -> bool {
    steps.len() == others.len() && steps.iter().zip(others).all(|(step, other)| step.does_the_same(other, &[]))
}

impl Step {
    fn does_the_same(&self, other: &Self, beside: &[&str]) -> bool {
        self.node.does_the_same(&other.node, beside) && self.frames == other.frames && self.decodes == other.decodes
    }
}

impl Node {
    /// Whether it runs in a process of its own.
    pub fn is_isolated(&self) -> bool {
        self.built_in.is_none() && self.settings.isolation == Isolation::Process
    }

    /// Whether a component made of `other` is like one made of this, leaving keys of its configuration aside.
    pub fn does_the_same(&self, other: &Self, beside: &[&str]) -> bool {
        let config = |node: &Self| -> BTreeMap<String, serde_json::Value> {
            let object = node.config.as_object().into_iter().flatten();
            object.filter(|(key, _)| !beside.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        (self.kind, &self.type_name, &self.name, &self.site) == (other.kind, &other.type_name, &other.name, &other.site)
            && self.settings == other.settings
            && self.negotiated == other.negotiated
            && config(self) == config(other)
    }

    /// What it connects to, without what an address may hide: user, password and parameters.
    pub fn shown_address(&self) -> Option<String> {
        let address = self.address.as_deref()?;
        let (scheme, rest) = address.find("://").map_or(("", address), |at| address.split_at(at + 3));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
        // A password may hold an `@`, and even a slash.
        let host = match path.and_then(|path| path.rsplit_once('@')) {
            Some((_, host)) => host,
            None => authority.rsplit_once('@').map_or(authority, |(_, host)| host),
        };
        Some(format!("{scheme}{}", host.split('/').next().unwrap_or_default()))
    }
}

/// A graph as a script wants it; holds no configuration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GraphJson<'a> {
    pub file: &'a str,
    pub services: Vec<NodeJson<'a>>,
    pub pipelines: Vec<PipelineJson<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PipelineJson<'a> {
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<&'a str>,
    pub tasks: &'a [String],
    pub source: NodeJson<'a>,
    pub transforms: Vec<NodeJson<'a>>,
    pub sinks: Vec<NodeJson<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeJson<'a> {
    pub name: &'a str,
    #[serde(rename = "type")]
    pub type_name: &'a str,
    pub plugin: &'a str,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub negotiated: &'a BTreeSet<Capability>,
    #[serde(skip_serializing_if = "no_formats")]
    pub frames: Option<&'a BTreeSet<String>>,
    /// Formats that are decoded right before this node.
    #[serde(skip_serializing_if = "no_formats")]
    pub decodes: Option<&'a BTreeSet<String>>,
}

fn no_formats(formats: &Option<&BTreeSet<String>>) -> bool {
    formats.is_none_or(BTreeSet::is_empty)
}

impl Node {
    fn json(&self) -> NodeJson<'_> {
        NodeJson {
            name: &self.name,
            type_name: &self.type_name,
            plugin: &self.plugin,
            negotiated: &self.negotiated,
            frames: None,
            decodes: None,
        }
    }
}

impl Step {
    fn json(&self) -> NodeJson<'_> {
        NodeJson { frames: Some(&self.frames), decodes: Some(&self.decodes), ..self.node.json() }
    }
}

impl Graph {
    pub fn json(&self) -> GraphJson<'_> {
        GraphJson {
            file: &self.file,
            services: self.services.iter().map(Node::json).collect(),
            pipelines: self.pipelines.iter().map(pipeline_json).collect(),
        }
    }
}

fn pipeline_json(pipeline: &PipelineGraph) -> PipelineJson<'_> {
    PipelineJson {
        name: &pipeline.name,
        replica: pipeline.replica.as_deref(),
        tasks: &pipeline.task_values,
        source: pipeline.source.json(),
        transforms: pipeline.transforms.iter().map(Step::json).collect(),
        sinks: pipeline.sinks.iter().map(Step::json).collect(),
    }
}
