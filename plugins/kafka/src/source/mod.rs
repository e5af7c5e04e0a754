//! The source: partitions are lanes, offsets positions.

mod config;
mod group;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pipeline_formats::{BATCH_BYTES_MAX, Decoder, Part, foreign, undecodable};
use pipeline_sdk::{
    Checkpoint, Connected, Context, Error, Header, Lane, LaneProgress, Message, Payload, Polled, Position, Result, Rows, Source,
    async_trait,
};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

pub use config::KafkaSourceConfig;
use group::{Decision, Member, Partition, Placing, hole, lane_of};

use crate::client::{from_kafka, refused, unreachable};

/// Of the bytes of a position.
const VERSION: u8 = 1;
/// Between two looks whether partitions were assigned.
const ASSIGNMENT_POLL: Duration = Duration::from_millis(100);
/// Offsets at the broker are asked for this often at most.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A partition that is ours.
struct Assigned {
    partition: Partition,
    lane: Lane,
    /// The next offset to be read.
    next: i64,
    sequence: u64,
    /// Oldest and latest at the broker, when they were asked for.
    watermarks: Option<(Instant, i64, i64)>,
}

pub(crate) struct Kafka {
    config: KafkaSourceConfig,
    context: Context,
    decoder: Decoder,
    consumer: Option<BaseConsumer<Member>>,
    assigned: Vec<Assigned>,
    durable: BTreeMap<Lane, i64>,
}

impl Kafka {
    /// # Errors
    /// A column has no type that is known.
    pub fn new(config: KafkaSourceConfig, context: Context) -> Result<Self> {
        let decoder = Decoder::new(config.settings())?;
        Ok(Self { config, context, decoder, consumer: None, assigned: Vec::new(), durable: BTreeMap::new() })
    }

    /// Takes over what the group's coordinator decided; the lanes that came and went.
    fn follow(&mut self) -> Result<Option<Polled>> {
        let Some(consumer) = &self.consumer else { return Err(not_connected()) };
        let decisions = consumer.context().decisions();
        if decisions.is_empty() {
            return Ok(None);
        }
        let (mut came, mut gone): (Vec<Lane>, Vec<Lane>) = (Vec::new(), Vec::new());
        for decision in decisions {
            match decision {
                Decision::Revoked(partitions) => {
                    self.assigned.retain(|it| !partitions.contains(&it.partition));
                    gone.extend(partitions.iter().map(lane_of));
                }
                Decision::Assigned(partitions) => {
                    let placing = Placing { config: &self.config, context: &self.context, consumer, durable: &self.durable };
                    let offsets = placing.place(&partitions)?;
                    for (partition, next) in partitions.into_iter().zip(offsets) {
                        let lane = lane_of(&partition);
                        came.push(lane.clone());
                        self.assigned.retain(|it| it.partition != partition);
                        self.assigned.push(Assigned { partition, lane, next, sequence: 0, watermarks: None });
                    }
                }
            }
        }
        // The client began where the group's offsets are; what it fetched meanwhile is forgotten by this.
        let mut list = TopicPartitionList::with_capacity(self.assigned.len());
        for it in &self.assigned {
            list.add_partition_offset(&it.partition.0, it.partition.1, Offset::Offset(it.next)).map_err(|error| from_kafka(&error))?;
        }
        if !self.assigned.is_empty() {
            consumer.assign(&list).map_err(|error| from_kafka(&error))?;
        }
        tracing::info!(lanes = self.assigned.len(), "partitions were assigned anew");
        Ok(Some(Polled::Lanes { assigned: came, revoked: gone }))
    }

    /// Rows of what was taken, a partition after the other.
    fn messages(&mut self, consumer: &BaseConsumer<Member>, taken: Vec<BorrowedMessage<'_>>) -> Result<Vec<Message>> {
        let mut by_partition: BTreeMap<usize, Vec<BorrowedMessage<'_>>> = BTreeMap::new();
        for message in taken {
            let is_it = |it: &Assigned| it.partition.1 == message.partition() && it.partition.0 == message.topic();
            // What is before the next offset was fetched before its partition was placed.
            if let Some(index) = self.assigned.iter().position(is_it)
                && message.offset() >= self.assigned[index].next
            {
                by_partition.entry(index).or_default().push(message);
            }
        }
        let mut messages = Vec::new();
        for (index, taken) in by_partition {
            let payloads: Vec<&[u8]> = taken.iter().map(|it| it.payload().unwrap_or_default()).collect();
            let assigned = &mut self.assigned[index];
            // Compaction and transactions leave gaps as well: what is gone by age is before the oldest that is kept.
            if taken[0].offset() > assigned.next {
                let watermarks = consumer.fetch_watermarks(&assigned.partition.0, assigned.partition.1, self.config.connect_timeout);
                let (oldest, _) = watermarks.map_err(|error| from_kafka(&error))?;
                if oldest > assigned.next {
                    hole(&self.config, &self.context, &assigned.partition, assigned.next, oldest)?;
                }
            }
            for part in self.decoder.decode(&payloads) {
                let (last, payload) = match part {
                    Part::Rows { first, batch, rows } => {
                        let end = first + rows.len();
                        (end - 1, Payload::Rows(Rows::plain(self.config.beside.add(batch, &rows, &taken[first..end])?)))
                    }
                    Part::Bad { index, error } => {
                        let from = format!("topic `{}`, partition {}, offset {}", taken[index].topic(), taken[index].partition(), taken[index].offset());
                        (index, Payload::Frame(undecodable(&from, payloads[index], error)))
                    }
                };
                assigned.next = taken[last].offset() + 1;
                assigned.sequence += 1;
                let header = Header { sequence: assigned.sequence, ..Header::new(assigned.lane.clone(), position(assigned.next)) };
                messages.push(Message { header, payload });
            }
        }
        Ok(messages)
    }
}

/// Takes what is there, as far as it makes one batch.
fn take<'a>(consumer: &'a BaseConsumer<Member>, config: &KafkaSourceConfig, wait: Duration) -> Result<Vec<BorrowedMessage<'a>>> {
    let (mut taken, mut bytes): (Vec<BorrowedMessage<'a>>, usize) = (Vec::new(), 0);
    while taken.len() < config.batch_payloads as usize && bytes < BATCH_BYTES_MAX {
        let patience = if taken.is_empty() { wait } else { Duration::ZERO };
        match consumer.poll(patience) {
            None => break,
            Some(Ok(message)) => {
                bytes += message.payload_len() + message.key_len();
                taken.push(message);
            }
            // The partition's end; a leader that moves: the client finds it by itself.
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            // What was taken is handed out; whatever is wrong comes again with the next poll, or connecting again finds it.
            Some(Err(error)) if !taken.is_empty() => {
                tracing::debug!(%error, "after messages");
                break;
            }
            Some(Err(error)) => return Err(from_kafka(&error)),
        }
    }
    Ok(taken)
}

fn not_connected() -> Error {
    Error::disconnected("not connected").code("kafka.connection")
}

fn position(next: i64) -> Position {
    let bytes: Vec<u8> = std::iter::once(VERSION).chain(next.to_le_bytes()).collect();
    Position { bytes: bytes.into(), number: Some(next), display: None }
}

fn offset_of(lane: &Lane, position: &Position) -> Result<i64> {
    match position.bytes.split_first() {
        Some((&VERSION, rest)) if rest.len() == 8 => Ok(i64::from_le_bytes(rest.try_into().unwrap_or_default())),
        _ => Err(foreign(lane, position)),
    }
}

#[async_trait]
impl Source for Kafka {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        self.durable = from.lanes.iter().map(|(lane, position)| Ok((lane.clone(), offset_of(lane, position)?))).collect::<Result<_>>()?;
        self.assigned.clear();
        // The old one leaves the group first.
        self.consumer = None;
        let consumer: BaseConsumer<Member> = self.config.client().create_with_context(Member::default()).map_err(|error| refused(&error))?;
        let timeout = self.config.connect_timeout;
        let member = consumer.context().clone();
        for topic in &self.config.topics {
            let found = consumer.fetch_metadata(Some(topic), timeout);
            let metadata = found.map_err(|_| {
                // Why is told to who polls.
                let _ = consumer.poll(Duration::ZERO);
                unreachable(&self.config.brokers, timeout, &member.background)
            })?;
            if let Some(error) = metadata.topics().iter().find_map(|it| it.error()) {
                return Err(from_kafka(&KafkaError::MetadataFetch(error.into())).context(format!("topic `{topic}`")));
            }
        }
        let identity = consumer.client().fetch_cluster_id(timeout);
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| from_kafka(&error))?;
        let deadline = Instant::now() + timeout;
        let mut found = Ok(());
        // A member that was lost holds its partitions until its session is over. Who gets none goes on without.
        while found.is_ok() && !member.is_decided() && Instant::now() < deadline && !self.context.is_cancelled() {
            found = take(&consumer, &self.config, ASSIGNMENT_POLL).map(drop);
        }
        self.consumer = Some(consumer);
        found?;
        self.follow()?;
        Ok(Connected { identity })
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        // Taken out, so that messages may borrow from it; put back whatever comes.
        let Some(consumer) = self.consumer.take() else { return Err(not_connected()) };
        let taken = take(&consumer, &self.config, wait);
        // What was decided while it was polled makes what was taken void: it comes again from where the partitions are placed.
        let is_decided = consumer.context().is_decided();
        let messages = match taken {
            Ok(taken) if !is_decided => self.messages(&consumer, taken),
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        self.consumer = Some(consumer);
        if is_decided && let Some(lanes) = self.follow()? {
            return Ok(lanes);
        }
        let messages = messages?;
        Ok(if messages.is_empty() { Polled::Idle } else { Polled::Messages(messages) })
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        for (lane, position) in &upto.lanes {
            let next = offset_of(lane, position)?;
            let before = self.durable.insert(lane.clone(), next);
            if let Some(it) = self.assigned.iter().find(|it| it.lane == *lane)
                && before != Some(next)
            {
                list.add_partition_offset(&it.partition.0, it.partition.1, Offset::Offset(next)).map_err(|error| from_kafka(&error))?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(()),
            Err(error) => match error.rdkafka_error_code() {
                // The lanes are another member's now, which reads again what was not committed.
                Some(Code::IllegalGeneration | Code::UnknownMemberId | Code::RebalanceInProgress | Code::AssignmentLost) => {
                    tracing::info!(%error, "offsets were not committed: the group is being rebalanced");
                    Ok(())
                }
                _ => Err(from_kafka(&error)),
            },
        }
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let Some(consumer) = &self.consumer else { return Ok(Vec::new()) };
        let timeout = self.config.connect_timeout;
        for it in &mut self.assigned {
            if it.watermarks.is_none_or(|(at, ..)| at.elapsed() >= PROGRESS_INTERVAL)
                && let Ok((oldest, latest)) = consumer.fetch_watermarks(&it.partition.0, it.partition.1, timeout)
            {
                it.watermarks = Some((Instant::now(), oldest, latest));
            }
        }
        let told = |it: &Assigned| LaneProgress {
            lane: it.lane.clone(),
            oldest: it.watermarks.map(|(_, oldest, _)| position(oldest)),
            current: Some(position(it.next)),
            latest: it.watermarks.map(|(_, _, latest)| position(latest)),
            retention_seconds: None,
            ends: false,
        };
        Ok(self.assigned.iter().map(told).collect())
    }
}
