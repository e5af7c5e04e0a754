//! What an operator asks of a run under way: single tasks stopped, started and restarted, and another version of its file taken.
//!
//! A stop is stored before it is carried out, and a start likewise, so that a run that is killed meanwhile comes back as it was last
//! asked to be. A new version touches only what differs: what goes on keeps its connections, what changed is drained, stopped and
//! started from its checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline_sdk::{Error, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pipeline::Pipeline;
use super::run::{Running, start_services, stop_pipelines};
use super::task::Task;
use crate::graph::{Graph, Node};
use crate::state::{Change, TaskKey};

/// Names a task. The value [`super::ALL_VALUES`] stands for the looking for new ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskName {
    pub pipeline: String,
    pub value: String,
}

/// What a new version of a file came to, by names of pipelines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reloaded {
    pub untouched: Vec<String>,
    /// Only which tasks there are differs.
    pub adjusted: Vec<String>,
    pub restarted: Vec<String>,
    pub started: Vec<String>,
    pub stopped: Vec<String>,
}

impl Running {
    /// All tasks, and those that stand for looking for more.
    pub fn tasks(&self) -> Vec<TaskName> {
        let of = |it: &Arc<Pipeline>| {
            let pipeline = it.graph().name.clone();
            it.values().into_iter().map(move |value| TaskName { pipeline: pipeline.clone(), value })
        };
        self.pipelines().iter().flat_map(of).collect()
    }

    pub fn task_count(&self) -> usize {
        self.pipelines().iter().map(|it| it.tasks().len()).sum()
    }

    /// Keys of tasks of a value, whether they run, ran or were stopped: those that something is stored of, and those that exist now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn keys_of(&self, value: &str) -> Result<Vec<TaskKey>> {
        let mut keys = Vec::new();
        for pipeline in self.pipelines() {
            let key = pipeline.key(value);
            let is_known = pipeline.tasks().iter().any(|task| task.value == value)
                || self.store().known_tasks(&key.pipeline, &key.source)?.iter().any(|it| it == value);
            keys.extend(is_known.then_some(key));
        }
        Ok(keys)
    }

    /// All keys as of [`Running::keys_of`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn keys(&self) -> Result<Vec<TaskKey>> {
        let mut keys = Vec::new();
        for pipeline in self.pipelines() {
            let any = pipeline.key("");
            let mut values = self.store().known_tasks(&any.pipeline, &any.source)?;
            values.extend(pipeline.tasks().iter().map(|task| task.value.clone()));
            values.sort();
            values.dedup();
            keys.extend(values.iter().filter(|value| *value != super::ALL_VALUES).map(|value| pipeline.key(value)));
        }
        Ok(keys)
    }

    /// Stops tasks until they are started again, over restarts. Those that were not stopped before.
    ///
    /// # Errors
    /// It cannot be stored: then nothing was stopped.
    pub async fn stop_tasks(&self, tasks: &[TaskName]) -> Result<Vec<TaskName>> {
        let _order = self.orders.lock().await;
        let mut stopped = Vec::new();
        for (pipeline, values) in self.chosen(tasks) {
            for value in values {
                if !self.store().is_stopped(&pipeline.key(&value))? {
                    stopped.push((pipeline.clone(), value));
                }
            }
        }
        self.wish(stopped.iter().map(|(pipeline, value)| pipeline.key(value)), true).await?;
        let stopped: Vec<TaskName> = stopped.iter().map(|(pipeline, value)| name(pipeline, value)).collect();
        self.end_tasks(&stopped).await;
        for (pipeline, values) in self.chosen(&stopped) {
            // Those that were over by themselves.
            let is_held = |task: &Arc<Task>| values.contains(&task.value) && task.is_over() && !task.is_stopped();
            for task in pipeline.tasks().into_iter().filter(is_held) {
                task.hold();
                task.release(false).await;
            }
        }
        Ok(stopped)
    }

    /// Starts tasks that are over. Those that were started.
    ///
    /// # Errors
    /// It cannot be stored, or a task that was ended still holds its thread.
    pub async fn start_tasks(&self, tasks: &[TaskName]) -> Result<Vec<TaskName>> {
        let _order = self.orders.lock().await;
        self.start_chosen(tasks).await
    }

    /// Stops and starts tasks; they go on from their checkpoints.
    ///
    /// # Errors
    /// As of [`Running::start_tasks`].
    pub async fn restart_tasks(&self, tasks: &[TaskName]) -> Result<Vec<TaskName>> {
        let _order = self.orders.lock().await;
        self.end_tasks(tasks).await;
        self.start_chosen(tasks).await
    }

    /// Forgets everything that is stored of tasks but their dead letters.
    ///
    /// # Errors
    /// One of them is not over, or it cannot be stored.
    pub async fn forget_tasks(&self, keys: &[TaskKey]) -> Result<()> {
        let _order = self.orders.lock().await;
        let pipelines = self.pipelines();
        for pipeline in &pipelines {
            let is_meant = |key: &&TaskKey| pipeline.key(&key.task) == **key;
            let runs = |key: &&TaskKey| pipeline.tasks().iter().any(|task| task.value == key.task && !task.is_over());
            if let Some(key) = keys.iter().filter(is_meant).find(runs) {
                return Err(Error::fatal(format!("`{key}` still runs")).code("engine.running").hint("stop it first"));
            }
        }
        self.store().commit(keys.iter().map(|task| Change::Remove { task: task.clone() }).collect()).await?;
        for pipeline in &pipelines {
            keys.iter().filter(|key| pipeline.key(&key.task) == **key).for_each(|key| pipeline.drop_value(&key.task));
        }
        Ok(())
    }

    /// Takes another version of the file. What does not differ is not touched.
    ///
    /// # Errors
    /// A service does not come up: what depends on none goes on, and the next reload tries again.
    pub async fn reload(&self, graph: Graph) -> Result<Reloaded> {
        let _order = self.orders.lock().await;
        self.shared.learn(&graph.redactor);
        *self.engine.lock() = graph.engine.clone();
        *self.shared.isolation.write() = graph.engine.isolation.clone();
        let mut reloaded = Reloaded::default();
        let mut known: BTreeMap<String, Arc<Pipeline>> =
            self.pipelines().into_iter().map(|it| (it.graph().name.clone(), it)).collect();
        let (mut kept, mut adjusted, mut fresh, mut ending) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for new in &graph.pipelines {
            match known.remove(&new.name) {
                Some(old) if old.graph().is_same(new) => {
                    reloaded.untouched.push(new.name.clone());
                    kept.push(old);
                }
                Some(old) if old.graph().does_the_same(new) => {
                    reloaded.adjusted.push(new.name.clone());
                    adjusted.push((old, new.clone()));
                }
                Some(old) => {
                    reloaded.restarted.push(new.name.clone());
                    ending.push(old);
                    fresh.push(new.clone());
                }
                None => {
                    reloaded.started.push(new.name.clone());
                    fresh.push(new.clone());
                }
            }
        }
        reloaded.stopped = known.keys().cloned().collect();
        ending.extend(known.into_values());
        let deadline = Instant::now() + self.drain_timeout();
        stop_pipelines(ending.clone(), deadline).await;
        self.pipelines.lock().retain(|it| !ending.iter().any(|gone| Arc::ptr_eq(it, gone)));
        let services = self.reload_services(&graph).await;
        for (pipeline, graph) in adjusted {
            pipeline.take(graph, deadline).await;
        }
        if services.is_ok() {
            let started = fresh.into_iter().map(|graph| Pipeline::start(self.shared.clone(), graph));
            self.pipelines.lock().extend(started);
        }
        services.map(|()| reloaded)
    }

    /// Ends services that are gone, changed or failed, and starts those that are not there.
    async fn reload_services(&self, graph: &Graph) -> Result<()> {
        let is_there = |node: &Node| graph.services.iter().any(|new| new.does_the_same(node, &[]));
        let services = std::mem::take(&mut *self.services.lock());
        let (mut services, mut gone): (Vec<_>, Vec<_>) = services.into_iter().partition(|it| is_there(&it.node) && !it.has_failed());
        gone.iter().for_each(|service| service.ask_to_stop());
        for service in &mut gone {
            service.stopped(self.drain_timeout()).await;
        }
        let started = start_services(&self.shared, graph, &mut services).await;
        if started.is_err() {
            let (mut failed, rest): (Vec<_>, Vec<_>) = services.into_iter().partition(|it| it.has_failed());
            failed.iter().for_each(|service| service.ask_to_stop());
            for service in &mut failed {
                service.stopped(self.drain_timeout()).await;
            }
            services = rest;
        }
        *self.services.lock() = services;
        started
    }

    /// The tasks that exist among those named, by pipeline.
    fn chosen(&self, tasks: &[TaskName]) -> Vec<(Arc<Pipeline>, Vec<String>)> {
        let of = |pipeline: Arc<Pipeline>| {
            let (name, known) = (pipeline.graph().name.clone(), pipeline.values());
            let mine = tasks.iter().filter(|it| it.pipeline == name && known.contains(&it.value));
            let values: Vec<String> = mine.map(|it| it.value.clone()).collect();
            (!values.is_empty()).then_some((pipeline, values))
        };
        self.pipelines().into_iter().filter_map(of).collect()
    }

    async fn start_chosen(&self, tasks: &[TaskName]) -> Result<Vec<TaskName>> {
        let chosen = self.chosen(tasks);
        let mut held = Vec::new();
        for (pipeline, values) in &chosen {
            for key in values.iter().map(|value| pipeline.key(value)) {
                if self.store().is_stopped(&key)? {
                    held.push(key);
                }
            }
        }
        self.wish(held.into_iter(), false).await?;
        let mut started = Vec::new();
        for (pipeline, values) in chosen {
            started.extend(pipeline.start_values(&values)?.iter().map(|value| name(&pipeline, value)));
        }
        Ok(started)
    }

    async fn wish(&self, tasks: impl Iterator<Item = TaskKey>, is_stopped: bool) -> Result<()> {
        let changes: Vec<Change> = tasks.map(|task| Change::Desired { task, is_stopped }).collect();
        if changes.is_empty() { Ok(()) } else { self.store().commit(changes).await }
    }

    /// Stops tasks of all pipelines side by side.
    async fn end_tasks(&self, tasks: &[TaskName]) {
        let deadline = Instant::now() + self.drain_timeout();
        let mut ends = JoinSet::new();
        for (pipeline, values) in self.chosen(tasks) {
            ends.spawn(async move { pipeline.stop_values(&values, deadline).await });
        }
        ends.join_all().await;
    }
}

fn name(pipeline: &Pipeline, value: &str) -> TaskName {
    TaskName { pipeline: pipeline.graph().name.clone(), value: value.to_owned() }
}
