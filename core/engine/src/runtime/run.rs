//! A run of one file: services, pipelines, and what the command line asks of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pipeline_sdk::Result;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::orders::TaskName;
use super::pipeline::Pipeline;
use super::service::Started;
use super::share::{HandOvers, Share};
use super::tap::Taps;
use super::task::Letters;
use super::task::Control;
use super::threads::Threads;
use crate::buffer::{Buffers, left_behind};
use crate::config::{EngineSettings, IsolationLimits, Redactor};
use crate::graph::Graph;
use crate::host::Plugins;
use crate::host::process::Launch;
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
    /// Waits of sources that bring nothing end at multiples of a part of theirs since then, many at once: of a thousand idle tasks each wakes
    /// nobody by itself. Runs of one process share it.
    pub epoch: Instant,
    /// Where several processes share the tasks: which of them are this one's.
    pub share: Option<Arc<Share>>,
    /// How these tell each other that a task was let go; where absent, nothing is known of the one before.
    pub hand_overs: Option<Arc<dyn HandOvers>>,
    /// How processes of components are started; none are where absent.
    pub launch: Option<Launch>,
    /// Of tasks and services; where absent, those of the caller. Runs of one process share them.
    pub threads: Option<Arc<Threads>>,
}

impl RunOptions {
    /// `seed` should differ from run to run, but for tests.
    pub fn new(seed: u64, clock: Clock) -> Self {
        Self {
            accept_new_sources: false,
            store: None,
            seed,
            clock,
            epoch: Instant::now(),
            share: None,
            hand_overs: None,
            launch: None,
            threads: None,
        }
    }
}

/// What everything in a run shares.
pub(super) struct Shared {
    pub plugins: Arc<Plugins>,
    pub store: Store,
    pub registry: Arc<Registry>,
    pub taps: Taps,
    pub buffers: Buffers,
    /// Sinks of dead letters by pipeline: the pipelines into and out of a buffer share one.
    pub letters: Mutex<BTreeMap<String, Letters>>,
    pub options: RunOptions,
    pub stop: CancellationToken,
    /// Of the file as it is now and as it was: what was started with an old secret may still tell it.
    redactor: RwLock<Arc<Redactor>>,
    /// Of the file as it is now.
    pub isolation: RwLock<IsolationLimits>,
    seeds: AtomicU64,
}

impl Shared {
    /// A new seed: another one for each caller.
    pub fn seed(&self) -> u64 {
        self.options.seed.wrapping_add(self.seeds.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Starts a task, or what else runs a component's code.
    pub fn spawn<T: Send + 'static>(&self, part: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        match &self.options.threads {
            Some(threads) => threads.spawn(part),
            None => tokio::spawn(part),
        }
    }

    pub fn wall_clock_ms(&self) -> i64 {
        (self.options.clock)()
    }

    pub fn redactor(&self) -> Arc<Redactor> {
        self.redactor.read().clone()
    }

    pub fn redact(&self, text: &str) -> String {
        self.redactor.read().redact(text)
    }

    pub fn learn(&self, redactor: &Redactor) {
        let mut known = Redactor::clone(&self.redactor());
        known.merge(redactor);
        *self.redactor.write() = Arc::new(known);
    }
}

/// By name, in the order in which they were started.
pub(super) type Pipelines = Arc<Mutex<Vec<Arc<Pipeline>>>>;

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
            taps: Taps::default(),
            buffers: Buffers::default(),
            letters: Mutex::default(),
            options,
            stop: CancellationToken::new(),
            redactor: RwLock::new(Arc::new(graph.redactor.clone())),
            isolation: RwLock::new(graph.engine.isolation.clone()),
            seeds: AtomicU64::new(0),
        });
        let mut services = Vec::new();
        if let Err(error) = start_services(&shared, &graph, &mut services).await {
            services.iter().for_each(Started::ask_to_stop);
            for service in &mut services {
                service.stopped(graph.engine.drain_timeout).await;
            }
            return Err(error);
        }
        let known: Vec<_> = graph.pipelines.iter().flat_map(|pipeline| pipeline.fills()).collect();
        for folder in left_behind(&graph.state, &known) {
            tracing::warn!(folder = %folder.display(), "a disk buffer holds messages, and no pipeline empties it: give the sink its buffer back, or delete the folder");
        }
        let pipelines = graph.pipelines.into_iter().map(|graph| Pipeline::start(shared.clone(), graph)).collect();
        let pipelines: Pipelines = Arc::new(Mutex::new(pipelines));
        tokio::spawn(super::watch::monitor(shared.stop.clone(), pipelines.clone()));
        Ok(Running {
            shared,
            engine: Mutex::new(graph.engine),
            services: Mutex::new(services),
            pipelines,
            orders: tokio::sync::Mutex::default(),
        })
    }
}

/// First what the generators may need, then the generators.
///
/// Those that run already are left alone.
pub(super) async fn start_services(shared: &Arc<Shared>, graph: &Graph, services: &mut Vec<Started>) -> Result<()> {
    for is_generator in [false, true] {
        let begun = services.len();
        for node in graph.services.iter().filter(|node| node.description.generator == is_generator) {
            if services[..begun].iter().all(|it| it.node.name != node.name) {
                services.push(Started::new(shared, node).await?);
            }
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
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Mutex<EngineSettings>,
    pub(super) services: Mutex<Vec<Started>>,
    pub(super) pipelines: Pipelines,
    /// What an operator asks for is carried out one after the other.
    pub(super) orders: tokio::sync::Mutex<()>,
}

impl Running {
    pub fn status(&self) -> RunStatus {
        /// Incidents that a status shows.
        const INCIDENTS_SHOWN: usize = 20;
        let mut pipelines: Vec<PipelineStatus> = self.pipelines().iter().flat_map(|it| it.status()).collect();
        pipelines.sort_by(|one, other| (&one.pipeline, &one.task).cmp(&(&other.pipeline, &other.task)));
        let mut incidents = self.shared.registry.incidents(0);
        incidents.drain(..incidents.len().saturating_sub(INCIDENTS_SHOWN));
        let services = self.services.lock().iter().map(|service| service.status(&self.shared)).collect();
        RunStatus { pipelines, services, incidents }
    }

    /// State of every task, and of the looking for more where that is done, and since when: a status without counts and lanes.
    pub fn states(&self) -> Vec<(TaskName, TaskState, i64)> {
        self.pipelines().iter().flat_map(|it| it.states()).collect()
    }

    pub(super) fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        self.pipelines.lock().clone()
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.engine.lock().drain_timeout
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.shared.registry.clone()
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Stops services and sources that make data, and waits until they have.
    pub async fn stop_generators(&self) {
        let endless = self.pipelines().into_iter().filter(|it| it.graph().source.node.description.generator);
        stop_pipelines(endless.collect(), Instant::now() + self.drain_timeout()).await;
        let generators = {
            let mut services = self.services.lock();
            std::mem::take(&mut *services)
        };
        let mut generators = generators;
        generators.iter().filter(|it| it.is_generator).for_each(Started::ask_to_stop);
        for service in generators.iter_mut().filter(|it| it.is_generator) {
            service.stopped(self.drain_timeout()).await;
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
        self.pipelines().iter().flat_map(|it| it.tasks()).map(|task| task.counters.messages_read.get()).sum()
    }

    /// Every task that is not over catches up once.
    async fn catch_up(&self, deadline: Instant) -> bool {
        /// Before asking a task again that lost its connection while it caught up.
        const ASK_AGAIN: Duration = Duration::from_millis(50);
        while self.pipelines().iter().any(|pipeline| pipeline.is_starting()) {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let tasks: Vec<_> = self.pipelines().iter().flat_map(|it| it.controls()).collect();
        let each = tasks.into_iter().map(|(task, control)| {
            tokio::spawn(async move {
                loop {
                    if task.is_over() {
                        return;
                    }
                    let (done, caught_up) = oneshot::channel();
                    if control.send(Control::CatchUp(done)).await.is_err() || caught_up.await.is_ok() {
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

    /// Waits until every task is over by itself; one that an operator stopped is not, it may be started again. Without pipelines:
    /// until the run is stopped.
    pub async fn wait(&self) -> RunEnd {
        if self.pipelines().is_empty() {
            self.shared.stop.cancelled().await;
        }
        while !self.is_over() {
            /// How soon an end is seen.
            const LOOK_INTERVAL: Duration = Duration::from_millis(20);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.end(true)
    }

    /// Whether every pipeline is over; one that empties a buffer is so as well when nothing is in it and nobody fills it any more.
    fn is_over(&self) -> bool {
        let (out_of, others): (Vec<_>, Vec<_>) = self.pipelines().into_iter().partition(|it| it.graph().buffer_of.is_some());
        others.iter().all(|it| it.is_over()) && out_of.iter().all(|it| it.is_over() || it.is_empty())
    }

    /// Stops gracefully: drains what was read, flushes, stores and commits positions, then stops the services. What takes longer
    /// than the file's `drain-timeout` is ended as it is; nothing is lost, it is read again at the next start.
    pub async fn stop(&self) -> RunEnd {
        self.shared.stop.cancel();
        let limit = self.drain_timeout();
        let is_drained = stop_pipelines(self.pipelines(), Instant::now() + limit).await;
        let mut services = std::mem::take(&mut *self.services.lock());
        services.iter().for_each(Started::ask_to_stop);
        for service in &mut services {
            service.stopped(limit).await;
        }
        *self.services.lock() = services;
        self.end(is_drained)
    }

    /// Ends everything as it is. Calls under way are abandoned.
    pub fn abort(&self) {
        self.shared.stop.cancel();
        self.pipelines().iter().for_each(|pipeline| pipeline.abort());
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
                TaskState::Rejected(reason) | TaskState::Hole(reason) => end.rejected.push((name, reason)),
                _ => {}
            }
        }
        end
    }
}

/// Stops pipelines side by side; whether all of them drained.
pub(super) async fn stop_pipelines(pipelines: Vec<Arc<Pipeline>>, deadline: Instant) -> bool {
    pipelines.iter().for_each(|pipeline| pipeline.ask_to_stop());
    let mut ends = JoinSet::new();
    for pipeline in pipelines {
        ends.spawn(async move { pipeline.stopped(deadline).await });
    }
    ends.join_all().await.into_iter().all(|is_drained| is_drained)
}
