//! The sink: a write returns when all in-sync replicas have the messages.
//!
//! What a broker refuses is known only then, and which row it was is kept with each message. What was delivered beside it is
//! remembered until the engine has written the rest again, so that nothing of that is there twice.

mod config;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use arrow::util::display::FormatOptions;
use parking_lot::Mutex;
use pipeline_formats::{delimiter, encode_lines};
use pipeline_sdk::{Connected, Context, Error, Lane, Message, Payload, Reaction, Result, Rows, Sink, async_trait};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, producer::PurgeConfig};

pub use config::KafkaSinkConfig;
use config::Templates;

use crate::client::{self, Background, from_kafka, refused, unreachable};

/// How long a full queue is waited for at a time.
const ROOM: Duration = Duration::from_millis(50);
/// In a delivery's number: the message's index is above, the row below.
const ROW_BITS: u32 = 32;

/// Collects what was not delivered.
#[derive(Default)]
struct Deliveries {
    background: Background,
    failed: Mutex<Vec<(usize, KafkaError)>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.background.note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Err((error, _)) = result {
            self.failed.lock().push((number, error.clone()));
        }
    }
}

pub(crate) struct Kafka {
    config: KafkaSinkConfig,
    templates: Templates,
    context: Context,
    producer: Option<BaseProducer<Deliveries>>,
    /// What the engine writes again next, in this order, and is there already: the rest of a message of which rows were refused, and
    /// the messages behind it. By lane, sequence and count of rows.
    delivered: VecDeque<(Lane, u64, u64)>,
}

/// Rows of one message that cannot be written.
struct Refused {
    rows: Vec<u64>,
    error: Error,
}

impl Kafka {
    /// # Errors
    /// A template is none.
    pub fn new(config: KafkaSinkConfig, context: Context) -> Result<Self> {
        Ok(Self { templates: config.templates()?, config, context, producer: None, delivered: VecDeque::new() })
    }

    fn producer(&self) -> Result<&BaseProducer<Deliveries>> {
        self.producer.as_ref().ok_or_else(|| Error::disconnected("not connected").code("kafka.connection"))
    }

    /// Whether these rows are there already.
    fn is_known(&mut self, message: &Message, rows: &Rows) -> bool {
        let header = &message.header;
        let is_next = |(lane, sequence, count): &mut (Lane, u64, u64)| {
            *lane == header.lane && *sequence == header.sequence && *count == rows.batch.num_rows() as u64
        };
        if self.delivered.pop_front_if(is_next).is_none() {
            // Not what was expected: at worst something is there twice.
            self.delivered.clear();
            return false;
        }
        true
    }

    /// Hands a message's rows over; those that the client itself refuses.
    fn send(&self, index: usize, rows: &Rows) -> Result<Option<Refused>> {
        let producer = self.producer()?;
        let lines = encode_lines(&rows.batch, self.config.format, delimiter(self.config.delimiter.as_deref()))?;
        let options = FormatOptions::default();
        let topics = self.templates.topic.bind(&rows.batch, &options)?;
        let keys = self.templates.key.as_ref().map(|key| key.bind(&rows.batch, &options)).transpose()?;
        let headers = self.templates.headers.iter().map(|(name, it)| Ok((name, it.bind(&rows.batch, &options)?))).collect::<Result<Vec<_>>>()?;
        let (mut topic, mut key, mut value) = (String::new(), String::new(), String::new());
        let mut wrong: Option<Refused> = None;
        let mut refuse = |row: usize, error: Error| match &mut wrong {
            Some(refused) => refused.rows.push(row as u64),
            None => wrong = Some(Refused { rows: vec![row as u64], error: error.context(format!("row {row}")) }),
        };
        for (row, line) in lines.iter().enumerate() {
            if !topics.write(row, &mut topic) || topic.is_empty() {
                refuse(row, Error::rejected("a column of `topic` is NULL").code("kafka.topic"));
                continue;
            }
            let mut record = BaseRecord::with_opaque_to(&topic, index << ROW_BITS | row).payload(line);
            if keys.as_ref().is_some_and(|keys| keys.write(row, &mut key)) {
                record = record.key(key.as_bytes());
            }
            if !headers.is_empty() {
                let mut owned = OwnedHeaders::new_with_capacity(headers.len());
                for (name, header) in &headers {
                    if header.write(row, &mut value) {
                        owned = owned.insert(Header { key: name, value: Some(&value) });
                    }
                }
                record = record.headers(owned);
            }
            while let Err((error, again)) = producer.send(record) {
                if error.rdkafka_error_code() == Some(Code::QueueFull) {
                    producer.poll(ROOM);
                    record = again;
                    continue;
                }
                let error = from_kafka(&error);
                if error.reaction != Reaction::Rejected {
                    return Err(error);
                }
                refuse(row, error);
                break;
            }
        }
        producer.poll(Duration::ZERO);
        Ok(wrong)
    }

    /// Waits for all; what was refused, by the index of its message.
    fn settle(&self) -> Result<BTreeMap<usize, Refused>> {
        let producer = self.producer()?;
        // Each message has its own limit, so this ends.
        let flushed = producer.flush(Timeout::After(self.config.message_timeout * 2));
        let failed = std::mem::take(&mut *producer.context().failed.lock());
        let mut refused: BTreeMap<usize, Refused> = BTreeMap::new();
        for (number, error) in failed {
            let error = from_kafka(&error);
            if error.reaction != Reaction::Rejected {
                let why = producer.context().background.take().map_or_else(String::new, |(_, reason)| format!(": {reason}"));
                return Err(Error { message: format!("{}{why}", error.message), ..error });
            }
            let row = (number & ((1 << ROW_BITS) - 1)) as u64;
            match refused.get_mut(&(number >> ROW_BITS)) {
                Some(known) => known.rows.push(row),
                None => drop(refused.insert(number >> ROW_BITS, Refused { rows: vec![row], error: error.context(format!("row {row}")) })),
            }
        }
        flushed.map_err(|error| from_kafka(&error))?;
        Ok(refused)
    }
}

#[async_trait]
impl Sink for Kafka {
    async fn connect(&mut self) -> Result<Connected> {
        if let Some(producer) = self.producer.take() {
            // What was not acknowledged is written again from the checkpoint.
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        self.delivered.clear();
        let producer: BaseProducer<Deliveries> = self.config.client().create_with_context(Deliveries::default()).map_err(|error| refused(&error))?;
        let timeout = self.config.connect_timeout;
        let identity = producer.client().fetch_cluster_id(timeout);
        if identity.is_none() {
            // Why is told to who polls.
            producer.poll(Duration::ZERO);
            return Err(unreachable(&self.config.brokers, timeout, &producer.context().background));
        }
        self.producer = Some(producer);
        Ok(Connected { identity })
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        self.write_many(std::slice::from_ref(message)).await.1
    }

    /// All is acknowledged when `write` returns.
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_many(&mut self, messages: &[Message]) -> (usize, Result<()>) {
        let mut all: BTreeMap<usize, Refused> = BTreeMap::new();
        let mut sent = messages.len();
        let mut stopped = None;
        let mut rows_sent = vec![0u64; messages.len()];
        for (index, message) in messages.iter().enumerate() {
            let Payload::Rows(rows) = &message.payload else {
                self.context.count("changes_left_out", 1);
                continue;
            };
            if rows.batch.num_rows() == 0 || rows.batch.num_columns() == 0 || self.is_known(message, rows) {
                continue;
            }
            rows_sent[index] = rows.batch.num_rows() as u64;
            match self.send(index, rows) {
                Ok(None) => {}
                Ok(Some(refused)) => drop(all.insert(index, refused)),
                Err(error) => {
                    rows_sent[index] = 0;
                    (sent, stopped) = (index, Some(error));
                    break;
                }
            }
        }
        match self.settle() {
            Err(error) => return (0, Err(error)),
            Ok(refused) => {
                for (index, refused) in refused {
                    all.entry(index).and_modify(|known| known.rows.extend(&refused.rows)).or_insert(refused);
                }
            }
        }
        let Some((index, Refused { mut rows, error })) = all.pop_first() else {
            return (sent, stopped.map_or(Ok(()), Err));
        };
        rows.sort_unstable();
        rows.dedup();
        let left = std::iter::once(rows_sent[index] - rows.len() as u64).chain(rows_sent[index + 1..sent].iter().copied());
        // Up to the next one that was refused: that one is sent again, whole.
        let until = all.keys().next().map_or(sent, |next| *next);
        let known = (index..until).zip(left).filter(|(_, count)| *count > 0);
        self.delivered = known.map(|(at, count)| (messages[at].header.lane.clone(), messages[at].header.sequence, count)).collect();
        (index, Err(Error { rows, ..error }))
    }
}
