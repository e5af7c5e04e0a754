//! The world of one seed: a network, two sites on folders of their own, two pipelines in processes of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pipeline_engine::config::File;
use pipeline_engine::graph::Graph;
use pipeline_engine::host::Plugins;
use pipeline_engine::runtime::{Engine, RunOptions, Running};
use pipeline_engine::state::Store;
use pipeline_sdk::Incident;
use pipeline_sdk::abi::glue::Runtime;
use pipeline_tdengine::client::{SocketLimits, sql::Connection};
use pipeline_tdengine::dsn::Dsn;
use tdengine_node::{Config, Fsync, Node};
use tokio::time::Instant;

use crate::fabric::{Fabric, OfThread};

/// The replicated database.
pub const DATABASE: &str = "d";
/// Sites by number.
pub const SITES: [&str; 2] = ["a", "b"];
/// Pipelines by the number of the site that they read.
pub const PIPELINES: [&str; 2] = ["a-to-b", "b-to-a"];
/// How a person or an application dials a site.
pub const USER: &str = "user";
/// Messages in each queue: so few that they fill.
const BUFFER_MESSAGES: u64 = 4;

/// What a seed decides once.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub seed: u64,
    pub vgroups: u32,
}

pub struct World {
    pub shape: Shape,
    /// Tells this run's addresses from those of all others: what plugins keep in the process goes by addresses, and outlives a run.
    run: u64,
    pub fabric: Arc<Fabric>,
    folder: tempfile::TempDir,
    nodes: [Option<Node>; 2],
    pub processes: [Process; 2],
    pub trace: Arc<Trace>,
}

/// What happened, for whoever reads a failure.
#[derive(Default)]
pub struct Trace {
    lines: std::sync::Mutex<Vec<String>>,
    begun: std::sync::OnceLock<Instant>,
}

impl Trace {
    pub fn note(&self, text: impl Into<String>) {
        let at = self.begun.get_or_init(Instant::now).elapsed().as_secs_f64();
        let line = format!("{at:9.3} {}", text.into());
        tracing::info!("{line}");
        self.lines.lock().expect("nothing panics under this lock").push(line);
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nothing panics under this lock").clone()
    }
}

/// One pipeline's process: what it keeps outlives it.
pub struct Process {
    pub store: Store,
    generation: u32,
    running: Option<Running>,
    /// Of former lives.
    incidents: Vec<Incident>,
}

/// Worlds made so far.
static RUNS: AtomicU64 = AtomicU64::new(0);

impl World {
    /// Everything up, with an empty database at both sites, and no pipeline yet.
    pub async fn new(shape: Shape, trace: Arc<Trace>) -> Self {
        let folder = tempfile::Builder::new().prefix("pipeline-simulation").tempdir_in(scratch()).expect("a scratch folder");
        let process = || Process { store: Store::in_memory(), generation: 0, running: None, incidents: Vec::new() };
        let mut world = Self {
            shape,
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            fabric: Fabric::install(shape.seed),
            folder,
            nodes: [None, None],
            processes: [process(), process()],
            trace,
        };
        for site in 0..2 {
            world.start_node(site).await;
            let connection = connect(site).await.expect("the site is up");
            let create = format!("create database {DATABASE} vgroups {} wal_retention_period 86400", shape.vgroups);
            connection.exec(&create).await.expect("a new database");
        }
        world
    }

    pub fn node(&self, site: usize) -> Option<&Node> {
        self.nodes[site].as_ref()
    }

    pub async fn start_node(&mut self, site: usize) {
        if self.nodes[site].is_some() {
            return;
        }
        let data = self.folder.path().join(SITES[site]);
        let config = Config { fsync: Fsync::Never, ..Config::local(data) };
        let listener = self.fabric.listen(SITES[site]);
        let node = Node::start_in_place(config, listener).await;
        self.nodes[site] = Some(node.unwrap_or_else(|error| panic!("site {} does not start: {error}", SITES[site])));
    }

    pub async fn kill_node(&mut self, site: usize) {
        if let Some(node) = self.nodes[site].take() {
            self.fabric.kill_site(SITES[site]);
            node.kill().await;
        }
    }

    pub async fn start_pipeline(&mut self, from: usize) {
        let process = &mut self.processes[from];
        if process.running.is_some() {
            return;
        }
        process.generation += 1;
        let (name, place) = (PIPELINES[from], format!("{}.{}.r{}", PIPELINES[from], process.generation, self.run));
        let text = format!(
            "[pipeline.{name}]\nsource = {{ type = \"tdengine-tmq\", dsn = \"ws://{}.{place}\", databases = [\"{DATABASE}\"], \
             buffer = {{ messages = {BUFFER_MESSAGES} }} }}\n\
             transform = {{ type = \"loop-mark\" }}\nsink = {{ type = \"tdengine\", dsn = \"ws://{}.{place}\", \
             buffer = {{ messages = {BUFFER_MESSAGES} }} }}\n",
            SITES[from],
            SITES[1 - from],
        );
        let file = File::parse("simulation.toml", &text, self.folder.path(), &|_| None);
        let file = file.unwrap_or_else(|problems| panic!("{problems:?}"));
        let plugins = plugins();
        let graph = Graph::build(&file, &*plugins).unwrap_or_else(|problems| panic!("{problems:?}"));
        let seed = self.shape.seed.wrapping_mul(31).wrapping_add(u64::from(process.generation) * 2 + from as u64);
        let mut options = RunOptions::new(seed, Arc::new(|| 1_700_000_000_000));
        options.store = Some(process.store.clone());
        process.running = Some(Engine::start(graph, plugins, options).await.expect("nothing but pipelines to start"));
    }

    /// As `kill -9`: nothing is drained or stored, every socket is gone.
    pub async fn kill_pipeline(&mut self, from: usize) {
        let process = &mut self.processes[from];
        let Some(running) = process.running.take() else { return };
        process.incidents.extend(incidents(&running));
        running.abort();
        self.fabric.cut(Some(PIPELINES[from]), None);
        // Aborted tasks end when they are next polled.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Messages in the pipeline's queues, and how many there may be: each lane has one.
    pub fn queued(&self, from: usize) -> (u64, u64) {
        let status = self.running(from).map(Running::status).unwrap_or_default();
        let lanes = u64::from(self.shape.vgroups) * 2;
        (status.pipelines.iter().map(|it| it.counts.queue_messages).sum(), lanes * BUFFER_MESSAGES)
    }

    pub fn running(&self, from: usize) -> Option<&Running> {
        self.processes[from].running.as_ref()
    }

    /// Everything that either pipeline reported so far.
    pub fn incidents(&self) -> Vec<Incident> {
        let each = self.processes.iter().flat_map(|process| {
            process.incidents.iter().cloned().chain(process.running.iter().flat_map(incidents))
        });
        each.collect()
    }
}

/// A connection as a user has it.
///
/// # Errors
/// The site is not there.
pub async fn connect(site: usize) -> Result<Connection, String> {
    let limits = SocketLimits { connect_timeout: Duration::from_secs(5), ..SocketLimits::default() };
    Connection::open(&user_dsn(site), None, limits).await.map_err(|error| error.to_string())
}

pub fn user_dsn(site: usize) -> Dsn {
    let dsn = Dsn::parse(&format!("ws://{}.{USER}", SITES[site])).expect("an address");
    dsn.over(Arc::new(OfThread))
}

fn incidents(running: &Running) -> Vec<Incident> {
    running.registry().incidents(0).into_iter().map(|record| record.incident).collect()
}

/// In memory where the system has such a folder: nothing of a seed outlives it.
fn scratch() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn plugins() -> Arc<Plugins> {
    static PLUGINS: std::sync::OnceLock<Arc<Plugins>> = std::sync::OnceLock::new();
    let make = || {
        let roots = [
            pipeline_sdk::root!(Runtime::None, || pipeline_tdengine::plugin_over(Arc::new(OfThread))),
            pipeline_sdk::root!(Runtime::None, pipeline_loop_mark::plugin),
        ];
        Arc::new(Plugins::linked(roots).expect("two plugins that fit"))
    };
    PLUGINS.get_or_init(make).clone()
}
