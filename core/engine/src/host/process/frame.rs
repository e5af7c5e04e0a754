//! The framing: packets of a word, a number, a text and messages. Reading and writing sockets is the caller's.
//!
//! A packet is `text length u32 | word u8 | number u64 | count u32 | text`, then for each message `head length u32 | part length u64 |
//! head | part`; numbers are little-endian. A text and a message are each no larger than the limit that both ends were given, which is
//! looked at before anything is sent and before memory is taken for what comes (invariant `bounded`).

use bytes::Bytes;
use pipeline_sdk::{Error, Message, Result};

use super::message::{Received, Sent};

/// Parts from this size on are written as they are; smaller ones are joined.
const JOINED_BYTES_MAX: usize = 16 << 10;
const START_BYTES: usize = 17;
const LENGTHS_BYTES: usize = 12;
/// Room behind what is read: the decoder of rows looks beyond a batch without bytes.
pub const PADDING: usize = 8;

macro_rules! words {
    ($($word:ident,)*) => {
        /// What a packet is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Word {
            $($word,)*
        }

        impl Word {
            const ALL: &'static [Self] = &[$(Self::$word),*];
        }
    };
}

words! {
    // Of the host. Their numbers, texts and messages are those of the C boundary's calls.
    Hello, Create, Connect, Next, Commit, Progress, Apply, Barrier, Write, Flush, Run, Stop, Decode, Discover,
    // Answers. `Failed` has the error as JSON; the number of a write is how many messages were written.
    Done, Failed, Messages, Idle, End, Lanes,
    // Of an instance to its host; the number is the instance's. Those of the second line are answered.
    Log, Counter, Gauge, Incident, Ready, Released,
    StateGet, StatePut, StateKeys, IsCancelled,
}

impl Word {
    /// Whether an instance waits for its host's answer.
    pub fn is_question(self) -> bool {
        matches!(self, Self::StateGet | Self::StatePut | Self::StateKeys | Self::IsCancelled)
    }
}

pub struct Packet {
    pub word: Word,
    pub number: u64,
    pub text: Bytes,
    pub messages: Vec<Message>,
}

impl Packet {
    /// The packet, or the error that it holds.
    pub fn checked(self) -> Result<Self> {
        match self.word {
            Word::Failed => Err(self.error()),
            _ => Ok(self),
        }
    }

    pub fn error(&self) -> Error {
        serde_json::from_slice(&self.text).unwrap_or_else(|error| broken(format!("an error that is not readable: {error}")))
    }

    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.text).map_err(|error| broken(format!("an answer that is not readable: {error}")))
    }
}

/// One end of a connection: what both ends remember of schemas, and the limit.
pub struct Codec {
    limit: u64,
    sent: Sent,
    received: Received,
}

impl Codec {
    pub fn new(limit: u64) -> Self {
        Self { limit, sent: Sent::default(), received: Received::default() }
    }

    /// The bytes of a packet, to be written one after the other.
    ///
    /// # Errors
    /// Something is larger than the limit, or rows cannot be encoded: nothing may be written then.
    pub fn encode(&mut self, word: Word, number: u64, text: &[u8], messages: &[Message]) -> Result<Vec<Bytes>> {
        let encoded = self.try_encode(word, number, text, messages);
        if encoded.is_err() {
            // The other end did not see the schemas that would have gone along.
            self.sent = self.sent.fresh();
        }
        encoded
    }

    fn try_encode(&mut self, word: Word, number: u64, text: &[u8], messages: &[Message]) -> Result<Vec<Bytes>> {
        let too_large = |what: &str, bytes: u64| {
            Error::rejected(format!("{what} of {bytes} bytes is larger than what goes to a component's process, {} bytes", self.limit))
                .code("isolation.size")
                .hint("raise `frame-bytes-max` in `[engine.isolation]`, or run the component without `isolation`")
        };
        if text.len() as u64 > self.limit.min(u32::MAX.into()) {
            return Err(too_large("a text", text.len() as u64));
        }
        let mut out = Out { done: Vec::new(), open: Vec::with_capacity(START_BYTES + text.len()) };
        out.open.extend((text.len() as u32).to_le_bytes());
        out.open.push(word as u8);
        out.open.extend(number.to_le_bytes());
        out.open.extend((messages.len() as u32).to_le_bytes());
        out.open.extend(text);
        for message in messages {
            let (head, parts) = self.sent.encode(message)?;
            let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
            if head.len() as u64 + length > self.limit {
                return Err(too_large("a message", head.len() as u64 + length));
            }
            out.open.extend((head.len() as u32).to_le_bytes());
            out.open.extend(length.to_le_bytes());
            out.open.extend(head);
            parts.into_iter().for_each(|part| out.part(part));
        }
        Ok(out.all())
    }

    pub fn incoming(&self) -> Incoming {
        let packet = Packet { word: Word::Done, number: 0, text: Bytes::new(), messages: Vec::new() };
        Incoming { limit: self.limit, step: Step::Start, left: 0, head: Vec::new(), part: 0, packet }
    }
}

struct Out {
    done: Vec<Bytes>,
    open: Vec<u8>,
}

impl Out {
    fn part(&mut self, part: Bytes) {
        if part.len() < JOINED_BYTES_MAX {
            self.open.extend_from_slice(&part);
        } else {
            self.done.push(std::mem::take(&mut self.open).into());
            self.done.push(part);
        }
    }

    fn all(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.into());
        }
        self.done
    }
}

/// A packet that comes in.
pub struct Incoming {
    limit: u64,
    step: Step,
    /// Messages that are still to come.
    left: u32,
    head: Vec<u8>,
    part: usize,
    packet: Packet,
}

enum Step {
    Start,
    Text(usize),
    Lengths,
    Head(usize),
    Part,
    Whole,
}

impl Incoming {
    /// How many bytes are to be read next; `None` when the packet is whole.
    pub fn wants(&self) -> Option<usize> {
        match self.step {
            Step::Start => Some(START_BYTES),
            Step::Text(length) | Step::Head(length) => Some(length),
            Step::Lengths => Some(LENGTHS_BYTES),
            Step::Part => Some(self.part),
            Step::Whole => None,
        }
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// It is no packet, or larger than the limit: the connection is of no use any more.
    pub fn take(&mut self, bytes: Vec<u8>, codec: &mut Codec) -> Result<()> {
        match self.step {
            Step::Start => {
                let length = self.within(u32::from_le_bytes(array(&bytes, 0)).into())?;
                let word = bytes[4];
                let known = Word::ALL.get(usize::from(word)).copied();
                self.packet.word = known.ok_or_else(|| broken(format!("a packet of unknown kind {word}")))?;
                self.packet.number = u64::from_le_bytes(array(&bytes, 5));
                self.left = u32::from_le_bytes(array(&bytes, 13));
                self.step = if length == 0 { self.behind_message() } else { Step::Text(length) };
            }
            Step::Text(_) => {
                self.packet.text = bytes.into();
                self.step = self.behind_message();
            }
            Step::Lengths => {
                let (head, part) = (u32::from_le_bytes(array(&bytes, 0)), u64::from_le_bytes(array(&bytes, 4)));
                self.within(part.saturating_add(head.into()))?;
                self.part = part as usize;
                self.step = Step::Head(head as usize);
            }
            Step::Head(_) => {
                self.head = bytes;
                if self.part == 0 {
                    self.message(Vec::new(), codec)?;
                } else {
                    self.step = Step::Part;
                }
            }
            Step::Part => self.message(bytes, codec)?,
            Step::Whole => return Err(broken("bytes behind a whole packet".into())),
        }
        Ok(())
    }

    fn message(&mut self, part: Vec<u8>, codec: &mut Codec) -> Result<()> {
        self.packet.messages.push(codec.received.decode(&self.head, part)?);
        self.left -= 1;
        self.step = self.behind_message();
        Ok(())
    }

    fn behind_message(&self) -> Step {
        if self.left == 0 { Step::Whole } else { Step::Lengths }
    }

    fn within(&self, length: u64) -> Result<usize> {
        if length > self.limit {
            return Err(broken(format!("{length} bytes, which is more than the limit of {}", self.limit)));
        }
        Ok(length as usize)
    }

    pub fn whole(self) -> Packet {
        self.packet
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as many bytes as were asked for")
}

/// What came is not what the other end of the same build sends.
pub fn broken(what: String) -> Error {
    Error::disconnected(format!("the connection with a component's process brought {what}")).code(super::ENDED)
}

/// Texts joined into one, each with its length before it.
pub fn joined(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|field| field.len() + 4).sum());
    for field in fields {
        out.extend((field.len() as u32).to_le_bytes());
        out.extend_from_slice(field);
    }
    out
}

/// The fields of [`joined`].
///
/// # Errors
/// There are not as many.
pub fn split<const N: usize>(text: &[u8]) -> Result<[&[u8]; N]> {
    let mut rest = text;
    let mut fields = [&[][..]; N];
    for field in &mut fields {
        let short = || broken("a text that is cut off".into());
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        (*field, rest) = behind.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    }
    Ok(fields)
}
