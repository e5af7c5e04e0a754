//! The source: one lane, the stream. Its positions are the stream's sequences.

mod config;
mod consumer;

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::Message as Arrived;
use async_nats::Subject;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use pipeline_formats::{BATCH_BYTES_MAX, Beside, Decoder, Part, foreign, undecodable};
use pipeline_sdk::{
    Checkpoint, Connected, Context, Error, Header, Lane, LaneProgress, Message, Payload, Polled, Position, Result, Rows, Source,
    async_trait,
};

pub use config::NatsSourceConfig;

use crate::server::{is_connected, lost};
use consumer::{Reading, from_messages};

/// The key under which the state knows the consumer's name, where the file gives none.
const STATE_KEY: &str = "consumer";
const ACK: &[u8] = b"+ACK";

/// Handed out and not acknowledged.
struct Held {
    sequence: u64,
    reply: Subject,
}

pub(crate) struct Nats {
    config: NatsSourceConfig,
    context: Context,
    consumer: String,
    beside: Beside,
    decoder: Decoder,
    lane: Lane,
    reading: Option<Reading>,
    /// The last sequence that was handed out.
    last: u64,
    sequence: u64,
    held: VecDeque<Held>,
}

impl Nats {
    pub fn new(config: NatsSourceConfig, context: Context) -> Result<Self> {
        let consumer = match &config.consumer {
            Some(given) => given.clone(),
            None => context.state().name(STATE_KEY, "pipeline-")?,
        };
        let (beside, decoder) = (config.beside()?, Decoder::new(config.settings())?);
        let lane = Lane::new(&config.stream);
        Ok(Self { config, context, consumer, beside, decoder, lane, reading: None, last: 0, sequence: 0, held: VecDeque::new() })
    }

    /// Takes what waits, as far as it makes one batch.
    async fn take(&mut self, wait: Duration) -> Result<Vec<(u64, Arrived)>> {
        let Some(reading) = &mut self.reading else { return Err(lost("not connected")) };
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut next = match tokio::time::timeout(wait, reading.messages.next()).await {
            Ok(next) => next,
            Err(_) if is_connected(&reading.client) => return Ok(taken),
            Err(_) => return Err(lost("it was closed")),
        };
        loop {
            let message = match next {
                Some(Ok(message)) => message,
                // What came before it is handed out first; the error comes again, or the connection is gone.
                Some(Err(_)) | None if !taken.is_empty() => return Ok(taken),
                Some(Err(error)) => return Err(from_messages(error.kind(), &error)),
                None => return Err(lost("the consumer's messages ended")),
            };
            let sequence = message.info().map_err(|error| Error::fatal(format!("a message without its sequence: {error}")))?.stream_sequence;
            // Sent again, because its acknowledgement comes late.
            if sequence > self.last {
                self.last = sequence;
                bytes += message.payload.len();
                taken.push((sequence, message));
            }
            if taken.len() >= self.config.batch_payloads as usize || bytes >= BATCH_BYTES_MAX {
                return Ok(taken);
            }
            next = match reading.messages.next().now_or_never() {
                Some(next) => next,
                None => return Ok(taken),
            };
        }
    }

    fn messages(&mut self, taken: &[(u64, Arrived)]) -> Result<Vec<Message>> {
        let payloads: Vec<&[u8]> = taken.iter().map(|(_, it)| &*it.payload).collect();
        let parts = self.decoder.decode(&payloads);
        let mut messages = Vec::with_capacity(parts.len());
        for part in parts {
            let (last, payload) = match part {
                Part::Rows { first, batch, rows } => {
                    let end = first + rows.len();
                    let subjects = taken[first..end].iter().map(|(_, it)| it.subject.as_str());
                    (end - 1, Payload::Rows(Rows::plain(self.beside.add(batch, &rows, subjects)?)))
                }
                Part::Bad { index, error } => {
                    let (sequence, message) = &taken[index];
                    let from = format!("message {sequence} of subject `{}`", message.subject);
                    (index, Payload::Frame(undecodable(&from, &message.payload, error)))
                }
            };
            self.sequence += 1;
            let header = Header { sequence: self.sequence, ..Header::new(self.lane.clone(), position(taken[last].0)) };
            messages.push(Message { header, payload });
        }
        for (sequence, message) in taken {
            if let Some(reply) = &message.reply {
                self.held.push_back(Held { sequence: *sequence, reply: reply.clone() });
            }
        }
        Ok(messages)
    }
}

fn position(sequence: u64) -> Position {
    Position::from_number(i64::try_from(sequence).unwrap_or(i64::MAX))
}

fn sequence_of(position: &Position, lane: &Lane) -> Result<u64> {
    let number = <[u8; 8]>::try_from(&*position.bytes).map(i64::from_le_bytes).ok().and_then(|it| u64::try_from(it).ok());
    number.ok_or_else(|| foreign(lane, position))
}

#[async_trait]
impl Source for Nats {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        let stored = from.lanes.get(&self.lane).map(|it| sequence_of(it, &self.lane)).transpose()?;
        self.reading = None;
        self.held.clear();
        let reading = Reading::open(&self.config, &self.consumer, stored).await?;
        self.last = reading.behind;
        if let Some(end) = reading.hole {
            let begin = stored.unwrap_or(0) + 1;
            let text = format!("the stream `{}` no longer holds {begin} to {end}: they were removed before they were read", self.config.stream);
            self.context.incident("hole", text, serde_json::json!({ "from": begin, "to": end }));
        }
        let identity = Some(reading.identity.clone());
        self.reading = Some(reading);
        Ok(Connected { identity })
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let taken = self.take(wait).await;
        if taken.is_err() {
            self.reading = None;
        }
        let taken = taken?;
        match taken.is_empty() {
            true => Ok(Polled::Idle),
            false => self.messages(&taken).map(Polled::Messages),
        }
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        let Some(position) = upto.lanes.get(&self.lane) else { return Ok(()) };
        let stored = sequence_of(position, &self.lane)?;
        let Some(reading) = &self.reading else { return Ok(()) };
        let mut is_any = false;
        while let Some(held) = self.held.pop_front_if(|held| held.sequence <= stored) {
            reading.client.publish(held.reply, Bytes::from_static(ACK)).await.map_err(lost)?;
            is_any = true;
        }
        if is_any {
            tokio::time::timeout(self.config.timeout, reading.client.flush()).await.map_err(lost)?.map_err(lost)?;
        }
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let Some(reading) = &mut self.reading else { return Ok(Vec::new()) };
        let state = reading.stream.info().await.map_err(lost)?.state.clone();
        let info = reading.consumer.info().await.map_err(lost)?;
        // Of a stream of which only some subjects are read, the last sequence may be of another one.
        let is_behind = info.num_pending > 0 || info.delivered.stream_sequence > self.last;
        let latest = if is_behind { (state.last_sequence + 1).max(self.last + 1) } else { self.last + 1 };
        Ok(vec![LaneProgress {
            lane: self.lane.clone(),
            oldest: Some(position(state.first_sequence)),
            current: Some(position(self.last + 1)),
            latest: Some(position(latest)),
            retention_seconds: None,
            ends: false,
        }])
    }
}
