//! NATS JetStream as source and sink as a shared library.

pipeline_sdk::plugin!(pipeline_nats::plugin, ["nats"]);
