//! Sites and a hand-driven replica for tests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pipeline_sdk::context::Place;
use pipeline_sdk::describe::{MARKS_WRITES, TELLS_REPLICATED};
use pipeline_sdk::{
    Checkpoint, Context, Detached, Lane, Mark, Message, Polled, Reaction, Result, Sink, SinkConfig, Source, SourceConfig,
};
use pipeline_tdengine::client::{ClientError, SocketLimits, Subscription};
use pipeline_tdengine::transport::{Connection, Consumer};
use pipeline_tdengine::dsn::Dsn;
use pipeline_tdengine::sink::TdengineConfig;
use pipeline_tdengine::source::TmqConfig;

/// Longest time that sites may take to become equal.
const SETTLE: Duration = Duration::from_secs(20);

/// One direction: its state outlives a run.
struct Direction {
    name: String,
    from: String,
    to: String,
    database: String,
    source_host: Arc<Detached>,
    sink_host: Arc<Detached>,
    checkpoint: Mutex<Checkpoint>,
    messages: AtomicU64,
    looped: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Direction {
    fn context(&self, host: &Arc<Detached>, component: &str, negotiated: &str, lane: Option<&Lane>, identity: Option<String>) -> Context {
        let place = Place {
            pipeline: self.name.clone(),
            task: self.database.clone(),
            component: component.into(),
            lane: lane.map(Lane::to_string),
            negotiated: [negotiated.to_owned()].into(),
            site: None,
            source_identity: identity,
        };
        Context::new(place, host.clone())
    }

    async fn run(&self, stop: &AtomicBool) -> Result<()> {
        let config: TmqConfig = serde_json::from_value(serde_json::json!({ "dsn": self.from, "databases": [self.database] })).unwrap();
        let mut source: Box<dyn Source> = config.build(self.context(&self.source_host, "source", TELLS_REPLICATED, None, None))?;
        let from = self.checkpoint.lock().unwrap().clone();
        let identity = source.connect(&from).await?.identity;
        let mut sinks: HashMap<Lane, Box<dyn Sink>> = HashMap::new();
        while !stop.load(Ordering::Relaxed) {
            let Polled::Messages(messages) = source.next(Duration::from_millis(10)).await? else { continue };
            for message in messages {
                self.messages.fetch_add(1, Ordering::Relaxed);
                self.deliver(&mut sinks, &identity, &message).await?;
                let mut checkpoint = self.checkpoint.lock().unwrap();
                checkpoint.lanes.insert(message.header.lane.clone(), message.header.position.clone());
            }
            let checkpoint = self.checkpoint.lock().unwrap().clone();
            for sink in sinks.values_mut() {
                sink.flush().await?;
            }
            source.commit(&checkpoint).await?;
        }
        Ok(())
    }

    async fn deliver(&self, sinks: &mut HashMap<Lane, Box<dyn Sink>>, identity: &Option<String>, message: &Message) -> Result<()> {
        if let Mark::Replicated { .. } = message.header.mark {
            self.looped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let lane = &message.header.lane;
        if !sinks.contains_key(lane) {
            let config: TdengineConfig = serde_json::from_value(serde_json::json!({ "dsn": self.to })).unwrap();
            let context = self.context(&self.sink_host, "sink", MARKS_WRITES, Some(lane), identity.clone());
            let mut sink = config.build(context)?;
            sink.connect().await?;
            sinks.insert(lane.clone(), sink);
        }
        let sink = sinks.get_mut(lane).unwrap();
        let deadline = Instant::now() + SETTLE;
        loop {
            match sink.write(message).await {
                Err(error) if error.reaction == Reaction::Retry && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return other,
            }
        }
    }
}

pub struct Rig {
    pub sites: [String; 2],
    pub database: String,
    connections: [Connection; 2],
    directions: Vec<Arc<Direction>>,
    running: Mutex<Option<(Arc<AtomicBool>, Vec<tokio::task::JoinHandle<()>>)>>,
}

fn limits() -> SocketLimits {
    SocketLimits::default()
}

impl Rig {
    /// An empty database at both sites.
    pub async fn start(name: &str) -> Self {
        let sites = sites().await;
        let database = format!("client_{name}");
        let mut connections = Vec::new();
        for site in &sites {
            let connection = Connection::open(&Dsn::parse(site).unwrap(), None, limits()).await.unwrap();
            clean(&connection, &database).await;
            connection.exec(&format!("create database {database} vgroups 2")).await.unwrap();
            connections.push(connection);
        }
        let directions = [(0, 1), (1, 0)]
            .map(|(from, to)| {
                Arc::new(Direction {
                    name: format!("{from}-to-{to}-{}", std::process::id()),
                    from: sites[from].clone(),
                    to: sites[to].clone(),
                    database: database.clone(),
                    source_host: Arc::default(),
                    sink_host: Arc::default(),
                    checkpoint: Mutex::default(),
                    messages: AtomicU64::new(0),
                    looped: AtomicU64::new(0),
                    error: Mutex::new(None),
                })
            })
            .into();
        let connections = connections.try_into().unwrap_or_else(|_| unreachable!());
        Self { sites, database, connections, directions, running: Mutex::new(None) }
    }

    pub fn sql(&self, text: &str) -> String {
        text.replace("DB.", &format!("{}.", self.database))
    }

    /// A statement may need what the other site has just made: on a loaded machine that is still on its way.
    pub async fn exec(&self, site: usize, sql: &str) {
        let (sql, deadline) = (self.sql(sql), Instant::now() + SETTLE);
        loop {
            match self.connections[site].exec(&sql).await {
                Ok(_) => return,
                Err(ClientError::Server { code: 0x2602 | 0x2603 | 0x2662, .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => panic!("site {site}: {sql}: {error}"),
            }
        }
    }

    /// Starts both directions.
    pub async fn replicate(&self) {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for direction in &self.directions {
            let (direction, stop) = (direction.clone(), stop.clone());
            tasks.push(tokio::spawn(async move {
                if let Err(error) = direction.run(&stop).await {
                    eprintln!("{}: {error}", direction.name);
                    *direction.error.lock().unwrap() = Some(error.to_string());
                }
            }));
        }
        *self.running.lock().unwrap() = Some((stop, tasks));
    }

    pub async fn halt(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some((stop, tasks)) = running {
            stop.store(true, Ordering::Relaxed);
            for task in tasks {
                task.await.unwrap();
            }
        }
    }

    /// Until no direction moved a message for a while.
    pub async fn settle(&self) {
        let quiet = Duration::from_millis(500);
        let count = || -> u64 { self.directions.iter().map(|it| it.messages.load(Ordering::Relaxed)).sum() };
        let (mut last, mut since) = (count(), Instant::now());
        let deadline = Instant::now() + SETTLE;
        while since.elapsed() < quiet && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if count() != last || count() == 0 {
                (last, since) = (count(), Instant::now());
            }
        }
        for direction in &self.directions {
            let error = direction.error.lock().unwrap().clone();
            assert!(error.is_none(), "{}: {error:?}", direction.name);
        }
    }

    pub async fn assert_equal(&self, queries: &[&str]) {
        for query in queries {
            let deadline = Instant::now() + SETTLE;
            loop {
                let (a, b) = (rows_of(self, 0, query).await, rows_of(self, 1, query).await);
                if a == b && !a.is_empty() {
                    break;
                }
                assert!(Instant::now() < deadline, "{query}:\n{a:?}\n{b:?}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// A consumer without exclusion receives nothing while nobody writes (FACTS F59).
    pub async fn assert_quiet(&self) {
        for (index, site) in self.sites.iter().enumerate() {
            let subscription = Subscription {
                topic: pipeline_tdengine::names::topic("pipeline", &self.database),
                group: format!("quiet_{}", self.database),
                client: "test".into(),
                exclude_marked: false,
                from_oldest: true,
                prefetch: 1,
                rows_min: None,
            };
            let mut consumer = Consumer::subscribe(&Dsn::parse(site).unwrap(), &subscription, limits()).await.unwrap();
            let mut idle = 0;
            while idle < 3 {
                idle = if consumer.poll(Duration::from_millis(300)).await.unwrap().is_some() { 0 } else { idle + 1 };
            }
            for _ in 0..4 {
                let came = consumer.poll(Duration::from_millis(300)).await.unwrap();
                assert!(came.is_none(), "site {index} goes on writing: {came:?}");
            }
            consumer.unsubscribe().await.unwrap();
        }
    }

    pub async fn stop(self) {
        self.halt().await;
        for connection in &self.connections {
            clean(connection, &self.database).await;
        }
    }
}

pub async fn rows_of(rig: &Rig, site: usize, query: &str) -> Vec<Vec<Option<String>>> {
    match rig.connections[site].query(&rig.sql(query)).await {
        Ok(result) => result.texts().unwrap(),
        Err(error) => {
            eprintln!("site {site}: {query}: {error}");
            Vec::new()
        }
    }
}

/// Topics go first; consumers that are on their way out hold them for a while.
async fn clean(connection: &Connection, database: &str) {
    let deadline = Instant::now() + Duration::from_secs(40);
    for topic in [pipeline_tdengine::names::topic("pipeline", database), pipeline_tdengine::names::meta_topic("pipeline", database)] {
        while connection.exec(&format!("drop topic if exists {topic}")).await.is_err() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    connection.exec(&format!("drop database if exists {database}")).await.unwrap();
}

async fn sites() -> [String; 2] {
    let named = std::env::var("PIPELINE_TEST_SITES").unwrap_or_else(|_| "ws://127.0.0.1:6041,ws://127.0.0.1:7041".into());
    let (a, b) = named.split_once(',').expect("two addresses");
    [a.into(), b.into()]
}
