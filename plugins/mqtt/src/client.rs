//! One connection to a broker, of either version of the protocol: connects, subscribes, receives, acknowledges.
//!
//! A task of its own drives the client, so that the broker is answered also while nobody reads. What it received waits in a queue that
//! is bounded by what the broker sends before acknowledgements, and by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pipeline_formats::Patterns;
use pipeline_sdk::{Error, Result, tls};
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5 as packets;
use rumqttc::{AsyncClient, TlsConfiguration, Transport};
use secrecy::ExposeSecret;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::config::{MqttSourceConfig, Protocol};

/// Acknowledgements that wait to be sent: more than the protocol has packet identifiers.
const ACKS_MAX: usize = 1 << 16;

/// A message as the broker sent it.
pub(crate) struct Arrived {
    pub topic: String,
    pub payload: Bytes,
    /// 0 where it is not acknowledged (QoS 0).
    pub packet: u16,
    /// Sent before, and not acknowledged then.
    pub is_again: bool,
}

impl Arrived {
    pub fn bytes(&self) -> u64 {
        (self.topic.len() + self.payload.len()) as u64
    }
}

enum Client {
    V5(v5::AsyncClient),
    V3(AsyncClient),
}

enum Loop {
    V5(Box<v5::EventLoop>),
    V3(Box<rumqttc::EventLoop>),
}

/// What the client tells, as far as it matters here.
enum Event {
    Connected { had_session: bool },
    /// The first filter that was refused, and why.
    Subscribed(Option<(usize, String)>),
    Arrived(Arrived),
    Acknowledged,
    Other,
}

/// Bytes that were received and not read yet.
#[derive(Default)]
struct Waiting {
    bytes: AtomicU64,
    read: Notify,
}

pub(crate) struct Connection {
    client: Client,
    arrived: mpsc::UnboundedReceiver<Arrived>,
    waiting: Arc<Waiting>,
    sent: u64,
    /// How many acknowledgements were written to the connection.
    acknowledged: watch::Receiver<u64>,
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
        let (client, mut events) = prepare(config, client_id)?;
        client.subscribe(topics).await?;
        let opening = async {
            let mut had_session = false;
            // What the broker held for the session may come before it answers the subscription.
            let mut early = Vec::new();
            loop {
                match events.next().await? {
                    Event::Connected { had_session: had } => had_session = had,
                    Event::Subscribed(None) => return Ok((had_session, early)),
                    Event::Subscribed(Some((index, why))) => {
                        let topic = topics.filters().nth(index).unwrap_or_default();
                        let error = Error::fatal(format!("the broker refuses the subscription of `{topic}`: {why}")).code("mqtt.subscribe");
                        return Err(error.path(format!("topics[{index}]")));
                    }
                    Event::Arrived(message) => early.push(message),
                    Event::Acknowledged | Event::Other => {}
                }
            }
        };
        let opened = tokio::time::timeout(config.connect_timeout, opening).await;
        let (had_session, early) = opened.map_err(|_| Error::disconnected("the broker does not answer").code("mqtt.timeout"))??;
        let (sender, arrived) = mpsc::unbounded_channel();
        let (acknowledge, acknowledged) = watch::channel(0);
        let (end, ended) = watch::channel(None);
        let waiting = Arc::new(Waiting::default());
        let mut pump = Pump { events, sender, waiting: waiting.clone(), limit: config.waiting_bytes_max, patience: config.keep_alive / 4 };
        early.into_iter().for_each(|message| pump.hand_on(message));
        let task = tokio::spawn(async move {
            let error = pump.run(&acknowledge).await;
            end.send_replace(Some(error));
        });
        Ok(Self { client, arrived, waiting, sent: 0, acknowledged, ended, pump: task.abort_handle(), had_session })
    }

    /// The next message; `None` when the connection ended and all was read.
    pub async fn next(&mut self) -> Option<Arrived> {
        let message = self.arrived.recv().await?;
        self.note_read(&message);
        Some(message)
    }

    pub fn try_next(&mut self) -> Option<Arrived> {
        let message = self.arrived.try_recv().ok()?;
        self.note_read(&message);
        Some(message)
    }

    fn note_read(&self, message: &Arrived) {
        self.waiting.bytes.fetch_sub(message.bytes(), Ordering::Relaxed);
        self.waiting.read.notify_one();
    }

    /// Why it ended.
    pub fn error(&self) -> Error {
        self.ended.borrow().clone().unwrap_or_else(|| Error::disconnected("the connection to the broker ended").code("mqtt.ended"))
    }

    /// Acknowledges a message; [`Self::acknowledged`] waits until that is sent.
    ///
    /// # Errors
    /// Disconnected.
    pub fn acknowledge(&mut self, packet: u16) -> Result<()> {
        let given = match &self.client {
            Client::V5(client) => {
                let publish = packets::Publish { pkid: packet, qos: v5::mqttbytes::QoS::AtLeastOnce, ..Default::default() };
                client.try_ack(&publish).map_err(|error| error.to_string())
            }
            Client::V3(client) => {
                let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet;
                client.try_ack(&publish).map_err(|error| error.to_string())
            }
        };
        given.map_err(|_| self.error())?;
        self.sent += 1;
        Ok(())
    }

    /// Waits until every acknowledgement is on its way to the broker.
    ///
    /// # Errors
    /// Disconnected.
    pub async fn acknowledged(&mut self) -> Result<()> {
        let sent = self.sent;
        if self.acknowledged.wait_for(|upto| *upto >= sent).await.is_ok() {
            return Ok(());
        }
        // The task says why it ended just after.
        let _ = self.ended.wait_for(Option::is_some).await;
        Err(self.error())
    }
}

struct Pump {
    events: Loop,
    sender: mpsc::UnboundedSender<Arrived>,
    waiting: Arc<Waiting>,
    limit: u64,
    /// How long nothing is received where too much waits: the broker must hear of us within the time it was told.
    patience: Duration,
}

impl Pump {
    async fn run(&mut self, acknowledge: &watch::Sender<u64>) -> Error {
        let mut count = 0;
        loop {
            if self.waiting.bytes.load(Ordering::Relaxed) > self.limit {
                // Either way it goes on: what was read in between is not missed, as there is a permit left.
                let _ = tokio::time::timeout(self.patience, self.waiting.read.notified()).await;
            }
            match self.events.next().await {
                Ok(Event::Arrived(message)) => self.hand_on(message),
                Ok(Event::Acknowledged) => {
                    count += 1;
                    acknowledge.send_replace(count);
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    fn hand_on(&mut self, message: Arrived) {
        self.waiting.bytes.fetch_add(message.bytes(), Ordering::Relaxed);
        // The connection is dropped when nobody listens.
        let _ = self.sender.send(message);
    }
}

fn prepare(config: &MqttSourceConfig, client_id: &str) -> Result<(Client, Loop)> {
    let address = config.address()?;
    let transport = match address.has_tls {
        true => Transport::Tls(TlsConfiguration::Rustls(config.tls.client()?)),
        false => Transport::Tcp,
    };
    let size = u32::try_from(config.message_bytes_max).unwrap_or(u32::MAX);
    Ok(match config.protocol {
        Protocol::V5 => {
            let mut options = v5::MqttOptions::new(client_id, address.host, address.port);
            options.set_transport(transport).set_keep_alive(config.keep_alive).set_clean_start(false).set_manual_acks(true);
            options.set_connection_timeout(config.connect_timeout.as_secs().max(1));
            let expiry = u32::try_from(config.session_expiry.as_secs()).unwrap_or(u32::MAX);
            options.set_session_expiry_interval(Some(expiry));
            options.set_receive_maximum(Some(config.inflight_max));
            options.set_max_packet_size(Some(size));
            if let Some((name, password)) = address.login {
                options.set_credentials(name, password.expose_secret());
            }
            let (client, events) = v5::AsyncClient::new(options, ACKS_MAX);
            (Client::V5(client), Loop::V5(Box::new(events)))
        }
        Protocol::V3 => {
            let mut options = rumqttc::MqttOptions::new(client_id, address.host, address.port);
            options.set_transport(transport).set_keep_alive(config.keep_alive).set_clean_session(false).set_manual_acks(true);
            options.set_max_packet_size(size as usize, size as usize);
            if let Some((name, password)) = address.login {
                options.set_credentials(name, password.expose_secret());
            }
            let (client, mut events) = AsyncClient::new(options, ACKS_MAX);
            events.network_options.set_connection_timeout(config.connect_timeout.as_secs().max(1));
            (Client::V3(client), Loop::V3(Box::new(events)))
        }
    })
}

impl Client {
    async fn subscribe(&self, topics: &Patterns) -> Result<()> {
        let given = match self {
            Self::V5(client) => {
                let filters = topics.filters().map(|filter| packets::Filter {
                    // What is retained comes once a session, not at every connection.
                    retain_forward_rule: packets::RetainForwardRule::OnNewSubscribe,
                    ..packets::Filter::new(filter, v5::mqttbytes::QoS::AtLeastOnce)
                });
                client.subscribe_many(filters).await.map_err(|error| error.to_string())
            }
            Self::V3(client) => {
                let filters = topics.filters().map(|filter| rumqttc::SubscribeFilter::new(filter.to_owned(), rumqttc::QoS::AtLeastOnce));
                client.subscribe_many(filters).await.map_err(|error| error.to_string())
            }
        };
        given.map_err(|error| Error::fatal(format!("the topics are no filters: {error}")).code("mqtt.subscribe").path("topics"))
    }
}

impl Loop {
    async fn next(&mut self) -> Result<Event> {
        match self {
            Self::V5(events) => events.poll().await.map(of_v5).map_err(|error| from_v5(&error)),
            Self::V3(events) => events.poll().await.map(of_v3).map_err(|error| from_v3(&error)),
        }
    }
}

fn of_v5(event: v5::Event) -> Event {
    use packets::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(answer)) => Event::Connected { had_session: answer.session_present },
        v5::Event::Incoming(Packet::SubAck(answer)) => {
            let refused = answer.return_codes.iter().position(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            Event::Subscribed(refused.map(|index| (index, format!("{:?}", answer.return_codes[index]))))
        }
        v5::Event::Incoming(Packet::Publish(it)) => {
            Event::Arrived(Arrived { topic: String::from_utf8_lossy(&it.topic).into_owned(), payload: it.payload, packet: it.pkid, is_again: it.dup })
        }
        v5::Event::Outgoing(rumqttc::Outgoing::PubAck(_)) => Event::Acknowledged,
        _ => Event::Other,
    }
}

fn of_v3(event: rumqttc::Event) -> Event {
    use rumqttc::{Packet, SubscribeReasonCode};
    match event {
        rumqttc::Event::Incoming(Packet::ConnAck(answer)) => Event::Connected { had_session: answer.session_present },
        rumqttc::Event::Incoming(Packet::SubAck(answer)) => {
            let refused = answer.return_codes.iter().position(|code| *code == SubscribeReasonCode::Failure);
            Event::Subscribed(refused.map(|index| (index, "it does not say why".into())))
        }
        rumqttc::Event::Incoming(Packet::Publish(it)) => {
            Event::Arrived(Arrived { topic: it.topic, payload: it.payload, packet: it.pkid, is_again: it.dup })
        }
        rumqttc::Event::Outgoing(rumqttc::Outgoing::PubAck(_)) => Event::Acknowledged,
        _ => Event::Other,
    }
}

fn from_v5(error: &v5::ConnectionError) -> Error {
    use packets::ConnectReturnCode as Code;
    use v5::StateError;
    match error {
        v5::ConnectionError::ConnectionRefused(code) => match code {
            Code::ServiceUnavailable | Code::ServerUnavailable | Code::ServerBusy | Code::ConnectionRateExceeded | Code::QuotaExceeded => {
                lost(format!("the broker refuses for now: {code:?}"))
            }
            Code::BadUserNamePassword | Code::NotAuthorized | Code::Banned => refused(&format!("{code:?}")),
            Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => old(&format!("{code:?}")),
            _ => Error::fatal(format!("the broker refuses the connection: {code:?}")).code("mqtt.refused"),
        },
        v5::ConnectionError::MqttState(StateError::IncomingPacketTooLarge { pkt_size, max }) => too_large(*pkt_size, *max),
        v5::ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            let error = lost(format!("the broker ended the connection: {reason_code:?}"));
            error.hint("a session that is taken over is used twice: give each running pipeline a `client-id` of its own")
        }
        // Which tells of no cause of its own.
        v5::ConnectionError::MqttState(StateError::Deserialization(cause)) => failed(error, cause),
        other => failed(other, other),
    }
}

fn from_v3(error: &rumqttc::ConnectionError) -> Error {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(Code::ServiceUnavailable) => lost("the broker refuses for now".into()),
        ConnectionError::ConnectionRefused(code @ (Code::BadUserNamePassword | Code::NotAuthorized)) => refused(&format!("{code:?}")),
        ConnectionError::ConnectionRefused(code) => {
            Error::fatal(format!("the broker refuses the connection: {code:?}")).code("mqtt.refused")
        }
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(size))) => too_large(*size, 0),
        other => failed(other, other),
    }
}

fn failed(error: &dyn std::error::Error, cause: &(dyn std::error::Error + 'static)) -> Error {
    match tls::advice(cause) {
        Some(advice) => lost(error.to_string()).code("mqtt.tls").hint(advice),
        None => lost(error.to_string()),
    }
}

fn lost(text: String) -> Error {
    Error::disconnected(text).code("mqtt.connection")
}

fn refused(code: &str) -> Error {
    Error::fatal(format!("the broker refuses the login: {code}")).code("mqtt.login").hint("check user and password, and what the user may read")
}

fn old(code: &str) -> Error {
    Error::fatal(format!("the broker does not know protocol 5: {code}")).code("mqtt.protocol").path("protocol").hint("set `protocol = \"3.1.1\"`")
}

fn too_large(size: usize, max: usize) -> Error {
    let limit = if max > 0 { format!(" than {max}") } else { " than allowed".into() };
    let error = Error::fatal(format!("a message of {size} bytes is larger{limit}")).code("mqtt.message-size").path("message-bytes-max");
    error.hint("raise `message-bytes-max`")
}
