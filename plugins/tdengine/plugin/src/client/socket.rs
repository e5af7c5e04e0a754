//! One WebSocket connection: two tasks behind a handle, replies matched to requests by their id.
//!
//! Guarantees: at most [`SocketLimits::in_flight`] requests wait at once; a request that gets no reply in time closes the
//! connection, because a late reply could be taken for another's; once closed, every call fails with the reason. A connection that is
//! given up sends nothing more: what a way that was closed kept would arrive behind what the next connection wrote.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use parking_lot::Mutex;
use pipeline_sdk::tls;
use tdengine_wire::envelope::{Action, BinaryRequest, Reply, request_text};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use super::error::{ClientError, Result};
use crate::dsn::{Dsn, Transport};
use crate::network::ByteStream;

/// Ids of requests start beyond any result id, which the old `fetch_block` reply is matched by (PROTOCOL 2.2).
const FIRST_REQUEST_ID: u64 = 1 << 40;
/// A request from this size on is named where the connection ends under it.
const LARGE_BYTES: usize = 64 << 10;
/// What is read at once: a large message comes in as many pieces. A thousand tasks have some thousands of connections, each with such a
/// buffer; one that brings rows all the time has the large one.
const READ_BUFFER_BYTES: usize = 4 << 10;
const READ_BUFFER_BYTES_OF_ROWS: usize = 16 << 10;
/// How long a server that is told goodbye may take to say so, too.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// First word of the newer binary replies (PROTOCOL 3.1).
const NEW_STYLE: [u8; 8] = [0xff; 8];

/// Limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    pub connect_timeout: Duration,
    /// Until a reply to a request comes.
    pub request_timeout: Duration,
    /// Requests that wait for a reply at once.
    pub in_flight: usize,
    /// Largest message taken.
    pub message_bytes_max: usize,
    /// Between pings where nothing else is sent, well below the server's 60 s (PROTOCOL 1.2).
    pub ping_interval: Duration,
    /// What is read at once.
    pub read_buffer_bytes: usize,
}

impl Default for SocketLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            in_flight: 8,
            message_bytes_max: 256 << 20,
            ping_interval: Duration::from_secs(40),
            read_buffer_bytes: READ_BUFFER_BYTES,
        }
    }
}

impl SocketLimits {
    /// Of a connection that brings rows all the time.
    pub fn of_rows(self) -> Self {
        Self { read_buffer_bytes: READ_BUFFER_BYTES_OF_ROWS, ..self }
    }
}

/// Where statements and raw writes go.
pub const STATEMENTS_PATH: &str = "/ws";

/// A reply as it came.
#[derive(Clone, Debug)]
pub enum RawReply {
    Text(Utf8Bytes),
    Binary(Bytes),
}

type Stream = WebSocketStream<MaybeTlsStream<Box<dyn ByteStream>>>;

/// The handle. Dropping it closes the connection.
#[derive(Debug)]
pub struct Socket {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Message>,
    slots: Semaphore,
    limits: SocketLimits,
    place: String,
    /// A request under way may be a write: one that nobody waits for any more is given up with the connection.
    may_write: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.may_write && !self.shared.waiting.lock().replies.is_empty() {
            self.shared.close("the connection was given up here");
        }
    }
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    next_id: AtomicU64,
    /// Ends both tasks, and the connection with them.
    given_up: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    replies: HashMap<u64, oneshot::Sender<RawReply>>,
    /// Why the connection ended.
    closed: Option<End>,
}

/// Why a connection ended.
#[derive(Clone, Debug)]
enum End {
    Lost(String),
    /// A message came that is larger than [`SocketLimits::message_bytes_max`].
    TooLarge { bytes: usize, limit: usize },
}

impl End {
    fn of(error: &tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                Self::TooLarge { bytes: *size, limit: *max_size }
            }
            other => Self::Lost(without_url(other)),
        }
    }

    fn error(self, place: &str, action: &str) -> ClientError {
        match self {
            Self::Lost(why) => ClientError::closed(place, action, why),
            Self::TooLarge { bytes, limit } => {
                ClientError::TooLarge { place: place.into(), action: action.into(), bytes, limit }
            }
        }
    }
}

impl Shared {
    fn close(&self, why: impl Into<String>) {
        self.end(End::Lost(why.into()));
    }

    fn end(&self, end: End) {
        let mut waiting = self.waiting.lock();
        waiting.closed.get_or_insert(end);
        // Dropping the senders wakes whoever waits.
        waiting.replies.clear();
        self.given_up.cancel();
    }
}

impl Socket {
    /// Opens `path` at the site.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when no connection comes about in time.
    pub async fn open(dsn: &Dsn, path: &str, limits: SocketLimits) -> Result<Self> {
        let place = format!("{dsn}{path}");
        let config = WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer_bytes)
            .write_buffer_size(0)
            .max_message_size(Some(limits.message_bytes_max))
            .max_frame_size(Some(limits.message_bytes_max));
        let url = dsn.web_socket_url(path);
        let connector = match dsn.transport {
            Transport::WebSocket { tls: true } => Connector::Rustls(tls::client(dsn.ca_file()).map_err(ClientError::Tls)?),
            _ => Connector::Plain,
        };
        let opening = async {
            let stream = dsn.network().connect(&dsn.host, dsn.port).await?;
            tokio_tungstenite::client_async_tls_with_config(url, stream, Some(config), Some(connector)).await
        };
        let (stream, _) = tokio::time::timeout(limits.connect_timeout, opening)
            .await
            .map_err(|_| ClientError::unreachable(&place, format!("no answer within {:?}", limits.connect_timeout)))?
            .map_err(|error| not_opened(&place, &error))?;
        let (next_id, given_up) = (AtomicU64::new(FIRST_REQUEST_ID), CancellationToken::new());
        let shared = Arc::new(Shared { waiting: Mutex::default(), next_id, given_up: given_up.clone() });
        let (sink, stream) = stream.split();
        let (outgoing, requests) = mpsc::channel(limits.in_flight + 1);
        tokio::spawn(until_given_up(given_up.clone(), write_requests(sink, requests, limits.ping_interval, shared.clone())));
        tokio::spawn(until_given_up(given_up, read_replies(stream, shared.clone())));
        let (slots, may_write) = (Semaphore::new(limits.in_flight), path == STATEMENTS_PATH);
        Ok(Self { shared, outgoing, slots, limits, place, may_write })
    }

    /// `ws://host:port/path`.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn next_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends an action and reads its JSON reply; a code other than 0 is an error.
    pub async fn call<A: Action>(&self, args: &A) -> Result<A::Reply> {
        self.call_within(args, self.limits.request_timeout).await
    }

    /// As [`Socket::call`] with another time-out.
    pub async fn call_within<A: Action>(&self, args: &A, timeout: Duration) -> Result<A::Reply> {
        let id = self.next_id();
        let reply = self.exchange(id, Message::text(request_text(id, args)?), A::NAME, timeout).await?;
        read_json(A::NAME, &reply)
    }

    /// Sends an action that is answered in binary under `id` (JSON on error).
    pub async fn call_binary<A: Action>(&self, id: u64, args: &A) -> Result<Bytes> {
        let request = Message::text(request_text(id, args)?);
        match self.exchange(id, request, A::NAME, self.limits.request_timeout).await? {
            RawReply::Binary(bytes) => Ok(bytes),
            RawReply::Text(text) => {
                let reply = Reply::parse(&text)?;
                Err(ClientError::server(A::NAME, reply.code, &reply.message))
            }
        }
    }

    /// Sends an action that has no reply.
    pub async fn tell<A: Action>(&self, args: &A) -> Result<()> {
        let text = request_text(self.next_id(), args)?;
        self.outgoing.send(Message::text(text)).await.map_err(|_| self.closed(A::NAME))
    }

    /// Sends a binary request (PROTOCOL 3) and returns its reply, JSON or binary.
    pub async fn call_raw(&self, id: u64, request: &BinaryRequest<'_>, action: &'static str) -> Result<RawReply> {
        let req_id = self.next_id();
        let bytes = request.encode(req_id, id)?;
        self.exchange(req_id, Message::binary(bytes), action, self.limits.request_timeout).await
    }

    /// Sends a binary request made by the caller, whose first word must be `id`.
    pub async fn call_bytes(&self, id: u64, request: Bytes, action: &'static str) -> Result<RawReply> {
        self.exchange(id, Message::Binary(request), action, self.limits.request_timeout).await
    }

    async fn exchange(&self, id: u64, request: Message, action: &'static str, timeout: Duration) -> Result<RawReply> {
        let bytes = request.len();
        let slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if let Some(end) = &waiting.closed {
                return Err(end.clone().error(&self.place, action));
            }
            waiting.replies.insert(id, sender);
        }
        if self.outgoing.send(request).await.is_err() {
            return Err(self.closed_under(action, bytes));
        }
        let reply = match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(self.closed_under(action, bytes)),
            Err(_) => {
                self.shared.close(format!("{action} got no reply within {timeout:?}"));
                Err(ClientError::timed_out(&self.place, action, timeout))
            }
        };
        drop(slot);
        reply
    }

    /// # Errors
    /// Why the connection ended, where it did.
    pub fn check(&self) -> Result<()> {
        match &self.shared.waiting.lock().closed {
            Some(end) => Err(end.clone().error(&self.place, "check")),
            None => Ok(()),
        }
    }

    /// Why the connection ended under a request. A server that takes no message that large says nothing and goes.
    fn closed_under(&self, action: &'static str, bytes: usize) -> ClientError {
        match self.closed(action) {
            ClientError::Closed { place, action, why } if bytes >= LARGE_BYTES => {
                let why = format!("{why} while {bytes} bytes were sent to it: does it take messages that large?");
                ClientError::Closed { place, action, why }
            }
            other => other,
        }
    }

    fn closed(&self, action: &'static str) -> ClientError {
        let end = self.shared.waiting.lock().closed.clone();
        end.unwrap_or_else(|| End::Lost("the connection ended".into())).error(&self.place, action)
    }
}

/// Reads a JSON reply; a code other than 0 is an error.
pub fn read_json<T: serde::de::DeserializeOwned>(action: &'static str, reply: &RawReply) -> Result<T> {
    let RawReply::Text(text) = reply else {
        return Err(ClientError::unexpected(action, "a binary reply where JSON was due"));
    };
    let reply = Reply::parse(text)?;
    if reply.code != 0 {
        return Err(ClientError::server(action, reply.code, &reply.message));
    }
    Ok(reply.body()?)
}

async fn until_given_up(given_up: CancellationToken, part: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = given_up.cancelled() => {}
        () = part => {}
    }
}

async fn write_requests(
    mut sink: SplitSink<Stream, Message>,
    mut requests: mpsc::Receiver<Message>,
    ping_interval: Duration,
    shared: Arc<Shared>,
) {
    let mut pings = tokio::time::interval(ping_interval);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pings.tick().await;
    loop {
        let message = tokio::select! {
            biased;
            request = requests.recv() => match request {
                Some(request) => {
                    pings.reset();
                    request
                }
                None => break,
            },
            _ = pings.tick() => Message::Ping(Bytes::from_static(b"pipeline")),
        };
        if let Err(error) = sink.send(message).await {
            shared.end(End::of(&error));
            return;
        }
    }
    // The handle is gone. A polite end lets the server give up a consumer's lanes at once (FACTS F42); the reader ends with its answer.
    let goodbye = async {
        let _ = sink.close().await;
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    shared.close("the connection was closed here");
}

async fn read_replies(mut stream: SplitStream<Stream>, shared: Arc<Shared>) {
    let end = loop {
        match stream.next().await {
            Some(Ok(Message::Text(text))) => deliver(&shared, id_of_text(&text), RawReply::Text(text)),
            Some(Ok(Message::Binary(bytes))) => deliver(&shared, id_of_binary(&bytes), RawReply::Binary(bytes)),
            Some(Ok(Message::Close(_))) | None => break End::Lost("the server closed the connection".into()),
            // Pings are answered by tungstenite at the next read.
            Some(Ok(_)) => {}
            Some(Err(error)) => break End::of(&error),
        }
    };
    shared.end(end);
}

fn deliver(shared: &Shared, id: Option<u64>, reply: RawReply) {
    let Some(waiting) = id.and_then(|id| shared.waiting.lock().replies.remove(&id)) else {
        tracing::debug!(?id, "a reply that nobody waits for");
        return;
    };
    // The caller may have given up meanwhile.
    let _ = waiting.send(reply);
}

fn id_of_text(text: &str) -> Option<u64> {
    Reply::parse(text).ok().map(|reply| reply.req_id)
}

/// New style: the word at 26. Old style: the word at 8, a request's id on `/rest/tmq`, a result's on `/ws`
/// (PROTOCOL 2.2, 3.1, 6.5).
fn id_of_binary(bytes: &[u8]) -> Option<u64> {
    let at = if bytes.starts_with(&NEW_STYLE) { 26 } else { 8 };
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn not_opened(place: &str, error: &tungstenite::Error) -> ClientError {
    let (place, why) = (place.to_owned(), without_url(error));
    match error {
        tungstenite::Error::Io(error) => match (tls_error(error), error.kind()) {
            (Some(tls::rustls::Error::InvalidCertificate(_)), _) => ClientError::Untrusted { place, why },
            // Without TLS; a native port ends the connection at the first bytes.
            (Some(tls::rustls::Error::InvalidMessage(_)), _) | (None, ErrorKind::ConnectionReset) => ClientError::NoWebSocket { place, why },
            _ => ClientError::Unreachable { place, why },
        },
        tungstenite::Error::Protocol(_) => ClientError::NoWebSocket { place, why },
        _ => ClientError::Unreachable { place, why },
    }
}

fn tls_error(error: &std::io::Error) -> Option<&tls::rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Errors of tungstenite name the URL in some cases, and a URL may hold a token.
fn without_url(error: &tungstenite::Error) -> String {
    use tungstenite::Error as E;
    match error {
        E::Url(_) => "the address cannot be used".into(),
        E::Http(response) => format!("HTTP status {}", response.status().as_u16()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tdengine_wire::envelope::Unsubscribe;

    use super::*;

    #[test]
    fn replies_are_matched_where_their_form_keeps_the_id() {
        let mut new_style = vec![0xff; 8];
        new_style.extend([0; 18]);
        new_style.extend(77u64.to_le_bytes());
        let mut old = vec![0; 8];
        old.extend(78u64.to_le_bytes());
        assert_eq!(id_of_binary(&new_style), Some(77));
        assert_eq!(id_of_binary(&old), Some(78));
        assert_eq!(id_of_binary(&[0; 15]), None);
        assert_eq!(id_of_text(r#"{"code":0,"req_id":18250284034228092929}"#), Some(18_250_284_034_228_092_929));
    }

    /// How the connection of a client to a server that answers nothing ends for that server.
    async fn end_of(path: &str, client: impl AsyncFnOnce(Socket)) -> Option<std::result::Result<Message, tungstenite::Error>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dsn = Dsn::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
        let limits = SocketLimits { request_timeout: Duration::from_millis(100), ..SocketLimits::default() };
        let (socket, accepted) = tokio::join!(Socket::open(&dsn, path, limits), async {
            tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await
        });
        let mut server = accepted.unwrap();
        client(socket.unwrap()).await;
        assert!(server.next().await.unwrap().unwrap().is_text(), "the request");
        tokio::time::timeout(Duration::from_secs(10), server.next()).await.expect("it ends")
    }

    #[tokio::test]
    async fn who_gives_a_write_up_gives_the_connection_up() {
        let too_late = async |socket: Socket| {
            assert!(matches!(socket.call(&Unsubscribe {}).await, Err(ClientError::TimedOut { .. })));
            // The handle is kept: the connection ends all the same.
            std::mem::forget(socket);
        };
        let not_awaited = async |socket: Socket| {
            let awaited = tokio::time::timeout(Duration::from_millis(10), socket.call_within(&Unsubscribe {}, Duration::from_secs(60)));
            assert!(awaited.await.is_err());
        };
        for end in [end_of(STATEMENTS_PATH, too_late).await, end_of("/rest/tmq", too_late).await, end_of(STATEMENTS_PATH, not_awaited).await] {
            assert!(matches!(&end, Some(Err(tungstenite::Error::Io(error))) if error.kind() == ErrorKind::ConnectionReset), "{end:?}");
        }
        // A consumer that leaves while a poll is under way says so.
        let end = end_of("/rest/tmq", not_awaited).await;
        assert!(matches!(end, Some(Ok(Message::Close(_)))), "{end:?}");
    }
}
