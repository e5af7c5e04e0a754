//! Keys of the store: parts joined by a zero byte, which no name contains.

use std::fmt;

const SEPARATOR: char = '\0';

/// Whose positions: one source of one task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskKey {
    pub pipeline: String,
    /// The pipeline's share (a database), empty where it is not divided.
    pub task: String,
    /// The source's name in its pipeline.
    pub source: String,
}

impl TaskKey {
    pub(super) fn encode(&self) -> String {
        join(&[&self.pipeline, &self.task, &self.source])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split(SEPARATOR).map(str::to_owned);
        Some(Self { pipeline: parts.next()?, task: parts.next()?, source: parts.next()? })
    }

    /// What the keys of all tasks of its pipeline begin with.
    pub(super) fn prefix(&self) -> String {
        join(&[&self.pipeline, ""])
    }

    pub(super) fn with(&self, part: &str) -> String {
        join(&[&self.pipeline, &self.task, &self.source, part])
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task.as_str() {
            "" => f.write_str(&self.pipeline),
            task => write!(f, "{}/{task}", self.pipeline),
        }
    }
}

/// Where a component keeps its own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// Of one instance; `lane` is that of a sink with one instance a lane.
    pub fn own(pipeline: &str, task: &str, component: &str, lane: Option<&str>) -> Self {
        Self(join(&["own", pipeline, task, component, lane.unwrap_or_default()]))
    }

    /// Of all instances of a component type in a task.
    pub fn shared(pipeline: &str, task: &str, type_name: &str) -> Self {
        Self(join(&["shared", pipeline, task, type_name]))
    }

    /// What the keys of all scopes of a task begin with.
    pub(super) fn prefixes_of_task(pipeline: &str, task: &str) -> [String; 2] {
        ["own", "shared"].map(|kind| join(&[kind, pipeline, task, ""]))
    }

    pub(super) fn key(&self, key: &str) -> String {
        join(&[&self.0, key])
    }
}

fn join(parts: &[&str]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            text.push(SEPARATOR);
        }
        // A zero byte within a name would let one scope reach into another.
        text.extend(part.chars().map(|c| if c == SEPARATOR { '\u{fffd}' } else { c }));
    }
    text
}
