//! Keys of the source.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pipeline_formats::{Beside, Format, Patterns, Settings, UNDECODABLE};
use pipeline_sdk::tls::lint_pair;
use pipeline_sdk::{ComponentDescription, Context, Error, Frame, Header, Kind, Message, Result, Source, SourceConfig, units};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use crate::login::Login;

/// Takes rows from HTTP requests: a webhook server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpSourceConfig {
    /// Address and port to listen at: `127.0.0.1:8080`.
    pub listen: String,
    /// The path that takes POST and PUT. `/healthz` beside it says whether the server takes requests.
    #[serde(default = "path")]
    pub path: String,
    /// When a request is answered: when its rows are durable in all sinks (200), or when it was received (202; what is not written yet is
    /// then lost with the process).
    #[serde(default)]
    pub(crate) answer: Answer,
    /// What a body is.
    #[serde(default)]
    pub format: Format,
    /// Types of columns that differ from what bodies tell: `ts = "timestamp[ms]"`. Types as `select` takes them.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Of CSV: the first line of each body names the columns; without, they are `column_1`, `column_2`, …
    #[serde(default = "pipeline_formats::header")]
    pub header: bool,
    /// Of CSV: between fields.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// A column for the time of arrival.
    #[serde(default)]
    pub time_column: Option<String>,
    /// Requests must show it: `Authorization: Bearer TOKEN`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// Requests must show it (basic authentication).
    #[serde(default)]
    pub username: Option<String>,
    /// The password of `username`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// With TLS: what the server shows.
    #[serde(default)]
    pub(crate) tls: ServerTls,
    /// The largest body; larger ones are answered with 413.
    #[serde(default = "body_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub body_bytes_max: u64,
    /// Bodies that wait for their answer, all together; beyond, requests are answered with 503.
    #[serde(default = "waiting_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub waiting_bytes_max: u64,
    /// Requests that wait for their answer; beyond, they are answered with 503.
    #[serde(default = "requests_max")]
    #[schemars(range(min = 1, max = 65_535))]
    pub requests_max: u32,
    /// Clients that are connected; others wait.
    #[serde(default = "connections_max")]
    #[schemars(range(min = 1, max = 65_535))]
    pub connections_max: u32,
    /// How long a client may take to send a request.
    #[serde(default = "receive_timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub receive_timeout: Duration,
    /// How long a request waits until its rows are durable; then it is answered with 503, and should be repeated.
    #[serde(default = "answer_timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub answer_timeout: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    #[default]
    Durable,
    Received,
}

/// A certificate with its key, each a PEM file; looked at again when they change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ServerTls {
    /// The certificate, those that signed it after it.
    #[schemars(extend("format" = "path"))]
    pub certificate: Option<PathBuf>,
    /// Its private key.
    #[schemars(extend("format" = "path"))]
    pub key: Option<PathBuf>,
}

fn path() -> String {
    "/".into()
}

fn body_bytes_max() -> u64 {
    4 << 20
}

fn waiting_bytes_max() -> u64 {
    64 << 20
}

fn requests_max() -> u32 {
    512
}

fn connections_max() -> u32 {
    1_024
}

fn receive_timeout() -> Duration {
    Duration::from_secs(30)
}

fn answer_timeout() -> Duration {
    Duration::from_secs(60)
}

impl SourceConfig for HttpSourceConfig {
    fn describe() -> ComponentDescription {
        let description = ComponentDescription::new("http", Kind::Source, "Takes rows from HTTP requests: a webhook server");
        description.prompt_commit().frames(UNDECODABLE)
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = self.settings().lint();
        problems.extend(self.login().lint());
        problems.extend(self.address().err());
        if !self.path.starts_with('/') || self.path.contains(['?', '#']) || self.path == super::HEALTH_PATH {
            let error = Error::fatal(format!("`{}` is no path for requests", self.path)).path("path");
            problems.push(error.hint(format!("it begins with `/`, has no query, and is not `{}`", super::HEALTH_PATH)));
        }
        problems.extend(lint_pair(self.tls.certificate.as_deref(), self.tls.key.as_deref()));
        if self.body_bytes_max == 0 || self.body_bytes_max > self.waiting_bytes_max {
            problems.push(Error::fatal("from 1B to what `waiting-bytes-max` is").path("body-bytes-max"));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(super::Http::new(self, context)?))
    }

    fn decode(_: &Header, frame: &Frame) -> Result<Vec<Message>> {
        pipeline_formats::refuse(frame)
    }
}

impl HttpSourceConfig {
    pub fn settings(&self) -> Settings {
        Settings::new(self.format, &self.columns, self.header, self.delimiter.as_deref())
    }

    pub fn beside(&self) -> Beside {
        Beside { patterns: Patterns::none(), topic: None, time: self.time_column.clone() }
    }

    pub fn login(&self) -> Login {
        Login { token: self.token.clone(), username: self.username.clone(), password: self.password.clone() }
    }

    /// # Errors
    /// Fatal: it is no address with a port.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listen.parse().map_err(|_| {
            let error = Error::fatal(format!("`{}` is no address with a port", self.listen)).code("http.listen").path("listen");
            error.hint("write it as `127.0.0.1:8080`, or `0.0.0.0:8080` for all addresses of this machine")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_its_key() {
        for (keys, expected) in [
            (serde_json::json!({}), ""),
            (serde_json::json!({ "listen": "8080" }), "listen: `8080` is no address"),
            (serde_json::json!({ "path": "in" }), "path: `in` is no path"),
            (serde_json::json!({ "path": "/healthz" }), "path: "),
            (serde_json::json!({ "tls": { "certificate": "x" } }), "tls.key: "),
            (serde_json::json!({ "token": "secret", "username": "u", "password": "p" }), "token: "),
            (serde_json::json!({ "body-bytes-max": "1GiB" }), "body-bytes-max: "),
            (serde_json::json!({ "columns": { "ts": "tims" } }), "columns.ts: "),
        ] {
            let mut config = serde_json::json!({ "listen": "127.0.0.1:0" });
            config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            let config: HttpSourceConfig = serde_json::from_value(config).unwrap();
            let found: Vec<String> = config.lint().iter().map(ToString::to_string).collect();
            assert!(found.len() == usize::from(!expected.is_empty()) && found.iter().all(|it| it.starts_with(expected)), "{keys}: {found:?}");
        }
    }
}
