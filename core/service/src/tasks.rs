//! Tasks as the API shows them, and what is asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::problem::closest;
use pipeline_engine::graph::{Graph, Node, PipelineGraph};
use pipeline_engine::metrics::{LaneStatus, PipelineStatus, TaskState};
use pipeline_engine::runtime::{ALL_VALUES, Running, Tap, TapQuery, TaskName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{ApiError, ChooseTasks, Lane, Task, TaskStatus};
use crate::orders::Wanted;
use crate::supervisor::{Managed, Supervisor};

/// How long a stop waits for other services that share the tasks: they look every two seconds, and write what they have read.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether they have.
const STOP_INTERVAL: Duration = Duration::from_millis(300);

/// What is asked of tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    Stop,
    Start,
    Restart,
}

/// Where a pipeline leads from and to, as it may be printed.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    source: String,
    sink: String,
    is_replica: bool,
}

impl Ends {
    /// By name of the pipeline.
    pub fn of(graph: &Graph) -> BTreeMap<String, Self> {
        let shown = |node: &Node| node.shown_address().unwrap_or_else(|| node.name.clone());
        let of = |pipeline: &PipelineGraph| Self {
            source: shown(&pipeline.source.node),
            sink: pipeline.sinks.iter().map(|sink| shown(&sink.node)).collect::<Vec<_>>().join(", "),
            is_replica: pipeline.is_replica(),
        };
        graph.pipelines.iter().map(|pipeline| (pipeline.name.clone(), of(pipeline))).collect()
    }
}

/// Milliseconds since the epoch as RFC 3339.
pub(crate) fn timestamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default().to_string()
}

/// Since when all tasks have been stopped by an operator; `None` where one is not, or there is none.
pub(crate) fn all_stopped_since(running: &Running) -> Option<i64> {
    let states = running.states();
    let is_stopped = |(_, state, _): &(TaskName, TaskState, i64)| *state == TaskState::Stopped;
    states.iter().all(is_stopped).then(|| states.iter().map(|(.., since_ms)| *since_ms).max()).flatten()
}

/// 404, with what was perhaps meant.
pub(crate) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> ApiError {
    /// Names that are listed.
    const SHOWN_MAX: usize = 20;
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    let error = ApiError::not_found(format!("there is no {what} `{name}`"));
    match (closest(name, &known), known.len()) {
        (Some(near), _) => error.hint(format!("did you mean `{near}`?")),
        (None, 0) => error.hint(format!("there is no {what} at all")),
        (None, count) if count > SHOWN_MAX => error.hint(format!("known are {}, … ({count})", known[..SHOWN_MAX].join(", "))),
        (None, _) => error.hint(format!("known are {}", known.join(", "))),
    }
}

impl Supervisor {
    /// All tasks, or those of one file.
    ///
    /// # Errors
    /// There is no such file.
    pub fn tasks(&self, file: Option<&str>) -> Result<Vec<Task>, ApiError> {
        let files = match file {
            Some(id) => vec![self.managed_file(id)?],
            None => self.managed(),
        };
        Ok(files.iter().flat_map(|file| file.tasks()).map(|task| self.placed(task)).collect())
    }

    /// Looks into a pipeline.
    ///
    /// # Errors
    /// There is no such file, pipeline or component, several files have the pipeline, or there are too many taps.
    pub fn tap(&self, query: &TapQuery) -> Result<Tap, ApiError> {
        let files = match &query.file {
            Some(id) => vec![self.managed_file(id)?],
            None => self.managed(),
        };
        let runs: Vec<(Arc<Managed>, Arc<Running>)> = files.into_iter().filter_map(|it| Some((it.clone(), it.live.lock().running.clone()?))).collect();
        let has = |running: &Running| running.tasks().iter().any(|task| task.pipeline == query.pipeline);
        match runs.iter().filter(|(_, running)| has(running)).collect::<Vec<_>>()[..] {
            [(_, running)] => Ok(running.tap(query)?),
            [] => {
                let known: Vec<TaskName> = runs.iter().flat_map(|(_, running)| running.tasks()).collect();
                Err(unknown("pipeline", &query.pipeline, known.iter().map(|task| task.pipeline.as_str())))
            }
            ref several => {
                let ids: Vec<&str> = several.iter().map(|(file, _)| file.id.as_str()).collect();
                Err(ApiError::bad_request(format!("several files have a pipeline `{}`", query.pipeline)).hint(format!("name one of the files: {}", ids.join(", "))))
            }
        }
    }

    /// Says of a task that is another service's whose it is.
    fn placed(&self, task: Task) -> Task {
        if task.status != TaskStatus::Elsewhere {
            return task;
        }
        let holder = self.orders().and_then(|orders| orders.holder(&task.file, &task.pipeline, &task.value));
        let reason = match &holder {
            Some(member) => format!("service {member} has it"),
            None => "no service has it yet".into(),
        };
        Task { reason: Some(reason), service: holder, ..task }
    }

    /// Waits until other services let go of what they were told to stop.
    ///
    /// # Errors
    /// One does not say within [`STOP_LIMIT`] that it did.
    async fn until_let_go(&self, tasks: &[Task]) -> Result<(), ApiError> {
        let Some(orders) = self.orders() else { return Ok(()) };
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            orders.turn().await.look().await?;
            let held = tasks.iter().find_map(|task| Some((task, orders.holder(&task.file, &task.pipeline, &task.value)?)));
            let Some((task, member)) = held else { return Ok(()) };
            if Instant::now() > deadline {
                let name = format!("`{}` of `{}` for `{}`", task.pipeline, task.file, task.value);
                let message = format!("service {member} has not said within {} s that it stopped {name}", STOP_LIMIT.as_secs());
                let hint = "it is told and will when it looks; if it is dead, its tasks are over and will not be started";
                return Err(ApiError::new(504, "not-stopped", message).hint(hint));
            }
            tokio::time::sleep(STOP_INTERVAL).await;
        }
    }

    /// Carries out an order. The tasks that it changed, as they are then. A stop is over when no service has them any more.
    ///
    /// # Errors
    /// An unknown file or value, or other services that share the tasks cannot be told: nothing is changed. Another service does not
    /// stop what it has: it is told.
    pub async fn order(self: &Arc<Self>, order: Order, chosen: &ChooseTasks) -> Result<Vec<Task>, ApiError> {
        let files = match &chosen.file {
            Some(id) => vec![self.managed_file(id)?],
            None => self.managed(),
        };
        if order != Order::Stop && chosen.values.is_none() {
            for file in files.iter().filter(|file| file.is_down()) {
                self.converge(file).await;
            }
        }
        let mut orders = Vec::new();
        for file in files {
            let Some(running) = file.live.lock().running.clone() else { continue };
            orders.push((file, running));
        }
        let known: Vec<TaskName> = orders.iter().flat_map(|(_, running)| running.tasks()).collect();
        for value in chosen.values.iter().flatten() {
            if value != ALL_VALUES && !known.iter().any(|task| task.value == *value) {
                let values = known.iter().map(|task| task.value.as_str()).filter(|value| *value != ALL_VALUES);
                return Err(unknown("task for", value, values));
            }
        }
        let orders = orders.into_iter().map(|(file, running)| {
            let mut tasks: Vec<TaskName> = running.tasks().into_iter().filter(|it| is_meant(it, order, chosen)).collect();
            if order == Order::Restart && chosen.values.is_none() && !chosen.stopped {
                let stopped = stopped(&running);
                tasks.retain(|task| !stopped.contains(task));
            }
            (file, running, tasks)
        });
        let orders: Vec<_> = orders.collect();
        let mut turn = self.turn().await;
        if let Some(turn) = &mut turn {
            let mut told = Vec::new();
            for (file, _, tasks) in &orders {
                told.extend(tasks.iter().map(|task| (file.id.as_str(), task.clone())));
            }
            match order {
                Order::Stop => turn.tell(Wanted::Stopped, &told).await?,
                Order::Start => turn.tell(Wanted::Started, &told).await?,
                Order::Restart => turn.tell_restart(&told).await?,
            }
        }
        let mut changes = JoinSet::new();
        for (index, (file, running, tasks)) in orders.into_iter().enumerate() {
            changes.spawn(async move {
                let changed = {
                    let _change = file.change.lock().await;
                    match order {
                        Order::Stop => running.stop_tasks(&tasks).await,
                        Order::Start => running.start_tasks(&tasks).await,
                        Order::Restart => running.restart_tasks(&tasks).await,
                    }
                };
                changed.map(|changed| (index, file.tasks_among(&changed)))
            });
        }
        let mut answers: Vec<(usize, Vec<Task>)> = changes.join_all().await.into_iter().collect::<Result<_, _>>()?;
        answers.sort_by_key(|(index, _)| *index);
        drop(turn);
        let changed: Vec<Task> = answers.into_iter().flat_map(|(_, tasks)| tasks).map(|task| self.placed(task)).collect();
        if order == Order::Stop {
            self.until_let_go(&changed).await?;
        }
        Ok(changed)
    }
}

/// What an operator stopped: a restart of everything leaves it so.
pub(crate) fn stopped(running: &Running) -> BTreeSet<TaskName> {
    let stopped = running.states().into_iter().filter(|(_, state, _)| *state == TaskState::Stopped);
    stopped.map(|(task, ..)| task).collect()
}

/// What is known now: the log of what was stopped goes on, and nobody looks at it.
pub(crate) fn statuses(running: &Running) -> Vec<PipelineStatus> {
    let mut statuses = running.status().pipelines;
    let stopped = |status: &&mut PipelineStatus| status.state.is_over() && status.state != TaskState::Finished;
    for status in statuses.iter_mut().filter(stopped) {
        (status.lag_seconds, status.lag_offsets) = (None, None);
        status.lanes.iter_mut().for_each(|lane| (lane.latest, lane.lag_offsets) = (None, None));
    }
    statuses
}

fn is_meant(task: &TaskName, order: Order, chosen: &ChooseTasks) -> bool {
    match &chosen.values {
        Some(values) => values.contains(&task.value),
        None if task.value == ALL_VALUES => if order == Order::Restart { chosen.stopped } else { !chosen.keep_discovering },
        None => true,
    }
}

impl Managed {
    /// Whether it could not be started.
    fn is_down(&self) -> bool {
        let live = self.live.lock();
        live.running.is_none() && live.wanted.is_some()
    }

    pub(crate) fn tasks(&self) -> Vec<Task> {
        let (running, ends) = {
            let live = self.live.lock();
            (live.running.clone(), live.ends.clone())
        };
        let statuses = running.map(|running| statuses(&running)).unwrap_or_default();
        statuses.into_iter().map(|status| task(&self.id, &ends, status)).collect()
    }

    pub(crate) fn tasks_among(&self, names: &[TaskName]) -> Vec<Task> {
        let is_named = |task: &Task| names.iter().any(|it| it.pipeline == task.pipeline && it.value == task.value);
        self.tasks().into_iter().filter(is_named).collect()
    }
}

/// A task as it is shown where only its place is known.
pub(crate) fn removed(file: &str, ends: &BTreeMap<String, Ends>, pipeline: &str, value: &str, now_ms: i64) -> Task {
    let state = TaskState::Stopped;
    let status = PipelineStatus { pipeline: pipeline.into(), task: value.into(), state, since_ms: now_ms, ..Default::default() };
    task(file, ends, status)
}

fn task(file: &str, ends: &BTreeMap<String, Ends>, status: PipelineStatus) -> Task {
    let (state, reason) = shown(&status.state);
    let ends = ends.get(&status.pipeline);
    Task {
        file: file.into(),
        source: ends.map_or_else(String::new, |it| it.source.clone()),
        sink: ends.map_or_else(String::new, |it| it.sink.clone()),
        replica: ends.is_some_and(|it| it.is_replica),
        pipeline: status.pipeline,
        value: status.task,
        status: state,
        reason,
        service: None,
        since: timestamp(status.since_ms),
        counts: status.counts,
        lag_seconds: status.lag_seconds,
        lag_offsets: status.lag_offsets,
        progress_seconds: status.progress_seconds,
        last_applied: status.last_applied_ms.map(timestamp),
        lanes: status.lanes.into_iter().map(lane).collect(),
    }
}

fn lane(status: LaneStatus) -> Lane {
    let LaneStatus { lane, oldest, current, latest, lag_offsets, slack_seconds, retention_seconds, .. } = status;
    Lane { lane, oldest, current, latest, lag_offsets, slack_seconds, retention_seconds }
}

fn shown(state: &TaskState) -> (TaskStatus, Option<String>) {
    let status = match state {
        TaskState::Starting => TaskStatus::Starting,
        TaskState::Stopping => return (TaskStatus::Running, Some("stopping: what was read is written".into())),
        TaskState::Running => TaskStatus::Running,
        TaskState::Reconnecting(_) => TaskStatus::Interrupted,
        TaskState::Elsewhere => TaskStatus::Elsewhere,
        TaskState::Stopped => TaskStatus::Stopped,
        TaskState::Hole(_) => TaskStatus::Hole,
        TaskState::Finished => TaskStatus::Finished,
        TaskState::Rejected(_) => TaskStatus::Rejected,
        TaskState::Failed(_) => TaskStatus::Failed,
    };
    (status, state.reason().map(str::to_owned))
}
