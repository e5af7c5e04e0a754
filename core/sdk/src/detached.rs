//! A host for tests of a component alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::context::{Host, Incident};
use crate::error::Result;

/// Keeps everything in memory: what was counted, told and stored can be looked at, and calls can be called off.
#[derive(Debug, Default)]
pub struct Detached {
    state: Mutex<BTreeMap<(bool, String), Vec<u8>>>,
    counters: Mutex<BTreeMap<String, u64>>,
    incidents: Mutex<Vec<Incident>>,
    is_cancelled: AtomicBool,
}

impl Detached {
    /// What each counter came to.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        lock(&self.counters).clone()
    }

    /// All incidents so far, oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        lock(&self.incidents).clone()
    }

    /// From now on, components that ask are told to give up.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

impl Host for Detached {
    fn counter(&self, name: &str, add: u64) {
        *lock(&self.counters).entry(name.into()).or_default() += add;
    }

    fn gauge(&self, _name: &str, _value: f64) {}

    fn incident(&self, incident: &Incident) {
        tracing::warn!(kind = incident.kind, detail = %incident.detail, "{}", incident.message);
        lock(&self.incidents).push(incident.clone());
    }

    fn state_get(&self, shared: bool, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(lock(&self.state).get(&(shared, key.into())).cloned())
    }

    fn state_put(&self, shared: bool, key: &str, value: Option<&[u8]>) -> Result<()> {
        let mut state = lock(&self.state);
        match value {
            Some(value) => state.insert((shared, key.into()), value.into()),
            None => state.remove(&(shared, key.into())),
        };
        Ok(())
    }

    fn state_keys(&self, shared: bool, prefix: &str) -> Result<Vec<String>> {
        let state = lock(&self.state);
        Ok(state.keys().filter(|(of, key)| *of == shared && key.starts_with(prefix)).map(|(_, key)| key.clone()).collect())
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().expect("no panic under this lock")
}
