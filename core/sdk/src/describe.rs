//! What a library says of itself, as JSON in its root table: components, their kinds, config schemas and capabilities.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A short name for something a component can do (`tells-replicated`, `marks-writes`).
pub type Capability = String;

/// A source that provides this tells rows and changes written by a replica apart from local ones.
pub const TELLS_REPLICATED: &str = "tells-replicated";
/// A sink that provides this marks what it writes, so that a source of the same kind can tell.
pub const MARKS_WRITES: &str = "marks-writes";
/// A sink that provides this compares replayed rows with what is stored before it replaces them.
pub const COMPARES_REPLAYS: &str = "compares-replays";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Source,
    Transform,
    Sink,
    Service,
    /// The optional facet through which replica commands reach a site.
    Site,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Source => "source",
            Kind::Transform => "transform",
            Kind::Sink => "sink",
            Kind::Service => "service",
            Kind::Site => "site",
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginDescription {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub license: String,
    #[serde(default)]
    pub summary: String,
    pub components: Vec<ComponentDescription>,
    /// Present where the plugin's components make up a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaDescription>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ComponentDescription {
    #[serde(rename = "type")]
    pub type_name: String,
    pub kind: Kind,
    #[serde(default)]
    pub summary: String,
    /// JSON Schema of the configuration.
    pub schema: serde_json::Value,
    #[serde(default)]
    pub provides: BTreeSet<Capability>,
    /// What other components of the pipeline must provide, and are then asked for.
    #[serde(default)]
    pub requires: Vec<Requirement>,
    /// Of a source: formats of the frames it emits. Of a sink or transform: formats it takes as frames; the engine puts
    /// the decoder before anything that does not take the format.
    #[serde(default)]
    pub frames: BTreeSet<String>,
    /// Of a transform: whether it takes frames of any format, because it never looks into a payload.
    #[serde(default)]
    pub any_frame: bool,
    /// Of a source: the key whose values divide the pipeline into tasks (`databases`). `discover` lists the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_key: Option<String>,
    /// Of a sink: one instance for all lanes of a task instead of one a lane.
    #[serde(default)]
    pub merged_lanes: bool,
    /// Of a service or a source: it makes data, and is stopped first when a bounded run drains.
    #[serde(default)]
    pub generator: bool,
    /// Of a source: its other end waits for commits, as a broker that holds a message until it is acknowledged, or a client until it
    /// is answered. It is told at every checkpoint, whatever `commit-interval` says.
    #[serde(default)]
    pub prompt_commit: bool,
    /// Its futures, or a transform's calls, block the polling thread: the host gives it a thread of its own.
    #[serde(default)]
    pub blocking: bool,
}

impl ComponentDescription {
    pub fn new(type_name: &str, kind: Kind, summary: &str) -> Self {
        Self {
            type_name: type_name.into(),
            kind,
            summary: summary.into(),
            schema: serde_json::Value::Null,
            provides: BTreeSet::new(),
            requires: Vec::new(),
            frames: BTreeSet::new(),
            any_frame: false,
            task_key: None,
            merged_lanes: false,
            generator: false,
            prompt_commit: false,
            blocking: false,
        }
    }

    pub fn provides(mut self, capability: &str) -> Self {
        self.provides.insert(capability.into());
        self
    }

    pub fn requires(mut self, of: Kind, capability: &str, reason: &str) -> Self {
        self.requires.push(Requirement { of, capability: capability.into(), reason: reason.into() });
        self
    }

    pub fn frames(mut self, format: &str) -> Self {
        self.frames.insert(format.into());
        self
    }

    pub fn any_frame(mut self) -> Self {
        self.any_frame = true;
        self
    }

    pub fn task_key(mut self, key: &str) -> Self {
        self.task_key = Some(key.into());
        self
    }

    pub fn merged_lanes(mut self) -> Self {
        self.merged_lanes = true;
        self
    }

    pub fn generator(mut self) -> Self {
        self.generator = true;
        self
    }

    pub fn prompt_commit(mut self) -> Self {
        self.prompt_commit = true;
        self
    }

    pub fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }
}

/// "The pipeline's `of` must provide `capability`", with the reason that is shown when it does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requirement {
    pub of: Kind,
    pub capability: Capability,
    pub reason: String,
}

/// Which components a `[replica.NAME]` of this type expands to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaDescription {
    /// What `type` in `[replica.NAME]` is.
    #[serde(rename = "type")]
    pub type_name: String,
    pub source: String,
    pub transform: String,
    pub sink: String,
    pub site: String,
    /// The key under which a site's address is given to source, sink and site (`dsn`).
    pub address_key: String,
    /// The source's key for values of its task key that `*` leaves out, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_key: Option<String>,
    /// The sink's key for values of the source's task key that it writes under another name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename_key: Option<String>,
    /// The source's key for how often new values of its task key are looked for, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover_interval_key: Option<String>,
    /// The source's key, and its value, for reading only what is written from now on, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_now: Option<(String, String)>,
    /// The sink's key, and its value, that three sites and more need where the file does not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_mesh: Option<(String, String)>,
}
