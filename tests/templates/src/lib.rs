//! The components that `pipeline plugin new` writes in Rust, from the very templates: what is filled in stands in texts only.

#[path = "../../../core/cli/templates/rust/service.rs.txt"]
mod service;
#[path = "../../../core/cli/templates/rust/sink.rs.txt"]
mod sink;
#[path = "../../../core/cli/templates/rust/source.rs.txt"]
mod source;
#[path = "../../../core/cli/templates/rust/transform.rs.txt"]
mod transform;

use pipeline_sdk::Plugin;

fn plugin() -> Plugin {
    let mut plugin = Plugin::new("templates", env!("CARGO_PKG_VERSION"), "What `pipeline plugin new` writes");
    for part in [source::plugin(), transform::plugin(), sink::plugin(), service::plugin()] {
        plugin.components.extend(part.components);
    }
    plugin
}

pipeline_sdk::plugin!(plugin);
