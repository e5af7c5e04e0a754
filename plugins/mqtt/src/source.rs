//! The source: one lane, the session. Its positions count messages.
//!
//! A session cannot be read again from a place: the broker sends what was not acknowledged. So a position is only good for telling
//! what is durable; messages that are, and come again because their acknowledgement was lost, are acknowledged and left out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pipeline_formats::{BATCH_BYTES_MAX, Beside, Decoder, Part, count_of, counted, undecodable};
use pipeline_sdk::{
    Checkpoint, Connected, Context, Error, Header, Lane, LaneProgress, Message, Payload, Polled, Result, Rows, Source, async_trait,
};

use crate::client::Connection;
use crate::config::MqttSourceConfig;
use crate::packets::Arrived;

const LANE: &str = "session";
/// The key under which the state knows the session's name, where the file gives none.
const STATE_KEY: &str = "client-id";

/// Handed out and not acknowledged.
struct Held {
    number: u64,
    packet: u16,
}

pub(crate) struct Mqtt {
    config: MqttSourceConfig,
    client_id: String,
    beside: Beside,
    decoder: Decoder,
    lane: Lane,
    connection: Option<Connection>,
    /// Messages that were handed out, over all connections.
    count: u64,
    sequence: u64,
    held: VecDeque<Held>,
    /// Packets of the last connection that are durable and whose acknowledgement may not have arrived.
    durable: BTreeMap<u16, u64>,
    context: Context,
}

impl Mqtt {
    pub fn new(config: MqttSourceConfig, context: Context) -> Result<Self> {
        let client_id = match &config.client_id {
            Some(given) => given.clone(),
            None => context.state().name(STATE_KEY, "pipeline-")?,
        };
        let (beside, decoder) = (config.beside()?, Decoder::new(config.settings())?);
        Ok(Self {
            config,
            client_id,
            beside,
            decoder,
            lane: Lane::new(LANE),
            connection: None,
            count: 0,
            sequence: 0,
            held: VecDeque::new(),
            durable: BTreeMap::new(),
            context,
        })
    }

    /// Takes what waits, as far as it makes one batch.
    async fn take(&mut self, wait: Duration) -> Result<Vec<Arrived>> {
        let Some(connection) = &mut self.connection else { return Err(Error::disconnected("not connected").code("mqtt.connection")) };
        let first = match tokio::time::timeout(wait, connection.next()).await {
            Err(_) => return Ok(Vec::new()),
            Ok(Some(first)) => first,
            Ok(None) => {
                let error = connection.error();
                self.connection = None;
                return Err(error);
            }
        };
        let mut bytes = first.bytes();
        let mut taken = vec![first];
        while taken.len() < self.config.batch_payloads as usize && bytes < BATCH_BYTES_MAX as u64 {
            let Some(next) = connection.try_next() else { break };
            bytes += next.bytes();
            taken.push(next);
        }
        Ok(taken)
    }

    /// Without what is durable already, which is acknowledged again.
    async fn leave_out_known(&mut self, taken: Vec<Arrived>) -> Result<Vec<Arrived>> {
        let Some(connection) = self.connection.as_mut().filter(|_| !self.durable.is_empty()) else { return Ok(taken) };
        let durable = &mut self.durable;
        let is_known = |message: &Arrived| durable.remove(&message.packet).is_some() && message.is_again;
        let (known, left): (Vec<_>, Vec<_>) = taken.into_iter().partition(is_known);
        connection.acknowledge(known.iter().map(|message| message.packet)).await?;
        self.context.count("mqtt_messages_known", known.len() as u64);
        Ok(left)
    }

    fn messages(&mut self, taken: &[Arrived]) -> Result<Vec<Message>> {
        let begin = self.count;
        for message in taken {
            self.count += 1;
            // What is not acknowledged need not be remembered.
            if message.packet != 0 {
                self.held.push_back(Held { number: self.count, packet: message.packet });
            }
        }
        let payloads: Vec<&[u8]> = taken.iter().map(|it| &*it.payload).collect();
        let parts = self.decoder.decode(&payloads);
        let mut messages = Vec::with_capacity(parts.len());
        for part in parts {
            let (last, payload) = match part {
                Part::Rows { first, batch, rows } => {
                    let end = first + rows.len();
                    (end, Payload::Rows(Rows::plain(self.beside.add(batch, &rows, taken[first..end].iter().map(Arrived::topic))?)))
                }
                Part::Bad { index, error } => {
                    let from = format!("topic `{}`", taken[index].topic());
                    (index + 1, Payload::Frame(undecodable(&from, &taken[index].payload, error)))
                }
            };
            self.sequence += 1;
            let header = Header { sequence: self.sequence, ..Header::new(self.lane.clone(), counted(begin + last as u64)) };
            messages.push(Message { header, payload });
        }
        Ok(messages)
    }
}

#[async_trait]
impl Source for Mqtt {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        let stored = from.lanes.get(&self.lane).map(|it| count_of(&self.lane, it)).transpose()?.unwrap_or(0);
        self.connection = None;
        // What is durable and was not acknowledged in time comes again, by the same packet.
        let known = self.held.iter().filter(|it| it.number <= stored).map(|it| (it.packet, it.number));
        let durable: BTreeMap<u16, u64> = std::mem::take(&mut self.durable).into_iter().chain(known).collect();
        self.held.clear();
        self.count = self.count.max(stored);
        let connection = Connection::open(&self.config, &self.client_id, &self.beside.patterns).await?;
        // Packets of another session are other messages.
        self.durable = if connection.had_session { durable } else { BTreeMap::new() };
        if !connection.had_session && stored > 0 {
            let text = format!("the broker no longer has the session `{}`: what it got since is lost to this pipeline", self.client_id);
            self.context.incident("hole", text, serde_json::json!({ "client-id": self.client_id }));
        }
        self.connection = Some(connection);
        Ok(Connected::default())
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let taken = self.take(wait).await?;
        let taken = self.leave_out_known(taken).await?;
        match taken.is_empty() {
            true => Ok(Polled::Idle),
            false => self.messages(&taken).map(Polled::Messages),
        }
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        let Some(position) = upto.lanes.get(&self.lane) else { return Ok(()) };
        let stored = count_of(&self.lane, position)?;
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let durable = self.held.partition_point(|held| held.number <= stored);
        connection.acknowledge(self.held.iter().take(durable).map(|held| held.packet)).await?;
        self.held.drain(..durable);
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        // A broker does not tell how much it holds.
        Ok(Vec::new())
    }
}
