//! A plugin as a value: components, each made by its config struct.
//!
//! The config struct is the factory: serde reads it, its JSON Schema is published, `lint` looks at it offline, `build` makes
//! the component.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::component::{Service, Sink, Source, Transform};
use crate::context::Context;
use crate::describe::{ComponentDescription, Kind, PluginDescription, ReplicaDescription};
use crate::error::{Error, Result};
use crate::message::{Frame, Header, Message};
use crate::site::Site;

/// A source's configuration.
#[async_trait]
pub trait SourceConfig: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    fn describe() -> ComponentDescription;

    /// Checks what the schema cannot say, without connecting. All that is wrong, each with its key as `path`.
    fn lint(&self) -> Vec<Error> {
        Vec::new()
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>>;

    /// The values of [`ComponentDescription::task_key`] that exist now; each becomes a task. May connect.
    async fn discover(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Turns a frame of this source's formats into rows. Pure: needs no instance, so that the engine can call it wherever
    /// rows are needed, while the source reads on.
    fn decode(_header: &Header, frame: &Frame) -> Result<Vec<Message>> {
        Err(Error::fatal(format!("this source has no decoder for frames of format `{}`", frame.format)))
    }
}

macro_rules! config_trait {
    ($(#[$doc:meta])* $name:ident => $made:ty) => {
        $(#[$doc])*
        pub trait $name: DeserializeOwned + JsonSchema + Send + Sync + 'static {
            fn describe() -> ComponentDescription;

            /// Checks what the schema cannot say, without connecting.
            fn lint(&self) -> Vec<Error> {
                Vec::new()
            }

            fn build(self, context: Context) -> Result<$made>;
        }
    };
}

config_trait!(/// A transform's configuration.
    TransformConfig => Box<dyn Transform>);
config_trait!(/// A sink's configuration. Built once a lane unless the description asks for merged lanes.
    SinkConfig => Box<dyn Sink>);
config_trait!(/// A service's configuration.
    ServiceConfig => Box<dyn Service>);
config_trait!(/// A site's configuration: the address alone.
    SiteConfig => Box<dyn Site>);

/// What a component is once it is made.
pub enum Instance {
    Source(Box<dyn Source>),
    Transform(Box<dyn Transform>),
    Sink(Box<dyn Sink>),
    Service(Box<dyn Service>),
    Site(Box<dyn Site>),
}

type Lint = dyn Fn(&serde_json::Value) -> Vec<Error> + Send + Sync;
type Build = dyn Fn(serde_json::Value, Context) -> Result<Instance> + Send + Sync;
type Discover = dyn Fn(serde_json::Value) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<String>>> + Send>>
    + Send
    + Sync;
type Decode = dyn Fn(&Header, &Frame) -> Result<Vec<Message>> + Send + Sync;

/// One component of a plugin.
#[derive(Clone)]
pub struct Component {
    pub description: ComponentDescription,
    pub lint: Arc<Lint>,
    pub build: Arc<Build>,
    pub discover: Option<Arc<Discover>>,
    pub decode: Option<Arc<Decode>>,
}

/// A plugin: a name, a version and its components. Registration is this value, never a global.
#[derive(Clone)]
pub struct Plugin {
    pub name: String,
    pub version: String,
    pub license: String,
    pub summary: String,
    pub components: Vec<Component>,
    pub replica: Option<ReplicaDescription>,
}

impl Plugin {
    /// Use `env!("CARGO_PKG_VERSION")` for the version.
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            license: "MIT OR Apache-2.0".into(),
            summary: summary.into(),
            components: Vec::new(),
            replica: None,
        }
    }

    pub fn source<C: SourceConfig>(self) -> Self {
        self.source_with::<C>(|config| config)
    }

    /// As [`Plugin::source`]; `prepare` completes what was read with what no file can hold, such as a network.
    pub fn source_with<C: SourceConfig>(mut self, prepare: impl Fn(C) -> C + Clone + Send + Sync + 'static) -> Self {
        let prepared = prepare.clone();
        let mut component = component::<C>(C::describe(), Kind::Source, C::lint, move |config, context| {
            prepared(config).build(context).map(Instance::Source)
        });
        component.discover = Some(Arc::new(move |config| {
            let prepare = prepare.clone();
            Box::pin(async move { prepare(read_config::<C>(config)?).discover().await })
        }));
        component.decode = Some(Arc::new(C::decode));
        self.components.push(component);
        self
    }

    pub fn transform<C: TransformConfig>(mut self) -> Self {
        self.components.push(component::<C>(C::describe(), Kind::Transform, C::lint, |config, context| {
            config.build(context).map(Instance::Transform)
        }));
        self
    }

    pub fn sink<C: SinkConfig>(self) -> Self {
        self.sink_with::<C>(|config| config)
    }

    /// As [`Plugin::sink`]; `prepare` as in [`Plugin::source_with`].
    pub fn sink_with<C: SinkConfig>(mut self, prepare: impl Fn(C) -> C + Send + Sync + 'static) -> Self {
        self.components.push(component::<C>(C::describe(), Kind::Sink, C::lint, move |config, context| {
            prepare(config).build(context).map(Instance::Sink)
        }));
        self
    }

    pub fn service<C: ServiceConfig>(mut self) -> Self {
        self.components.push(component::<C>(C::describe(), Kind::Service, C::lint, |config, context| {
            config.build(context).map(Instance::Service)
        }));
        self
    }

    pub fn site<C: SiteConfig>(mut self) -> Self {
        self.components.push(component::<C>(C::describe(), Kind::Site, C::lint, |config, context| {
            config.build(context).map(Instance::Site)
        }));
        self
    }

    pub fn replica(mut self, replica: ReplicaDescription) -> Self {
        self.replica = Some(replica);
        self
    }

    pub fn describe(&self) -> PluginDescription {
        PluginDescription {
            name: self.name.clone(),
            version: self.version.clone(),
            license: self.license.clone(),
            summary: self.summary.clone(),
            components: self.components.iter().map(|component| component.description.clone()).collect(),
            replica: self.replica.clone(),
        }
    }

    pub fn component(&self, kind: Kind, type_name: &str) -> Result<&Component> {
        self.components
            .iter()
            .find(|component| component.description.kind == kind && component.description.type_name == type_name)
            .ok_or_else(|| Error::fatal(format!("plugin {} has no {kind} `{type_name}`", self.name)))
    }
}

fn component<C: DeserializeOwned + JsonSchema + 'static>(
    mut description: ComponentDescription,
    kind: Kind,
    lint: fn(&C) -> Vec<Error>,
    build: impl Fn(C, Context) -> Result<Instance> + Send + Sync + 'static,
) -> Component {
    assert_eq!(description.kind, kind, "{}: registered as {kind}", description.type_name);
    description.schema = schemars::SchemaGenerator::default().into_root_schema_for::<C>().to_value();
    Component {
        description,
        lint: Arc::new(move |config| match read_config::<C>(config.clone()) {
            Ok(config) => lint(&config),
            Err(error) => vec![error],
        }),
        build: Arc::new(move |config, context| build(read_config::<C>(config)?, context)),
        discover: None,
        decode: None,
    }
}

fn read_config<C: DeserializeOwned>(config: serde_json::Value) -> Result<C> {
    serde_path_to_error::deserialize(config).map_err(|error| {
        let path = error.path().to_string();
        let wrong = Error::fatal(error.into_inner().to_string()).code("config");
        // A lone dot is the configuration as a whole.
        if path == "." { wrong } else { wrong.path(path) }
    })
}
