//! Configuration of the source, its checks and its entry in the plugin.

use pipeline_sdk::describe::TELLS_REPLICATED;
use pipeline_sdk::{
    ComponentDescription, Context, Error, Frame, Header, Kind, Message, Result, Source, SourceConfig, async_trait,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TmqSource;
use crate::client::SocketLimits;
use crate::transport::Connection;
use crate::dsn::Dsn;
use crate::names;
use crate::span::Span;

/// As many as a server gathers at most.
const MIN_POLL_ROWS_LIMIT: u32 = 1_000_000;
/// Format of the frames: `u32 length, u16 type, body` of a raw message of rows.
pub const FRAME_FORMAT: &str = "tdengine-tmq-raw";
/// Format of a change's raw form: the same, of a change.
pub const CHANGE_FORMAT: &str = "tdengine-tmq-meta";
/// The same of a change that the other site's replica made here: nothing to apply, but ids, names and incarnations to know.
pub const SEEN_FORMAT: &str = "tdengine-tmq-seen";

/// Reads the log of a TDengine database through TMQ.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TmqConfig {
    /// The site.
    pub dsn: Dsn,
    /// Databases by name, or `"*"` for all but the system's own. Each is a task of its own.
    #[serde(default = "all")]
    pub databases: Vec<String>,
    /// Databases that `"*"` leaves out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The consumer group; made of the pipeline's and the database's name otherwise.
    #[serde(default)]
    pub group: Option<String>,
    /// Start of the names of topics.
    #[serde(default = "topic_prefix")]
    pub topic_prefix: String,
    /// Where a lane without a checkpoint begins.
    #[serde(default)]
    pub from: StartFrom,
    /// How often to look for new databases where all are read; `"0"` for at the start only.
    #[serde(default = "new_database_interval")]
    pub new_database_interval: Span,
    /// What to do when the log no longer holds what comes next.
    #[serde(default)]
    pub on_hole: OnHole,
    /// Whether a replica also follows schemas that schemaless writes grow, which exclusion hides; costs a second topic.
    #[serde(default = "yes")]
    pub follow_schemaless: bool,
    /// A database with more vgroups than this is refused.
    #[serde(default = "max_lanes")]
    pub max_lanes: usize,
    /// Messages that are fetched while earlier ones are being written, at most. Over libtaos it is one.
    #[serde(default = "prefetch")]
    pub prefetch: usize,
    /// Rows that the server gathers into a message where its log has them, 4096 by itself: more, where the site is far away. Servers older
    /// than 3.3.6 go by their own `tmqRowSize`.
    #[serde(default)]
    pub min_poll_rows: Option<u32>,
    /// Largest message taken from the server, in bytes.
    #[serde(default = "message_bytes_max")]
    pub message_bytes_max: usize,
    /// Until a reply of the server must come.
    #[serde(default = "request_timeout")]
    pub request_timeout: Span,
    /// How long to wait at connect for lanes that a former process of ours still holds.
    #[serde(default = "assignment_timeout")]
    pub assignment_timeout: Span,
    /// What is read of the other lanes meanwhile and kept, in bytes, at most; with more the source connects again.
    #[serde(default = "assignment_bytes_max")]
    pub assignment_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartFrom {
    /// The oldest entry kept.
    #[default]
    Oldest,
    /// New entries only.
    Latest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnHole {
    #[default]
    Stop,
    /// Report it and go on behind it.
    Continue,
}

fn all() -> Vec<String> {
    vec!["*".into()]
}

fn topic_prefix() -> String {
    names::PREFIX_DEFAULT.into()
}

fn new_database_interval() -> Span {
    Span::seconds(30)
}

fn yes() -> bool {
    true
}

fn max_lanes() -> usize {
    256
}

fn prefetch() -> usize {
    4
}

pub(crate) fn message_bytes_max() -> usize {
    256 << 20
}

pub(crate) fn request_timeout() -> Span {
    Span::seconds(60)
}

fn assignment_timeout() -> Span {
    Span::seconds(30)
}

fn assignment_bytes_max() -> usize {
    64 << 20
}

impl TmqConfig {
    pub(crate) fn over(self, network: std::sync::Arc<dyn crate::network::Network>) -> Self {
        Self { dsn: self.dsn.over(network), ..self }
    }

    pub(crate) fn limits(&self) -> SocketLimits {
        SocketLimits {
            message_bytes_max: self.message_bytes_max,
            request_timeout: self.request_timeout.0,
            ..SocketLimits::default()
        }
    }

    /// The database of the task that `context` is in.
    fn database(&self, context: &Context) -> Result<String> {
        if !context.place.task.is_empty() {
            return Ok(context.place.task.clone());
        }
        match self.databases.as_slice() {
            [one] if one != "*" => Ok(one.clone()),
            _ => Err(Error::fatal("a source reads one database a task").path("databases")),
        }
    }
}

#[async_trait]
impl SourceConfig for TmqConfig {
    fn describe() -> ComponentDescription {
        let summary = "Reads the log of TDengine databases (rows, schema changes, deletes) through TMQ";
        ComponentDescription::new("tdengine-tmq", Kind::Source, summary)
            .provides(TELLS_REPLICATED)
            .frames(FRAME_FORMAT)
            .task_key("databases")
    }

    fn lint(&self) -> Vec<Error> {
        let mut wrong = Vec::new();
        if self.databases.is_empty() {
            wrong.push(Error::fatal("no database is named").path("databases").hint("name some, or write [\"*\"]"));
        }
        for name in self.databases.iter().filter(|name| names::is_reserved_database(name)) {
            let message = format!("`{name}` is the system's own or ours and cannot be read");
            wrong.push(Error::fatal(message).path("databases"));
        }
        if !self.exclude.is_empty() && !self.databases.iter().any(|name| name == "*") {
            let wrong_key = Error::fatal("only `*` leaves anything out").path("exclude");
            wrong.push(wrong_key.hint("write databases = [\"*\"], or take `exclude` away"));
        }
        if self.max_lanes == 0 {
            wrong.push(Error::fatal("must be at least 1").path("max-lanes"));
        }
        if self.min_poll_rows.is_some_and(|rows| !(1..=MIN_POLL_ROWS_LIMIT).contains(&rows)) {
            wrong.push(Error::fatal(format!("must be from 1 to {MIN_POLL_ROWS_LIMIT}")).path("min-poll-rows"));
        }
        let given = [("group", self.group.as_deref()), ("topic-prefix", Some(self.topic_prefix.as_str()))];
        for (path, name) in given.into_iter().filter_map(|(path, name)| Some((path, name?))) {
            if let Err(error) = crate::client::tmq::check_name(path, name) {
                wrong.push(Error::from(error).path(path));
            }
        }
        if let Err(error) = crate::transport::check(&self.dsn) {
            wrong.push(error.path("dsn"));
        }
        wrong
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        let database = self.database(&context)?;
        Ok(Box::new(TmqSource::new(self, database, context)))
    }

    async fn discover(&self) -> Result<Vec<String>> {
        if !self.databases.iter().any(|name| name == "*") {
            return Ok(self.databases.clone());
        }
        let connection = Connection::open(&self.dsn, None, self.limits()).await?;
        let mut found = crate::metadata::databases(&connection).await?;
        found.retain(|name| !self.exclude.contains(name));
        Ok(found)
    }

    fn decode(header: &Header, frame: &Frame) -> Result<Vec<Message>> {
        super::decode::decode(header, frame)
    }
}
