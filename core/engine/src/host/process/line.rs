//! The connection of an instance: one call at a time is on it, so that what waits is the engine's queues alone.
//!
//! A call that is dropped before it is answered, or is overdue where it blocks its thread, costs the process: it is killed, and every
//! instance in it fails with an error that asks for a new connection.

use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::{Error, Message, Ready, Result, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Create;
use super::frame::{Codec, PADDING, Packet, Word};
use super::process::Process;

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
pub(super) struct Line {
    process: Arc<Process>,
    id: u64,
    /// Absent while a call is under way, and for ever when it was not answered.
    stream: Option<tokio::io::BufReader<tokio::net::UnixStream>>,
    codec: Codec,
}

impl Line {
    /// A connection, once the instance at its other end is made.
    pub async fn open(process: Arc<Process>, create: Create, host: Option<HostParts>) -> Result<Self> {
        let (stream, create) = process.connect(create, host)?;
        let lost = |error: std::io::Error| process.lost(&error.to_string());
        stream.set_nonblocking(true).map_err(lost)?;
        let stream = tokio::net::UnixStream::from_std(stream).map_err(lost)?;
        let codec = Codec::new(process.limits.frame_bytes_max);
        let mut line = Self { process, id: create.id, stream: Some(tokio::io::BufReader::new(stream)), codec };
        let text = serde_json::to_vec(&create).expect("plain JSON");
        line.call(Word::Create, 0, &text, &[]).await?.checked()?;
        Ok(line)
    }

    pub async fn call(&mut self, word: Word, number: u64, text: &[u8], messages: &[Message]) -> Result<Packet> {
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

    /// The call that lasts as long as a service runs.
    pub async fn run(mut self, ready: Ready, stop: Stop) -> Result<()> {
        let process = self.process.clone();
        process.on_ready(self.id, ready);
        let Some(stream) = self.stream.take() else { return Err(process.lost("it was not used yet")) };
        let mut under_way = UnderWay { process: &process, is_answered: false };
        let (mut reading, mut writing) = stream.into_inner().into_split();
        let run = self.codec.encode(Word::Run, 0, &[], &[])?;
        let stopping = self.codec.encode(Word::Stop, 0, &[], &[])?;
        let answered = async {
            send(&mut writing, run).await.map_err(Broken::Io)?;
            let answer = receive(&mut reading, &mut self.codec);
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

    /// The same connection for calls that block their thread, each for `limit` at most.
    pub fn blocking(mut self, limit: Duration) -> Result<BlockingLine> {
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
pub(super) struct BlockingLine {
    process: Arc<Process>,
    id: u64,
    stream: Option<BufReader<UnixStream>>,
    codec: Codec,
    limit: Duration,
}

impl BlockingLine {
    pub fn call(&mut self, word: Word, messages: &[Message]) -> Result<Packet> {
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
