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
    run: Arc<Shared>,
    graph: Arc<PipelineGraph>,
    tasks: JoinSet<()>,
    started: Tasks,
}

impl Pipeline {
    /// Starts the tasks that the file names.
    pub fn start(run: Arc<Shared>, graph: PipelineGraph) -> Self {
        let mut pipeline = Self { run, graph: Arc::new(graph), tasks: JoinSet::new(), started: Tasks::new() };
        let fixed: Vec<String> = match pipeline.graph.task_values.is_empty() {
            true => vec![String::new()],
            false => pipeline.graph.task_values.iter().filter(|value| *value != ALL).cloned().collect(),
        };
        if pipeline.has_all() {
            pipeline.run.set_pipeline_state(&pipeline.graph.name, TaskState::Starting);
        }
        if let Err(error) = pipeline.add(fixed) {
            pipeline.fail(error);
        }
        pipeline
    }

    fn has_all(&self) -> bool {
        self.graph.task_values.iter().any(|value| value == ALL)
    }

    /// Runs until all tasks are over, or the run is aborted.
    pub async fn supervise(mut self) {
        if self.has_all() && let Err(error) = self.discover_on().await {
            self.fail(error);
        }
        self.all_over().await;
    }

    /// A panic in the engine's own code ends the task that it is in, and no other.
    async fn all_over(&mut self) {
        while let Some(joined) = self.tasks.join_next().await {
            if let Err(error) = joined
                && error.is_panic()
                && let Some(task) = self.started.get(&error.id())
            {
                task.fail_by_bug(format!("the engine panicked: {error}"));
            }
        }
    }

    /// Discovers and starts, now and again at every interval, until the run stops or every task is over.
    async fn discover_on(&mut self) -> Result<()> {
        let interval = self.discover_interval();
        let mut backoff = Backoff::reconnect(&self.graph.settings, self.run.seed());
        loop {
            let wait = match self.discover().await {
                Ok(values) => {
                    backoff.reset();
                    self.run.set_pipeline_state(&self.graph.name, TaskState::Running);
                    self.add(values)?;
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
            let (stop, has_tasks) = (self.run.stop.clone(), !self.started.is_empty());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
                () = self.all_over(), if has_tasks => return Ok(()),
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

    fn add(&mut self, values: Vec<String>) -> Result<()> {
        let limit = self.graph.settings.tasks_max as usize;
        for value in values {
            if self.started.values().any(|task| task.value == value) {
                continue;
            }
            if self.started.len() >= limit {
                return Err(Error::fatal(format!("the source has more than {limit} values to make tasks of; `{value}` is one too many"))
                    .code("engine.tasks")
                    .hint("name those that are meant, or raise `tasks-max` of the pipeline"));
            }
            let task = Arc::new(Task::new(self.run.clone(), self.graph.clone(), value, self.run.stop.child_token()));
            let (control, controlled) = mpsc::channel(CONTROLS_MAX);
            self.run.add_task(TaskEntry { task: task.clone(), control });
            let part = task.watched("a transform or decoder", task.clone().supervise(controlled));
            let handle = self.tasks.spawn(part);
            self.started.insert(handle.id(), task);
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
