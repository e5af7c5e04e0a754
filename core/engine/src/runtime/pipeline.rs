//! A pipeline's tasks: one for each value of its source's task key, `*` standing for those that the source discovers.
//!
//! Tasks are started, stopped and started again one by one. A task that was started again is another [`Task`] under the same key, so
//! that it goes on from its checkpoint and its counters; two of one key never run at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pipeline_sdk::{Error, Reaction, Result};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::call::call;
use super::orders::TaskName;
use super::run::Shared;
use super::task::{Control, Task};
use crate::config::units::parse_duration;
use crate::graph::{DISCOVER_INTERVAL_KEY, PipelineGraph};
use crate::metrics::{PipelineStatus, TaskState};
use crate::state::TaskKey;

/// In the task key: every value that exists. As the value of a task: the looking for them.
pub const ALL_VALUES: &str = "*";
/// Requests that wait for a task.
const CONTROLS_MAX: usize = 16;
/// How long a task that was aborted may take to be gone: only one that blocks its thread is not gone at once.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Pipeline {
    run: Arc<Shared>,
    graph: RwLock<Arc<PipelineGraph>>,
    slots: Mutex<BTreeMap<String, Slot>>,
    looking: Mutex<Looking>,
    stop: CancellationToken,
}

/// A task and the means to end it.
struct Slot {
    task: Arc<Task>,
    control: mpsc::Sender<Control>,
    ends: Ends,
}

/// The part that a task runs in, and who sees how that ended.
#[derive(Clone)]
struct Ends {
    part: AbortHandle,
    overseer: AbortHandle,
}

/// The discovery of values.
#[derive(Default)]
struct Looking {
    /// Absent where the file lists all values, or nothing of the pipeline was started.
    state: Option<TaskState>,
    part: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts the tasks that the file names, and the discovery of others where it asks for that.
    pub fn start(run: Arc<Shared>, graph: PipelineGraph) -> Arc<Self> {
        let stop = run.stop.child_token();
        let graph = RwLock::new(Arc::new(graph));
        let pipeline = Arc::new(Self { run, graph, slots: Mutex::default(), looking: Mutex::default(), stop });
        pipeline.begin();
        pipeline
    }

    /// Adds what the file lists and what an operator stopped, and looks for more. What runs already is left alone.
    fn begin(self: &Arc<Self>) {
        let graph = self.graph();
        let begun = (|| {
            self.add(listed(&graph))?;
            if !has_all(&graph) {
                return Ok(());
            }
            let (source, excluded) = (&graph.source.node.name, graph.excluded());
            let looks = !self.run.store.is_stopped(&self.key(ALL_VALUES))?;
            // Where none are looked for, there are those that there were.
            let known = match looks {
                true => self.run.store.stopped_tasks(&graph.name, source)?,
                false => self.run.store.known_tasks(&graph.name, source)?,
            };
            self.add(known.into_iter().filter(|it| it != ALL_VALUES && !excluded.contains(it)).collect())?;
            match looks {
                true => self.look(),
                false => self.looking.lock().state = Some(TaskState::Stopped),
            }
            Ok(())
        })();
        if let Err(error) = begun {
            self.fail(error);
        }
    }

    pub fn graph(&self) -> Arc<PipelineGraph> {
        self.graph.read().clone()
    }

    pub fn key(&self, value: &str) -> TaskKey {
        let graph = self.graph();
        TaskKey { pipeline: graph.name.clone(), task: value.to_owned(), source: graph.source.node.name.clone() }
    }

    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.slots.lock().values().map(|slot| slot.task.clone()).collect()
    }

    pub fn controls(&self) -> Vec<(Arc<Task>, mpsc::Sender<Control>)> {
        self.slots.lock().values().map(|slot| (slot.task.clone(), slot.control.clone())).collect()
    }

    /// Values of all tasks, and [`ALL_VALUES`] where others are looked for.
    pub fn values(&self) -> Vec<String> {
        let all = self.looking.lock().state.is_some().then(|| ALL_VALUES.to_owned());
        all.into_iter().chain(self.slots.lock().keys().cloned()).collect()
    }

    pub fn status(&self) -> Vec<PipelineStatus> {
        let mut tasks: Vec<PipelineStatus> = self.tasks().iter().map(|task| task.status()).collect();
        let looking = self.looking.lock().state.clone();
        if let Some(state) = looking.filter(|state| tasks.is_empty() || matches!(state, TaskState::Failed(_))) {
            let pipeline = self.graph().name.clone();
            tasks.push(PipelineStatus { pipeline, task: ALL_VALUES.into(), state, ..PipelineStatus::default() });
        }
        tasks
    }

    /// State of every task, and since when (milliseconds since the epoch); also of the looking for more (since 0) where that is all there
    /// is, or it does not go on.
    pub fn states(&self) -> Vec<(TaskName, TaskState, i64)> {
        let pipeline = self.graph().name.clone();
        let named = |value: &str| TaskName { pipeline: pipeline.clone(), value: value.to_owned() };
        let tasks = self.tasks();
        let states = tasks.iter().map(|task| (task, task.state())).map(|(task, (state, since_ms))| (named(&task.value), state, since_ms));
        let looking = self.looking.lock().state.clone();
        let looking = looking.filter(|state| tasks.is_empty() || matches!(state, TaskState::Failed(_) | TaskState::Stopped));
        states.chain(looking.map(|state| (named(ALL_VALUES), state, 0))).collect()
    }

    pub fn is_starting(&self) -> bool {
        self.looking.lock().state == Some(TaskState::Starting)
    }

    /// Whether nothing goes on any more, nor can be made to: what an operator stopped may be started again.
    pub fn is_over(&self) -> bool {
        let looks = {
            let looking = self.looking.lock();
            if looking.state == Some(TaskState::Starting) {
                return false;
            }
            looking.part.as_ref().is_some_and(|part| !part.is_finished()) || looking.state == Some(TaskState::Stopped)
        };
        let slots = self.slots.lock();
        let is_held = |slot: &Slot| slot.task.is_stopped() && !self.run.stop.is_cancelled();
        slots.values().all(|slot| slot.is_gone() && !is_held(slot)) && !(looks && slots.is_empty())
    }

    /// Of one that empties a buffer: whether the sink made all of it durable, and that is stored.
    pub fn is_empty(&self) -> bool {
        self.tasks().iter().all(|task| task.has_emptied_buffer())
    }

    /// Asks everything to stop: what was read is written and stored.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until everything has stopped; whether it did by itself. What has not at `deadline` is ended as it is.
    pub async fn stopped(&self, deadline: Instant) -> bool {
        let part = self.looking.lock().part.take();
        if let Some(mut part) = part
            && tokio::time::timeout_at(deadline, &mut part).await.is_err()
        {
            part.abort();
        }
        let values: Vec<String> = self.slots.lock().keys().cloned().collect();
        self.stop_values(&values, deadline).await
    }

    pub fn abort(&self) {
        self.stop.cancel();
        if let Some(part) = &self.looking.lock().part {
            part.abort();
        }
        self.slots.lock().values().for_each(|slot| slot.ends.part.abort());
    }

    /// Stops tasks together and waits; whether all of them did before `deadline`.
    pub async fn stop_values(&self, values: &[String], deadline: Instant) -> bool {
        if values.iter().any(|value| value == ALL_VALUES) {
            self.look_no_more();
        }
        let chosen: Vec<(Arc<Task>, Ends)> = {
            let slots = self.slots.lock();
            values.iter().filter_map(|value| slots.get(value)).map(|it| (it.task.clone(), it.ends.clone())).collect()
        };
        chosen.iter().for_each(|(task, _)| task.stop.cancel());
        let mut is_drained = true;
        for (task, ends) in &chosen {
            if !ends.reached(deadline).await {
                is_drained = false;
                ends.part.abort();
                ends.reached(Instant::now() + ABORT_LIMIT).await;
                tracing::warn!(task = %task.key, "task did not stop in time and was ended as it was");
                task.set_state(TaskState::Stopped);
            }
        }
        is_drained
    }

    /// Starts tasks that are over; those that run are left alone. The values that were started.
    ///
    /// # Errors
    /// A task still holds its thread.
    pub fn start_values(self: &Arc<Self>, values: &[String]) -> Result<Vec<String>> {
        let mut started = Vec::new();
        for value in values {
            if value == ALL_VALUES {
                let is_looking = self.looking.lock().part.as_ref().is_some_and(|part| !part.is_finished());
                if !is_looking {
                    self.look();
                    started.push(value.clone());
                }
                continue;
            }
            let Some((task, is_gone)) = self.slots.lock().get(value).map(|it| (it.task.clone(), it.is_gone())) else { continue };
            if !is_gone && task.is_over() {
                return Err(Error::fatal(format!("`{}` has not ended: a component blocks its thread", task.key))
                    .code("engine.blocked")
                    .hint("only a restart of the process ends it"));
            }
            if is_gone {
                self.run_task(value);
                started.push(value.clone());
            }
        }
        Ok(started)
    }

    /// Forgets a task that is over; its positions stay stored.
    pub fn drop_value(&self, value: &str) {
        self.slots.lock().remove(value);
    }

    /// Takes another graph that differs in what [`PipelineGraph::differs_in_tasks_only`] leaves out. Tasks that stay are not touched.
    pub async fn take(self: &Arc<Self>, graph: PipelineGraph, deadline: Instant) -> bool {
        let (keeps, keeps_found, excluded) = (listed(&graph), has_all(&graph), graph.excluded());
        self.look_no_more();
        self.looking.lock().state = None;
        *self.graph.write() = Arc::new(graph);
        let values: Vec<String> = self.slots.lock().keys().cloned().collect();
        let is_gone = |value: &String| !keeps.contains(value) && (!keeps_found || excluded.contains(value));
        let gone: Vec<String> = values.into_iter().filter(is_gone).collect();
        let is_drained = self.stop_values(&gone, deadline).await;
        gone.iter().for_each(|value| self.drop_value(value));
        self.begin();
        is_drained
    }

    fn look(self: &Arc<Self>) {
        self.set_looking(TaskState::Starting);
        let pipeline = self.clone();
        let part = self.run.spawn(async move {
            if let Err(error) = pipeline.discover_on().await {
                pipeline.fail(error);
            }
        });
        self.looking.lock().part = Some(part);
    }

    fn look_no_more(&self) {
        let mut looking = self.looking.lock();
        // It does nothing that could be lost half-way.
        if let Some(part) = looking.part.take() {
            part.abort();
        }
        if looking.state.is_some() {
            looking.state = Some(TaskState::Stopped);
        }
    }

    fn set_looking(&self, state: TaskState) {
        self.looking.lock().state = Some(state);
    }

    /// Discovers and starts, now and again at every interval, until the run stops.
    async fn discover_on(&self) -> Result<()> {
        let graph = self.graph();
        let interval = discover_interval(&graph);
        let mut backoff = Backoff::reconnect(&graph.settings, self.run.seed());
        loop {
            let wait = match self.discover(&graph).await {
                Ok(values) => {
                    backoff.reset();
                    self.add(values)?;
                    self.set_looking(TaskState::Running);
                    interval
                }
                Err(error) if matches!(error.reaction, Reaction::Disconnected | Reaction::Retry) => {
                    let reason = self.run.redact(&error.to_string());
                    tracing::warn!(pipeline = graph.name, reason, "cannot discover; trying again");
                    self.set_looking(TaskState::Reconnecting(reason));
                    let Some(delay) = backoff.next() else { return Err(error) };
                    Some(delay)
                }
                Err(error) => return Err(error),
            };
            let Some(wait) = wait else { return Ok(()) };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn discover(&self, graph: &PipelineGraph) -> Result<Vec<String>> {
        let node = &graph.source.node;
        let found = super::component::discover(&self.run, &graph.name, node, &self.stop);
        call("the source's discovery", graph.settings.call_timeout, found).await.map_err(|it| it.context(&node.path))
    }

    /// Starts tasks for values that have none.
    fn add(&self, values: Vec<String>) -> Result<()> {
        let limit = self.graph().settings.tasks_max as usize;
        for value in values {
            {
                let slots = self.slots.lock();
                if slots.contains_key(&value) {
                    continue;
                }
                if slots.len() >= limit {
                    return Err(Error::fatal(format!("the source has more than {limit} values to make tasks of; `{value}` is one too many"))
                        .code("engine.tasks")
                        .hint("name those that are meant, or raise `tasks-max` of the pipeline"));
                }
            }
            self.run_task(&value);
        }
        Ok(())
    }

    /// Starts a new task in the place of the one that has ended, if there was one.
    fn run_task(&self, value: &str) {
        let task = Arc::new(Task::new(self.run.clone(), self.graph(), value.to_owned(), self.stop.child_token()));
        let (control, controlled) = mpsc::channel(CONTROLS_MAX);
        let part = task.watched("a transform or decoder", task.clone().supervise(controlled));
        let running = self.run.spawn(part);
        let part = running.abort_handle();
        let overseer = tokio::spawn(oversee(task.clone(), running)).abort_handle();
        self.slots.lock().insert(value.to_owned(), Slot { task, control, ends: Ends { part, overseer } });
    }

    fn fail(&self, error: Error) {
        let reason = self.run.redact(&error.to_string());
        tracing::error!(pipeline = self.graph().name, reason, "pipeline cannot go on");
        self.set_looking(TaskState::Failed(reason));
    }
}

impl Slot {
    fn is_gone(&self) -> bool {
        self.ends.overseer.is_finished()
    }
}

impl Ends {
    /// Whether both are gone before `deadline`.
    async fn reached(&self, deadline: Instant) -> bool {
        /// How soon an end is seen.
        const LOOK_INTERVAL: Duration = Duration::from_millis(5);
        while !self.overseer.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        true
    }
}

/// A panic in the engine's own code ends the task that it is in, and no other.
async fn oversee(task: Arc<Task>, part: JoinHandle<()>) {
    if let Err(error) = part.await
        && error.is_panic()
    {
        task.fail_by_bug(format!("the engine panicked: {error}"));
    }
}

/// Values that the file names; the empty one where the pipeline is not divided.
fn listed(graph: &PipelineGraph) -> Vec<String> {
    match graph.task_values.is_empty() {
        true => vec![String::new()],
        false => graph.task_values.iter().filter(|value| *value != ALL_VALUES).cloned().collect(),
    }
}

fn has_all(graph: &PipelineGraph) -> bool {
    graph.task_values.iter().any(|value| value == ALL_VALUES)
}

/// From the source's configuration, or its schema's default.
fn discover_interval(graph: &PipelineGraph) -> Option<Duration> {
    let node = &graph.source.node;
    let default = || node.description.schema.get("properties")?.get(DISCOVER_INTERVAL_KEY)?.get("default");
    let text = node.config.get(DISCOVER_INTERVAL_KEY).or_else(default)?.as_str()?;
    parse_duration(text).ok().filter(|interval| !interval.is_zero())
}
