//! A component on the bench: made, called with a limit on every call, and destroyed, with errors turned into outcomes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{Array, StringArray};
use pipeline_engine::config::IsolationLimits;
use pipeline_engine::host::Origin;
use pipeline_engine::host::process::{Launch, Process};
use pipeline_sdk::abi::import::{HostParts, Library};
use pipeline_sdk::context::Place;
use pipeline_sdk::{Checkpoint, ComponentDescription, Error, Kind, LaneProgress, Message, Output, Payload, Polled, Service, Sink, Source, Transform};
use serde_json::Value as Json;

use crate::job::Job;
use crate::memory::count_beside;
use crate::state::KitHost;
use crate::Outcome;

/// What is read of a source at most; one that gives more is taken as endless.
pub const READ_MESSAGES_MAX: usize = 2_000;
pub const READ_BYTES_MAX: u64 = 64 << 20;
pub const READ_TIME_MAX: Duration = Duration::from_secs(4);
/// A source that gives nothing for so long has nothing more at present.
pub const IDLE_MAX: Duration = Duration::from_millis(1_200);
/// Before its first message: a broker may have to give it its share first.
const FIRST_MAX: Duration = Duration::from_secs(3);
const WAIT: Duration = Duration::from_millis(100);
/// How often a call that asks for it is tried again.
const RETRIES_MAX: usize = 5;
/// Between two tries to connect.
const RECONNECT: Duration = Duration::from_millis(300);

pub struct Bench {
    pub job: Job,
    pub library: Library,
    pub description: ComponentDescription,
    pub log: Arc<Mutex<Vec<String>>>,
    /// Where the component is made.
    origin: Origin,
    runtime: tokio::runtime::Runtime,
}

pub type Done = Result<Outcome, Outcome>;

impl Bench {
    pub fn new(job: Job, library: Library, description: ComponentDescription) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { job, library, description, log: Arc::default(), origin: Origin::Here(library), runtime })
    }

    /// The same with the component in a process of its own, which opens `file`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn isolated(self, launch: &Launch, file: &Path) -> Result<Self, Error> {
        let (limits, log) = (IsolationLimits::default(), self.host("start").parts().log);
        let started = self.runtime.block_on(Process::start(launch, file, &self.job.component, &limits, log))?;
        count_beside(started.id());
        Ok(Self { origin: Origin::Process(started), ..self })
    }

    pub fn is_isolated(&self) -> bool {
        matches!(self.origin, Origin::Process(_))
    }

    pub fn make_source(&self, config: &Json, parts: HostParts) -> Result<Box<dyn Source>, Error> {
        self.make_source_of(&self.job.component, config, parts)
    }

    fn make_source_of(&self, component: &str, config: &Json, parts: HostParts) -> Result<Box<dyn Source>, Error> {
        self.runtime.block_on(self.origin.source(component, config, &self.place(""), parts))
    }

    pub fn make_transform(&self, config: &Json, parts: HostParts) -> Result<Box<dyn Transform>, Error> {
        self.runtime.block_on(self.origin.transform(&self.job.component, config, &self.place(""), parts, self.limit()))
    }

    pub fn make_sink(&self, config: &Json, lane: &str, parts: HostParts) -> Result<Box<dyn Sink>, Error> {
        self.runtime.block_on(self.origin.sink(&self.job.component, config, &self.place(lane), parts))
    }

    pub fn make_service(&self, config: &Json, parts: HostParts) -> Result<Box<dyn Service>, Error> {
        self.runtime.block_on(self.origin.service(&self.job.component, config, &self.place(""), parts))
    }

    /// The component's configuration in this check.
    pub fn config(&self) -> Result<Json, Outcome> {
        self.job.setup.config_in(&self.job.work()).ok_or_else(|| {
            let keys = self.job.setup.missing.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            Outcome::not_applicable(format!("needs a configuration: the schema gives neither default nor example for {keys}; give --config FILE"))
        })
    }

    /// A host whose state is kept under this name.
    pub fn host(&self, name: &str) -> Arc<KitHost> {
        KitHost::new(self.job.notes().join(format!("state-{name}.json")), self.log.clone())
    }

    pub fn place(&self, lane: &str) -> Place {
        let is_per_lane = self.job.kind == Kind::Sink && !self.description.merged_lanes;
        Place {
            pipeline: "conformance".into(),
            component: self.job.component.clone(),
            lane: is_per_lane.then(|| lane.to_owned()),
            ..Place::default()
        }
    }

    pub fn source(&self, name: &str) -> Result<OnSource<'_>, Outcome> {
        self.source_with(&self.config()?, self.host(name))
    }

    pub fn source_with(&self, config: &Json, host: Arc<KitHost>) -> Result<OnSource<'_>, Outcome> {
        let made = self.make_source(config, host.parts());
        Ok(OnSource { bench: self, source: made.map_err(|error| failure("create", &error))? })
    }

    /// Any source of the library, to look at what a sink wrote.
    pub fn source_of(&self, component: &str, config: &Json, name: &str) -> Result<OnSource<'_>, Outcome> {
        let made = self.make_source_of(component, config, self.host(name).parts());
        Ok(OnSource { bench: self, source: made.map_err(|error| failure("create of the observing source", &error))? })
    }

    pub fn transform(&self, host: &Arc<KitHost>) -> Result<Box<dyn Transform>, Outcome> {
        let made = self.make_transform(&self.config()?, host.parts());
        made.map_err(|error| failure("create", &error))
    }

    pub fn sink(&self, lane: &str) -> Result<OnSink<'_>, Outcome> {
        self.sink_with(&self.config()?, lane, &self.host(lane))
    }

    pub fn sink_with(&self, config: &Json, lane: &str, host: &Arc<KitHost>) -> Result<OnSink<'_>, Outcome> {
        let made = self.make_sink(config, lane, host.parts());
        Ok(OnSink { bench: self, sink: made.map_err(|error| failure("create", &error))? })
    }

    /// Runs a call to its end.
    ///
    /// # Errors
    /// It did not return within `limit`.
    pub fn within<T>(&self, what: &str, limit: Duration, call: impl Future<Output = T>) -> Result<T, Outcome> {
        let called = self.runtime.block_on(async { tokio::time::timeout(limit, call).await });
        called.map_err(|_| Outcome::failed(what, format!("did not return within {limit:?}")))
    }

    pub fn limit(&self) -> Duration {
        self.job.call_timeout
    }

    /// Starts something that runs beside the check.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(task)
    }

    /// Drops a value in a thread of its own, so that a destruction that hangs is seen.
    pub fn destroy(&self, value: impl Send + 'static) -> Result<(), Outcome> {
        let dropping = self.runtime.spawn_blocking(move || drop(value));
        let dropped = self.within("destroy", self.limit(), dropping)?;
        dropped.map_err(|error| Outcome::failed("destroy", error.to_string()))
    }
}

fn asks_again(error: &Error) -> bool {
    matches!(error.reaction, pipeline_sdk::Reaction::Disconnected | pipeline_sdk::Reaction::Retry)
}

/// An error of the component as a failure.
pub fn failure(place: impl Into<String>, error: &Error) -> Outcome {
    Outcome::failed(place, error.to_string())
}

pub fn is_panic(error: &Error) -> bool {
    error.code == "boundary.panic"
}

pub struct OnSource<'a> {
    bench: &'a Bench,
    source: Box<dyn Source>,
}

/// What a source gave.
#[derive(Default)]
pub struct Read {
    pub messages: Vec<Message>,
    pub ended: bool,
    /// It ended, or nothing came for a while.
    pub exhausted: bool,
}

impl OnSource<'_> {
    /// Tries again where the error asks for it, as the engine does.
    pub fn connect(&mut self, from: &Checkpoint) -> Result<(), Outcome> {
        for _ in 1..RETRIES_MAX {
            match self.try_connect(from)? {
                Err(error) if asks_again(&error) => std::thread::sleep(RECONNECT),
                other => return other.map_err(|error| failure("connect", &error)),
            }
        }
        self.try_connect(from)?.map_err(|error| failure("connect", &error))
    }

    pub fn try_connect(&mut self, from: &Checkpoint) -> Result<Result<(), Error>, Outcome> {
        let limit = self.bench.limit();
        Ok(self.bench.within("connect", limit, self.source.connect(from))?.map(drop))
    }

    pub fn try_next(&mut self, wait: Duration) -> Result<Result<Polled, Error>, Outcome> {
        let limit = wait + self.bench.limit();
        self.bench.within(&format!("next({wait:?})"), limit, self.source.next(wait))
    }

    pub fn next(&mut self, wait: Duration) -> Result<Polled, Outcome> {
        for _ in 0..RETRIES_MAX {
            match self.try_next(wait)? {
                Err(error) if error.reaction == pipeline_sdk::Reaction::Retry => std::thread::sleep(WAIT),
                other => return other.map_err(|error| failure("next", &error)),
            }
        }
        Err(Outcome::failed("next", format!("asked {RETRIES_MAX} times to be called again")))
    }

    /// Begins a wait of an hour and ends it a little later. Whether the source can be interrupted at all.
    pub fn try_interrupt(&mut self) -> Result<bool, Outcome> {
        let Some(interrupt) = self.source.interrupt() else { return Ok(false) };
        let ending = async {
            tokio::time::sleep(WAIT).await;
            interrupt.interrupt();
        };
        let both = async { tokio::join!(self.source.next(Duration::from_secs(3_600)), ending) };
        // An error is an end as well.
        let (_, ()) = self.bench.within("next(1h), interrupted", self.bench.limit(), both)?;
        Ok(true)
    }

    pub fn try_commit(&mut self, upto: &Checkpoint) -> Result<Result<(), Error>, Outcome> {
        let limit = self.bench.limit();
        self.bench.within("commit", limit, self.source.commit(upto))
    }

    pub fn commit(&mut self, upto: &Checkpoint) -> Result<(), Outcome> {
        self.try_commit(upto)?.map_err(|error| failure("commit", &error))
    }

    pub fn progress(&mut self) -> Result<Result<Vec<LaneProgress>, Error>, Outcome> {
        let limit = self.bench.limit();
        self.bench.within("progress", limit, self.source.progress())
    }

    pub fn read_all(&mut self) -> Result<Read, Outcome> {
        self.read(READ_MESSAGES_MAX)
    }

    /// Reads until the end, until nothing comes, or until there are `max` messages.
    pub fn read(&mut self, max: usize) -> Result<Read, Outcome> {
        self.read_expecting(max, 0)
    }

    /// The same where `rows` are known to be there: as long as fewer came, it waits for the next as long as a call may take, however
    /// slow the machine is.
    pub fn read_expecting(&mut self, max: usize, rows: u64) -> Result<Read, Outcome> {
        let mut read = Read::default();
        let (mut begin, mut last, mut bytes, mut got) = (Instant::now(), Instant::now(), 0, 0);
        loop {
            let (time_max, idle_max) = match () {
                () if got < rows => (Duration::MAX, self.bench.limit()),
                () if read.messages.is_empty() => (READ_TIME_MAX, FIRST_MAX),
                () => (READ_TIME_MAX, IDLE_MAX),
            };
            read.exhausted = last.elapsed() >= idle_max;
            if read.exhausted || read.messages.len() >= max || bytes >= READ_BYTES_MAX || begin.elapsed() >= time_max {
                return Ok(read);
            }
            match self.next(WAIT)? {
                Polled::End => {
                    (read.ended, read.exhausted) = (true, true);
                    return Ok(read);
                }
                Polled::Idle | Polled::Lanes { .. } => {}
                Polled::Messages(messages) => {
                    if !messages.is_empty() {
                        last = Instant::now();
                    }
                    bytes += messages.iter().map(Message::byte_count).sum::<u64>();
                    if got < rows {
                        begin = last;
                    }
                    got += messages.iter().map(row_count).sum::<u64>();
                    read.messages.extend(messages);
                }
            }
        }
    }

    pub fn destroy(self) -> Result<(), Outcome> {
        self.bench.destroy(self.source)
    }
}

pub struct OnSink<'a> {
    bench: &'a Bench,
    sink: Box<dyn Sink>,
}

impl OnSink<'_> {
    /// Tries again where the error asks for it, as the engine does.
    pub fn connect(&mut self) -> Result<(), Outcome> {
        for _ in 1..RETRIES_MAX {
            match self.try_connect()? {
                Err(error) if asks_again(&error) => std::thread::sleep(RECONNECT),
                other => return other.map_err(|error| failure("connect", &error)),
            }
        }
        self.try_connect()?.map_err(|error| failure("connect", &error))
    }

    pub fn try_connect(&mut self) -> Result<Result<(), Error>, Outcome> {
        let limit = self.bench.limit();
        Ok(self.bench.within("connect", limit, self.sink.connect())?.map(drop))
    }

    pub fn try_write(&mut self, messages: &[Message]) -> Result<(usize, Result<(), Error>), Outcome> {
        let limit = self.bench.limit();
        self.bench.within("write", limit, self.sink.write_many(messages))
    }

    /// What a message comes to, tried again where the sink asks for that, as the engine does.
    pub fn try_write_one(&mut self, message: &Message) -> Result<Result<(), Error>, Outcome> {
        for _ in 1..RETRIES_MAX {
            match self.try_write(std::slice::from_ref(message))?.1 {
                Err(error) if error.reaction == pipeline_sdk::Reaction::Retry => std::thread::sleep(WAIT),
                other => return Ok(other),
            }
        }
        Ok(self.try_write(std::slice::from_ref(message))?.1)
    }

    pub fn write(&mut self, messages: &[Message]) -> Result<(), Outcome> {
        let mut left = messages;
        for _ in 0..RETRIES_MAX {
            match self.try_write(left)? {
                (written, Err(error)) if error.reaction == pipeline_sdk::Reaction::Retry => {
                    left = &left[written.min(left.len())..];
                    std::thread::sleep(WAIT);
                }
                (written, Err(error)) => return Err(failure(format!("write, message {written} of {}", left.len()), &error)),
                (_, Ok(())) => return Ok(()),
            }
        }
        Err(Outcome::failed("write", format!("asked {RETRIES_MAX} times to be called again")))
    }

    pub fn try_flush(&mut self) -> Result<Result<(), Error>, Outcome> {
        let limit = self.bench.limit();
        self.bench.within("flush", limit, self.sink.flush())
    }

    pub fn flush(&mut self) -> Result<(), Outcome> {
        self.try_flush()?.map_err(|error| failure("flush", &error))
    }

    pub fn destroy(self) -> Result<(), Outcome> {
        self.bench.destroy(self.sink)
    }
}

/// Feeds a transform and takes what comes out.
pub fn apply(transform: &mut dyn Transform, messages: Vec<Message>) -> Result<Vec<Message>, Error> {
    let mut out = Output::default();
    messages.into_iter().try_for_each(|message| transform.apply(message, &mut out))?;
    Ok(out.messages)
}

pub fn barrier(transform: &mut dyn Transform) -> Result<Vec<Message>, Outcome> {
    let mut out = Output::default();
    transform.barrier(&mut out).map_err(|error| failure("barrier", &error))?;
    Ok(out.messages)
}

/// Rows of a message; a change is one.
pub fn row_count(message: &Message) -> u64 {
    match &message.payload {
        Payload::Change(_) => 1,
        _ => message.row_count(),
    }
}

/// The positions behind these messages.
pub fn checkpoint_behind(messages: &[Message]) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for message in messages.iter().filter(|message| message.header.ends_position) {
        checkpoint.lanes.insert(message.header.lane.clone(), message.header.position.clone());
    }
    checkpoint
}

/// All text in a message: of rows its text columns, of a frame what its source decodes, or its bytes.
pub fn texts(library: &Library, source: &str, message: &Message) -> Vec<u8> {
    match &message.payload {
        Payload::Rows(rows) => {
            let columns = rows.batch.columns().iter().filter_map(|column| column.as_any().downcast_ref::<StringArray>());
            let columns: Vec<&StringArray> = columns.collect();
            let mut text = Vec::new();
            for row in 0..rows.batch.num_rows() {
                for column in columns.iter().filter(|column| column.is_valid(row)) {
                    text.extend(column.value(row).as_bytes());
                    text.push(b'\n');
                }
            }
            text
        }
        Payload::Frame(frame) => match library.decode(source, message.clone()) {
            Ok(decoded) if decoded.iter().all(|it| matches!(it.payload, Payload::Rows(_))) => {
                decoded.iter().flat_map(|message| texts(library, source, message)).collect()
            }
            _ => frame.data.to_vec(),
        },
        Payload::Change(_) => Vec::new(),
    }
}
