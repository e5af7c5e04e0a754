//! Keys of the source.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline_formats::{Format, Settings, UNDECODABLE};
use pipeline_sdk::{ComponentDescription, Context, Error, Frame, Header, Kind, Message, Result, Source, SourceConfig, units};
use rdkafka::config::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::beside::Beside;
use crate::client;

/// Reads Kafka topics as a member of a consumer group.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KafkaSourceConfig {
    /// Some of the cluster's brokers: `host:9092`, several with commas.
    pub brokers: String,
    /// Topics to read.
    #[schemars(length(min = 1))]
    pub topics: Vec<String>,
    /// The consumer group; processes of one group share the partitions.
    pub group: String,
    /// Where a partition begins that this pipeline has not read and the group has no offset of.
    #[serde(default)]
    pub start: Start,
    /// What is done when the next message to be read is no longer kept.
    #[serde(default)]
    pub on_hole: OnHole,
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
    /// Columns for what a message has beside its payload: `{ key = "device", time = "sent" }`.
    #[serde(default)]
    pub beside: Beside,
    /// Payloads that become one batch of rows at most.
    #[serde(default = "pipeline_formats::batch_payloads")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_payloads: u32,
    /// What was fetched and waits to be read.
    #[serde(default = "waiting_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub waiting_bytes_max: u64,
    /// How long a broker may take to answer, and the group to assign partitions.
    #[serde(default = "connect_timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub connect_timeout: Duration,
    /// Further properties of librdkafka, TLS and passwords among them: `"security.protocol" = "SASL_SSL"`, `"sasl.password" = "${PASSWORD}"`.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the oldest message that is kept.
    #[default]
    Earliest,
    /// With what is written from now on.
    Latest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnHole {
    /// The task stops.
    #[default]
    Stop,
    /// An incident, and it goes on with the oldest that is kept.
    Continue,
}

/// Properties that are the plugin's own.
const FIXED: [&str; 5] = ["group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset", "queued.max.messages.kbytes"];

fn waiting_bytes_max() -> u64 {
    64 << 20
}

fn connect_timeout() -> Duration {
    Duration::from_secs(10)
}

impl SourceConfig for KafkaSourceConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("kafka", Kind::Source, "Reads Kafka topics").frames(UNDECODABLE).blocking()
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = client::lint(&self.brokers, &self.properties, &FIXED);
        problems.extend(self.settings().lint());
        if self.topics.is_empty() || self.topics.iter().any(String::is_empty) {
            problems.push(Error::fatal("name a topic at least").path("topics"));
        }
        if self.group.is_empty() {
            problems.push(Error::fatal("a consumer group needs a name").path("group"));
        }
        if problems.is_empty() {
            problems.extend(self.client().create_native_config().err().map(|error| client::refused(&error)));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(super::Kafka::new(self, context)?))
    }

    fn decode(_: &Header, frame: &Frame) -> Result<Vec<Message>> {
        pipeline_formats::refuse(frame)
    }
}

impl KafkaSourceConfig {
    pub fn settings(&self) -> Settings {
        Settings::new(self.format, &self.columns, self.header, self.delimiter.as_deref())
    }

    pub fn client(&self) -> ClientConfig {
        let defaults = [
            ("client.id", "pipeline".to_owned()),
            ("allow.auto.create.topics", "false".into()),
            // After a kill the partitions are free again in so long.
            ("session.timeout.ms", "10000".into()),
        ];
        // Where a partition begins is always said. What is out of range by then begins with the oldest message, and is seen as a hole.
        let fixed = [
            ("group.id", self.group.clone()),
            ("enable.auto.commit", "false".into()),
            ("enable.auto.offset.store", "false".into()),
            ("auto.offset.reset", "earliest".into()),
            ("queued.max.messages.kbytes", (self.waiting_bytes_max >> 10).clamp(1, 2_097_151).to_string()),
        ];
        client::settings(&self.brokers, &self.properties, &defaults, &fixed)
    }
}
