//! Counters and gauges by name and labels.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pipeline_sdk::Incident;
use serde::Serialize;

/// Incidents that a run remembers; beyond it the oldest is forgotten (all are logged).
pub const INCIDENTS_MAX: usize = 1_000;

/// What a number belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Labels {
    pub pipeline: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub component: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
}

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, bits: u64) {
        self.0.store(bits, Ordering::Relaxed);
    }
}

/// One number of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub name: String,
    #[serde(flatten)]
    pub labels: Labels,
    pub value: f64,
}

/// An incident and where it happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentRecord {
    /// Counts from 0 through the run, so that a reader sees which are new.
    pub number: u64,
    #[serde(flatten)]
    pub labels: Labels,
    #[serde(flatten)]
    pub incident: Incident,
}

/// Everything that one run counts.
#[derive(Debug, Default)]
pub struct Registry {
    counters: Mutex<BTreeMap<(String, Labels), Counter>>,
    gauges: Mutex<BTreeMap<(String, Labels), Counter>>,
    incidents: Mutex<Incidents>,
}

#[derive(Debug, Default)]
struct Incidents {
    recent: VecDeque<IncidentRecord>,
    count: u64,
}

impl Registry {
    pub fn counter(&self, name: &str, labels: &Labels) -> Counter {
        self.counters.lock().entry((name.to_owned(), labels.clone())).or_default().clone()
    }

    pub fn gauge(&self, name: &str, labels: &Labels, value: f64) {
        self.gauges.lock().entry((name.to_owned(), labels.clone())).or_default().set(value.to_bits());
    }

    pub fn incident(&self, labels: &Labels, incident: Incident) {
        let mut incidents = self.incidents.lock();
        if incidents.recent.len() == INCIDENTS_MAX {
            incidents.recent.pop_front();
        }
        let number = incidents.count;
        incidents.count += 1;
        incidents.recent.push_back(IncidentRecord { number, labels: labels.clone(), incident });
    }

    /// Incidents from number `from` on that are still remembered.
    pub fn incidents(&self, from: u64) -> Vec<IncidentRecord> {
        self.incidents.lock().recent.iter().filter(|it| it.number >= from).cloned().collect()
    }

    /// Sum of a counter over all whose labels `matches`.
    pub fn sum(&self, name: &str, matches: impl Fn(&Labels) -> bool) -> u64 {
        let counters = self.counters.lock();
        counters.iter().filter(|((it, labels), _)| it == name && matches(labels)).map(|(_, counter)| counter.get()).sum()
    }

    /// Sum of a counter over the components and lanes of one task. Does not look at other tasks' counters.
    pub fn sum_of_task(&self, name: &str, pipeline: &str, task: &str) -> u64 {
        let first = Labels { pipeline: pipeline.into(), task: task.into(), ..Labels::default() };
        let counters = self.counters.lock();
        let is_ours = |it: &str, labels: &Labels| it == name && labels.pipeline == pipeline && labels.task == task;
        let of_task = counters.range((name.to_owned(), first)..).take_while(|((it, labels), _)| is_ours(it, labels));
        of_task.map(|(_, counter)| counter.get()).sum()
    }

    /// All counters, then all gauges, each ordered by name and labels.
    pub fn snapshot(&self) -> (Vec<Sample>, Vec<Sample>) {
        let read = |table: &Mutex<BTreeMap<(String, Labels), Counter>>, value: fn(u64) -> f64| {
            let table = table.lock();
            let sample = |((name, labels), counter): (&(String, Labels), &Counter)| Sample {
                name: name.clone(),
                labels: labels.clone(),
                value: value(counter.get()),
            };
            table.iter().map(sample).collect::<Vec<_>>()
        };
        (read(&self.counters, |value| value as f64), read(&self.gauges, f64::from_bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(component: &str) -> Labels {
        Labels { pipeline: "a-to-b".into(), component: component.into(), ..Labels::default() }
    }

    #[test]
    fn what_is_counted_is_read_and_summed() {
        let registry = Registry::default();
        registry.counter("rows", &labels("x")).add(2);
        registry.counter("rows", &labels("x")).add(3);
        registry.counter("rows", &labels("y")).add(7);
        registry.gauge("depth", &labels("x"), -1.5);
        assert_eq!(registry.sum("rows", |it| it.component == "x"), 5);
        assert_eq!(registry.sum("rows", |_| true), 12);
        registry.counter("rows", &Labels { task: "t".into(), ..labels("x") }).add(4);
        assert_eq!((registry.sum_of_task("rows", "a-to-b", ""), registry.sum_of_task("rows", "a-to-b", "t")), (12, 4));
        let (counters, gauges) = registry.snapshot();
        assert_eq!(counters.iter().map(|it| it.value).collect::<Vec<_>>(), [5.0, 7.0, 4.0]);
        assert_eq!(gauges[0].value, -1.5);
    }

    #[test]
    fn incidents_are_bounded_and_numbered() {
        let registry = Registry::default();
        for _ in 0..INCIDENTS_MAX + 2 {
            let incident = Incident { kind: "hole".into(), message: "m".into(), detail: serde_json::Value::Null };
            registry.incident(&labels("x"), incident);
        }
        let all = registry.incidents(0);
        assert_eq!((all.len(), all[0].number), (INCIDENTS_MAX, 2));
        assert_eq!(registry.incidents(INCIDENTS_MAX as u64 + 1).len(), 1);
    }
}
