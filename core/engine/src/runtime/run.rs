//! A run of one file: services, pipelines, and what the command line asks of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::Result;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pipeline::Pipeline;
use super::service::Started;
use super::task::{Control, Task};
use crate::config::{EngineSettings, Redactor};
use crate::graph::Graph;
use crate::host::Plugins;
use crate::metrics::{PipelineStatus, Registry, RunStatus, TaskState};
use crate::state::Store;

/// The wall clock, in milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a run takes from its surroundings.
#[derive(Clone)]
pub struct RunOptions {
    /// Positions that are stored for another source are forgotten, and it is read from where its configuration says.
    pub accept_new_sources: bool,
    /// A store to use instead of the one in the file's state folder.
    pub store: Option<Store>,
    /// Makes all jitter repeatable.
    pub seed: u64,
    /// Of dead letters; everything else takes tokio's clock, which tests pause.
    pub clock: Clock,
}

impl RunOptions {
    /// `seed` should differ from run to run, but for tests.
    pub fn new(seed: u64, clock: Clock) -> Self {
        Self { accept_new_sources: false, store: None, seed, clock }
    }
}

/// What everything in a run shares.
pub(super) struct Shared {
    pub plugins: Arc<Plugins>,
    pub store: Store,
    pub registry: Arc<Registry>,
    pub redactor: Arc<Redactor>,
    pub options: RunOptions,
    pub stop: CancellationToken,
    seeds: AtomicU64,
    tasks: Mutex<Vec<TaskEntry>>,
    /// Of pipelines that discover their tasks.
    pipelines: Mutex<BTreeMap<String, TaskState>>,
}

#[derive(Clone)]
pub(super) struct TaskEntry {
    pub task: Arc<Task>,
    pub control: mpsc::Sender<Control>,
}

impl Shared {
    /// A new seed: another one for each caller.
    pub fn seed(&self) -> u64 {
        self.options.seed.wrapping_add(self.seeds.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn wall_clock_ms(&self) -> i64 {
        (self.options.clock)()
    }

    pub fn add_task(&self, entry: TaskEntry) {
        self.tasks.lock().push(entry);
    }

    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.tasks.lock().iter().map(|entry| entry.task.clone()).collect()
    }

    pub fn set_pipeline_state(&self, pipeline: &str, state: TaskState) {
        self.pipelines.lock().insert(pipeline.to_owned(), state);
    }
}

pub struct Engine;

impl Engine {
    /// Opens the state, starts services and waits until all are ready (generators last), then starts the pipelines.
    ///
    /// # Errors
    /// The state cannot be used, or a service does not come up: what was started is stopped again.
    pub async fn start(graph: Graph, plugins: Arc<Plugins>, options: RunOptions) -> Result<Running> {
        let store = match &options.store {
            Some(store) => store.clone(),
            None => Store::open(&graph.state)?,
        };
        let shared = Arc::new(Shared {
            plugins,
            store,
            registry: Arc::default(),
            redactor: Arc::new(graph.redactor.clone()),
            options,
            stop: CancellationToken::new(),
            seeds: AtomicU64::new(0),
            tasks: Mutex::default(),
            pipelines: Mutex::default(),
        });
        let mut services = Vec::new();
        if let Err(error) = start_services(&shared, &graph, &mut services).await {
            services.iter().for_each(Started::ask_to_stop);
            for service in &mut services {
                service.stopped(graph.engine.drain_timeout).await;
            }
            return Err(error);
        }
        let pipelines = graph.pipelines.into_iter().map(|graph| {
            let pipeline = Pipeline::start(shared.clone(), graph);
            tokio::spawn(pipeline.supervise())
        });
        let pipelines = pipelines.collect();
        tokio::spawn(super::watch::monitor(shared.clone()));
        Ok(Running { shared, engine: graph.engine, services: Mutex::new(services), pipelines: Mutex::new(pipelines) })
    }
}

/// First what the generators may need, then the generators.
async fn start_services(shared: &Arc<Shared>, graph: &Graph, services: &mut Vec<Started>) -> Result<()> {
    for is_generator in [false, true] {
        let begun = services.len();
        for node in graph.services.iter().filter(|node| node.description.generator == is_generator) {
            services.push(Started::new(shared, node)?);
        }
        for service in &mut services[begun..] {
            service.ready(graph.engine.ready_timeout).await?;
        }
    }
    Ok(())
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunEnd {
    /// Tasks (and services) that failed, with the reason.
    pub failed: Vec<(String, String)>,
    /// Tasks that stopped by policy, with the reason.
    pub rejected: Vec<(String, String)>,
    /// Whether everything read was made durable before the end.
    pub is_drained: bool,
}

/// A run under way. Dropping it does not stop it.
pub struct Running {
    shared: Arc<Shared>,
    engine: EngineSettings,
    services: Mutex<Vec<Started>>,
    pipelines: Mutex<Vec<JoinHandle<()>>>,
}

impl Running {
    pub fn status(&self) -> RunStatus {
        /// Incidents that a status shows.
        const INCIDENTS_SHOWN: usize = 20;
        let tasks = self.shared.tasks.lock().clone();
        let mut pipelines: Vec<PipelineStatus> = tasks.iter().map(|entry| entry.task.status()).collect();
        for (pipeline, state) in self.shared.pipelines.lock().iter() {
            let has_tasks = pipelines.iter().any(|it| it.pipeline == *pipeline);
            if !has_tasks || matches!(state, TaskState::Failed(_)) {
                let (pipeline, state) = (pipeline.clone(), state.clone());
                pipelines.push(PipelineStatus { pipeline, task: "*".into(), state, ..PipelineStatus::default() });
            }
        }
        pipelines.sort_by(|one, other| (&one.pipeline, &one.task).cmp(&(&other.pipeline, &other.task)));
        let mut incidents = self.shared.registry.incidents(0);
        incidents.drain(..incidents.len().saturating_sub(INCIDENTS_SHOWN));
        let services = self.services.lock().iter().map(|service| service.status(&self.shared)).collect();
        RunStatus { pipelines, services, incidents }
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.shared.registry.clone()
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Stops services that make data, and waits until they have.
    pub async fn stop_generators(&self) {
        let generators = {
            let mut services = self.services.lock();
            std::mem::take(&mut *services)
        };
        let mut generators = generators;
        generators.iter().filter(|it| it.is_generator).for_each(Started::ask_to_stop);
        for service in generators.iter_mut().filter(|it| it.is_generator) {
            service.stopped(self.engine.drain_timeout).await;
        }
        *self.services.lock() = generators;
    }

    /// Waits until everything in the sources' logs is durable at the sinks: what one pipeline writes another may read, so it is
    /// repeated until a whole round brought nothing new. Whether that was reached within `limit`.
    pub async fn drain(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let before = self.messages_read();
            if !self.catch_up(deadline).await {
                return false;
            }
            if self.messages_read() == before {
                return true;
            }
        }
    }

    fn messages_read(&self) -> u64 {
        self.shared.tasks.lock().iter().map(|entry| entry.task.counters.messages_read.get()).sum()
    }

    /// Every task that is not over catches up once.
    async fn catch_up(&self, deadline: Instant) -> bool {
        /// Before asking a task again that lost its connection while it caught up.
        const ASK_AGAIN: Duration = Duration::from_millis(50);
        while self.shared.pipelines.lock().values().any(|state| *state == TaskState::Starting) {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let tasks = self.shared.tasks.lock().clone();
        let each = tasks.into_iter().map(|entry| {
            tokio::spawn(async move {
                loop {
                    if entry.task.is_over() {
                        return;
                    }
                    let (done, caught_up) = oneshot::channel();
                    if entry.control.send(Control::CatchUp(done)).await.is_err() || caught_up.await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            })
        });
        let each: Vec<_> = each.collect();
        let mut is_done = true;
        for mut task in each {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                is_done = false;
            }
        }
        is_done
    }

    /// Waits until every task is over by itself. Without pipelines: until the run is stopped.
    pub async fn wait(&self) -> RunEnd {
        let pipelines = self.pipelines.lock().is_empty();
        if pipelines {
            self.shared.stop.cancelled().await;
        }
        while self.pipelines.lock().iter().any(|pipeline| !pipeline.is_finished()) {
            /// How soon an end is seen.
            const LOOK_INTERVAL: Duration = Duration::from_millis(20);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.end(true)
    }

    /// Stops gracefully: drains what was read, flushes, stores and commits positions, then stops the services. What takes longer
    /// than the file's `drain-timeout` is ended as it is; nothing is lost, it is read again at the next start.
    pub async fn stop(&self) -> RunEnd {
        self.shared.stop.cancel();
        let deadline = Instant::now() + self.engine.drain_timeout;
        let pipelines = std::mem::take(&mut *self.pipelines.lock());
        let mut is_drained = true;
        for mut pipeline in pipelines {
            if tokio::time::timeout_at(deadline, &mut pipeline).await.is_err() {
                pipeline.abort();
                is_drained = false;
            }
        }
        let mut services = std::mem::take(&mut *self.services.lock());
        services.iter().for_each(Started::ask_to_stop);
        for service in &mut services {
            service.stopped(self.engine.drain_timeout).await;
        }
        *self.services.lock() = services;
        self.end(is_drained)
    }

    /// Ends everything as it is. Calls under way are abandoned.
    pub fn abort(&self) {
        self.shared.stop.cancel();
        self.pipelines.lock().iter().for_each(JoinHandle::abort);
        self.services.lock().iter().for_each(Started::abort);
    }

    fn end(&self, is_drained: bool) -> RunEnd {
        let status = self.status();
        let mut end = RunEnd { is_drained, ..RunEnd::default() };
        let pipelines = status.pipelines.into_iter().map(|it| {
            let name = if it.task.is_empty() { it.pipeline } else { format!("{}/{}", it.pipeline, it.task) };
            (name, it.state)
        });
        for (name, state) in pipelines.chain(status.services.into_iter().map(|it| (it.service, it.state))) {
            match state {
                TaskState::Failed(reason) => end.failed.push((name, reason)),
                TaskState::Rejected(reason) => end.rejected.push((name, reason)),
                _ => {}
            }
        }
        end
    }
}

