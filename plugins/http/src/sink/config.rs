//! Keys of the sink.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use pipeline_formats::Format;
use pipeline_sdk::tls::Tls;
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Sink, SinkConfig, units};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::login::Login;

/// Sends rows as HTTP requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpSinkConfig {
    /// Where to: `https://host/path`.
    pub url: String,
    /// How.
    #[serde(default)]
    pub(crate) method: Method,
    /// What a row becomes: a line of a body, with `raw` a body of its own.
    #[serde(default)]
    pub format: Format,
    /// Of NDJSON: a body is one JSON array.
    #[serde(default)]
    pub array: bool,
    /// Of CSV: the first line of each body names the columns.
    #[serde(default = "pipeline_formats::header")]
    pub header: bool,
    /// Of CSV: between fields.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// Further headers: `{ X-Site = "berlin" }`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, SecretString>,
    /// Sent as `Authorization: Bearer TOKEN`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// Sent as basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// The password of `username`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// Whom to trust, and a certificate of one's own.
    #[serde(default)]
    pub tls: Tls,
    /// A body is that large at most, but for a single row; the sink's `batching` says how many rows come together.
    #[serde(default = "body_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub body_bytes_max: u64,
    /// How long the server may take to answer, and to connect.
    #[serde(default = "timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub timeout: Duration,
    /// How long a `Retry-After` of the server is heeded at most.
    #[serde(default = "retry_after_max", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub retry_after_max: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    #[default]
    Post,
    Put,
}

fn body_bytes_max() -> u64 {
    1 << 20
}

fn timeout() -> Duration {
    Duration::from_secs(30)
}

fn retry_after_max() -> Duration {
    Duration::from_secs(60)
}

impl SinkConfig for HttpSinkConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("http", Kind::Sink, "Sends rows as HTTP requests")
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = self.login().lint();
        problems.extend(self.tls.lint());
        match self.target() {
            Ok(target) if !target.has_tls && !self.tls.is_empty() => {
                problems.push(Error::fatal("`http://` has no TLS").path("url").hint("write `https://`, or leave `tls` out"));
            }
            target => problems.extend(target.err()),
        }
        if self.array && self.format != Format::Ndjson {
            problems.push(Error::fatal("only NDJSON becomes an array").path("array"));
        }
        for (name, value) in &self.headers {
            if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.expose_secret()).is_err() {
                problems.push(Error::fatal("this is no header").path(format!("headers.{name}")));
            }
        }
        if self.body_bytes_max == 0 {
            problems.push(Error::fatal("a body has a byte at least").path("body-bytes-max"));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(super::Http::new(self, context)?))
    }
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub host: String,
    pub port: u16,
    pub has_tls: bool,
    /// As the header `Host` names it.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl HttpSinkConfig {
    pub fn login(&self) -> Login {
        Login { token: self.token.clone(), username: self.username.clone(), password: self.password.clone() }
    }

    /// # Errors
    /// Fatal: it is no address. The text is not shown, as it may hold a secret.
    pub fn target(&self) -> Result<Target> {
        let wrong = |text: &str| Error::fatal(text).code("http.url").path("url").hint("write it as `https://host/path`");
        let url = Url::parse(&self.url).map_err(|error| wrong(&format!("it is no address: {error}")))?;
        let has_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(wrong(&format!("`{other}://` is not known"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a login").hint("say it with `username` and `password`, or `token`"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(if has_tls { 443 } else { 80 });
        let authority = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        Ok(Target { host: host.trim_matches(['[', ']']).to_owned(), port, has_tls, authority, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_its_key_and_no_secret() {
        for (keys, expected) in [
            (serde_json::json!({}), ""),
            (serde_json::json!({ "url": "ftp://h" }), "url: `ftp://` is not known"),
            (serde_json::json!({ "url": "http://u:secret@h/" }), "url: it holds a login"),
            (serde_json::json!({ "url": "secret" }), "url: it is no address"),
            (serde_json::json!({ "url": "http://h", "tls": { "ca": "x" } }), "url: `http://` has no TLS"),
            (serde_json::json!({ "tls": { "certificate": "x" } }), "tls.key: "),
            (serde_json::json!({ "array": true, "format": "csv" }), "array: "),
            (serde_json::json!({ "headers": { "X Y": "secret" } }), "headers.X Y: "),
            (serde_json::json!({ "username": "u" }), "password: "),
            (serde_json::json!({ "body-bytes-max": "0B" }), "body-bytes-max: "),
        ] {
            let mut config = serde_json::json!({ "url": "https://h:8443/in?a=b" });
            config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            let config: HttpSinkConfig = serde_json::from_value(config).unwrap();
            let found: Vec<String> = config.lint().iter().map(ToString::to_string).collect();
            let is_good = found.len() == usize::from(!expected.is_empty()) && found.iter().all(|it| it.starts_with(expected) && !it.contains("secret"));
            assert!(is_good, "{keys}: {found:?}");
        }
    }
}
