//! A pipeline's tasks: one for each value of its source's task key, `*` standing for those that the source discovers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{Error, Reaction, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::backoff::Backoff;
use super::call::call;
use super::run::{Shared, TaskEntry};
use super::task::Task;
use crate::config::units::parse_duration;
use crate::graph::PipelineGraph;
use crate::metrics::TaskState;

/// In the task key: every value that exists.
const ALL: &str = "*";
/// By convention the source's key for how often to look for new values; 0 is never.
const DISCOVER_INTERVAL_KEY: &str = "new-database-interval";
/// Requests that wait for a task.
const CONTROLS_MAX: usize = 16;

pub(super) struct Pipeline {
    pub run: Arc<Shared>,
    pub graph: Arc<PipelineGraph>,
}

impl Pipeline {
    /// Runs all tasks, until all are over or the run is aborted.
    pub async fn supervise(self) {
        let mut tasks = JoinSet::new();
        let mut started = BTreeMap::new();
        let fixed = self.graph.task_values.iter().filter(|value| *value != ALL).cloned();
        let fixed: Vec<String> = if self.graph.task_values.is_empty() { vec![String::new()] } else { fixed.collect() };
        if let Err(error) = self.start(&mut tasks, &mut started, fixed) {
            return self.fail(error);
        }
        let is_all = self.graph.task_values.iter().any(|value| value == ALL);
        if is_all && let Err(error) = self.discover_on(&mut tasks, &mut started).await {
            self.fail(error);
        }
        while let Some(joined) = tasks.join_next().await {
            note_panic(joined, &started);
        }
    }

    /// Discovers and starts, now and again at every interval, until the run stops or every task is over.
    async fn discover_on(&self, tasks: &mut JoinSet<()>, started: &mut Tasks) -> Result<()> {
        let interval = self.discover_interval();
        let mut backoff = Backoff::reconnect(&self.graph.settings, self.run.seed());
        loop {
            let wait = match self.discover().await {
                Ok(values) => {
                    backoff.reset();
                    self.run.set_pipeline_state(&self.graph.name, TaskState::Running);
                    self.start(tasks, started, values)?;
                    interval
                }
                Err(error) if matches!(error.reaction, Reaction::Disconnected | Reaction::Retry) => {
                    let reason = self.run.redactor.redact(&error.to_string());
                    tracing::warn!(pipeline = self.graph.name, reason, "cannot discover; trying again");
                    self.run.set_pipeline_state(&self.graph.name, TaskState::Reconnecting(reason));
                    let Some(delay) = backoff.next() else { return Err(error) };
                    Some(delay)
                }
                Err(error) => return Err(error),
            };
            let Some(wait) = wait else { return Ok(()) };
            tokio::select! {
                () = self.run.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
                () = all_over(tasks, started), if !started.is_empty() => return Ok(()),
            }
        }
    }

    async fn discover(&self) -> Result<Vec<String>> {
        let node = &self.graph.source.node;
        let library = self.run.plugins.library(node.kind, &node.type_name)?;
        let found = library.discover(&node.type_name, &node.config);
        call("the source's discovery", self.graph.settings.call_timeout, found).await.map_err(|it| it.context(&node.path))
    }

    /// From the source's configuration, or its schema's default.
    fn discover_interval(&self) -> Option<Duration> {
        let node = &self.graph.source.node;
        let default = || node.description.schema.get("properties")?.get(DISCOVER_INTERVAL_KEY)?.get("default");
        let text = node.config.get(DISCOVER_INTERVAL_KEY).or_else(default)?.as_str()?;
        parse_duration(text).ok().filter(|interval| !interval.is_zero())
    }

    fn start(&self, tasks: &mut JoinSet<()>, started: &mut Tasks, values: Vec<String>) -> Result<()> {
        let limit = self.graph.settings.tasks_max as usize;
        for value in values {
            if started.values().any(|task| task.value == value) {
                continue;
            }
            if started.len() >= limit {
                return Err(Error::fatal(format!("the source has more than {limit} values to make tasks of; `{value}` is one too many"))
                    .code("engine.tasks")
                    .hint("name those that are meant, or raise `tasks-max` of the pipeline"));
            }
            let task = Arc::new(Task::new(self.run.clone(), self.graph.clone(), value, self.run.stop.child_token()));
            let (control, controlled) = mpsc::channel(CONTROLS_MAX);
            self.run.add_task(TaskEntry { task: task.clone(), control });
            let handle = tasks.spawn(task.clone().supervise(controlled));
            started.insert(handle.id(), task);
        }
        Ok(())
    }

    fn fail(&self, error: Error) {
        let reason = self.run.redactor.redact(&error.to_string());
        tracing::error!(pipeline = self.graph.name, reason, "pipeline cannot go on");
        self.run.set_pipeline_state(&self.graph.name, TaskState::Failed(reason));
    }
}

type Tasks = BTreeMap<tokio::task::Id, Arc<Task>>;

async fn all_over(tasks: &mut JoinSet<()>, started: &Tasks) {
    while let Some(joined) = tasks.join_next().await {
        note_panic(joined, started);
    }
}

/// A panic in the engine's own code ends the task that it is in, and no other.
fn note_panic(joined: Result<(), tokio::task::JoinError>, started: &Tasks) {
    if let Err(error) = joined
        && error.is_panic()
        && let Some(task) = started.get(&error.id())
    {
        task.fail_by_bug(format!("the engine panicked: {error}"));
    }
}
