//! What the process of a component does: loads one library, makes instances as its host asks, and calls them.
//!
//! The main thread reads the control connection, which has nothing but answers of the host; when it closes, the host is gone and the
//! process ends, whatever its instances do. Each instance has a connection and a thread.

use std::io::BufReader;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::abi::import::{HostParts, Library};
use pipeline_sdk::context::Host;
use pipeline_sdk::{Checkpoint, Error, Incident, Kind, Message, Output, Polled, Ready, Result, Service, Sink, Source, Stop, Transform};

use super::frame::{Codec, Packet, Word, joined, split};
use super::line::{receive_blocking, send_blocking};
use super::{Create, Hello, VERSION};

/// Serves the host that started this process, until it is gone; `name` is the argument that [`super::Launch`] appended.
///
/// # Errors
/// The host cannot be reached.
pub fn run(name: &str) -> Result<()> {
    let lost = |error: std::io::Error| Error::fatal(format!("the host cannot be reached: {error}")).hint("the program itself starts this");
    let control = SocketAddr::from_abstract_name(name).and_then(|name| UnixStream::connect_addr(&name)).map_err(lost)?;
    let mut reading = BufReader::new(control.try_clone().map_err(lost)?);
    let unreadable = |_| Error::fatal("the host went away before it said what to do");
    let hello: Hello = receive_blocking(&mut reading, &mut Codec::new(u64::MAX)).map_err(unreadable)?.json()?;
    let limit = hello.frame_bytes_max;
    let mut codec = Codec::new(limit);
    let opened = open(&hello);
    let answer = match &opened {
        Ok(_) => codec.encode(Word::Done, 0, &[], &[])?,
        Err(error) => codec.encode(Word::Failed, 0, &json(error), &[])?,
    };
    let mut writing = control;
    send_blocking(&mut writing, answer).map_err(lost)?;
    let (library, listener) = opened?;
    let (answers, answered) = std::sync::mpsc::channel();
    let host = Arc::new(Control { writing: Mutex::new((writing, codec)), answered: Mutex::new(answered) });
    let token: Arc<str> = hello.token.into();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (host, token) = (host.clone(), token.clone());
            std::thread::spawn(move || serve(library, stream, &token, limit, host));
        }
    });
    let reader = Codec::new(limit);
    forward(&mut reading, reader, &answers);
    Ok(())
}

fn forward(reading: &mut BufReader<UnixStream>, mut codec: Codec, answers: &Sender<Packet>) {
    while let Ok(answer) = receive_blocking(reading, &mut codec) {
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn open(hello: &Hello) -> Result<(Library, UnixListener)> {
    if hello.version != VERSION {
        return Err(Error::fatal(format!("this program is version {VERSION}, its host is version {}", hello.version)).code(super::START));
    }
    let library = crate::host::library::root_of(&hello.library)?;
    let listener = SocketAddr::from_abstract_name(&hello.entrance).and_then(|name| UnixListener::bind_addr(&name));
    Ok((library, listener.map_err(|error| Error::fatal(format!("a socket for instances: {error}")).code(super::START))?))
}

fn json(error: &Error) -> Vec<u8> {
    serde_json::to_vec(error).expect("an error is plain JSON")
}

/// The way to the host, which all instances share.
struct Control {
    writing: Mutex<(UnixStream, Codec)>,
    /// Held by who waits for an answer: one question at a time is under way.
    answered: Mutex<Receiver<Packet>>,
}

impl Control {
    fn tell(&self, word: Word, id: u64, text: &[u8]) -> Result<()> {
        let mut writing = self.writing.lock();
        let (stream, codec) = &mut *writing;
        let chunks = codec.encode(word, id, text, &[])?;
        send_blocking(stream, chunks).map_err(|error| Error::fatal(format!("the host is gone: {error}")))
    }

    fn ask(&self, word: Word, id: u64, text: &[u8]) -> Result<Packet> {
        let answered = self.answered.lock();
        self.tell(word, id, text)?;
        answered.recv().map_err(|_| Error::fatal("the host is gone"))?.checked()
    }
}

/// The host of one instance, at the other end of the control connection.
struct Remote {
    id: u64,
    control: Arc<Control>,
}

/// What only one side of a flag has a text for.
const YES: &[u8] = b"1";

fn flag(is_set: bool) -> &'static [u8] {
    if is_set { YES } else { &[] }
}

impl Remote {
    /// What needs no answer: a host that is gone does not miss it.
    fn tell(&self, word: Word, fields: &[&[u8]]) {
        let _ = self.control.tell(word, self.id, &joined(fields));
    }

    fn ask(&self, word: Word, fields: &[&[u8]]) -> Result<Packet> {
        self.control.ask(word, self.id, &joined(fields))
    }

    fn parts(id: u64, control: Arc<Control>) -> HostParts {
        let remote = Arc::new(Self { id, control });
        let host = remote.clone();
        let log = move |level: u32, target: &str, message: &str, fields: &str| {
            remote.tell(Word::Log, &[&u64::from(level).to_le_bytes(), target.as_bytes(), message.as_bytes(), fields.as_bytes()]);
        };
        HostParts { host, log: Arc::new(log) }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.tell(Word::Released, &[]);
    }
}

impl Host for Remote {
    fn counter(&self, name: &str, add: u64) {
        self.tell(Word::Counter, &[name.as_bytes(), &add.to_le_bytes()]);
    }

    fn gauge(&self, name: &str, value: f64) {
        self.tell(Word::Gauge, &[name.as_bytes(), &value.to_bits().to_le_bytes()]);
    }

    fn incident(&self, incident: &Incident) {
        let text = serde_json::to_vec(incident).expect("an incident is plain JSON");
        // As of `tell`.
        let _ = self.control.tell(Word::Incident, self.id, &text);
    }

    fn state_get(&self, shared: bool, key: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.ask(Word::StateGet, &[flag(shared), key.as_bytes()])?;
        Ok((answer.number == 1).then(|| answer.text.to_vec()))
    }

    fn state_put(&self, shared: bool, key: &str, value: Option<&[u8]>) -> Result<()> {
        self.ask(Word::StatePut, &[flag(shared), key.as_bytes(), flag(value.is_some()), value.unwrap_or_default()]).map(drop)
    }

    fn state_keys(&self, shared: bool, prefix: &str) -> Result<Vec<String>> {
        let answer = self.ask(Word::StateKeys, &[flag(shared), prefix.as_bytes()])?;
        let mut rest = &answer.text[..];
        let mut keys = Vec::new();
        for _ in 0..answer.number {
            let [key] = split(rest)?;
            rest = &rest[key.len() + 4..];
            keys.push(String::from_utf8_lossy(key).into_owned());
        }
        Ok(keys)
    }

    fn is_cancelled(&self) -> bool {
        // A host that is gone cancels.
        self.ask(Word::IsCancelled, &[]).map_or(true, |answer| answer.number == 1)
    }
}

/// A connection's instance.
enum Instance {
    Source(Box<dyn Source>),
    Transform(Box<dyn Transform>),
    Sink(Box<dyn Sink>),
    Service(Box<dyn Service>),
    /// What needs none.
    Nothing,
}

/// What a call comes to: word, number, text, messages.
type Answer = (Word, u64, Vec<u8>, Vec<Message>);

/// One instance, from its making until its connection closes.
fn serve(library: Library, stream: UnixStream, token: &str, limit: u64, control: Arc<Control>) {
    let mut codec = Codec::new(limit);
    let Ok(mut writing) = stream.try_clone() else { return };
    let mut reading = BufReader::new(stream);
    let Ok(first) = receive_blocking(&mut reading, &mut codec) else { return };
    let Ok(create) = first.json::<Create>() else { return };
    if create.token != token {
        return;
    }
    let parts = Remote::parts(create.id, control.clone());
    let made = make(library, &create, parts);
    let mut answer = |stream: &mut UnixStream, answered: Result<Answer>, written: u64| -> bool {
        let chunks = match answered {
            Ok((word, number, text, messages)) => codec.encode(word, number, &text, &messages),
            Err(error) => codec.encode(Word::Failed, written, &json(&error), &[]),
        };
        let chunks = chunks.or_else(|error| codec.encode(Word::Failed, written, &json(&fatal(error)), &[]));
        chunks.is_ok_and(|chunks| send_blocking(stream, chunks).is_ok())
    };
    let mut instance = match made {
        Ok(instance) => instance,
        Err(error) => {
            answer(&mut writing, Err(error), 0);
            return;
        }
    };
    if !answer(&mut writing, Ok(done()), 0) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime of this thread alone");
    if let Instance::Service(service) = instance {
        let ended = of_service(service, &runtime, reading, limit, &control, create.id);
        answer(&mut writing, ended.map(|()| done()), 0);
        return;
    }
    let mut received = Codec::new(limit);
    while let Ok(asked) = receive_blocking(&mut reading, &mut received) {
        let mut written = 0;
        let answered = match &mut instance {
            Instance::Source(source) => runtime.block_on(of_source(&mut **source, &asked)),
            Instance::Transform(transform) => of_transform(&mut **transform, asked),
            Instance::Sink(sink) => runtime.block_on(of_sink(&mut **sink, &asked, &mut written)),
            Instance::Service(_) => return,
            Instance::Nothing => runtime.block_on(of_library(library, &create.component, asked)),
        };
        if !answer(&mut writing, answered, written) {
            break;
        }
    }
}

/// What a source brought and cannot cross is nobody's to reject: the task cannot go on.
fn fatal(error: Error) -> Error {
    Error { reaction: pipeline_sdk::Reaction::Fatal, ..error }
}

fn done() -> Answer {
    (Word::Done, 0, Vec::new(), Vec::new())
}

fn make(library: Library, create: &Create, parts: HostParts) -> Result<Instance> {
    let Create { component, config, place, .. } = create;
    Ok(match create.kind {
        Some(Kind::Source) => Instance::Source(library.source(component, config, place, parts)?),
        Some(Kind::Transform) => Instance::Transform(library.transform(component, config, place, parts)?),
        Some(Kind::Sink) => Instance::Sink(library.sink(component, config, place, parts)?),
        Some(Kind::Service) => Instance::Service(library.service(component, config, place, parts)?),
        Some(Kind::Site) => return Err(Error::fatal("a site is reached in the host's own process")),
        None => Instance::Nothing,
    })
}

fn unexpected(asked: &Packet) -> Error {
    Error::fatal(format!("{:?} is nothing to ask of this kind of component", asked.word)).code(super::ENDED)
}

fn identity(connected: pipeline_sdk::Connected) -> Answer {
    (Word::Done, 0, connected.identity.unwrap_or_default().into_bytes(), Vec::new())
}

async fn of_source(source: &mut dyn Source, asked: &Packet) -> Result<Answer> {
    match asked.word {
        Word::Connect => source.connect(&Checkpoint::decode(&asked.text)?).await.map(identity),
        Word::Next => Ok(match source.next(Duration::from_nanos(asked.number)).await? {
            Polled::Messages(messages) => (Word::Messages, 0, Vec::new(), messages),
            Polled::Idle => (Word::Idle, 0, Vec::new(), Vec::new()),
            Polled::End => (Word::End, 0, Vec::new(), Vec::new()),
            Polled::Lanes { assigned, revoked } => {
                let lanes = serde_json::json!({ "assigned": assigned, "revoked": revoked });
                (Word::Lanes, 0, lanes.to_string().into_bytes(), Vec::new())
            }
        }),
        Word::Commit => source.commit(&Checkpoint::decode(&asked.text)?).await.map(|()| done()),
        Word::Progress => {
            let lanes = source.progress().await?;
            Ok((Word::Done, 0, serde_json::to_vec(&lanes).expect("progress is plain JSON"), Vec::new()))
        }
        _ => Err(unexpected(asked)),
    }
}

fn of_transform(transform: &mut dyn Transform, asked: Packet) -> Result<Answer> {
    let mut out = Output::default();
    match asked.word {
        Word::Apply => asked.messages.into_iter().try_for_each(|message| transform.apply(message, &mut out))?,
        Word::Barrier => transform.barrier(&mut out)?,
        _ => return Err(unexpected(&asked)),
    }
    Ok((Word::Messages, 0, Vec::new(), out.messages))
}

async fn of_sink(sink: &mut dyn Sink, asked: &Packet, written: &mut u64) -> Result<Answer> {
    match asked.word {
        Word::Connect => sink.connect().await.map(identity),
        Word::Write => {
            let (count, result) = sink.write_many(&asked.messages).await;
            *written = count as u64;
            result.map(|()| done())
        }
        Word::Flush => sink.flush().await.map(|()| done()),
        _ => Err(unexpected(asked)),
    }
}

async fn of_library(library: Library, component: &str, mut asked: Packet) -> Result<Answer> {
    match asked.word {
        Word::Decode => {
            let frame = asked.messages.pop().ok_or_else(|| unexpected(&asked))?;
            Ok((Word::Messages, 0, Vec::new(), library.decode(component, frame)?))
        }
        Word::Discover => {
            let found = library.discover(component, &asked.json()?).await?;
            Ok((Word::Done, 0, serde_json::to_vec(&found).expect("texts are plain JSON"), Vec::new()))
        }
        _ => Err(unexpected(&asked)),
    }
}

/// Runs a service once its host says so; meanwhile another thread waits for what stops it, which is a word or the end of the connection.
fn of_service(
    service: Box<dyn Service>,
    runtime: &tokio::runtime::Runtime,
    mut reading: BufReader<UnixStream>,
    limit: u64,
    control: &Arc<Control>,
    id: u64,
) -> Result<()> {
    let mut codec = Codec::new(limit);
    if receive_blocking(&mut reading, &mut codec).is_err() {
        return Ok(());
    }
    let ((stopper, stop), (ready, told)) = (Stop::channel(), Ready::channel());
    std::thread::spawn(move || {
        // Whatever comes, or that nothing comes any more, is a stop.
        let _ = receive_blocking(&mut reading, &mut codec);
        stopper.send_replace(true);
    });
    let running = service.run(ready, stop);
    runtime.block_on(async {
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return ended,
            Ok(()) = told => {}
        }
        // A host that is gone does not wait for it.
        let _ = control.tell(Word::Ready, id, &[]);
        running.await
    })
}
