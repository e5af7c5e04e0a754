//! Configuration of the sink and its entry in the plugin.

use std::collections::BTreeMap;

use pipeline_sdk::describe::{COMPARES_REPLAYS, MARKS_WRITES};
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Sink, SinkConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TdengineSink, Template};
use crate::client::SocketLimits;
use crate::dsn::Dsn;
use crate::names;
use crate::source::FRAME_FORMAT;
use crate::span::Span;

/// Writes rows and changes to a TDengine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TdengineConfig {
    /// The site.
    pub dsn: Dsn,
    /// The database of rows that name none.
    #[serde(default)]
    pub database: Option<String>,
    /// Where rows go that name no table: those of files, brokers and web hooks.
    #[serde(default)]
    pub template: Option<Template>,
    /// Database at the source → database here; others keep their name.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Whether a missing database is made, with the options that it has at the source.
    #[serde(default = "yes")]
    pub create_database: bool,
    /// Whether rows and changes of a table that is missing here are left out and counted (right between two sites: it was dropped
    /// here), or wait up to `announce-timeout` for its creation to come another way (right among three or more, where `[replica.NAME]`
    /// sets it).
    #[serde(default)]
    pub missing_table: MissingTable,
    /// How long rows wait for the entry of the log that announces their column or table, and after how long a value is reported whose
    /// tag is not told of.
    #[serde(default = "announce_timeout")]
    pub announce_timeout: Span,
    /// Between two tries of a change that the site refuses because something of a user's is in its way.
    #[serde(default = "parked_interval")]
    pub parked_interval: Span,
    /// Longest statement of an unmarked write, in bytes; a server takes 1 MiB by default.
    #[serde(default = "statement_bytes_max")]
    pub statement_bytes_max: usize,
    /// Frames that wait go to the server in one message of so many bytes at most; 0 to write each alone.
    #[serde(default = "coalesce_bytes_max")]
    pub coalesce_bytes_max: usize,
    /// Until a reply of the server must come: then the connection is given up, with what was not sent yet, and the rows are written again.
    #[serde(default = "request_timeout")]
    pub request_timeout: Span,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MissingTable {
    #[default]
    LeaveOut,
    Wait,
}

fn yes() -> bool {
    true
}

fn announce_timeout() -> Span {
    Span::seconds(30)
}

fn parked_interval() -> Span {
    Span::seconds(10)
}

fn statement_bytes_max() -> usize {
    1_000_000
}

/// A server puts what it is sent in one message into as many entries of its log as there are vgroups.
const COALESCE_BYTES_LIMIT: usize = 16 << 20;

fn coalesce_bytes_max() -> usize {
    1_000_000
}

fn request_timeout() -> Span {
    Span::seconds(5)
}

impl TdengineConfig {
    pub(crate) fn over(self, network: std::sync::Arc<dyn crate::network::Network>) -> Self {
        Self { dsn: self.dsn.over(network), ..self }
    }

    pub(crate) fn limits(&self) -> SocketLimits {
        SocketLimits { request_timeout: self.request_timeout.0, ..SocketLimits::default() }
    }

    /// The database here of a database at the source.
    pub(crate) fn target_database<'a>(&'a self, namespace: &'a str) -> Result<&'a str> {
        if namespace.is_empty() {
            return self.database.as_deref().ok_or_else(|| {
                Error::fatal("rows name no database and none is configured").path("database").hint("set `database`")
            });
        }
        Ok(self.map.get(namespace).map_or(namespace, String::as_str))
    }
}

impl SinkConfig for TdengineConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("tdengine", Kind::Sink, "Writes rows and changes to a TDengine")
            .provides(MARKS_WRITES)
            .provides(COMPARES_REPLAYS)
            .frames(FRAME_FORMAT)
    }

    fn lint(&self) -> Vec<Error> {
        let mut wrong = Vec::new();
        for (from, to) in &self.map {
            if names::is_reserved_database(to) || to.is_empty() {
                let message = format!("`{from}` cannot be written to `{to}`, which is the system's own");
                wrong.push(Error::fatal(message).path(format!("map.{from}")));
            }
        }
        if !(1_000..=1_048_576).contains(&self.statement_bytes_max) {
            wrong.push(Error::fatal("must be from 1000 to 1048576").path("statement-bytes-max"));
        }
        if self.coalesce_bytes_max > COALESCE_BYTES_LIMIT {
            wrong.push(Error::fatal(format!("must be from 0 to {COALESCE_BYTES_LIMIT}")).path("coalesce-bytes-max"));
        }
        wrong.extend(self.template.iter().flat_map(Template::lint));
        if let Err(error) = crate::transport::check(&self.dsn) {
            wrong.push(error.path("dsn"));
        }
        wrong
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(TdengineSink::new(self, context)))
    }
}
