//! The durable consumer: made, or set back to where the pipeline is, so that what comes is in order.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Config, MessagesErrorKind, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, PullConsumer};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, ContextBuilder, GetStreamErrorKind};
use async_nats::jetstream::stream::{ConsumerErrorKind, RetentionPolicy, Stream};
use async_nats::{Client, jetstream};
use pipeline_sdk::{Error, Result, SOURCE_HOLE, SOURCE_REPLACED};

use super::config::{NatsSourceConfig, OnHole, Start};
use crate::server::lost;

/// What one pull takes at most; the server is asked for more before it is used up.
const PULL_MESSAGES: usize = 8_192;
/// How often the server says that it is there while nothing comes.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After so long without anything the client asks again.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// A stream with its consumer.
pub(super) struct Reading {
    pub client: Client,
    pub stream: Stream,
    pub consumer: PullConsumer,
    pub messages: Messages,
    /// Who the stream is: its name and when it was made.
    pub identity: String,
    /// Behind which sequence it begins.
    pub behind: u64,
    /// Sequences that the stream does not hold any more: the last one of the hole.
    pub hole: Option<u64>,
}

impl Reading {
    /// Begins behind sequence `stored`, or where there is none where the consumer is, or where a new one begins.
    ///
    /// # Errors
    /// Disconnected; fatal where there is no such stream, it is another one, or it no longer holds what comes next.
    pub async fn open(config: &NatsSourceConfig, name: &str, stored: Option<u64>) -> Result<Self> {
        let client = config.server().connect(name).await?;
        let context = ContextBuilder::new().timeout(config.timeout).build(client.clone());
        let stream = find(&context, &config.stream).await?;
        let known = match stream.consumer_info(name).await {
            Ok(info) => Some(info),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
            Err(error) => return Err(lost(error)),
        };
        let info = stream.cached_info().clone();
        let begin = stored.or(known.as_ref().map(|it| it.ack_floor.stream_sequence));
        let hole = check_position(config, &info, stored)?;
        let behind = begin.unwrap_or(0).max(hole.unwrap_or(0));
        let wanted = wanted(config, name, begin.map(|_| behind));
        let is_there = |known: &Info| known.num_ack_pending == 0 && known.delivered.stream_sequence <= behind && known.ack_floor.stream_sequence <= behind;
        let consumer = match known {
            // What it has not sent yet is what comes next.
            Some(known) if is_there(&known) && is_alike(&known, &wanted) => stream.get_consumer(name).await.map_err(lost)?,
            Some(_) => {
                stream.delete_consumer(name).await.map_err(lost)?;
                made(&stream, wanted).await?
            }
            None => made(&stream, wanted).await?,
        };
        let pull = consumer.stream().max_messages_per_batch(PULL_MESSAGES.min(config.inflight_max as usize));
        let pull = pull.heartbeat(HEARTBEAT).expires(PULL_EXPIRES);
        let messages = match usize::try_from(config.waiting_bytes_max).unwrap_or(usize::MAX) {
            0 => pull.messages().await,
            bytes => pull.max_bytes_per_batch(bytes).messages().await,
        };
        let identity = format!("{}@{}", config.stream, info.created.unix_timestamp_nanos());
        Ok(Self { client, stream, consumer, messages: messages.map_err(lost)?, identity, behind, hole })
    }
}

async fn find(context: &jetstream::Context, name: &str) -> Result<Stream> {
    context.get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(_) => {
            let error = Error::fatal(format!("stream `{name}`: {error}")).code("nats.stream").path("stream");
            error.hint("make it first: `nats stream add`; JetStream must be enabled")
        }
        _ => lost(error),
    })
}

/// The last sequence of a hole, where there is one and the file says to go on.
fn check_position(config: &NatsSourceConfig, info: &jetstream::stream::Info, stored: Option<u64>) -> Result<Option<u64>> {
    let Some(stored) = stored else { return Ok(None) };
    let state = &info.state;
    if stored > state.last_sequence {
        let text = format!("the stream `{}` ends at {}, positions are stored up to {stored}", config.stream, state.last_sequence);
        return Err(Error::fatal(text).code(SOURCE_REPLACED));
    }
    // Where acknowledged messages are removed, that the first ones are gone is as it should be.
    if info.config.retention != RetentionPolicy::Limits || state.first_sequence <= stored + 1 {
        return Ok(None);
    }
    let end = state.first_sequence - 1;
    match config.on_hole {
        OnHole::Continue => Ok(Some(end)),
        OnHole::Stop => {
            let text = format!("the stream `{}` begins at {}: {} to {end} were removed before they were read", config.stream, end + 1, stored + 1);
            // A rejection: the task stops by policy, and shows as a hole.
            Err(Error::rejected(text).code(SOURCE_HOLE).hint("`on-hole = \"continue\"` goes on behind it; give the stream wider limits"))
        }
    }
}

fn wanted(config: &NatsSourceConfig, name: &str, behind: Option<u64>) -> Config {
    let deliver_policy = match (behind, config.start) {
        (Some(behind), _) => DeliverPolicy::ByStartSequence { start_sequence: behind + 1 },
        (None, Start::Oldest) => DeliverPolicy::All,
        (None, Start::Now) => DeliverPolicy::New,
    };
    let filters: Vec<String> = config.beside().map(|it| it.patterns.filters().map(str::to_owned).collect()).unwrap_or_default();
    let (filter_subject, filter_subjects) = match <[String; 1]>::try_from(filters) {
        Ok([one]) => (one, Vec::new()),
        Err(many) => (String::new(), many),
    };
    Config {
        durable_name: Some(name.to_owned()),
        deliver_policy,
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait,
        max_ack_pending: i64::from(config.inflight_max),
        filter_subject,
        filter_subjects,
        inactive_threshold: if config.consumer.is_none() { config.consumer_expiry } else { Duration::ZERO },
        ..Config::default()
    }
}

/// Whether a consumer is as the file says, but for where it began.
fn is_alike(known: &Info, wanted: &Config) -> bool {
    let it = &known.config;
    (&it.filter_subject, &it.filter_subjects, it.max_ack_pending, it.ack_wait, it.ack_policy)
        == (&wanted.filter_subject, &wanted.filter_subjects, wanted.max_ack_pending, wanted.ack_wait, wanted.ack_policy)
}

async fn made(stream: &Stream, wanted: Config) -> Result<PullConsumer> {
    stream.create_consumer(wanted).await.map_err(|error| match error.kind() {
        ConsumerErrorKind::TimedOut => lost(error),
        _ => Error::fatal(format!("the consumer cannot be made: {error}")).code("nats.consumer").hint("see whether `subjects` are in the stream"),
    })
}

/// What an error amid reading calls for.
pub(super) fn from_messages(kind: MessagesErrorKind, error: impl std::fmt::Display) -> Error {
    match kind {
        MessagesErrorKind::PushBasedConsumer | MessagesErrorKind::RequestLimitExceeded => {
            Error::fatal(format!("the consumer cannot be read: {error}")).code("nats.consumer")
        }
        _ => lost(error),
    }
}
