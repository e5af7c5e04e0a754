//! How a component reaches its host: metrics, state, incidents, cancellation, and what was negotiated for it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::describe::Capability;
use crate::detached::Detached;
use crate::error::Result;

/// Where a component stands and what was agreed for it when the file was checked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Place {
    pub pipeline: String,
    /// The pipeline's share that this instance works on (a database), empty where it is not divided.
    pub task: String,
    /// The component's name within its pipeline.
    pub component: String,
    /// The lane of a sink that has one instance a lane.
    pub lane: Option<String>,
    /// What the pipeline's other components asked of this one and it provides.
    pub negotiated: BTreeSet<Capability>,
    /// The component's own name for itself in a replica (the site's name), where the file gives one.
    pub site: Option<String>,
    /// Identity of the pipeline's source, once it is connected; sinks record it as origin.
    pub source_identity: Option<String>,
}

/// Something a person should know of, that is not (only) an error: a hole, a parked change, rows left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Incident {
    /// A short stable name: `hole`, `regress`, `parked-change`, `left-out`.
    pub kind: String,
    pub message: String,
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// What a host offers; implemented by the host and, across the boundary, by the glue.
pub trait Host: Send + Sync {
    fn counter(&self, name: &str, add: u64);
    fn gauge(&self, name: &str, value: f64);
    fn incident(&self, incident: &Incident);
    /// State outlives the process. Durable when `Ok` is returned. Each component has a scope of its own;
    /// with `shared` the scope is the task's, for all instances of the same component type.
    fn state_get(&self, shared: bool, key: &str) -> Result<Option<Vec<u8>>>;
    fn state_put(&self, shared: bool, key: &str, value: Option<&[u8]>) -> Result<()>;
    fn state_keys(&self, shared: bool, prefix: &str) -> Result<Vec<String>>;
    fn is_cancelled(&self) -> bool;
}

#[derive(Clone)]
pub struct Context {
    pub place: Arc<Place>,
    host: Arc<dyn Host>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Context {
    pub fn new(place: Place, host: Arc<dyn Host>) -> Self {
        Self { place: Arc::new(place), host }
    }

    /// A context of nowhere, with a [`Detached`] host: for tests of a component alone.
    pub fn detached() -> Self {
        Self::new(Place::default(), Arc::new(Detached::default()))
    }

    pub fn negotiated(&self, capability: &str) -> bool {
        self.place.negotiated.contains(capability)
    }

    /// Adds to a counter that appears as `pipeline_NAME_total` with this component's labels.
    pub fn count(&self, name: &str, add: u64) {
        self.host.counter(name, add);
    }

    pub fn gauge(&self, name: &str, value: f64) {
        self.host.gauge(name, value);
    }

    pub fn incident(&self, kind: &str, message: impl Into<String>, detail: serde_json::Value) {
        self.host.incident(&Incident { kind: kind.into(), message: message.into(), detail });
    }

    /// State of this component alone (per lane for a sink with lanes).
    pub fn state(&self) -> State {
        State { host: self.host.clone(), shared: false }
    }

    /// State that all instances of this component's type in the task share.
    pub fn shared_state(&self) -> State {
        State { host: self.host.clone(), shared: true }
    }

    pub fn is_cancelled(&self) -> bool {
        self.host.is_cancelled()
    }
}

/// A durable key-value store in a scope of its own.
#[derive(Clone)]
pub struct State {
    host: Arc<dyn Host>,
    shared: bool,
}

impl State {
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.host.state_get(self.shared, key)
    }

    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.host.state_put(self.shared, key, Some(value))
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        self.host.state_put(self.shared, key, None)
    }

    /// A name that stands for this state at another place: made once, with `prefix` before what no other state's name has, and kept
    /// under `key`.
    pub fn name(&self, key: &str, prefix: &str) -> Result<String> {
        if let Some(known) = self.get(key)? {
            return Ok(String::from_utf8_lossy(&known).into_owned());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let made = format!("{prefix}{:x}-{:x}", now.as_nanos(), std::process::id());
        self.put(key, made.as_bytes())?;
        Ok(made)
    }

    /// Keys that start with `prefix`, in order.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        self.host.state_keys(self.shared, prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once() {
        let state = Context::detached().state();
        let made = state.name("client-id", "pipeline-").unwrap();
        assert!(made.starts_with("pipeline-") && state.name("client-id", "other-").unwrap() == made, "{made}");
        assert_ne!(state.name("other", "pipeline-").unwrap(), made);
    }
}
