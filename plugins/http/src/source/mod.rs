//! The source: one lane, the requests in the order of their arrival. Its positions count them.
//!
//! Nothing can be read again: what was handed out and is not durable when a session ends is answered with 503, and whoever sent it
//! sends it again.

mod config;
mod server;

use std::collections::VecDeque;
use std::time::Duration;

use pipeline_formats::{Beside, Decoder, Part, count_of, counted, undecodable};
use pipeline_sdk::{
    Checkpoint, Connected, Context, Error, Header, Lane, LaneProgress, Message, Payload, Polled, Result, Rows, Source, async_trait,
};
use tokio::sync::oneshot;

pub use config::HttpSourceConfig;

use config::Answer;
use server::{Fate, Room, Server, Waiting};

/// Says whether requests are taken.
const HEALTH_PATH: &str = "/healthz";
const LANE: &str = "requests";

/// Handed out and not durable yet.
struct Held {
    number: u64,
    answer: Option<oneshot::Sender<Fate>>,
    _room: Room,
}

pub(crate) struct Http {
    config: HttpSourceConfig,
    context: Context,
    beside: Beside,
    decoder: Decoder,
    lane: Lane,
    server: Option<Server>,
    count: u64,
    sequence: u64,
    held: VecDeque<Held>,
}

impl Http {
    pub fn new(config: HttpSourceConfig, context: Context) -> Result<Self> {
        let (beside, decoder) = (config.beside(), Decoder::new(config.settings())?);
        Ok(Self { config, context, beside, decoder, lane: Lane::new(LANE), server: None, count: 0, sequence: 0, held: VecDeque::new() })
    }

    fn messages(&mut self, mut taken: Vec<Waiting>) -> Result<Vec<Message>> {
        let bodies: Vec<&[u8]> = taken.iter().map(|it| &*it.body).collect();
        let parts = self.decoder.decode(&bodies);
        let begin = self.count;
        let mut messages = Vec::with_capacity(parts.len());
        for part in parts {
            let (last, payload) = match part {
                Part::Rows { first, batch, rows } => (first + rows.len(), Payload::Rows(Rows::plain(self.beside.add(batch, &rows, std::iter::empty())?))),
                Part::Bad { index, error } => match taken[index].answer.take() {
                    // Whoever sent it is told, and nobody else need be.
                    Some(answer) => {
                        self.context.count("http_requests_refused", 1);
                        // The client may be gone.
                        let _ = answer.send(Fate::Bad(error.message));
                        continue;
                    }
                    None => (index + 1, Payload::Frame(undecodable("a request", &taken[index].body, error))),
                },
            };
            self.sequence += 1;
            let header = Header { sequence: self.sequence, ..Header::new(self.lane.clone(), counted(begin + last as u64)) };
            messages.push(Message { header, payload });
        }
        for Waiting { answer, room, .. } in taken {
            self.count += 1;
            // Answered above: it makes no rows.
            if answer.is_none() && self.config.answer == Answer::Durable {
                continue;
            }
            self.held.push_back(Held { number: self.count, answer, _room: room });
        }
        Ok(messages)
    }

    /// Answers requests that are durable.
    fn tell(&mut self, stored: u64) {
        while let Some(held) = self.held.pop_front_if(|held| held.number <= stored) {
            if let Some(answer) = held.answer {
                // The client may be gone: it will send again what is written.
                let _ = answer.send(Fate::Durable);
            }
        }
    }
}

#[async_trait]
impl Source for Http {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        let stored = from.lanes.get(&self.lane).map(|it| count_of(&self.lane, it)).transpose()?.unwrap_or(0);
        self.tell(stored);
        // Dropped without a word: to be sent again.
        self.held.clear();
        self.count = self.count.max(stored);
        if self.server.is_none() {
            let server = Server::open(&self.config).await?;
            tracing::info!(address = %server.address, path = self.config.path, "takes requests");
            self.server = Some(server);
        }
        Ok(Connected::default())
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let Some(server) = &mut self.server else { return Err(Error::disconnected("not listening").code("http.listen")) };
        let first = match tokio::time::timeout(wait, server.waiting.recv()).await {
            Ok(Some(first)) => first,
            Ok(None) => return Err(Error::disconnected("the server ended").code("http.listen")),
            Err(_) => return Ok(Polled::Idle),
        };
        let mut taken = vec![first];
        while let Ok(next) = server.waiting.try_recv() {
            taken.push(next);
        }
        let messages = self.messages(taken)?;
        Ok(if messages.is_empty() { Polled::Idle } else { Polled::Messages(messages) })
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        if let Some(position) = upto.lanes.get(&self.lane) {
            self.tell(count_of(&self.lane, position)?);
        }
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        Ok(Vec::new())
    }
}
