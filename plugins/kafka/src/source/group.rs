//! The membership in the consumer group: which partitions are ours, and where each begins.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::{Context, Error, Lane, Result, SOURCE_HOLE, SOURCE_REPLACED};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::config::{KafkaSourceConfig, OnHole, Start};
use crate::client::{self, Background, from_kafka};

/// A partition of a topic.
pub type Partition = (String, i32);

/// What the group's coordinator decided, since it was looked at.
pub enum Decision {
    Assigned(Vec<Partition>),
    Revoked(Vec<Partition>),
}

/// Collects what comes while the client is polled.
#[derive(Default)]
pub struct Member {
    pub background: Background,
    decisions: Mutex<Vec<Decision>>,
}

impl Member {
    /// Whether there is something to [`Self::decisions`].
    pub fn is_decided(&self) -> bool {
        !self.decisions.lock().is_empty()
    }

    pub fn decisions(&self) -> Vec<Decision> {
        std::mem::take(&mut *self.decisions.lock())
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.background.note(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn post_rebalance<'a>(&self, rebalance: &Rebalance<'a>) {
        let partitions = |list: &TopicPartitionList| list.elements().iter().map(|it| (it.topic().to_owned(), it.partition())).collect();
        let decision = match rebalance {
            Rebalance::Assign(list) => Decision::Assigned(partitions(list)),
            Rebalance::Revoke(list) => Decision::Revoked(partitions(list)),
            Rebalance::Error(error) => return self.background.note(error, "rebalance"),
        };
        self.decisions.lock().push(decision);
    }
}

pub fn lane_of(partition: &Partition) -> Lane {
    Lane::new(format!("{}/{}", partition.0, partition.1))
}

/// Finds where partitions begin.
pub struct Placing<'a> {
    pub config: &'a KafkaSourceConfig,
    pub context: &'a Context,
    pub consumer: &'a BaseConsumer<Member>,
    /// Offsets up to which this pipeline has made everything durable.
    pub durable: &'a BTreeMap<Lane, i64>,
}

impl Placing<'_> {
    /// The next offset to be read of each: behind what is durable here or committed by the group, whichever is later; else as
    /// `start` says.
    ///
    /// # Errors
    /// A hole, where these stop the task; a topic made anew; no answer.
    pub fn place(&self, partitions: &[Partition]) -> Result<Vec<i64>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let timeout = self.config.connect_timeout;
        let committed = self.consumer.committed_offsets(list, timeout).map_err(|error| from_kafka(&error))?;
        partitions.iter().map(|partition| self.place_one(partition, &committed, timeout)).collect()
    }

    fn place_one(&self, partition: &Partition, committed: &TopicPartitionList, timeout: Duration) -> Result<i64> {
        let (topic, number) = partition;
        let watermarks = self.consumer.fetch_watermarks(topic, *number, timeout);
        let (oldest, latest) = watermarks.map_err(|error| from_kafka(&error).context(format!("topic `{topic}`")))?;
        let committed = committed.find_partition(topic, *number).and_then(|it| match it.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
        let durable = self.durable.get(&lane_of(partition)).copied();
        let Some(next) = durable.max(committed) else {
            return Ok(if self.config.start == Start::Earliest { oldest } else { latest });
        };
        if next > latest {
            let text = format!("partition {number} of `{topic}` ends at {latest}, before {next}, which was read already: it was made anew, or lost messages");
            return Err(Error::fatal(text).code(SOURCE_REPLACED));
        }
        if next < oldest {
            hole(self.config, self.context, partition, next, oldest)?;
        }
        Ok(next.max(oldest))
    }
}

/// Messages of a partition from `next` up to, without, `oldest` are gone and were not read.
///
/// # Errors
/// Where that stops the task.
pub fn hole(config: &KafkaSourceConfig, context: &Context, (topic, partition): &Partition, next: i64, oldest: i64) -> Result<()> {
    let text = format!("partition {partition} of `{topic}` no longer has messages {next} to {}: they were not read", oldest - 1);
    match config.on_hole {
        OnHole::Stop => Err(Error::rejected(text)
            .code(SOURCE_HOLE)
            .path("on-hole")
            .hint("on-hole = \"continue\" goes on behind it; a longer retention.ms of the topic avoids it")),
        OnHole::Continue => {
            context.incident("hole", text, serde_json::json!({ "topic": topic, "partition": partition, "from": next, "to": oldest }));
            Ok(())
        }
    }
}
