//! Kafka topics as source and sink, as a shared library.

pipeline_sdk::plugin!(pipeline_kafka::plugin, ["kafka"]);
