//! NATS JetStream as source and sink.
//!
//! A message is acknowledged only after the engine made it durable, and a row counts as written only when the stream has acknowledged it:
//! both at least once. Positions are the stream's sequence numbers, so a restart reads on in order from where the pipeline was, whatever
//! the server had sent before.

mod server;
mod source;
mod sink;

use pipeline_sdk::Plugin;

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("nats", env!("CARGO_PKG_VERSION"), "NATS JetStream as source and sink")
        .source::<source::NatsSourceConfig>()
        .sink::<sink::NatsSinkConfig>()
}
