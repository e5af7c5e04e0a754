//! What the graph must know of plugins; the plugin host implements it.

use pipeline_sdk::{ComponentDescription, Error, Kind, Plugin, PluginDescription, ReplicaDescription};

/// Known plugins.
pub trait Catalog {
    fn plugins(&self) -> Vec<&PluginDescription>;

    /// What the component itself finds wrong with a configuration; each error's `path` is relative to it.
    fn lint(&self, kind: Kind, type_name: &str, config: &serde_json::Value) -> Vec<Error>;

    /// The component with its plugin's name.
    fn component(&self, kind: Kind, type_name: &str) -> Option<(&str, &ComponentDescription)> {
        self.plugins().into_iter().find_map(|plugin| {
            let is_it = |component: &&ComponentDescription| component.kind == kind && component.type_name == type_name;
            plugin.components.iter().find(is_it).map(|component| (plugin.name.as_str(), component))
        })
    }

    fn replica(&self, type_name: &str) -> Option<&ReplicaDescription> {
        self.plugins().into_iter().filter_map(|plugin| plugin.replica.as_ref()).find(|it| it.type_name == type_name)
    }

    /// The key with which a sink renames values of the source's task key, where its plugin tells.
    fn rename_key(&self, sink: &str) -> Option<&str> {
        let replicas = self.plugins().into_iter().filter_map(|plugin| plugin.replica.as_ref());
        replicas.filter(|replica| replica.sink == sink).find_map(|replica| replica.rename_key.as_deref())
    }

    /// The key that holds the address of what a source or sink connects to, where its plugin tells.
    fn address_key(&self, kind: Kind, type_name: &str) -> Option<&str> {
        self.plugins().into_iter().filter_map(|plugin| plugin.replica.as_ref()).find_map(|replica| {
            let known = match kind {
                Kind::Source => &replica.source,
                Kind::Sink => &replica.sink,
                Kind::Site => &replica.site,
                Kind::Transform | Kind::Service => return None,
            };
            (known == type_name).then_some(replica.address_key.as_str())
        })
    }
}

/// Plugins that are linked into this program: the simulation's and the tests' catalog.
pub struct Linked {
    plugins: Vec<(PluginDescription, Plugin)>,
}

impl Linked {
    pub fn new(plugins: impl IntoIterator<Item = Plugin>) -> Self {
        Self { plugins: plugins.into_iter().map(|plugin| (plugin.describe(), plugin)).collect() }
    }
}

impl Catalog for Linked {
    fn plugins(&self) -> Vec<&PluginDescription> {
        self.plugins.iter().map(|(description, _)| description).collect()
    }

    fn lint(&self, kind: Kind, type_name: &str, config: &serde_json::Value) -> Vec<Error> {
        self.plugins
            .iter()
            .find_map(|(_, plugin)| plugin.component(kind, type_name).ok())
            .map_or_else(Vec::new, |component| (component.lint)(config))
    }
}
