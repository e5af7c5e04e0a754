//! Fake components over a world in memory, made like any plugin and linked in through a root table.
//!
//! A world has a log of lanes that its source reads, and a table that its sink writes. It checks `lane-order` and
//! `committed-after-durable` itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pipeline_sdk::abi::glue::Runtime;
use pipeline_sdk::describe::{COMPARES_REPLAYS, MARKS_WRITES, TELLS_REPLICATED};
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::File;
use crate::graph::Graph;
use crate::host::Plugins;
use crate::metrics::TaskState;
use crate::runtime::{Engine, RunOptions, Running};
use crate::state::Store;

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
    pub commits: usize,
    pub connects: usize,
    pub databases: Vec<String>,
    pub identity: String,
    pub sink_identity: String,
    pub is_finite: bool,
    /// Lanes announced as assigned and revoked at the next read.
    pub assign: Vec<String>,
    pub revoke: Vec<String>,
    /// What the next writes of a number come to, first one first.
    pub on_write: BTreeMap<i64, Vec<Trouble>>,
    pub on_flush: Vec<Trouble>,
    pub on_next: Vec<Trouble>,
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

/// A source over a world's log.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct LogConfig {
    world: String,
    #[serde(default)]
    databases: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default = "default_interval")]
    #[schemars(default = "default_interval")]
    #[expect(dead_code, reason = "the engine reads it")]
    new_database_interval: String,
    #[serde(default)]
    frames: bool,
}

fn default_interval() -> String {
    "0s".into()
}

#[async_trait]
impl SourceConfig for LogConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("log", Kind::Source, "a world's log")
            .provides(TELLS_REPLICATED)
            .frames("test-frame")
            .task_key("databases")
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        let prefix = self.databases.first().cloned().unwrap_or_default();
        Ok(Box::new(Log { world: world(&self.world), prefix, at: BTreeMap::new(), frames: self.frames }))
    }

    async fn discover(&self) -> Result<Vec<String>> {
        let found = lock(&world(&self.world)).databases.clone();
        Ok(found.into_iter().filter(|it| !self.exclude.contains(it)).collect())
    }

    fn decode(header: &Header, frame: &Frame) -> Result<Vec<Message>> {
        let number = header.position.number.unwrap_or_default();
        if &*frame.data == UNDECODABLE {
            return Err(Error::rejected("as told"));
        }
        assert_eq!(frame.data.as_ref(), number.to_le_bytes());
        Ok(vec![Message { header: header.clone(), payload: rows(number) }])
    }
}

/// A frame that is rejected when it is decoded.
const UNDECODABLE: &[u8] = b"no frame";

fn rows(number: i64) -> Payload {
    let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("v", arrow::datatypes::DataType::Int64, false)]);
    let column = Arc::new(arrow::array::Int64Array::from_iter_values([number, -number]));
    let batch = arrow::array::RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap();
    Payload::Rows(Rows { batch, runs: vec![Run::default()] })
}

struct Log {
    world: Arc<Mutex<World>>,
    /// Lanes of this database only.
    prefix: String,
    at: BTreeMap<String, i64>,
    frames: bool,
}

impl Log {
    fn read(&mut self) -> Vec<Message> {
        /// Entries of a lane that are read in one go.
        const AT_ONCE: usize = 4;
        let mut world = lock(&self.world);
        let mut messages = Vec::new();
        for (lane, entries) in world.log.iter().filter(|(lane, _)| lane.starts_with(&self.prefix)) {
            let at = self.at.entry(lane.clone()).or_default();
            for entry in entries.iter().skip(*at as usize).take(AT_ONCE) {
                *at += 1;
                for part in 1..=entry.parts {
                    let mut header = Header::new(Lane::new(lane), Position::from_number(*at));
                    header.ends_position = part == entry.parts;
                    if entry.is_swallowed {
                        header.mark = Mark::Replicated { site: None };
                    }
                    messages.push(Message { header, payload: payload(entry, *at, self.frames) });
                }
            }
        }
        world.read += messages.len();
        messages
    }
}

fn payload(entry: &Entry, number: i64, as_frame: bool) -> Payload {
    if entry.is_change {
        return Payload::Change(Change {
            kind: ChangeKind::AlterTable,
            identity: String::new(),
            namespace: "d".into(),
            group: None,
            tables: Vec::new(),
            detail: serde_json::json!({ "number": number }),
            raw: None,
        });
    }
    if !as_frame {
        return rows(number);
    }
    let data = if entry.is_dead { UNDECODABLE.to_vec() } else { number.to_le_bytes().to_vec() }.into();
    Payload::Frame(Frame { format: "test-frame".into(), data, namespace: "d".into(), rows: 2, tables: 1 })
}

#[async_trait]
impl Source for Log {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        self.at = from.lanes.iter().map(|(lane, at)| (lane.to_string(), at.number.unwrap())).collect();
        let mut world = lock(&self.world);
        world.connects += 1;
        Ok(Connected { identity: Some(world.identity.clone()) })
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let trouble = {
            let mut world = lock(&self.world);
            if !world.revoke.is_empty() || !world.assign.is_empty() {
                let revoked = std::mem::take(&mut world.revoke).iter().map(Lane::new).collect();
                let assigned = std::mem::take(&mut world.assign).iter().map(Lane::new).collect();
                return Ok(Polled::Lanes { assigned, revoked });
            }
            (!world.on_next.is_empty()).then(|| world.on_next.remove(0))
        };
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        let messages = self.read();
        if !messages.is_empty() {
            return Ok(Polled::Messages(messages));
        }
        if lock(&self.world).is_finite {
            return Ok(Polled::End);
        }
        tokio::time::sleep(wait).await;
        Ok(Polled::Idle)
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        let mut world = lock(&self.world);
        world.commits += 1;
        let is_early = world.is_acknowledged_early;
        for (lane, position) in &upto.lanes {
            let number = position.number.unwrap();
            let entries = &world.log[lane.as_str()];
            let durable = world.durable.get(lane.as_str()).cloned().unwrap_or_default();
            let missing = (1..=number).filter(|_| !is_early).find(|it| !entries[*it as usize - 1].is_left_out() && !durable.contains(it));
            if let Some(missing) = missing {
                world.violations.push(format!("{lane} committed {number} while {missing} is not durable"));
            }
            world.committed.insert(lane.to_string(), number);
        }
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let world = lock(&self.world);
        let lanes = world.log.iter().filter(|(lane, _)| lane.starts_with(&self.prefix));
        let progress = lanes.map(|(lane, entries)| LaneProgress {
            lane: Lane::new(lane),
            oldest: Some(Position::from_number(0)),
            current: Some(Position::from_number(self.at.get(lane).copied().unwrap_or_default())),
            latest: Some(Position::from_number(entries.len() as i64)),
            retention_seconds: Some(3_600),
            ends: false,
        });
        Ok(progress.collect())
    }
}

/// The same as a stream that cannot be divided, nor asked again.
#[derive(Deserialize, JsonSchema)]
struct StreamConfig {
    world: String,
}

impl SourceConfig for StreamConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("stream", Kind::Source, "a world's log, once")
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(Log { world: world(&self.world), prefix: String::new(), at: BTreeMap::new(), frames: false }))
    }
}

/// A log that grows with every look at it, which takes its thread a while: it never has to wait.
#[derive(Deserialize, JsonSchema)]
struct ReelConfig {
    world: String,
}

impl SourceConfig for ReelConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("reel", Kind::Source, "a world's log without an end").blocking()
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(Reel(Log { world: world(&self.world), prefix: String::new(), at: BTreeMap::new(), frames: false })))
    }
}

struct Reel(Log);

#[async_trait]
impl Source for Reel {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        self.0.connect(from).await
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        std::thread::sleep(Duration::from_millis(5));
        lock(&self.0.world).fill("1", 1);
        self.0.next(wait).await
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        self.0.commit(upto).await
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        self.0.progress().await
    }
}

/// Drops what is marked; the world's own `loop-mark`.
#[derive(Deserialize, JsonSchema)]
struct SieveConfig {}

impl TransformConfig for SieveConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("sieve", Kind::Transform, "drops what is marked").any_frame()
            .requires(Kind::Source, TELLS_REPLICATED, "it drops by mark")
            .requires(Kind::Sink, MARKS_WRITES, "it drops by mark")
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Sieve { context }))
    }
}

struct Sieve {
    context: Context,
}

impl Transform for Sieve {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        match message.header.mark {
            Mark::Local => out.push(message),
            Mark::Replicated { .. } => self.context.count("loops_suppressed", 1),
        }
        Ok(())
    }
}

/// Holds messages back until a barrier.
#[derive(Deserialize, JsonSchema)]
struct HoldConfig {}

impl TransformConfig for HoldConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("hold", Kind::Transform, "holds back until a barrier").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Hold { held: Vec::new() }))
    }
}

struct Hold {
    held: Vec<Message>,
}

impl Transform for Hold {
    fn apply(&mut self, message: Message, _: &mut Output) -> Result<()> {
        self.held.push(message);
        Ok(())
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        out.messages.append(&mut self.held);
        Ok(())
    }
}

/// Blocks its thread, which no transform should.
#[derive(Deserialize, JsonSchema)]
struct BlockConfig {}

impl TransformConfig for BlockConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("block", Kind::Transform, "blocks its thread").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Block))
    }
}

struct Block;

impl Transform for Block {
    fn apply(&mut self, _: Message, _: &mut Output) -> Result<()> {
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    }
}

/// A sink into a world's table.
#[derive(Deserialize, JsonSchema)]
struct TableConfig {
    world: String,
}

impl SinkConfig for TableConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("table", Kind::Sink, "a world's table")
            .provides(MARKS_WRITES)
            .provides(COMPARES_REPLAYS)
            .frames("test-frame")
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Table { world: world(&self.world), unflushed: Vec::new() }))
    }
}

/// The same, but it needs rows and takes all lanes at once.
#[derive(Deserialize, JsonSchema)]
struct RowsTableConfig {
    world: String,
}

impl SinkConfig for RowsTableConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("rows-table", Kind::Sink, "a world's table").merged_lanes()
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Table { world: world(&self.world), unflushed: Vec::new() }))
    }
}

struct Table {
    world: Arc<Mutex<World>>,
    /// Lost with the instance.
    unflushed: Vec<(String, i64)>,
}

#[async_trait]
impl Sink for Table {
    async fn connect(&mut self) -> Result<Connected> {
        let trouble = {
            let mut world = lock(&self.world);
            (!world.on_sink_connect.is_empty()).then(|| world.on_sink_connect.remove(0))
        };
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        Ok(Connected { identity: Some(lock(&self.world).sink_identity.clone()) })
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        let number = message.header.position.number.unwrap();
        let (trouble, delay) = {
            let mut world = lock(&self.world);
            let troubles = world.on_write.get_mut(&number);
            (troubles.filter(|it| !it.is_empty()).map(|it| it.remove(0)), world.write_delay)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        while lock(&self.world).is_sink_blocked {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        let mut world = lock(&self.world);
        let header = &message.header;
        let (lane, replayed) = (header.lane.to_string(), header.replayed);
        if let Some(last) = world.written.iter().rev().find(|it| it.lane == lane)
            && number > last.number + 1
            && let Some(log) = world.log.get(&lane)
            && !log[last.number as usize..number as usize - 1].iter().all(Entry::is_left_out)
        {
            let text = format!("{lane} was written {number} after {}", last.number);
            world.violations.push(text);
        }
        let was_frame = matches!(message.payload, Payload::Frame(_));
        world.written.push(Written { lane: lane.clone(), number, replayed, was_frame });
        drop(world);
        self.unflushed.push((lane, number));
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let trouble = {
            let mut world = lock(&self.world);
            (!world.on_flush.is_empty()).then(|| world.on_flush.remove(0))
        };
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        let mut world = lock(&self.world);
        for (lane, number) in std::mem::take(&mut self.unflushed) {
            world.durable.entry(lane).or_default().insert(number);
        }
        Ok(())
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
