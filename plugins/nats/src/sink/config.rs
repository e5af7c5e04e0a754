//! Keys of the sink.

use std::time::Duration;

use pipeline_formats::Format;
use pipeline_sdk::tls::Tls;
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Sink, SinkConfig, units};
use schemars::JsonSchema;
use serde::Deserialize;

use super::subject::Template;
use crate::server::{Login, Server};

/// Publishes rows to JetStream, a message each.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NatsSinkConfig {
    /// The server, `nats://host:4222`; with TLS `tls://host:4222`. Those of a cluster with commas between them.
    pub url: String,
    /// Of each row, from its columns: `meters.{device}`. A stream must take it.
    pub subject: String,
    /// What a row becomes: a JSON object, a line of CSV, with `raw` the column `payload`.
    #[serde(default)]
    pub format: Format,
    /// Of CSV: between fields.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// Who one is.
    #[serde(default)]
    pub(crate) login: Login,
    /// Whom to trust, and a certificate of one's own.
    #[serde(default)]
    pub tls: Tls,
    /// Messages that are sent before their acknowledgements are waited for.
    #[serde(default = "inflight_max")]
    #[schemars(range(min = 1, max = 100_000))]
    pub inflight_max: u32,
    /// How long connecting and an acknowledgement may take.
    #[serde(default = "timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub timeout: Duration,
}

fn inflight_max() -> u32 {
    4_096
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

impl SinkConfig for NatsSinkConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("nats", Kind::Sink, "Publishes rows to JetStream")
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = self.server().lint();
        problems.extend(Template::new(&self.subject).err());
        if self.timeout.is_zero() {
            problems.push(Error::fatal("longer than nothing").path("timeout"));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(super::Nats::new(self, context)?))
    }
}

impl NatsSinkConfig {
    pub(crate) fn server(&self) -> Server<'_> {
        Server { url: &self.url, login: &self.login, tls: &self.tls, timeout: self.timeout }
    }
}
