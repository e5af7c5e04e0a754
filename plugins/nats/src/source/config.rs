//! Keys of the source.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline_formats::{Beside, Format, NATS, Patterns, Settings, UNDECODABLE};
use pipeline_sdk::tls::Tls;
use pipeline_sdk::{ComponentDescription, Context, Error, Frame, Header, Kind, Message, Result, Source, SourceConfig, units};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::server::{Login, Server};

/// Reads a JetStream stream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NatsSourceConfig {
    /// The server, `nats://host:4222`; with TLS `tls://host:4222`. Those of a cluster with commas between them.
    pub url: String,
    /// The stream.
    pub stream: String,
    /// Which of its subjects, with the wildcards `*` and `>`; all where absent. `{device}` is a `*` whose level becomes the column
    /// `device`: `meters.{location}.{device}`.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// The name of the durable consumer, one for each running pipeline. Where absent one is made and kept in the state.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Where a consumer that is new begins.
    #[serde(default)]
    pub(crate) start: Start,
    /// Who one is.
    #[serde(default)]
    pub(crate) login: Login,
    /// Whom to trust, and a certificate of one's own.
    #[serde(default)]
    pub tls: Tls,
    /// What a payload is.
    #[serde(default)]
    pub format: Format,
    /// Types of columns that differ from what payloads tell: `ts = "timestamp[ms]"`. Types as `select` takes them.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Of CSV: the first line of each payload names the columns; without, they are `column_1`, `column_2`, …
    #[serde(default = "pipeline_formats::header")]
    pub header: bool,
    /// Of CSV: between fields.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// A column for the subject.
    #[serde(default)]
    pub subject_column: Option<String>,
    /// A column for the time of arrival.
    #[serde(default)]
    pub time_column: Option<String>,
    /// What happens where the stream no longer holds what comes next.
    #[serde(default)]
    pub(crate) on_hole: OnHole,
    /// Messages that the server sends before it waits for acknowledgements, which come with each checkpoint.
    #[serde(default = "inflight_max")]
    #[schemars(range(min = 1))]
    pub inflight_max: u32,
    /// Bytes of messages that are fetched ahead.
    #[serde(default = "waiting_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub waiting_bytes_max: u64,
    /// Payloads that become one batch of rows at most.
    #[serde(default = "pipeline_formats::batch_payloads")]
    #[schemars(range(min = 1, max = 65_535))]
    pub batch_payloads: u32,
    /// After how long without an acknowledgement the server sends a message again; what came before is known, and left out.
    #[serde(default = "ack_wait", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub ack_wait: Duration,
    /// How long the server keeps a consumer whose name was made, without anybody reading.
    #[serde(default = "consumer_expiry", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub consumer_expiry: Duration,
    /// How long connecting and a request may take.
    #[serde(default = "timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Start {
    /// With the oldest message.
    #[default]
    Oldest,
    /// With what comes from now on.
    Now,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnHole {
    /// The task stops.
    #[default]
    Stop,
    /// It is reported, and the task goes on behind the hole.
    Continue,
}

fn inflight_max() -> u32 {
    20_000
}

fn waiting_bytes_max() -> u64 {
    16 << 20
}

fn ack_wait() -> Duration {
    Duration::from_secs(300)
}

fn consumer_expiry() -> Duration {
    Duration::from_secs(7 * 86_400)
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

impl SourceConfig for NatsSourceConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("nats", Kind::Source, "Reads a JetStream stream").prompt_commit().frames(UNDECODABLE)
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = self.settings().lint();
        problems.extend(self.server().lint());
        problems.extend(self.beside().err());
        let names = [("stream", Some(&self.stream)), ("consumer", self.consumer.as_ref())];
        for (key, name) in names.into_iter().filter_map(|(key, name)| Some((key, name?))) {
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) {
                problems.push(Error::fatal(format!("`{name}` is no name")).path(key).hint("without blanks and `.`, `*`, `>`, `/`, `\\`"));
            }
        }
        if self.timeout.is_zero() {
            problems.push(Error::fatal("longer than nothing").path("timeout"));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(super::Nats::new(self, context)?))
    }

    fn decode(_: &Header, frame: &Frame) -> Result<Vec<Message>> {
        pipeline_formats::refuse(frame)
    }
}

impl NatsSourceConfig {
    pub(crate) fn server(&self) -> Server<'_> {
        Server { url: &self.url, login: &self.login, tls: &self.tls, timeout: self.timeout }
    }

    pub fn settings(&self) -> Settings {
        Settings::new(self.format, &self.columns, self.header, self.delimiter.as_deref())
    }

    /// # Errors
    /// Fatal: a subject is no filter.
    pub fn beside(&self) -> Result<Beside> {
        let patterns = Patterns::new(&self.subjects, NATS, "subjects")?;
        Ok(Beside { patterns, topic: self.subject_column.clone(), time: self.time_column.clone() })
    }
}
