//! Keys of the sink.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline_formats::Format;
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Sink, SinkConfig, units};
use rdkafka::config::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::client;
use crate::template::Template;

/// Writes each row as a message into a Kafka topic.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KafkaSinkConfig {
    /// Some of the cluster's brokers: `host:9092`, several with commas.
    pub brokers: String,
    /// The topic; names in braces are columns of the row: `events-{type}`.
    pub topic: String,
    /// The key, by which a partition is chosen: `{device}`. Without, or where such a column is NULL, a message has none.
    #[serde(default)]
    pub key: Option<String>,
    /// Headers: `{ source = "pipeline", kind = "{type}" }`. One whose column is NULL is left out.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What a payload is.
    #[serde(default)]
    pub format: Format,
    /// Of CSV: between fields.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// How messages are compressed on their way and in the log.
    #[serde(default)]
    pub compression: Compression,
    /// What was handed over and is not acknowledged; more waits.
    #[serde(default = "waiting_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub waiting_bytes_max: u64,
    /// How long brokers may take to acknowledge a message; then the sink connects again.
    #[serde(default = "message_timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub message_timeout: Duration,
    /// How long a broker may take to answer.
    #[serde(default = "connect_timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub connect_timeout: Duration,
    /// Further properties of librdkafka, TLS and passwords among them: `"security.protocol" = "SASL_SSL"`, `"sasl.password" = "${PASSWORD}"`.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

/// Properties that are the plugin's own.
const FIXED: [&str; 6] =
    ["enable.idempotence", "acks", "request.required.acks", "message.timeout.ms", "delivery.timeout.ms", "queue.buffering.max.kbytes"];

fn waiting_bytes_max() -> u64 {
    64 << 20
}

fn message_timeout() -> Duration {
    Duration::from_secs(20)
}

fn connect_timeout() -> Duration {
    Duration::from_secs(10)
}

impl SinkConfig for KafkaSinkConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("kafka", Kind::Sink, "Writes rows as messages into Kafka topics").blocking()
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = client::lint(&self.brokers, &self.properties, &FIXED);
        problems.extend(self.templates().err());
        if self.topic.is_empty() {
            problems.push(Error::fatal("a topic needs a name").path("topic"));
        }
        if problems.is_empty() {
            problems.extend(self.client().create_native_config().err().map(|error| client::refused(&error)));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(super::Kafka::new(self, context)?))
    }
}

/// What is filled with columns.
pub struct Templates {
    pub topic: Template,
    pub key: Option<Template>,
    pub headers: Vec<(String, Template)>,
}

impl KafkaSinkConfig {
    /// # Errors
    /// One of them is none.
    pub fn templates(&self) -> Result<Templates> {
        let headers = self.headers.iter().map(|(name, text)| Ok((name.clone(), Template::new(text, format!("headers.{name}"))?)));
        Ok(Templates {
            topic: Template::new(&self.topic, "topic")?,
            key: self.key.as_ref().map(|text| Template::new(text, "key")).transpose()?,
            headers: headers.collect::<Result<_>>()?,
        })
    }

    pub fn client(&self) -> ClientConfig {
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        };
        let defaults = [
            ("client.id", "pipeline".to_owned()),
            ("compression.type", compression.into()),
            // The partition that Java's clients choose for the same key.
            ("partitioner", "murmur2_random".into()),
            ("queue.buffering.max.messages", "1000000".into()),
        ];
        let fixed = [
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".into()),
            ("message.timeout.ms", self.message_timeout.as_millis().to_string()),
            ("queue.buffering.max.kbytes", (self.waiting_bytes_max >> 10).clamp(1, 2_097_151).to_string()),
        ];
        client::settings(&self.brokers, &self.properties, &defaults, &fixed)
    }
}
