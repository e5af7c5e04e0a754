//! The host's side of instances: the traits of the SDK over a connection each.
//!
//! Dropping an instance waits until it is destroyed, as in the same process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::context::Place;
use pipeline_sdk::{
    Checkpoint, Connected, Kind, Lane, LaneProgress, Message, Output, Polled, Ready, Result, Service, Sink, Source, Stop, Transform,
};
use serde::Deserialize;
use serde_json::Value as Json;

use super::Create;
use super::frame::{Packet, Word};
use super::line::{BlockingLine, Line};
use super::process::Process;

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
        Line::open(self.clone(), create, host).await
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
        self.0.run(ready, stop).await
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
