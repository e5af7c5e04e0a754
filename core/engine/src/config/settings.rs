//! Keys of the engine: what a file says of its pipelines and components beside the components' own keys.
//!
//! The JSON Schema that a file is checked against is generated from these structs, so that keys, documentation and checks
//! cannot drift apart. Everything that is bounded has its bound here (invariant `bounded`).

use std::time::Duration;

use pipeline_sdk::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// Engine keys of a component, and the kinds that take each. A plugin whose schema uses one does not load.
pub const COMPONENT_KEYS: [(&str, &[Kind]); 9] = [
    ("type", &[Kind::Source, Kind::Transform, Kind::Sink, Kind::Service]),
    ("name", &[Kind::Source, Kind::Transform, Kind::Sink]),
    ("when", &[Kind::Sink]),
    ("buffer", &[Kind::Source, Kind::Sink]),
    ("batching", &[Kind::Sink]),
    ("isolation", &[Kind::Source, Kind::Transform, Kind::Sink, Kind::Service]),
    ("freshness", &[Kind::Source]),
    ("throttle", &[Kind::Source]),
    ("on-error", &[Kind::Transform, Kind::Sink]),
];

/// The first property of a plugin's schema that is a key of the engine.
pub fn reserved_key(schema: &serde_json::Value) -> Option<&'static str> {
    let properties = schema.get("properties")?.as_object()?;
    COMPONENT_KEYS.iter().map(|(key, _)| *key).find(|key| properties.contains_key(*key))
}

/// Engine keys of one component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct ComponentSettings {
    /// The queue that this component fills (a source) or is filled from (a sink).
    pub buffer: Buffer,
    /// Rows are joined to larger messages before this sink writes them; as they come where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batching: Option<Batching>,
    /// Where the component runs.
    pub isolation: Isolation,
    /// How old data may get while nothing happens: a duration, or `adaptive`.
    pub freshness: Freshness,
    /// How fast this source is read; as fast as the sinks take it where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// What happens to rows that this component rejects; the pipeline's `on-error` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Which rows this sink gets: an expression as the transform `where` takes it. Changes of schemas and deletions come to it
    /// anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// The transform that a sink's `when` stands for, and its key.
pub const WHEN_TRANSFORM: (&str, &str) = ("where", "condition");

/// The queue before a component: in memory, or of a sink also on the disk. Whichever bound is reached first stops the writer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Buffer {
    /// Messages.
    #[schemars(range(min = 1))]
    pub messages: u32,
    /// Bytes that the messages keep alive. One message may always pass, however large.
    #[serde(with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub bytes: u64,
    /// Where what the sink has not taken waits.
    #[serde(rename = "type")]
    pub kind: BufferType,
    /// Of a disk buffer: what its files may take, together.
    #[serde(with = "units::optional_bytes", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "bytes"))]
    pub max: Option<u64>,
    /// Of a disk buffer: what happens to a message that does not fit.
    pub when_full: WhenFull,
    /// Of a disk buffer: when what is in it is made durable.
    pub fsync: Fsync,
    /// Of a disk buffer: what happens where a file is damaged.
    pub on_corrupt: OnCorrupt,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            messages: 64,
            bytes: 32 << 20,
            kind: BufferType::default(),
            max: None,
            when_full: WhenFull::default(),
            fsync: Fsync::default(),
            on_corrupt: OnCorrupt::default(),
        }
    }
}

/// Keys that only a disk buffer has.
pub const DISK_BUFFER_KEYS: [&str; 4] = ["max", "when-full", "fsync", "on-corrupt"];
/// The smallest `max` of a disk buffer.
pub const DISK_BUFFER_BYTES_MIN: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BufferType {
    /// Gone with the process; the source brings it again.
    #[default]
    Memory,
    /// In the state folder, on top of the queue in memory: for sources that cannot be asked again, and so that a sink that stays
    /// away holds up nobody.
    Disk,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The source waits.
    #[default]
    Block,
    /// It is dropped and counted.
    DropNewest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fsync {
    /// At every checkpoint, before anything is acknowledged.
    #[default]
    Checkpoint,
    /// After every message.
    Message,
    /// When the system does: what was acknowledged survives a crash of the process, not of the machine.
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnCorrupt {
    /// The sink gets nothing more until a person has looked.
    #[default]
    Stop,
    /// Messages that cannot be read are left out and counted.
    Skip,
}

/// Rows wait until one of these is reached, and no longer than to the next checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Batching {
    /// Rows.
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// Bytes that the rows keep alive.
    #[serde(with = "units::optional_bytes", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "bytes"))]
    pub bytes: Option<u64>,
    /// Time since the first of them.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub wait: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self { rows: None, bytes: None, wait: Duration::from_secs(1) }
    }
}

/// How much of a source is read a second, `rows`, `bytes` or both; whichever is used up first makes it wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Throttle {
    /// Rows a second.
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// Bytes a second, of Arrow columns or frames.
    #[serde(with = "units::optional_bytes", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "bytes"))]
    pub bytes: Option<u64>,
    /// What was not used for so long may be used at once. One message may always pass, however large; what comes behind it waits.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub burst: Duration,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { rows: None, bytes: None, burst: Duration::from_secs(1) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// In this process: panics and errors are contained, aborts are not.
    #[default]
    None,
    /// In a process of its own: whatever it does there costs a restart of that process and nothing else.
    Process,
}

/// How old data may get while nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Short waits while data flows, longer ones the longer nothing came.
    #[default]
    Adaptive,
    Fixed(Duration),
}

impl Serialize for Freshness {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Adaptive => serializer.serialize_str("adaptive"),
            Self::Fixed(duration) => units::duration::serialize(duration, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Freshness {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "adaptive" => Ok(Self::Adaptive),
            _ => units::parse_duration(&text).map(Self::Fixed).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for Freshness {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Freshness".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "freshness" })
    }
}

/// What happens to rows that can never be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The task stops and stays stopped; nothing is lost.
    #[default]
    Stop,
    /// They are tried again, up to `retry-attempts-max`, then the task stops.
    Retry,
    /// They are kept in the state folder and the task goes on.
    DeadLetter,
}

/// What happens to a change (of a schema, a deletion) that can never be applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnRejectedChange {
    /// The task stops: what follows may depend on the change.
    #[default]
    Stop,
    /// The change is kept in the state folder and the task goes on without it.
    DeadLetter,
}

/// Engine keys of one pipeline; in a `[replica]`, of all pipelines that it stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct PipelineSettings {
    /// How often barriers are sent and positions stored.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub checkpoint_interval: Duration,
    /// How often at most stored positions are told to the source: with some, telling is itself a write to the log.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub commit_interval: Duration,
    /// What happens to rows that a component rejects.
    pub on_error: OnError,
    /// What happens to a change that the sink rejects.
    pub on_rejected_change: OnRejectedChange,
    /// How often a call is repeated that may succeed later, before the task stops. 0: without end.
    pub retry_attempts_max: u32,
    /// How often a lost connection is tried again, before the task stops. 0: without end.
    pub reconnect_attempts_max: u32,
    /// The first wait before trying again; it doubles, with jitter, up to `retry-delay-max`.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub retry_delay_min: Duration,
    /// The longest wait before trying again.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub retry_delay_max: Duration,
    /// After this long a call of a component counts as hanging: it is abandoned and reported, and the task restarts.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub call_timeout: Duration,
    /// Messages kept as dead letters, before the task stops.
    pub dead_letters_max: u64,
    /// Lanes of one task, before it stops.
    #[schemars(range(min = 1))]
    pub lanes_max: u32,
    /// Tasks of the pipeline: a `*` that matches more is an error, not a thousand connections.
    #[schemars(range(min = 1))]
    pub tasks_max: u32,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            checkpoint_interval: Duration::from_secs(1),
            commit_interval: Duration::from_secs(10),
            on_error: OnError::default(),
            on_rejected_change: OnRejectedChange::default(),
            retry_attempts_max: 10,
            reconnect_attempts_max: 0,
            retry_delay_min: Duration::from_millis(100),
            retry_delay_max: Duration::from_secs(30),
            call_timeout: Duration::from_secs(120),
            dead_letters_max: 100_000,
            lanes_max: 1_024,
            tasks_max: 1_000,
        }
    }
}

/// `[engine]`: of the whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct EngineSettings {
    /// How long a graceful stop may take to drain, flush and store positions; then the run ends as it is.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub drain_timeout: Duration,
    /// How long services may take to say that they are ready.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub ready_timeout: Duration,
    /// End by itself after this long: generators stop, every lane is drained, sites are compared. `--for` wins over it.
    #[serde(with = "units::optional_duration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "duration"))]
    pub run_for: Option<Duration>,
    /// Limits of components with `isolation = "process"`. How long their calls may take is their pipelines' `call-timeout`.
    pub isolation: IsolationLimits,
}

impl Default for EngineSettings {
    fn default() -> Self {
        let half_a_minute = Duration::from_secs(30);
        Self { drain_timeout: half_a_minute, ready_timeout: half_a_minute, run_for: None, isolation: IsolationLimits::default() }
    }
}

/// Limits of a component's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct IsolationLimits {
    /// How long a process may take to start and load its library; then it is killed and tried again.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub start_timeout: Duration,
    /// How long an instance may take to be destroyed, and a process to end; then it is killed.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub stop_timeout: Duration,
    /// The largest message that goes to or comes from a process. A larger one is rejected.
    #[serde(with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub frame_bytes_max: u64,
}

impl Default for IsolationLimits {
    fn default() -> Self {
        Self { start_timeout: Duration::from_secs(30), stop_timeout: Duration::from_secs(5), frame_bytes_max: 256 << 20 }
    }
}

/// `[state]`: where checkpoints and dead letters are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct StateSettings {
    /// The folder, relative to this file; `.NAME.state` beside the file where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// `[plugin.NAME]`: what must be true of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PluginPin {
    /// SHA-256 of the library, hexadecimal: no other one is loaded.
    #[schemars(length(min = 64, max = 64))]
    pub sha256: String,
}
