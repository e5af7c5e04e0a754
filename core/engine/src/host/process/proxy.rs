//! The host's side of instances: the traits of the SDK over a connection each.
//!
//! One call at a time is on a connection, so that what waits is the engine's queues alone. A call that is dropped before it is
//! answered, or is overdue where it blocks its thread, costs the process: it is killed, and every instance in it fails with an error
//! that asks for a new connection. Dropping an instance waits until it is destroyed, as in the same process.

use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::context::Place;
use pipeline_sdk::{
    Checkpoint, Connected, Error, Kind, Lane, LaneProgress, Message, Output, Polled, Ready, Result, Service, Sink, Source, Stop, Transform,
};
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frame::{Codec, Packet, PADDING, Word};
use super::process::Process;
use super::Create;

/// Why nothing was received.
pub(super) enum Broken {
    Io(std::io::Error),
    /// What came is no packet.
    Packet(Error),
}

impl Broken {
    pub(super) fn or(self, io: impl FnOnce(std::io::Error) -> Error) -> Error {
        match self {
            Self::Io(error) => io(error),
            Self::Packet(error) => error,
        }
    }
}

pub(super) async fn send(stream: &mut (impl tokio::io::AsyncWrite + Unpin), chunks: Vec<Bytes>) -> std::io::Result<()> {
    for chunk in chunks {
        stream.write_all(&chunk).await?;
    }
    Ok(())
}

pub(super) async fn receive(stream: &mut (impl tokio::io::AsyncRead + Unpin), codec: &mut Codec) -> Result<Packet, Broken> {
    let mut incoming = codec.incoming();
    while let Some(length) = incoming.wants() {
        let mut bytes = vec![0; length + PADDING];
        stream.read_exact(&mut bytes[..length]).await.map_err(Broken::Io)?;
        bytes.truncate(length);
        incoming.take(bytes, codec).map_err(Broken::Packet)?;
    }
    Ok(incoming.whole())
}

pub(super) fn send_blocking(stream: &mut UnixStream, chunks: Vec<Bytes>) -> std::io::Result<()> {
    chunks.iter().try_for_each(|chunk| stream.write_all(chunk))
}

pub(super) fn receive_blocking(stream: &mut BufReader<UnixStream>, codec: &mut Codec) -> Result<Packet, Broken> {
    let mut incoming = codec.incoming();
    while let Some(length) = incoming.wants() {
        let mut bytes = vec![0; length + PADDING];
        stream.read_exact(&mut bytes[..length]).map_err(Broken::Io)?;
        bytes.truncate(length);
        incoming.take(bytes, codec).map_err(Broken::Packet)?;
    }
    Ok(incoming.whole())
}

impl Process {
    pub async fn source(self: &Arc<Self>, component: &str, config: &Json, place: &Place, host: HostParts) -> Result<Box<dyn Source>> {
        Ok(Box::new(Isolated(self.open(Some(Kind::Source), component, config, place, Some(host)).await?)))
    }

    pub async fn sink(self: &Arc<Self>, component: &str, config: &Json, place: &Place, host: HostParts) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Isolated(self.open(Some(Kind::Sink), component, config, place, Some(host)).await?)))
    }

    pub async fn service(self: &Arc<Self>, component: &str, config: &Json, place: &Place, host: HostParts) -> Result<Box<dyn Service>> {
        Ok(Box::new(Isolated(self.open(Some(Kind::Service), component, config, place, Some(host)).await?)))
    }

    /// `limit` is of one call, which blocks its thread.
    pub async fn transform(
        self: &Arc<Self>,
        component: &str,
        config: &Json,
        place: &Place,
        host: HostParts,
        limit: Duration,
    ) -> Result<Box<dyn Transform>> {
        let line = self.open(Some(Kind::Transform), component, config, place, Some(host)).await?;
        Ok(Box::new(IsolatedTransform(line.blocking(limit)?)))
    }

    /// What turns frames of a source of this process into rows; `limit` as of [`Process::transform`].
    pub async fn decoder(self: &Arc<Self>, component: &str, limit: Duration) -> Result<Decoder> {
        let line = self.open(None, component, &Json::Null, &Place::default(), None).await?;
        Ok(Decoder(line.blocking(limit)?))
    }

    pub async fn discover(self: &Arc<Self>, component: &str, config: &Json) -> Result<Vec<String>> {
        let mut line = self.open(None, component, &Json::Null, &Place::default(), None).await?;
        line.call(Word::Discover, 0, config.to_string().as_bytes(), &[]).await?.checked()?.json()
    }

    async fn open(
        self: &Arc<Self>,
        kind: Option<Kind>,
        component: &str,
        config: &Json,
        place: &Place,
        host: Option<HostParts>,
    ) -> Result<Line> {
        let create = Create { token: String::new(), kind, component: component.into(), config: config.clone(), place: place.clone(), id: 0 };
        let (stream, create) = self.connect(create, host)?;
        let lost = |error: std::io::Error| self.lost(&error.to_string());
        stream.set_nonblocking(true).map_err(lost)?;
        let stream = tokio::net::UnixStream::from_std(stream).map_err(lost)?;
        let codec = Codec::new(self.limits.frame_bytes_max);
        let mut line = Line { process: self.clone(), id: create.id, stream: Some(tokio::io::BufReader::new(stream)), codec };
        let text = serde_json::to_vec(&create).expect("plain JSON");
        line.call(Word::Create, 0, &text, &[]).await?.checked()?;
        Ok(line)
    }
}

/// Kills the process unless the call that it stands for was answered.
struct UnderWay<'a> {
    process: &'a Process,
    is_answered: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.process.kill("a call in it was given up");
        }
    }
}

/// A connection for calls that wait.
struct Line {
    process: Arc<Process>,
    id: u64,
    /// Absent while a call is under way, and for ever when it was not answered.
    stream: Option<tokio::io::BufReader<tokio::net::UnixStream>>,
    codec: Codec,
}

impl Line {
    async fn call(&mut self, word: Word, number: u64, text: &[u8], messages: &[Message]) -> Result<Packet> {
        let Some(mut stream) = self.stream.take() else { return Err(self.process.lost("an earlier call was not answered")) };
        let chunks = match self.codec.encode(word, number, text, messages) {
            Ok(chunks) => chunks,
            Err(error) => {
                // Nothing was written.
                self.stream = Some(stream);
                return Err(error);
            }
        };
        let mut under_way = UnderWay { process: &self.process, is_answered: false };
        let codec = &mut self.codec;
        let answered = async {
            send(stream.get_mut(), chunks).await.map_err(Broken::Io)?;
            receive(&mut stream, codec).await
        };
        match answered.await {
            Ok(answer) => {
                under_way.is_answered = true;
                self.stream = Some(stream);
                Ok(answer)
            }
            Err(Broken::Packet(error)) => Err(error),
            Err(Broken::Io(error)) => {
                under_way.is_answered = true;
                Err(self.process.lost_with(&error).await)
            }
        }
    }

    fn blocking(mut self, limit: Duration) -> Result<BlockingLine> {
        let stream = self.stream.take().ok_or_else(|| self.process.lost("it was not used yet"))?;
        let std = stream.into_inner().into_std();
        let std = std.and_then(|stream| {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            Ok(stream)
        });
        let stream = std.map_err(|error| self.process.lost(&error.to_string()))?;
        let codec = Codec::new(self.process.limits.frame_bytes_max);
        Ok(BlockingLine { process: self.process.clone(), id: self.id, stream: Some(BufReader::new(stream)), codec, limit })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(Ok(stream)) = self.stream.take().map(|stream| stream.into_inner().into_std()) {
            let _ = stream.set_nonblocking(false);
            leave(&self.process, self.id, &stream);
        }
    }
}

/// Waits until the instance at the other end is destroyed.
fn leave(process: &Process, id: u64, mut stream: &UnixStream) {
    if process.has_ended() || stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let _ = stream.set_read_timeout(Some(process.limits.stop_timeout));
    // The other end closes the connection, or breaks it by ending: both are an end.
    if let Err(error) = stream.read(&mut [0])
        && matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
    {
        process.kill(format!("an instance in it was not destroyed within {}s", process.limits.stop_timeout.as_secs_f64()));
    }
    process.let_go(id);
}

/// A connection for calls that block their thread.
struct BlockingLine {
    process: Arc<Process>,
    id: u64,
    stream: Option<BufReader<UnixStream>>,
    codec: Codec,
    limit: Duration,
}

impl BlockingLine {
    fn call(&mut self, word: Word, messages: &[Message]) -> Result<Packet> {
        let Some(mut stream) = self.stream.take() else { return Err(self.process.lost("an earlier call was not answered")) };
        let chunks = match self.codec.encode(word, 0, &[], messages) {
            Ok(chunks) => chunks,
            Err(error) => {
                self.stream = Some(stream);
                return Err(error);
            }
        };
        let sent = send_blocking(stream.get_mut(), chunks).map_err(Broken::Io);
        match sent.and_then(|()| receive_blocking(&mut stream, &mut self.codec)) {
            Ok(answer) => {
                self.stream = Some(stream);
                Ok(answer)
            }
            Err(Broken::Packet(error)) => {
                self.process.kill("it sent what cannot be read");
                Err(error)
            }
            Err(Broken::Io(error)) => {
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) {
                    self.process.kill(format!("a call in it did not return within {}s", self.limit.as_secs_f64()));
                }
                Err(self.process.lost_with_blocking(&error))
            }
        }
    }
}

impl Drop for BlockingLine {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            leave(&self.process, self.id, stream.get_ref());
        }
    }
}

/// A component that waits, in its process.
struct Isolated(Line);

impl Isolated {
    async fn ask(&mut self, word: Word, number: u64, text: &[u8]) -> Result<Packet> {
        self.0.call(word, number, text, &[]).await?.checked()
    }
}

fn connected(answer: &Packet) -> Connected {
    let text = String::from_utf8_lossy(&answer.text).into_owned();
    Connected { identity: Some(text).filter(|text| !text.is_empty()) }
}

#[async_trait]
impl Source for Isolated {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        Ok(connected(&self.ask(Word::Connect, 0, &from.encode()).await?))
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        #[derive(Deserialize)]
        struct Lanes {
            assigned: Vec<Lane>,
            revoked: Vec<Lane>,
        }
        let answer = self.ask(Word::Next, u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX), &[]).await?;
        Ok(match answer.word {
            Word::Messages => Polled::Messages(answer.messages),
            Word::Idle => Polled::Idle,
            Word::End => Polled::End,
            Word::Lanes => {
                let Lanes { assigned, revoked } = answer.json()?;
                Polled::Lanes { assigned, revoked }
            }
            word => return Err(super::frame::broken(format!("a poll that is {word:?}"))),
        })
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        self.ask(Word::Commit, 0, &upto.encode()).await.map(drop)
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        self.ask(Word::Progress, 0, &[]).await?.json()
    }
}

#[async_trait]
impl Sink for Isolated {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(connected(&self.ask(Word::Connect, 0, &[]).await?))
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        self.write_many(std::slice::from_ref(message)).await.1
    }

    async fn flush(&mut self) -> Result<()> {
        self.ask(Word::Flush, 0, &[]).await.map(drop)
    }

    async fn write_many(&mut self, messages: &[Message]) -> (usize, Result<()>) {
        match self.0.call(Word::Write, 0, &[], messages).await {
            Ok(answer) if answer.word == Word::Failed => ((answer.number as usize).min(messages.len()), Err(answer.error())),
            Ok(_) => (messages.len(), Ok(())),
            // One of them cannot cross: which, shows when each goes alone.
            Err(error) if error.reaction == pipeline_sdk::Reaction::Rejected && messages.len() > 1 => {
                for (done, message) in messages.iter().enumerate() {
                    if let Err(error) = self.write(message).await {
                        return (done, Err(error));
                    }
                }
                (messages.len(), Ok(()))
            }
            Err(error) => (0, Err(error)),
        }
    }
}

#[async_trait]
impl Service for Isolated {
    async fn run(self: Box<Self>, ready: Ready, stop: Stop) -> Result<()> {
        let Self(mut line) = *self;
        let process = line.process.clone();
        process.on_ready(line.id, ready);
        let Some(stream) = line.stream.take() else { return Err(process.lost("it was not used yet")) };
        let mut under_way = UnderWay { process: &process, is_answered: false };
        let (mut reading, mut writing) = stream.into_inner().into_split();
        let run = line.codec.encode(Word::Run, 0, &[], &[])?;
        let stopping = line.codec.encode(Word::Stop, 0, &[], &[])?;
        let answered = async {
            send(&mut writing, run).await.map_err(Broken::Io)?;
            let answer = receive(&mut reading, &mut line.codec);
            tokio::pin!(answer);
            tokio::select! {
                answer = &mut answer => answer,
                () = stop.stopped() => {
                    send(&mut writing, stopping).await.map_err(Broken::Io)?;
                    answer.await
                }
            }
        };
        let answer = answered.await;
        under_way.is_answered = true;
        match answer {
            Ok(answer) => answer.checked().map(drop),
            Err(Broken::Packet(error)) => Err(error),
            Err(Broken::Io(error)) => Err(process.lost_with(&error).await),
        }
    }
}

struct IsolatedTransform(BlockingLine);

impl IsolatedTransform {
    fn take(&mut self, word: Word, messages: &[Message], out: &mut Output) -> Result<()> {
        out.messages.extend(self.0.call(word, messages)?.checked()?.messages);
        Ok(())
    }
}

impl Transform for IsolatedTransform {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        self.take(Word::Apply, &[message], out)
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        self.take(Word::Barrier, &[], out)
    }
}

/// Turns frames of a source into rows, in the source's process.
pub struct Decoder(BlockingLine);

impl Decoder {
    pub fn decode(&mut self, frame: Message) -> Result<Vec<Message>> {
        Ok(self.0.call(Word::Decode, &[frame])?.checked()?.messages)
    }
}
