//! Kafka topics as source and sink, through librdkafka.
//!
//! A partition is a lane. Offsets are committed to the consumer group only after the engine made what they stand for durable, and a
//! write returns only when all in-sync replicas have it: messages come at least once, in the order of their partition.

mod beside;
mod client;
mod sink;
mod source;
mod template;

use pipeline_sdk::Plugin;

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("kafka", env!("CARGO_PKG_VERSION"), "Kafka topics as source and sink")
        .source::<source::KafkaSourceConfig>()
        .sink::<sink::KafkaSinkConfig>()
}
