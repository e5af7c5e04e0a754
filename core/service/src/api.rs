//! What the admin API says and takes: one set of types for server, client and the OpenAPI document.

use pipeline_engine::metrics::Counts;
pub use pipeline_engine::runtime::{Seen, SeenColumn, SeenKind, TapQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::member::Member;

/// `GET /api/v1/service`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Service {
    pub version: String,
    /// The folder whose files are run; absent where files were named one by one.
    pub folder: Option<String>,
    pub pid: u32,
    /// RFC 3339.
    pub started: String,
    /// The unix socket that it listens on.
    pub socket: Option<String>,
    pub files: usize,
    pub tasks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileStatus {
    Running,
    /// Its services are coming up.
    Starting,
    /// What stands in the file is wrong: `problem` says what. An earlier version may go on running.
    Broken,
    /// An operator stopped all of its tasks.
    Stopped,
    /// It could not be started: `problem` says why.
    Failed,
}

/// One pipeline file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct File {
    /// The file's name without ending.
    pub id: String,
    pub path: String,
    pub status: FileStatus,
    /// The whole report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Since when it is so, RFC 3339.
    pub since: String,
    /// What it says of its replicas; empty where it has none, or is broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<Replica>,
    /// As it was written, secrets not resolved; only where one file is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
}

/// A replica of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Replica {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub pipelines: Vec<String>,
    /// Names of its sites.
    pub sites: Vec<String>,
    /// What it names, `*` among them where new ones are found.
    pub values: Vec<String>,
}

/// Body of `PUT /api/v1/files/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PutFile {
    pub toml: String,
    /// The file must not exist yet.
    #[serde(default)]
    pub create: bool,
}

/// Query of `DELETE /api/v1/files/{id}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeleteFile {
    /// Also while tasks run: they are stopped first.
    #[serde(default)]
    pub force: bool,
}

/// Query of `GET /api/v1/tasks`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ListTasks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Body of `POST /api/v1/tasks/stop`, `start`, `restart` and `remove`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ChooseTasks {
    /// All files where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// All tasks, and the looking for new ones, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// Of `stop`: new ones are still looked for.
    #[serde(default)]
    pub keep_discovering: bool,
    /// Of `restart` without values: also what was stopped, and the looking for new ones.
    #[serde(default)]
    pub stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskStatus {
    Starting,
    Running,
    /// Lost a connection, or a call is repeated; it goes on by itself.
    Interrupted,
    /// Another of the services that share the tasks has it, or will in a moment.
    Elsewhere,
    /// By an operator.
    Stopped,
    /// The source's log no longer holds what comes next.
    Hole,
    /// A finite source came to its end.
    Finished,
    /// Stopped by policy: something was rejected.
    Rejected,
    /// Cannot go on until a person does something.
    Failed,
}

/// One task: a pipeline for one value of its source's task key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Task {
    /// Id of its file.
    pub file: String,
    pub pipeline: String,
    /// Empty where the pipeline is not divided.
    pub value: String,
    /// Addresses, without user and password; where a plugin does not tell an address, the component's name.
    pub source: String,
    pub sink: String,
    /// Whether it is part of a replica: what a replica wrote is left out, what is written is marked.
    pub replica: bool,
    pub status: TaskStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which of the services that share the tasks has it, where that is another one and it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Member>,
    /// Since when it is so, RFC 3339.
    pub since: String,
    #[serde(flatten)]
    pub counts: Counts,
    /// For how long what is written next has been waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Positions that are still to be written at every sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_offsets: Option<i64>,
    /// How long ago lag was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_seconds: Option<f64>,
    /// When a sink last took something, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied: Option<String>,
    pub lanes: Vec<Lane>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Lane {
    pub lane: String,
    /// The oldest position that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<i64>,
    /// The next position to be written at every sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<i64>,
    /// Where the log ends: the position that the next entry gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_offsets: Option<i64>,
    /// How long the log keeps what is written next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_seconds: Option<f64>,
    /// How long the log keeps an entry, at least; absent where that is not bounded by time, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<i64>,
}

/// Body of every answer that is no success.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ErrorBody {
    pub error: ApiError,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[error("{message}")]
pub struct ApiError {
    /// For programs: `not-found`, `conflict`, `invalid`, …
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The HTTP status that goes with it.
    #[serde(skip)]
    pub status: u16,
}

impl ApiError {
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, status }
    }

    /// What was asked for cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad-request", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not-found", message)
    }

    /// Things are not as they must be for this.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, "conflict", message)
    }

    /// A file's content is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "invalid", message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "internal", message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<pipeline_sdk::Error> for ApiError {
    fn from(error: pipeline_sdk::Error) -> Self {
        let hint = error.hint.clone();
        let code = if error.code.is_empty() { "internal" } else { &error.code };
        let status = match code {
            "engine.running" | "tap.many" => 409,
            "tap.unknown" => 404,
            _ => 500,
        };
        Self { hint, ..Self::new(status, code, pipeline_sdk::Error { hint: None, ..error.clone() }.to_string()) }
    }
}
