//! What is said to a broker and heard from it, in both versions of the protocol: the codecs are those of rumqttc.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pipeline_formats::Patterns;
use pipeline_sdk::{Error, Result};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::{self as bytes5, v5};
use secrecy::ExposeSecret;

use crate::client::lost;
use crate::config::{Address, MqttSourceConfig, Protocol};

/// Of the subscription, which is the one request that a broker answers.
const SUBSCRIPTION: u16 = 1;

/// A message as the broker sent it.
pub(crate) struct Arrived {
    topic: Bytes,
    pub payload: Bytes,
    /// 0 where it is not acknowledged (QoS 0).
    pub packet: u16,
    /// Sent before, and not acknowledged then.
    pub is_again: bool,
}

impl Arrived {
    fn new(topic: Bytes, payload: Bytes, packet: u16, is_again: bool) -> Self {
        let topic = match std::str::from_utf8(&topic) {
            Ok(_) => topic,
            Err(_) => String::from_utf8_lossy(&topic).into_owned().into(),
        };
        Self { topic, payload, packet, is_again }
    }

    pub fn topic(&self) -> &str {
        // It is none only where it was made one.
        std::str::from_utf8(&self.topic).unwrap_or_default()
    }

    pub fn bytes(&self) -> u64 {
        (self.topic.len() + self.payload.len()) as u64
    }
}

/// What a broker tells, as far as it matters here.
pub(crate) enum Event {
    /// How often it is to be called, where it says so itself.
    Connected { had_session: bool, keep_alive: Option<Duration> },
    /// The first filter that was refused, and why.
    Subscribed(Option<(usize, String)>),
    Arrived(Arrived),
    Other,
}

/// Packets of one version of the protocol.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    protocol: Protocol,
    message_bytes_max: u32,
}

impl Codec {
    pub fn new(config: &MqttSourceConfig) -> Self {
        Self { protocol: config.protocol, message_bytes_max: u32::try_from(config.message_bytes_max).unwrap_or(u32::MAX) }
    }

    /// Asks for the session, which outlives the connection.
    ///
    /// # Errors
    /// Disconnected: a name or a password is longer than the protocol knows.
    pub fn connect(self, config: &MqttSourceConfig, client_id: &str, address: &Address, out: &mut BytesMut) -> Result<()> {
        let keep_alive = u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX);
        let login = address.login.as_ref().map(|(name, password)| (name.clone(), password.expose_secret().to_owned()));
        match self.protocol {
            Protocol::V5 => {
                let properties = v5::ConnectProperties {
                    session_expiry_interval: Some(u32::try_from(config.session_expiry.as_secs()).unwrap_or(u32::MAX)),
                    receive_maximum: Some(config.inflight_max),
                    max_packet_size: Some(self.message_bytes_max),
                    ..v5::ConnectProperties::new()
                };
                let connect = v5::Connect { keep_alive, client_id: client_id.to_owned(), clean_start: false, properties: Some(properties) };
                say_v5(&v5::Packet::Connect(connect, None, login.map(|(name, password)| v5::Login::new(name, password))), out)
            }
            Protocol::V3 => {
                let mut connect = v4::Connect::new(client_id);
                (connect.keep_alive, connect.clean_session) = (keep_alive, false);
                connect.login = login.map(|(name, password)| v4::Login::new(name, password));
                say_v3(&v4::Packet::Connect(connect), out)
            }
        }
    }

    /// # Errors
    /// Disconnected: a filter is longer than the protocol knows.
    pub fn subscribe(self, topics: &Patterns, out: &mut BytesMut) -> Result<()> {
        match self.protocol {
            Protocol::V5 => {
                let filters = topics.filters().map(|filter| v5::Filter {
                    // What is retained comes once a session, not at every connection.
                    retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
                    ..v5::Filter::new(filter, bytes5::QoS::AtLeastOnce)
                });
                let subscribe = v5::Subscribe { pkid: SUBSCRIPTION, ..v5::Subscribe::new_many(filters, None) };
                say_v5(&v5::Packet::Subscribe(subscribe), out)
            }
            Protocol::V3 => {
                let filters = topics.filters().map(|filter| v4::SubscribeFilter::new(filter.to_owned(), rumqttc::QoS::AtLeastOnce));
                let subscribe = v4::Subscribe { pkid: SUBSCRIPTION, ..v4::Subscribe::new_many(filters) };
                say_v3(&v4::Packet::Subscribe(subscribe), out)
            }
        }
    }

    /// # Errors
    /// Disconnected: it is no packet.
    pub fn acknowledge(self, packet: u16, out: &mut BytesMut) -> Result<()> {
        match self.protocol {
            Protocol::V5 => say_v5(&v5::Packet::PubAck(v5::PubAck::new(packet, None)), out),
            Protocol::V3 => say_v3(&v4::Packet::PubAck(v4::PubAck::new(packet)), out),
        }
    }

    /// # Errors
    /// None that is known.
    pub fn ping(self, out: &mut BytesMut) -> Result<()> {
        match self.protocol {
            Protocol::V5 => say_v5(&v5::Packet::PingReq(v5::PingReq), out),
            Protocol::V3 => say_v3(&v4::Packet::PingReq, out),
        }
    }

    /// Takes the next packet of what was read; `None` where it is not whole yet.
    ///
    /// # Errors
    /// Disconnected: the broker says that it ends the connection, or what it says is not the protocol. Fatal: it refuses the session; a
    /// message is too large.
    pub fn hear(self, read: &mut BytesMut) -> Result<Option<Event>> {
        let missing = match self.protocol {
            Protocol::V5 => match v5::Packet::read(read, Some(self.message_bytes_max)) {
                Ok(packet) => return of_v5(packet).map(Some),
                Err(bytes5::Error::InsufficientBytes(missing)) => missing,
                Err(error) => return Err(from_v5(&error)),
            },
            Protocol::V3 => match v4::Packet::read(read, self.message_bytes_max as usize) {
                Ok(packet) => return of_v3(packet).map(Some),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(missing)) => missing,
                Err(error) => return Err(from_v3(&error)),
            },
        };
        // Of a large message all room is made at once.
        if missing > read.capacity() - read.len() {
            read.reserve(missing);
        }
        Ok(None)
    }
}

fn say_v5(packet: &v5::Packet, out: &mut BytesMut) -> Result<()> {
    packet.write(out, None).map(drop).map_err(|error| from_v5(&error))
}

fn say_v3(packet: &v4::Packet, out: &mut BytesMut) -> Result<()> {
    packet.write(out, usize::MAX).map(drop).map_err(|error| from_v3(&error))
}

fn of_v5(packet: v5::Packet) -> Result<Event> {
    use v5::ConnectReturnCode as Code;
    Ok(match packet {
        v5::Packet::Publish(it) => Event::Arrived(Arrived::new(it.topic, it.payload, it.pkid, it.dup)),
        v5::Packet::ConnAck(answer) if answer.code == Code::Success => {
            let keep_alive = answer.properties.and_then(|it| it.server_keep_alive).map(|seconds| Duration::from_secs(seconds.into()));
            Event::Connected { had_session: answer.session_present, keep_alive }
        }
        v5::Packet::ConnAck(answer) => {
            return Err(match answer.code {
                code @ (Code::ServiceUnavailable | Code::ServerUnavailable | Code::ServerBusy | Code::ConnectionRateExceeded | Code::QuotaExceeded) => {
                    lost(format!("the broker refuses for now: {code:?}"))
                }
                code @ (Code::BadUserNamePassword | Code::NotAuthorized | Code::Banned) => refused_login(&format!("{code:?}")),
                code @ (Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion) => old(&format!("{code:?}")),
                code => refused(&format!("{code:?}")),
            });
        }
        v5::Packet::SubAck(answer) => {
            let wrong = answer.return_codes.iter().position(|code| !matches!(code, v5::SubscribeReasonCode::Success(_)));
            Event::Subscribed(wrong.map(|index| (index, format!("{:?}", answer.return_codes[index]))))
        }
        v5::Packet::Disconnect(it) => {
            let error = lost(format!("the broker ended the connection: {:?}", it.reason_code));
            return Err(error.hint("a session that is taken over is used twice: give each running pipeline a `client-id` of its own"));
        }
        _ => Event::Other,
    })
}

fn of_v3(packet: v4::Packet) -> Result<Event> {
    use v4::ConnectReturnCode as Code;
    Ok(match packet {
        v4::Packet::Publish(it) => Event::Arrived(Arrived::new(it.topic.into(), it.payload, it.pkid, it.dup)),
        v4::Packet::ConnAck(answer) => match answer.code {
            Code::Success => Event::Connected { had_session: answer.session_present, keep_alive: None },
            Code::ServiceUnavailable => return Err(lost("the broker refuses for now".into())),
            code @ (Code::BadUserNamePassword | Code::NotAuthorized) => return Err(refused_login(&format!("{code:?}"))),
            code => return Err(refused(&format!("{code:?}"))),
        },
        v4::Packet::SubAck(answer) => {
            let wrong = answer.return_codes.iter().position(|code| *code == v4::SubscribeReasonCode::Failure);
            Event::Subscribed(wrong.map(|index| (index, "it does not say why".into())))
        }
        _ => Event::Other,
    })
}

fn from_v5(error: &bytes5::Error) -> Error {
    match error {
        bytes5::Error::PayloadSizeLimitExceeded { pkt_size, max } => too_large(*pkt_size, *max as usize),
        other => lost(other.to_string()),
    }
}

fn from_v3(error: &rumqttc::mqttbytes::Error) -> Error {
    match error {
        rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(size) => too_large(*size, 0),
        other => lost(other.to_string()),
    }
}

fn refused(code: &str) -> Error {
    Error::fatal(format!("the broker refuses the connection: {code}")).code("mqtt.refused")
}

fn refused_login(code: &str) -> Error {
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
