//! The sink: a message for each row. What the stream has acknowledged is written; a flush waits for the rest.
//!
//! `Nats-Msg-Id` is made of a name for the state and the row's place at the source, so that within the stream's window a repetition is
//! known as one. Only a source with numbers has such places: what comes again from another one may come under another's position.

mod config;
mod subject;

use std::collections::VecDeque;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture, PublishErrorKind};
use async_nats::{Client, HeaderMap, jetstream};
use bytes::Bytes;
use pipeline_formats::{delimiter, encode_lines};
use pipeline_sdk::{Connected, Context, Error, Message, Payload, Position, Result, Sink, async_trait};
use xxhash_rust::xxh3::xxh3_64;

pub use config::NatsSinkConfig;

use crate::server::lost;
use subject::Template;

/// The key under which the state knows its name: positions mean something together with it alone.
const STATE_KEY: &str = "name";
/// What headers take of a message's size, about.
const HEADERS_BYTES: usize = 512;

pub(crate) struct Nats {
    config: NatsSinkConfig,
    context: Context,
    template: Template,
    /// Of this sink's state.
    name: String,
    connection: Option<(Client, jetstream::Context)>,
    /// Sent and not acknowledged.
    waiting: VecDeque<PublishAckFuture>,
    /// Where some rows of a message could not be sent, how many others were: the engine brings those alone next.
    accepted: Option<(Position, usize)>,
}

impl Nats {
    pub fn new(config: NatsSinkConfig, context: Context) -> Result<Self> {
        let template = Template::new(&config.subject)?;
        let name = context.state().name(STATE_KEY, "")?;
        Ok(Self { config, context, template, name, connection: None, waiting: VecDeque::new(), accepted: None })
    }

    /// Waits until no more than `left` are not acknowledged.
    async fn settle(&mut self, left: usize) -> Result<()> {
        while self.waiting.len() > left {
            let Some(ack) = self.waiting.pop_front() else { break };
            let ack = ack.await.map_err(|error| match error.kind() {
                PublishErrorKind::StreamNotFound => no_stream(&self.config.subject),
                _ => lost(error),
            })?;
            if ack.duplicate {
                self.context.count("nats_messages_known", 1);
            }
        }
        Ok(())
    }

    /// Sends rows; the indices of those that cannot be, and why.
    async fn send(&mut self, message: &Message, lines: &[&[u8]], subjects: Vec<Option<String>>) -> Result<Vec<(u64, String)>> {
        let Some((client, context)) = self.connection.clone() else { return Err(lost("not connected")) };
        let limit = client.server_info().max_payload.saturating_sub(HEADERS_BYTES);
        let prefix = message.header.position.number.map(|number| header_text(&format!("{}/{}/{number}", self.name, message.header.lane)));
        let mut refused = Vec::new();
        for (row, (line, subject)) in lines.iter().zip(subjects).enumerate() {
            let Some(subject) = subject else {
                refused.push((row as u64, format!("its columns make no subject `{}`", self.config.subject)));
                continue;
            };
            if line.len() > limit {
                refused.push((row as u64, format!("{} bytes are more than the server takes ({limit})", line.len())));
                continue;
            }
            if self.waiting.len() >= self.config.inflight_max as usize {
                self.settle(self.config.inflight_max as usize / 2).await?;
            }
            let mut headers = HeaderMap::new();
            if let Some(prefix) = &prefix {
                // Counted from the end, which is what the position stands for: a source may begin its batches elsewhere when it reads again.
                let id = format!("{prefix}/{}/{:x}", lines.len() - row, xxh3_64(line));
                headers.insert(NATS_MESSAGE_ID, id.as_str());
            }
            let sent = context.publish_with_headers(subject, headers, Bytes::copy_from_slice(line)).await.map_err(lost)?;
            self.waiting.push_back(sent);
        }
        Ok(refused)
    }
}

fn no_stream(subject: &str) -> Error {
    let error = Error::fatal(format!("no stream takes the subject `{subject}`")).code("nats.stream").path("subject");
    error.hint("make one first: `nats stream add --subjects …`; JetStream must be enabled")
}

/// A header is one line.
fn header_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

#[async_trait]
impl Sink for Nats {
    async fn connect(&mut self) -> Result<Connected> {
        self.waiting.clear();
        (self.connection, self.accepted) = (None, None);
        let client = self.config.server().connect(&self.context.place.pipeline).await?;
        let builder = ContextBuilder::new().timeout(self.config.timeout).ack_timeout(self.config.timeout);
        let context = builder.max_ack_inflight(self.config.inflight_max as usize + 1).build(client.clone());
        self.connection = Some((client, context));
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        let Payload::Rows(rows) = &message.payload else {
            self.context.count("changes_left_out", 1);
            return Ok(());
        };
        let count = rows.batch.num_rows();
        if count == 0 || rows.batch.num_columns() == 0 {
            return Ok(());
        }
        if self.accepted.take() == Some((message.header.position.clone(), count)) {
            return Ok(());
        }
        let lines = encode_lines(&rows.batch, self.config.format, delimiter(self.config.delimiter.as_deref()))?;
        let lines: Vec<&[u8]> = lines.iter().collect();
        let refused = self.send(message, &lines, self.template.subjects(&rows.batch)?).await?;
        let Some((_, why)) = refused.first() else { return Ok(()) };
        self.accepted = Some((message.header.position.clone(), count - refused.len()));
        let mut error = Error::rejected(why.clone()).code("nats.rows");
        error.rows = refused.iter().map(|(row, _)| *row).collect();
        Err(error)
    }

    async fn flush(&mut self) -> Result<()> {
        self.settle(0).await
    }
}
