//! Fake components over a world in memory, made like any plugin and linked in through a root table.
//!
//! A world has a log of lanes that its source reads, and a table that its sink writes. It checks `lane-order` and
//! `committed-after-durable` itself.

mod sinks;
mod sources;
mod transforms;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pipeline_sdk::abi::glue::Runtime;
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::File;
use crate::graph::Graph;
use crate::host::Plugins;
use crate::metrics::TaskState;
use crate::runtime::{Engine, RunOptions, Running};
use crate::state::Store;
use sinks::{RowsTableConfig, TableConfig};
use sources::{LogConfig, ReelConfig, StreamConfig};
use transforms::{BlockConfig, ClearConfig, HoldConfig, SieveConfig};

/// One entry of a lane: its number is its offset plus one.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Dropped by the transform `sieve`.
    pub is_swallowed: bool,
    pub is_change: bool,
    /// Becomes a dead letter: need not be durable.
    pub is_dead: bool,
    /// As many messages, of which only the last ends the position.
    pub parts: usize,
}

impl Entry {
    fn is_left_out(&self) -> bool {
        self.is_swallowed || self.is_dead
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub lane: String,
    pub number: i64,
    pub replayed: bool,
    pub was_frame: bool,
}

#[derive(Default)]
pub struct World {
    pub log: BTreeMap<String, Vec<Entry>>,
    /// In the order in which they were written, again where they were written again.
    pub written: Vec<Written>,
    /// Numbers that are durable, by lane.
    pub durable: BTreeMap<String, BTreeSet<i64>>,
    pub committed: BTreeMap<String, i64>,
    pub violations: Vec<String>,
    pub read: usize,
    pub polls: usize,
    pub commits: usize,
    pub connects: usize,
    pub databases: Vec<String>,
    pub identity: String,
    pub sink_identity: String,
    pub is_finite: bool,
    /// A source's wait can be ended: by its host, and by what comes.
    pub is_interruptible: bool,
    pub came: Arc<tokio::sync::Notify>,
    /// Lanes announced as assigned and revoked at the next read.
    pub assign: Vec<String>,
    pub revoke: Vec<String>,
    /// What the next writes of a number come to, first one first.
    pub on_write: BTreeMap<i64, Vec<Trouble>>,
    pub on_flush: Vec<Trouble>,
    pub on_next: Vec<Trouble>,
    pub on_connect: Vec<Trouble>,
    pub on_sink_connect: Vec<Trouble>,
    /// Writes wait as long as this.
    pub write_delay: Duration,
    pub is_sink_blocked: bool,
    /// A buffer answers for what it holds: the source may be told before the sink has it.
    pub is_acknowledged_early: bool,
}

#[derive(Clone, Debug)]
pub enum Trouble {
    Fails(Error),
    Panics,
    Hangs,
}

impl Trouble {
    async fn happen(self) -> Result<()> {
        match self {
            Self::Fails(error) => Err(error),
            Self::Panics => panic!("as told"),
            Self::Hangs => std::future::pending().await,
        }
    }
}

static WORLDS: Mutex<BTreeMap<String, Arc<Mutex<World>>>> = Mutex::new(BTreeMap::new());

pub fn world(name: &str) -> Arc<Mutex<World>> {
    WORLDS.lock().unwrap().entry(name.to_owned()).or_default().clone()
}

pub fn lock(world: &Arc<Mutex<World>>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl World {
    pub fn fill(&mut self, lane: &str, count: usize) {
        self.log.entry(lane.into()).or_default().extend(std::iter::repeat_n(Entry { parts: 1, ..Entry::default() }, count));
    }

    pub fn numbers(&self, lane: &str) -> Vec<i64> {
        self.written.iter().filter(|it| it.lane == lane).map(|it| it.number).collect()
    }
}

/// A generator that fills lane 1 of its world, one entry every 10 ms.
#[derive(Deserialize, JsonSchema)]
struct FillConfig {
    world: String,
}

impl ServiceConfig for FillConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("fill", Kind::Service, "fills a world's log").generator()
    }

    fn build(self, context: Context) -> Result<Box<dyn Service>> {
        Ok(Box::new(Fill { world: self.world, context }))
    }
}

struct Fill {
    world: String,
    context: Context,
}

#[async_trait]
impl Service for Fill {
    async fn run(self: Box<Self>, mut ready: Ready, stop: Stop) -> Result<()> {
        if self.world == "unfillable" {
            return Err(Error::fatal("nothing to fill"));
        }
        ready.ready();
        while !stop.is_stopped() {
            lock(&world(&self.world)).fill("1", 1);
            self.context.count("rows_written", 1);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
                () = stop.stopped() => {}
            }
        }
        Ok(())
    }
}

fn plugin() -> Plugin {
    Plugin::new("world", "1.0.0", "for these tests")
        .source::<LogConfig>()
        .source::<StreamConfig>()
        .source::<ReelConfig>()
        .transform::<SieveConfig>()
        .transform::<HoldConfig>()
        .transform::<ClearConfig>()
        .transform::<BlockConfig>()
        .sink::<TableConfig>()
        .sink::<RowsTableConfig>()
        .service::<FillConfig>()
}

pub fn plugins() -> Arc<Plugins> {
    Arc::new(Plugins::linked([pipeline_sdk::root!(Runtime::None, plugin)]).unwrap())
}

pub fn graph(text: &str) -> Graph {
    let file = File::parse("test.toml", text, std::path::Path::new("."), &|_| None).unwrap_or_else(|it| panic!("{it:?}"));
    Graph::build(&file, &*plugins()).unwrap_or_else(|it| panic!("{it:?}"))
}

/// A file with one pipeline over a world; `settings` stand in its table.
pub fn one(world: &str, settings: &str) -> String {
    format!(
        "[pipeline.p]\n{settings}\nsource = {{ type = \"log\", world = \"{world}\" }}\ntransform = {{ type = \"sieve\" }}\n\
         sink = {{ type = \"table\", world = \"{world}\" }}\n"
    )
}

/// A world of this name with different identities at its ends.
pub fn new_world(name: &str) -> Arc<Mutex<World>> {
    let world = world(name);
    *lock(&world) = World { identity: "one".into(), sink_identity: "two".into(), ..World::default() };
    world
}

pub fn options(store: &Store) -> RunOptions {
    let mut options = RunOptions::new(7, Arc::new(|| 1_000));
    options.store = Some(store.clone());
    options
}

pub async fn start(text: &str, store: &Store) -> Running {
    Engine::start(graph(text), plugins(), options(store)).await.unwrap()
}

/// Waits, in paused time, until something is true.
pub async fn until(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

pub fn state(running: &Running) -> TaskState {
    running.status().pipelines[0].state.clone()
}
