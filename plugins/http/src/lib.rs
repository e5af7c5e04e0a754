//! HTTP requests as source (a webhook server) and as sink.
//!
//! A request is answered with 2xx only when the sinks have made it durable, and a batch counts as written only when the server has
//! answered with 2xx: so rows come at least once, if whoever sends repeats what was not answered.

mod login;
mod source;
mod sink;

use pipeline_sdk::Plugin;

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("http", env!("CARGO_PKG_VERSION"), "HTTP requests as source (a webhook server) and sink")
        .source::<source::HttpSourceConfig>()
        .sink::<sink::HttpSinkConfig>()
}
