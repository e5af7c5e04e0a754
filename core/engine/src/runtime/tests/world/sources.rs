//! Sources over a world's log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipeline_sdk::describe::TELLS_REPLICATED;
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Entry, World, lock, world};

/// A source over a world's log.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LogConfig {
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
        let interrupt = lock(&world(&self.world)).is_interruptible.then(Interrupt::channel);
        Ok(Box::new(Log { world: world(&self.world), prefix, at: BTreeMap::new(), frames: self.frames, interrupt }))
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
    interrupt: Option<(Interrupt, Interrupted)>,
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
        let trouble = {
            let mut world = lock(&self.world);
            (!world.on_connect.is_empty()).then(|| world.on_connect.remove(0))
        };
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        self.at = from.lanes.iter().map(|(lane, at)| (lane.to_string(), at.number.unwrap())).collect();
        let mut world = lock(&self.world);
        world.connects += 1;
        Ok(Connected { identity: Some(world.identity.clone()) })
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let trouble = {
            let mut world = lock(&self.world);
            world.polls += 1;
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
        let Some((_, interrupted)) = &self.interrupt else {
            tokio::time::sleep(wait).await;
            return Ok(Polled::Idle);
        };
        let came = lock(&self.world).came.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = interrupted.interrupted() => {}
            () = came.notified() => return Ok(Polled::Messages(self.read())),
        }
        Ok(Polled::Idle)
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.interrupt.as_ref().map(|(interrupt, _)| interrupt.clone())
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
pub struct StreamConfig {
    world: String,
}

impl SourceConfig for StreamConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("stream", Kind::Source, "a world's log, once")
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(Log { world: world(&self.world), prefix: String::new(), at: BTreeMap::new(), frames: false, interrupt: None }))
    }
}

/// A log that grows with every look at it, which takes its thread a while: it never has to wait.
#[derive(Deserialize, JsonSchema)]
pub struct ReelConfig {
    world: String,
}

impl SourceConfig for ReelConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("reel", Kind::Source, "a world's log without an end").blocking()
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(Reel(Log { world: world(&self.world), prefix: String::new(), at: BTreeMap::new(), frames: false, interrupt: None })))
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
