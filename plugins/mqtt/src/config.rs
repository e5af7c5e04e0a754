//! Keys of the source.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use pipeline_formats::{Beside, Format, MQTT, Patterns, Settings, UNDECODABLE};
use pipeline_sdk::tls::Tls;
use pipeline_sdk::{ComponentDescription, Context, Error, Frame, Header, Kind, Message, Result, Source, SourceConfig, units};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

/// Subscribes to MQTT topics.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MqttSourceConfig {
    /// The broker, `mqtt://host:1883`; with TLS `mqtts://host:8883`. May hold `user:password@`.
    pub url: String,
    /// What to subscribe to, with the wildcards `+` and `#`. `{device}` is a `+` whose level becomes the column `device`:
    /// `meters/{location}/{device}`.
    #[schemars(length(min = 1))]
    pub topics: Vec<String>,
    /// The name of the session at the broker, one for each running pipeline. Where absent one is made and kept in the state.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Of the login, where it is not in `url`.
    #[serde(default)]
    pub username: Option<String>,
    /// Of the login, where it is not in `url`: `"${PASSWORD}"`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// Whom to trust, and a certificate of one's own.
    #[serde(default)]
    pub tls: Tls,
    /// Version of the protocol.
    #[serde(default)]
    pub(crate) protocol: Protocol,
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
    /// A column for the topic.
    #[serde(default)]
    pub topic_column: Option<String>,
    /// A column for the time of arrival.
    #[serde(default)]
    pub time_column: Option<String>,
    /// How long the broker keeps the session without a connection. Of protocol 5; with 3.1.1 the broker decides.
    #[serde(default = "session_expiry", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub session_expiry: Duration,
    /// Messages that the broker sends before it waits for acknowledgements, which come with each checkpoint. Of protocol 5; with 3.1.1
    /// the broker decides.
    #[serde(default = "inflight_max")]
    #[schemars(range(min = 1))]
    pub inflight_max: u16,
    /// The largest message. With protocol 5 the broker drops larger ones, with 3.1.1 they end the task.
    #[serde(default = "message_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub message_bytes_max: u64,
    /// What was received and waits to be read; of more, nothing is received.
    #[serde(default = "waiting_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub waiting_bytes_max: u64,
    /// Payloads that become one batch of rows at most.
    #[serde(default = "pipeline_formats::batch_payloads")]
    #[schemars(range(min = 1, max = 65_535))]
    pub batch_payloads: u32,
    /// How often the connection is tried while nothing is sent.
    #[serde(default = "keep_alive", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub keep_alive: Duration,
    /// How long connecting and subscribing may take.
    #[serde(default = "connect_timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub connect_timeout: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Protocol {
    #[default]
    #[serde(rename = "5")]
    V5,
    #[serde(rename = "3.1.1")]
    V3,
}

fn session_expiry() -> Duration {
    Duration::from_secs(7 * 86_400)
}

fn inflight_max() -> u16 {
    20_000
}

fn message_bytes_max() -> u64 {
    16 << 20
}

fn waiting_bytes_max() -> u64 {
    64 << 20
}

fn keep_alive() -> Duration {
    Duration::from_secs(30)
}

fn connect_timeout() -> Duration {
    Duration::from_secs(10)
}

impl SourceConfig for MqttSourceConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("mqtt", Kind::Source, "Subscribes to MQTT topics").prompt_commit().frames(UNDECODABLE)
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = self.settings().lint();
        problems.extend(self.tls.lint());
        match self.address() {
            Ok(address) if !address.has_tls && !self.tls.is_empty() => {
                problems.push(Error::fatal("`mqtt://` has no TLS").path("url").hint("write `mqtts://`, or leave `tls` out"));
            }
            address => problems.extend(address.err()),
        }
        if self.topics.is_empty() {
            problems.push(Error::fatal("name a topic at least").path("topics"));
        }
        problems.extend(self.beside().err());
        if self.password.is_some() && self.username.is_none() {
            problems.push(Error::fatal("a password needs its `username`").path("username"));
        }
        if self.client_id.as_deref() == Some("") {
            problems.push(Error::fatal("a session needs a name").path("client-id"));
        }
        // What the client takes; the protocol has two bytes of seconds.
        if !(1..=u64::from(u16::MAX)).contains(&self.keep_alive.as_secs()) {
            problems.push(Error::fatal("from 1s to 18h").path("keep-alive"));
        }
        if self.message_bytes_max == 0 || self.message_bytes_max > 256 << 20 {
            problems.push(Error::fatal("up to 256MiB, which is the largest that MQTT knows").path("message-bytes-max"));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(crate::source::Mqtt::new(self, context)?))
    }

    fn decode(_: &Header, frame: &Frame) -> Result<Vec<Message>> {
        pipeline_formats::refuse(frame)
    }
}

/// Where the broker is.
pub(crate) struct Address {
    pub host: String,
    pub port: u16,
    pub has_tls: bool,
    pub login: Option<(String, SecretString)>,
}

impl MqttSourceConfig {
    /// # Errors
    /// Fatal: a topic is no filter.
    pub fn beside(&self) -> Result<Beside> {
        let patterns = Patterns::new(&self.topics, MQTT, "topics")?;
        Ok(Beside { patterns, topic: self.topic_column.clone(), time: self.time_column.clone() })
    }

    pub fn settings(&self) -> Settings {
        Settings::new(self.format, &self.columns, self.header, self.delimiter.as_deref())
    }

    /// # Errors
    /// Fatal: it is no address. The text is not shown, as it may hold a password.
    pub fn address(&self) -> Result<Address> {
        let wrong = |text: &str| {
            let error = Error::fatal(text).code("mqtt.url").path("url");
            error.hint("write it as `mqtt://host:1883` or `mqtts://user:password@host:8883`; signs of a password as %40, or use `password`")
        };
        let url = Url::parse(&self.url).map_err(|error| wrong(&format!("it is no address: {error}")))?;
        let has_tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(wrong(&format!("`{other}://` is not known"))),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("nothing may stand behind the port"));
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = match (&self.username, url.username()) {
            (Some(name), _) => Some((name.clone(), self.password.clone().unwrap_or_default())),
            (None, "") => None,
            (None, name) => Some((decoded(name), SecretString::from(decoded(url.password().unwrap_or_default())))),
        };
        let port = url.port().unwrap_or(if has_tls { 8883 } else { 1883 });
        Ok(Address { host: host.trim_matches(['[', ']']).to_owned(), port, has_tls, login })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(keys: serde_json::Value) -> Vec<String> {
        let mut config = serde_json::json!({ "url": "mqtt://u:secret@h", "topics": ["a"] });
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let config: MqttSourceConfig = serde_json::from_value(config).unwrap();
        config.lint().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_names_its_key_and_no_password() {
        assert_eq!(problems(serde_json::json!({})), Vec::<String>::new());
        for (keys, expected) in [
            (serde_json::json!({ "url": "http://u:secret@h" }), "url: `http://` is not known"),
            (serde_json::json!({ "url": "mqtt://u:secret@h/x" }), "url: nothing may stand"),
            (serde_json::json!({ "url": "secret" }), "url: it is no address"),
            (serde_json::json!({ "tls": { "ca": "x" } }), "url: `mqtt://` has no TLS"),
            (serde_json::json!({ "url": "mqtts://h", "tls": { "key": "x" } }), "tls.certificate: "),
            (serde_json::json!({ "topics": ["a/{}"] }), "topics[0]: "),
            (serde_json::json!({ "columns": { "ts": "tims" } }), "columns.ts: `tims` is no type"),
            (serde_json::json!({ "password": "secret" }), "username: "),
            (serde_json::json!({ "client-id": "" }), "client-id: "),
            (serde_json::json!({ "keep-alive": "100ms" }), "keep-alive: "),
            (serde_json::json!({ "message-bytes-max": "1GiB" }), "message-bytes-max: "),
        ] {
            let found = problems(keys.clone());
            assert!(found.len() == 1 && found[0].starts_with(expected) && !found[0].contains("secret"), "{keys}: {found:?}");
        }
    }
}
