//! TDengine components of pipeline: the source `tdengine-tmq`, the sink and the site `tdengine`.
//!
//! Read in this order: [`dsn`], [`client`] (a WebSocket client that knows no pipeline), [`log`] (what a log holds), [`errors`],
//! [`token`], [`source`], [`sink`],
//! [`site`]; [`meters`] makes data to try it with.

pub mod dsn;
pub mod span;
pub mod network;
pub mod client;
pub mod native;
pub mod transport;
pub mod errors;
pub mod names;
pub mod token;
pub mod log;
pub mod metadata;
pub mod source;
pub mod sink;
pub mod site;
pub mod meters;

use std::sync::Arc;

use network::{Network, Tcp};
use pipeline_sdk::{Plugin, ReplicaDescription};

/// The plugin.
pub fn plugin() -> Plugin {
    plugin_over(Arc::new(Tcp))
}

/// The plugin, whose source and sink reach their sites over `network`.
pub fn plugin_over(network: Arc<dyn Network>) -> Plugin {
    let of_sinks = network.clone();
    Plugin::new("tdengine", env!("CARGO_PKG_VERSION"), "TDengine: rows and changes through TMQ, both ways")
        .source_with(move |config: source::TmqConfig| config.over(network.clone()))
        .sink_with(move |config: sink::TdengineConfig| config.over(of_sinks.clone()))
        .site::<site::TdengineSiteConfig>()
        .service::<meters::MetersConfig>()
        .replica(ReplicaDescription {
            type_name: "tdengine".into(),
            source: "tdengine-tmq".into(),
            transform: "loop-mark".into(),
            sink: "tdengine".into(),
            site: "tdengine".into(),
            address_key: "dsn".into(),
            exclude_key: Some("exclude".into()),
            rename_key: Some("map".into()),
            discover_interval_key: Some("new-database-interval".into()),
            from_now: Some(("from".into(), "latest".into())),
            in_mesh: Some(("missing-table".into(), "wait".into())),
        })
}

#[cfg(test)]
mod tests {
    /// `plugin describe` shows them, and the engine reads how often to look for new databases from there.
    #[test]
    fn every_optional_key_tells_its_default() {
        for component in super::plugin().describe().components {
            let required: Vec<_> = component.schema["required"].as_array().into_iter().flatten().collect();
            let keys = component.schema["properties"].as_object().into_iter().flatten();
            for (key, schema) in keys.filter(|(key, _)| !required.contains(&&serde_json::json!(key))) {
                assert!(schema.get("default").is_some(), "{} {key}: {schema}", component.type_name);
            }
            if component.type_name == "tdengine-tmq" {
                assert_eq!(component.schema["properties"]["new-database-interval"]["default"], "30s");
            }
        }
    }
}
