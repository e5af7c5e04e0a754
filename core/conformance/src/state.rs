//! The host that a component under check has: counts what it gives out, keeps state in a file, so that it outlives a kill.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::context::Host;
use pipeline_sdk::{Error, Incident, Result};

/// Lines of a component's log that are kept.
const LOG_MAX: usize = 20;

pub struct KitHost {
    pub cancelled: AtomicBool,
    log: Arc<Mutex<Vec<String>>>,
    /// `SCOPE/KEY` to value.
    state: Mutex<BTreeMap<String, Vec<u8>>>,
    file: PathBuf,
}

impl KitHost {
    /// Begins with the state that an earlier host left in `file`.
    pub fn new(file: PathBuf, log: Arc<Mutex<Vec<String>>>) -> Arc<Self> {
        let stored = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Arc::new(Self { cancelled: AtomicBool::new(false), log, state: Mutex::new(stored.unwrap_or_default()), file })
    }

    pub fn parts(self: &Arc<Self>) -> HostParts {
        let lines = self.log.clone();
        let log = move |level: u32, target: &str, message: &str, fields: &str| {
            let level = ["error", "warn", "info", "debug", "trace"].get(level.saturating_sub(1) as usize).unwrap_or(&"log");
            let mut lines = lines.lock().expect("no panic under this lock");
            if lines.len() == LOG_MAX {
                lines.remove(0);
            }
            lines.push(format!("{level} {target}: {message} {fields}").trim_end().to_owned());
        };
        HostParts { host: self.clone(), log: Arc::new(log) }
    }

    /// Whether nobody but the caller holds it: every instance gave its handle back.
    pub fn is_released(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }
}

impl Host for KitHost {
    fn counter(&self, _: &str, _: u64) {}

    fn gauge(&self, _: &str, _: f64) {}

    fn incident(&self, incident: &Incident) {
        self.log.lock().expect("no panic under this lock").push(format!("incident {}: {}", incident.kind, incident.message));
    }

    fn state_get(&self, shared: bool, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().expect("no panic under this lock").get(&format!("{shared}/{key}")).cloned())
    }

    fn state_put(&self, shared: bool, key: &str, value: Option<&[u8]>) -> Result<()> {
        let mut state = self.state.lock().expect("no panic under this lock");
        match value {
            Some(value) => state.insert(format!("{shared}/{key}"), value.into()),
            None => state.remove(&format!("{shared}/{key}")),
        };
        let bytes = serde_json::to_vec(&*state).map_err(|error| Error::fatal(error.to_string()))?;
        std::fs::write(&self.file, bytes).map_err(|error| Error::fatal(format!("the kit's state: {error}")))
    }

    fn state_keys(&self, shared: bool, prefix: &str) -> Result<Vec<String>> {
        let state = self.state.lock().expect("no panic under this lock");
        let scope = format!("{shared}/");
        Ok(state.keys().filter_map(|key| key.strip_prefix(&scope)).filter(|key| key.starts_with(prefix)).map(str::to_owned).collect())
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
