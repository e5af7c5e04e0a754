//! MQTT topics as source.
//!
//! A session that outlives the connection holds at the broker what was not acknowledged, and a message is acknowledged only after the
//! engine made it durable: what a crash or a lost connection leaves is sent again. So messages of QoS 1 and 2 come at least once.

mod config;
mod packets;
mod client;
mod source;

use pipeline_sdk::Plugin;

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("mqtt", env!("CARGO_PKG_VERSION"), "MQTT topics as source").source::<config::MqttSourceConfig>()
}
