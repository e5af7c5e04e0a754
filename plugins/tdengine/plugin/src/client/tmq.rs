//! A consumer on `/rest/tmq`: one WebSocket is one consumer.
//!
//! Guarantees: `commit` is never sent (it commits what was only handed out, PROTOCOL T5); one poll is in flight at a
//! time (FACTS F41); a poll that got no reply closes the connection, because its message is lost to this socket, and the
//! caller subscribes again at its checkpoint. Messages are polled and fetched ahead, while earlier ones are being
//! written: see [`Consumer::start_poll`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tdengine_wire::envelope::{
    AssignedVgroup, Assignment, CommitOffset, Committed, FetchJsonMeta, FetchRaw, Poll, PollReply, Position,
    RawReply as WireRawReply, Scalar, Seek, Subscribe, TopicVgroup, Unsubscribe, message_type,
};
use tdengine_wire::meta::kind;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::{ClientError, Result};
use super::socket::{Socket, SocketLimits};
use crate::dsn::Dsn;
use crate::log::data::DataMessage;
use crate::log::{RAW_DATA, RAW_METADATA};

/// Offset of `u32 length, u16 type, body` in a reply to `fetch_raw`: what action 3 takes back (PROTOCOL 6.5).
const RAW_OFFSET: usize = 32;

/// A key of the C client's configuration: servers of 3.3.6 and newer know it. Adapter 3.3.2.3 ignores it, libtaos before refuses it.
pub const MIN_POLL_ROWS: &str = "min.poll.rows";

/// What to subscribe to.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub topic: String,
    pub group: String,
    pub client: String,
    /// Leave out what was written marked. A server may ignore this: prove it (FACTS F4, F5).
    pub exclude_marked: bool,
    /// Where a group without a committed offset begins: the oldest entry kept, or new ones only.
    pub from_oldest: bool,
    /// Messages that are fetched before they are asked for, at most; at least 1. libtaos fetches one.
    pub prefetch: usize,
    /// Rows that the server gathers into a message where its log has them; [`MIN_POLL_ROWS`] says which one can be told.
    pub rows_min: Option<u32>,
}

/// A message of the log.
#[derive(Clone, Debug)]
pub struct Message {
    pub vgroup: i32,
    /// One of [`message_type`].
    pub kind: i32,
    /// The number in the raw message: 2 or 4 for rows, else a kind of change.
    pub raw_type: u16,
    /// `u32 length, u16 type, body`, as a raw write takes it back.
    pub raw: Bytes,
    /// What the server renders a change of super tables, or a delete, as.
    pub json: Option<Box<str>>,
    /// `poll.offset`: the start of rows, the next offset of a change (FACTS F36).
    pub offset: i64,
}

impl Message {
    /// Where the lane stood before it; negative where the server does not say.
    pub fn begins(&self) -> i64 {
        if self.has_rows() { self.offset } else { self.offset - 1 }
    }

    /// Where the lane goes on behind it.
    ///
    /// # Errors
    /// As [`DataMessage::parse`].
    pub fn ends(&self) -> tdengine_wire::Result<i64> {
        if !self.has_rows() {
            return Ok(self.offset);
        }
        Ok(DataMessage::parse(self.raw_type, self.body())?.ends(self.offset))
    }

    /// Whether it holds rows, and not a change alone.
    pub fn has_rows(&self) -> bool {
        matches!(self.raw_type, RAW_DATA | RAW_METADATA)
    }

    /// The body behind length and type.
    pub fn body(&self) -> &[u8] {
        &self.raw[6..]
    }
}

/// A consumer of one topic.
#[derive(Debug)]
pub struct Consumer {
    socket: Arc<Socket>,
    topic: String,
    prefetch: usize,
    /// The id of the last message, which the next poll names.
    last_message: Arc<AtomicU64>,
    ahead: Option<Ahead>,
}

/// Polls under way, and the messages that they brought.
#[derive(Debug)]
struct Ahead {
    /// Ends with an error, when nothing came for as long as was wanted, or when told to stop.
    messages: mpsc::Receiver<Result<Option<Message>>>,
    orders: Arc<Orders>,
}

impl Ahead {
    /// Whether no poll is under way, and all that came was taken.
    fn is_over(&self) -> bool {
        self.messages.is_closed() && self.messages.is_empty()
    }
}

/// What the task that polls is told while it does.
#[derive(Debug)]
struct Orders {
    stop: AtomicBool,
    /// How long nothing may come, milliseconds.
    wait_ms: AtomicU64,
}

impl Consumer {
    /// Opens a connection and subscribes.
    ///
    /// # Errors
    /// Unexpected for names that would hang a server; the server's code otherwise (0x03E1 no such topic, 0xFFFF wrong
    /// password, FACTS F45).
    pub async fn subscribe(dsn: &Dsn, subscription: &Subscription, limits: SocketLimits) -> Result<Self> {
        check_name("topic", &subscription.topic)?;
        check_name("group", &subscription.group)?;
        check_name("client", &subscription.client)?;
        let socket = Socket::open(dsn, "/rest/tmq", limits).await?;
        let text = |value: &str| Some(Scalar::from(value));
        let request = Subscribe {
            user: dsn.user.clone(),
            password: dsn.password().into(),
            group_id: subscription.group.clone(),
            client_id: text(&subscription.client),
            offset_rest: text(if subscription.from_oldest { "earliest" } else { "latest" }),
            topics: vec![subscription.topic.clone()],
            auto_commit: text("false"),
            snapshot_enable: text("false"),
            with_table_name: text("true"),
            // Only the string "1" switches exclusion on (FACTS F4).
            msg_consume_excluded: subscription.exclude_marked.then(|| Scalar::from("1")),
            config: subscription.rows_min.map(|rows| [(MIN_POLL_ROWS.to_owned(), Scalar::Text(rows.to_string()))].into()),
            ..Subscribe::default()
        };
        socket.call(&request).await.map_err(|error| error.at(&format!("subscribe to {}", subscription.topic)))?;
        Ok(Self {
            socket: Arc::new(socket),
            topic: subscription.topic.clone(),
            prefetch: subscription.prefetch.max(1),
            last_message: Arc::default(),
            ahead: None,
        })
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Begins to poll unless that is under way, and fetches what is found, up to the limit of messages ahead. Polling goes on
    /// until nothing came for `wait`.
    pub fn start_poll(&mut self, wait: Duration) {
        let wait_ms = wait.as_millis() as u64;
        if let Some(ahead) = self.ahead.as_ref().filter(|ahead| !ahead.is_over()) {
            ahead.orders.wait_ms.store(wait_ms, Ordering::Relaxed);
            return;
        }
        let (sender, messages) = mpsc::channel(self.prefetch);
        let orders = Arc::new(Orders { stop: AtomicBool::new(false), wait_ms: AtomicU64::new(wait_ms) });
        tokio::spawn(fetch_ahead(self.socket.clone(), self.last_message.clone(), sender, orders.clone()));
        self.ahead = Some(Ahead { messages, orders });
    }

    /// Whether a poll under way is done: [`Consumer::poll`] returns at once.
    pub fn has_reply(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| !ahead.messages.is_empty())
    }

    /// The next message; polls for `wait` unless a poll is under way. Loses nothing where it is dropped before it is done.
    ///
    /// # Errors
    /// After an error the consumer is of no use: subscribe again at the checkpoint (FACTS F41).
    pub async fn poll(&mut self, wait: Duration) -> Result<Option<Message>> {
        loop {
            self.start_poll(wait);
            let ahead = self.ahead.as_mut().expect("it was just begun");
            let polled = ahead.messages.recv().await;
            if let Some(Ok(Some(message))) = polled {
                return Ok(Some(message));
            }
            self.ahead = None;
            if let Some(last) = polled {
                return last;
            }
        }
    }

    /// Begins no further poll until [`Consumer::start_poll`] or [`Consumer::poll`] finds it paused. Waits for nothing.
    pub fn pause(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.orders.stop.store(true, Ordering::Release);
        }
    }

    /// Whether no poll is under way and no message waits: the server stands behind the last message that was taken.
    pub fn is_paused(&self) -> bool {
        self.ahead.as_ref().is_none_or(Ahead::is_over)
    }

    /// Polls no more, and takes what was fetched ahead: then the server stands behind the last message that was taken.
    ///
    /// # Errors
    /// As [`Consumer::poll`].
    pub async fn settle(&mut self) -> Result<Vec<Message>> {
        self.pause();
        let mut taken = Vec::new();
        if let Some(mut ahead) = self.ahead.take() {
            while let Some(polled) = ahead.messages.recv().await {
                taken.extend(polled?);
            }
        }
        Ok(taken)
    }

    /// First kept and next written version of every vgroup of this consumer; empty while lanes are being moved.
    pub async fn assignment(&self) -> Result<Vec<AssignedVgroup>> {
        Ok(self.socket.call(&Assignment { topic: self.topic.clone() }).await?.assignment)
    }

    /// The next offset to be read of each vgroup, hidden entries skipped (FACTS F37, F38).
    pub async fn position(&self, vgroups: &[i32]) -> Result<Vec<i64>> {
        let reply = self.socket.call(&Position { topic_vgroup_ids: self.vgroups(vgroups) }).await?;
        self.same_count("position", vgroups, reply.position)
    }

    /// The committed offset of each vgroup, or [`tdengine_wire::envelope::NEVER_COMMITTED`].
    pub async fn committed(&self, vgroups: &[i32]) -> Result<Vec<i64>> {
        let reply = self.socket.call(&Committed { topic_vgroup_ids: self.vgroups(vgroups) }).await?;
        self.same_count("committed", vgroups, reply.committed)
    }

    /// Stores `offset` as the next to be read by this group.
    pub async fn commit_offset(&self, vgroup: i32, offset: i64) -> Result<()> {
        let commit = CommitOffset { topic: self.topic.clone(), vgroup_id: vgroup, offset };
        match self.socket.call(&commit).await {
            // The same value again (PROTOCOL 6.4).
            Err(ClientError::Server { code: 0x4012, .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Reads on at `offset`.
    pub async fn seek(&self, vgroup: i32, offset: i64) -> Result<()> {
        let seek = Seek { topic: self.topic.clone(), vgroup_id: vgroup, offset };
        self.socket.call(&seek).await.map(|_| ())
    }

    /// Leaves the group; takes a real server 3 to 4 seconds (FACTS F44).
    pub async fn unsubscribe(&self) -> Result<()> {
        self.socket.call(&Unsubscribe {}).await.map(|_| ())
    }

    fn vgroups(&self, vgroups: &[i32]) -> Vec<TopicVgroup> {
        vgroups.iter().map(|vgroup_id| TopicVgroup { topic: self.topic.clone(), vgroup_id: *vgroup_id }).collect()
    }

    fn same_count(&self, action: &str, asked: &[i32], answered: Vec<i64>) -> Result<Vec<i64>> {
        if asked.len() == answered.len() {
            return Ok(answered);
        }
        Err(ClientError::unexpected(action, format!("{} answers to {} vgroups", answered.len(), asked.len())))
    }
}

/// Longest blocking time that a server is asked for. A poll returns when a message comes or after its time, by about min(time, 1 s)
/// (FACTS F43). While it lasts an adapter (3.3.2.3) does nothing else for its consumer: a commit waits for it, and the lanes of one that
/// was closed or lost are only then given to the next; libtaos is no different. A third of the longest wait of the source.
pub const BLOCKING_TIME_MAX: Duration = Duration::from_millis(5_334);

/// Polls and fetches until nothing comes for as long as is wanted, or a poll fails, while there is room.
async fn fetch_ahead(
    socket: Arc<Socket>,
    last_message: Arc<AtomicU64>,
    messages: mpsc::Sender<Result<Option<Message>>>,
    orders: Arc<Orders>,
) {
    while let Ok(room) = messages.reserve().await {
        if orders.stop.load(Ordering::Acquire) {
            return;
        }
        let begun = Instant::now();
        let left = || Duration::from_millis(orders.wait_ms.load(Ordering::Relaxed)).saturating_sub(begun.elapsed());
        let polled = loop {
            let polled = poll_once(&socket, &last_message, left().min(BLOCKING_TIME_MAX)).await;
            let is_over = left().is_zero() || orders.stop.load(Ordering::Acquire) || messages.is_closed();
            if is_over || !matches!(polled, Ok(None)) {
                break polled;
            }
        };
        let is_last = !matches!(polled, Ok(Some(_)));
        room.send(polled);
        if is_last {
            return;
        }
    }
}

async fn poll_once(socket: &Socket, last_message: &AtomicU64, wait: Duration) -> Result<Option<Message>> {
    let message_id = last_message.load(Ordering::Relaxed);
    let poll = Poll { blocking_time: wait.as_millis() as i64, message_id: Some(message_id) };
    let reply = socket.call_within(&poll, wait + POLL_MARGIN).await?;
    if !reply.have_message {
        return Ok(None);
    }
    last_message.store(reply.message_id, Ordering::Relaxed);
    fetch(socket, &reply).await.map(Some)
}

/// Fetches the message that a poll found.
async fn fetch(socket: &Socket, reply: &PollReply) -> Result<Message> {
    let message_id = reply.message_id;
    let id = socket.next_id();
    let fetch_raw = FetchRaw { message_id };
    let raw = socket.call_binary(id, &fetch_raw).await?;
    let head = WireRawReply::decode(&raw)?;
    let is_told = reply.message_type == message_type::META && is_told_in_json(head.raw_type);
    let json = if is_told { socket.call(&FetchJsonMeta { message_id }).await?.data } else { None };
    Ok(Message {
        vgroup: reply.vgroup_id,
        kind: reply.message_type,
        raw_type: head.raw_type,
        raw: raw.slice(RAW_OFFSET..RAW_OFFSET + 6 + head.data.len()),
        json: json.map(|data| data.get().into()),
        offset: reply.offset,
    })
}

/// Whether a change is fetched as JSON, too. Those of tables are not: their tags may hold bytes that are no UTF-8, as clients over libtaos
/// write them, and a text frame with such bytes ends the connection, each time again.
fn is_told_in_json(raw_type: u16) -> bool {
    !matches!(raw_type, kind::CREATE_TABLE | kind::ALTER_TABLE | kind::DROP_TABLE)
}

/// How much longer than its blocking time a poll may take before its socket counts as lost.
const POLL_MARGIN: Duration = Duration::from_secs(20);

/// Names that a server accepts and then hangs on, some for good (FACTS F45).
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let fits = (1..=192).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
        return Ok(());
    }
    let why = format!("{name:?} is no {what} name: 1 to 192 of a–z, A–Z, 0–9, `_`, `-`, `.`");
    Err(ClientError::unexpected("subscribe", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FACTS F45: with a colon a group hangs a server for good.
    #[test]
    fn names_that_hang_a_server_are_refused_before_they_are_sent() {
        for name in ["g", "pipeline-a.b_2", "x".repeat(192).as_str()] {
            check_name("group", name).unwrap();
        }
        for name in ["", "a:b", "a b", "涛", "x".repeat(193).as_str()] {
            let error = check_name("group", name).unwrap_err().to_string();
            assert!(error.contains("group name"), "{error}");
        }
    }
}
