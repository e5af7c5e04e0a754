//! One connection to a broker: connects, subscribes, receives, acknowledges.
//!
//! A task of its own reads, so that the broker is answered also while nobody takes what came. Messages are handed on as they were
//! read, many at a time; what waits is bounded by what the broker sends before acknowledgements, and by bytes. Acknowledgements are
//! written many at a time, too: a client that sends each by itself spends most of its time on that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use pipeline_formats::Patterns;
use pipeline_sdk::tls::rustls::pki_types::ServerName;
use pipeline_sdk::{Error, Result, tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::config::{Address, MqttSourceConfig};
use crate::packets::{Arrived, Codec, Event};

/// Room for what is read at once. Messages share it, and keep it.
const READ_BYTES: usize = 256 << 10;
/// Less room than this is not read into.
const READ_BYTES_MIN: usize = 8 << 10;

/// Between two looks at the connection: what comes meanwhile is read together.
const GATHER: Duration = Duration::from_millis(5);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Reading = ReadHalf<Box<dyn Stream>>;
type Writing = Arc<Mutex<WriteHalf<Box<dyn Stream>>>>;

/// Bytes that were received and not read yet.
#[derive(Default)]
struct Waiting {
    bytes: AtomicU64,
    read: Notify,
}

pub(crate) struct Connection {
    arrived: mpsc::UnboundedReceiver<Vec<Arrived>>,
    /// Of what arrived, what is read next.
    taken: std::vec::IntoIter<Arrived>,
    waiting: Arc<Waiting>,
    writing: Writing,
    codec: Codec,
    out: BytesMut,
    /// Why the connection ended.
    ended: watch::Receiver<Option<Error>>,
    pump: AbortHandle,
    pub had_session: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Connection {
    /// # Errors
    /// Disconnected: nobody answers. Fatal: the broker refuses the login, the session or a topic.
    pub async fn open(config: &MqttSourceConfig, client_id: &str, topics: &Patterns) -> Result<Self> {
        let opened = tokio::time::timeout(config.connect_timeout, Self::opening(config, client_id, topics)).await;
        opened.map_err(|_| Error::disconnected("the broker does not answer").code("mqtt.timeout"))?
    }

    async fn opening(config: &MqttSourceConfig, client_id: &str, topics: &Patterns) -> Result<Self> {
        let address = config.address()?;
        let (mut reading, mut writing) = tokio::io::split(connect(config, &address).await?);
        let (codec, mut out) = (Codec::new(config), BytesMut::new());
        codec.connect(config, client_id, &address, &mut out)?;
        writing.write_all(&out).await.map_err(|error| failed(&error))?;
        let mut input = Input { codec, read: BytesMut::new() };
        let (mut had_session, mut keep_alive) = (false, config.keep_alive);
        // What the broker held for the session may come before it answers the subscription.
        let mut early = Vec::new();
        let mut is_subscribed = false;
        while !is_subscribed {
            match input.next()? {
                Some(Event::Connected { had_session: had, keep_alive: wanted }) => {
                    had_session = had;
                    keep_alive = wanted.filter(|it| !it.is_zero()).unwrap_or(keep_alive);
                    out.clear();
                    codec.subscribe(topics, &mut out)?;
                    writing.write_all(&out).await.map_err(|error| failed(&error))?;
                }
                Some(Event::Subscribed(None)) => is_subscribed = true,
                Some(Event::Subscribed(Some((index, why)))) => {
                    let topic = topics.filters().nth(index).unwrap_or_default();
                    let error = Error::fatal(format!("the broker refuses the subscription of `{topic}`: {why}")).code("mqtt.subscribe");
                    return Err(error.path(format!("topics[{index}]")));
                }
                Some(Event::Arrived(message)) => early.push(message),
                Some(Event::Other) => {}
                None => input.fill(&mut reading).await?,
            }
        }
        let (sender, arrived) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        let (waiting, writing) = (Arc::new(Waiting::default()), Arc::new(Mutex::new(writing)));
        let mut pump =
            Pump { input, reading, writing: writing.clone(), sender, waiting: waiting.clone(), limit: config.waiting_bytes_max, keep_alive };
        pump.hand_on(early);
        let task = tokio::spawn(async move {
            let Err(error) = pump.run().await else { return };
            end.send_replace(Some(error));
        });
        Ok(Self { arrived, taken: Vec::new().into_iter(), waiting, writing, codec, out, ended, pump: task.abort_handle(), had_session })
    }

    /// The next message; `None` when the connection ended and all was read.
    pub async fn next(&mut self) -> Option<Arrived> {
        if self.taken.len() == 0 {
            let messages = self.arrived.recv().await?;
            self.take(messages);
        }
        self.taken.next()
    }

    pub fn try_next(&mut self) -> Option<Arrived> {
        if self.taken.len() == 0 {
            let messages = self.arrived.try_recv().ok()?;
            self.take(messages);
        }
        self.taken.next()
    }

    fn take(&mut self, messages: Vec<Arrived>) {
        self.waiting.bytes.fetch_sub(messages.iter().map(Arrived::bytes).sum(), Ordering::Relaxed);
        self.waiting.read.notify_one();
        self.taken = messages.into_iter();
    }

    /// Why it ended.
    pub fn error(&self) -> Error {
        self.ended.borrow().clone().unwrap_or_else(|| lost("the connection to the broker ended".into()).code("mqtt.ended"))
    }

    /// Acknowledges messages: on their way to the broker when it returns.
    ///
    /// # Errors
    /// Disconnected.
    pub async fn acknowledge(&mut self, packets: impl IntoIterator<Item = u16>) -> Result<()> {
        self.out.clear();
        for packet in packets {
            self.codec.acknowledge(packet, &mut self.out)?;
        }
        let mut ended = self.ended.clone();
        tokio::select! {
            biased;
            // Whoever reads sees first that nobody answers any more.
            _ = ended.wait_for(Option::is_some) => Err(self.error()),
            written = write(&self.writing, &self.out) => written,
        }
    }
}

/// What was read of a connection.
struct Input {
    codec: Codec,
    read: BytesMut,
}

impl Input {
    fn next(&mut self) -> Result<Option<Event>> {
        self.codec.hear(&mut self.read)
    }

    /// Reads on.
    async fn fill(&mut self, reading: &mut Reading) -> Result<()> {
        if self.read.capacity() - self.read.len() < READ_BYTES_MIN {
            self.read.reserve(READ_BYTES);
        }
        match reading.read_buf(&mut self.read).await {
            Ok(0) => Err(lost("the broker closed the connection".into())),
            Ok(_) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

struct Pump {
    input: Input,
    reading: Reading,
    writing: Writing,
    sender: mpsc::UnboundedSender<Vec<Arrived>>,
    waiting: Arc<Waiting>,
    limit: u64,
    /// How often the broker must hear of us.
    keep_alive: Duration,
}

impl Pump {
    /// Runs until the connection ends.
    async fn run(&mut self) -> Result<()> {
        let mut is_heard = true;
        let mut call_at = Instant::now() + self.keep_alive;
        loop {
            let has_room = self.waiting.bytes.load(Ordering::Relaxed) <= self.limit;
            // Who is not listened to is not missed.
            is_heard |= !has_room;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(call_at) => {
                    if !std::mem::take(&mut is_heard) {
                        return Err(lost("the broker does not answer any more".into()));
                    }
                    self.call().await?;
                    call_at = Instant::now() + self.keep_alive;
                }
                () = self.waiting.read.notified(), if !has_room => {}
                filled = self.input.fill(&mut self.reading), if has_room => {
                    filled?;
                    is_heard = true;
                    self.hand_on_all()?;
                    // A broker writes each message by itself: one look at many costs as much as at one.
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }

    async fn call(&mut self) -> Result<()> {
        let mut out = BytesMut::new();
        self.input.codec.ping(&mut out)?;
        let written = tokio::time::timeout(self.keep_alive, write(&self.writing, &out)).await;
        written.map_err(|_| lost("the broker does not take anything any more".into()))?
    }

    fn hand_on_all(&mut self) -> Result<()> {
        let mut messages = Vec::new();
        let ended = loop {
            match self.input.next() {
                Ok(Some(Event::Arrived(message))) => messages.push(message),
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What came before the end is good.
        self.hand_on(messages);
        ended
    }

    fn hand_on(&mut self, messages: Vec<Arrived>) {
        if messages.is_empty() {
            return;
        }
        self.waiting.bytes.fetch_add(messages.iter().map(Arrived::bytes).sum(), Ordering::Relaxed);
        // The connection is dropped when nobody listens.
        let _ = self.sender.send(messages);
    }
}

async fn write(writing: &Writing, bytes: &[u8]) -> Result<()> {
    writing.lock().await.write_all(bytes).await.map_err(|error| failed(&error))
}

async fn connect(config: &MqttSourceConfig, address: &Address) -> Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| failed(&error))?;
    // Acknowledgements are written together, and nothing follows that they could wait for.
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    if !address.has_tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(address.host.clone()).map_err(|error| Error::fatal(error.to_string()).code("mqtt.url").path("url"))?;
    let connector = TlsConnector::from(config.tls.client()?);
    Ok(Box::new(connector.connect(name, stream).await.map_err(|error| failed(&error))?))
}

fn failed(error: &std::io::Error) -> Error {
    match tls::advice(error) {
        Some(advice) => lost(error.to_string()).code("mqtt.tls").hint(advice),
        None => lost(error.to_string()),
    }
}

pub(crate) fn lost(text: String) -> Error {
    Error::disconnected(text).code("mqtt.connection")
}

#[cfg(test)]
mod tests {
    use pipeline_formats::MQTT;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, Packet, Publish, SubAck, SubscribeReasonCode};
    use tokio::net::TcpListener;

    use super::*;

    /// What this side of a scripted broker hears next.
    async fn hear(stream: &mut TcpStream, read: &mut BytesMut) -> Packet {
        loop {
            if let Ok(packet) = Packet::read(read, None) {
                return packet;
            }
            assert!(stream.read_buf(read).await.unwrap() > 0, "the client went");
        }
    }

    fn bytes(packets: &[Packet]) -> BytesMut {
        let mut out = BytesMut::new();
        for packet in packets {
            packet.write(&mut out, None).unwrap();
        }
        out
    }

    fn publish(number: u16, payload: Vec<u8>) -> Packet {
        Packet::Publish(Publish { pkid: number, ..Publish::new("meters/é", QoS::AtLeastOnce, payload, None) })
    }

    #[tokio::test]
    async fn messages_come_whole_acknowledgements_go_together_and_a_silent_broker_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let config = serde_json::json!({ "url": url, "topics": ["meters/#"], "keep-alive": "1s" });
        let config: MqttSourceConfig = serde_json::from_value(config).unwrap();
        let broker = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = BytesMut::new();
            assert!(matches!(hear(&mut stream, &mut read).await, Packet::Connect(connect, None, None) if !connect.clean_start && connect.keep_alive == 1));
            let known = Packet::ConnAck(ConnAck { session_present: true, code: ConnectReturnCode::Success, properties: None });
            stream.write_all(&bytes(&[known])).await.unwrap();
            let Packet::Subscribe(asked) = hear(&mut stream, &mut read).await else { panic!("no subscription") };
            // One message comes early, one is larger than what is read at once, and one comes in pieces.
            let answer = SubAck { pkid: asked.pkid, return_codes: vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)], properties: None };
            let all = bytes(&[publish(1, b"early".to_vec()), Packet::SubAck(answer), publish(2, vec![b'x'; 2 * READ_BYTES]), publish(3, b"late".to_vec())]);
            let (most, rest) = all.split_at(all.len() - 3);
            stream.write_all(most).await.unwrap();
            for byte in rest {
                tokio::time::sleep(Duration::from_millis(10)).await;
                stream.write_all(&[*byte]).await.unwrap();
            }
            for expected in 1..=3 {
                assert!(matches!(hear(&mut stream, &mut read).await, Packet::PubAck(it) if it.pkid == expected));
            }
            // Called once, and not answered.
            assert!(matches!(hear(&mut stream, &mut read).await, Packet::PingReq(_)));
            stream.read_buf(&mut read).await.unwrap()
        });
        let topics = Patterns::new(&["meters/#".to_owned()], MQTT, "topics").unwrap();
        let mut connection = Connection::open(&config, "test", &topics).await.unwrap();
        assert!(connection.had_session);
        for (number, length) in [(1, 5), (2, 2 * READ_BYTES), (3, 4)] {
            let message = connection.next().await.unwrap();
            assert_eq!((message.packet, message.payload.len(), message.topic()), (number, length, "meters/é"));
        }
        connection.acknowledge(1..=3).await.unwrap();
        assert!(connection.next().await.is_none());
        assert!(connection.error().to_string().contains("does not answer any more"), "{}", connection.error());
        assert!(connection.acknowledge([4]).await.is_err());
        drop(connection);
        assert_eq!(broker.await.unwrap(), 0);
    }
}
