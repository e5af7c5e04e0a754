//! Making components: their place, their host, their configuration.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::context::{Host, Place};
use pipeline_sdk::{Incident, Lane, Result, Service, Sink, Source, Transform};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::run::Shared;
use super::task::Task;
use crate::config::Redactor;
use crate::graph::{BuiltInHost, Node};
use crate::host::Origin;
use crate::metrics::{Counter, Labels, Registry};
use crate::state::{Change, Scope, Store};

/// Longest text of a plugin that is logged in one event.
const LOG_BYTES_MAX: usize = 16 * 1024;

/// What a component sees of its host.
struct ComponentHost {
    store: Store,
    own: Scope,
    shared: Scope,
    registry: Arc<Registry>,
    labels: Labels,
    counters: RwLock<HashMap<String, Counter>>,
    redactor: Arc<Redactor>,
    stop: CancellationToken,
}

impl Host for ComponentHost {
    fn counter(&self, name: &str, add: u64) {
        if let Some(counter) = self.counters.read().get(name) {
            return counter.add(add);
        }
        let counter = self.registry.counter(name, &self.labels);
        counter.add(add);
        self.counters.write().insert(name.to_owned(), counter);
    }

    fn gauge(&self, name: &str, value: f64) {
        self.registry.gauge(name, &self.labels, value);
    }

    fn incident(&self, incident: &Incident) {
        let message = self.redactor.redact(&incident.message);
        tracing::warn!(
            pipeline = self.labels.pipeline, task = self.labels.task, component = self.labels.component,
            kind = incident.kind, incident = message, "incident"
        );
        let detail = self.redactor.redact(&incident.detail.to_string());
        // A secret that is more than a string's inside leaves no JSON: then the detail is left out.
        let detail = serde_json::from_str(&detail).unwrap_or_default();
        self.registry.incident(&self.labels, Incident { kind: incident.kind.clone(), message, detail });
    }

    fn state_get(&self, shared: bool, key: &str) -> Result<Option<Vec<u8>>> {
        self.store.state(self.scope(shared), key)
    }

    fn state_put(&self, shared: bool, key: &str, value: Option<&[u8]>) -> Result<()> {
        let scope = self.scope(shared).clone();
        self.store.commit_blocking(&[Change::State { scope, key: key.into(), value: value.map(<[u8]>::to_vec) }])
    }

    fn state_keys(&self, shared: bool, prefix: &str) -> Result<Vec<String>> {
        self.store.state_keys(self.scope(shared), prefix)
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }
}

impl ComponentHost {
    fn scope(&self, shared: bool) -> &Scope {
        if shared { &self.shared } else { &self.own }
    }
}

/// Host and log for a component at a place.
fn parts(run: &Shared, place: &Place, type_name: &str, stop: &CancellationToken) -> HostParts {
    let labels = Labels {
        pipeline: place.pipeline.clone(),
        task: place.task.clone(),
        component: place.component.clone(),
        lane: place.lane.clone(),
    };
    let host = ComponentHost {
        store: run.store.clone(),
        own: Scope::own(&place.pipeline, &place.task, &place.component, place.lane.as_deref()),
        shared: Scope::shared(&place.pipeline, &place.task, type_name),
        registry: run.registry.clone(),
        labels: labels.clone(),
        counters: RwLock::default(),
        redactor: run.redactor(),
        stop: stop.clone(),
    };
    let redactor = run.redactor();
    let log = move |level: u32, target: &str, message: &str, fields: &str| {
        let message = redactor.redact(&message[..message.floor_char_boundary(LOG_BYTES_MAX)]);
        let fields = redactor.redact(&fields[..fields.floor_char_boundary(LOG_BYTES_MAX)]);
        log_event(level, &labels, target, &message, &fields);
    };
    HostParts { host: Arc::new(host), log: Arc::new(log) }
}

/// What is empty is left out of a log line.
fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn log_event(level: u32, labels: &Labels, origin: &str, message: &str, fields: &str) {
    let Labels { pipeline, task, component, lane } = labels;
    let (pipeline, task, component, fields) = (known(pipeline), known(task), known(component), known(fields));
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(target: "plugin", pipeline, task, component, lane, origin, fields, "{message}")
        };
    }
    match level {
        1 => event!(error),
        2 => event!(warn),
        3 => event!(info),
        4 => event!(debug),
        _ => event!(trace),
    }
}

impl Task {
    fn place(&self, node: &Node, lane: Option<&Lane>, source_identity: Option<&str>) -> Place {
        Place {
            pipeline: self.pipeline.name.clone(),
            task: self.value.clone(),
            component: node.name.clone(),
            lane: lane.map(|lane| lane.as_str().to_owned()),
            negotiated: node.negotiated.clone(),
            site: node.site.clone(),
            source_identity: source_identity.filter(|it| !it.is_empty()).map(str::to_owned),
        }
    }

    /// Place and host of a component, and where it is made.
    async fn prepared(&self, node: &Node, lane: Option<&Lane>, identity: Option<&str>) -> Result<(Place, HostParts, Origin)> {
        let place = self.place(node, lane, identity);
        let parts = parts(&self.run, &place, &node.type_name, &self.tenure().halt);
        let origin = self.origin(node, &parts).await?;
        Ok((place, parts, origin))
    }

    fn built_in_host(&self, node: &Node) -> BuiltInHost<'_> {
        let labels = Labels { pipeline: self.pipeline.name.clone(), task: self.value.clone(), component: node.name.clone(), lane: None };
        BuiltInHost { buffers: &self.run.buffers, registry: &self.run.registry, labels }
    }

    pub(super) async fn make_source(&self) -> Result<Box<dyn Source>> {
        let node = &self.pipeline.source.node;
        if let Some(built_in) = &node.built_in {
            return built_in.source(&self.built_in_host(node));
        }
        let made = async {
            let (place, parts, origin) = self.prepared(node, None, None).await?;
            origin.source(&node.type_name, &source_config(node, &self.value), &place, parts).await
        };
        made.await.map_err(|it| it.context(&node.path))
    }

    pub(super) async fn make_transform(&self, node: &Node, source_identity: &str) -> Result<Box<dyn Transform>> {
        let made = async {
            let (place, parts, origin) = self.prepared(node, None, Some(source_identity)).await?;
            origin.transform(&node.type_name, &node.config, &place, parts, self.pipeline.settings.call_timeout).await
        };
        made.await.map_err(|it| it.context(&node.path))
    }

    pub(super) async fn make_sink(&self, node: &Node, lane: Option<&Lane>, source_identity: &str) -> Result<Box<dyn Sink>> {
        if let Some(built_in) = &node.built_in {
            return built_in.sink(&self.built_in_host(node));
        }
        let made = async {
            let (place, parts, origin) = self.prepared(node, lane, Some(source_identity)).await?;
            origin.sink(&node.type_name, &node.config, &place, parts).await
        };
        made.await.map_err(|it| it.context(&node.path))
    }

    /// Host of a component for what needs no instance.
    pub(super) fn parts(&self, node: &Node) -> HostParts {
        parts(&self.run, &self.place(node, None, None), &node.type_name, &self.tenure().halt)
    }
}

pub(super) async fn make_service(run: &Shared, node: &Node, stop: &CancellationToken) -> Result<Box<dyn Service>> {
    let place = Place { component: node.name.clone(), negotiated: node.negotiated.clone(), ..Place::default() };
    let parts = parts(run, &place, &node.type_name, stop);
    let made = async {
        let origin = run.origin(node, &parts).await?;
        origin.service(&node.type_name, &node.config, &place, parts).await
    };
    made.await.map_err(|it| it.context(&node.path))
}

/// What a source finds to make tasks of.
pub(super) async fn discover(run: &Shared, pipeline: &str, node: &Node, stop: &CancellationToken) -> Result<Vec<String>> {
    let place = Place { pipeline: pipeline.to_owned(), component: node.name.clone(), ..Place::default() };
    let origin = run.origin(node, &parts(run, &place, &node.type_name, stop)).await?;
    origin.discover(&node.type_name, &node.config).await
}

/// The source's configuration for one task: the task key holds that value alone.
fn source_config(node: &Node, value: &str) -> Json {
    let mut config = node.config.clone();
    if let Some(key) = node.description.task_key.as_deref()
        && let Some(given) = config.get_mut(key)
    {
        *given = if given.is_array() { Json::from(vec![value]) } else { Json::from(value) };
    }
    config
}
