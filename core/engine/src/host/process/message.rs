//! Messages as bytes: header and index in a head of our own, the payload in a part: a frame's bytes as they are, rows as Arrow IPC.
//!
//! Rows go as one IPC stream a schema, without copying their buffers; its schema is in the first message of the stream.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamEncoder;
use bytes::Bytes;
use pipeline_sdk::abi::convert::{ChangeText, SCHEMAS_MAX};
use pipeline_sdk::{Error, Frame, Header, Lane, Mark, Message, Opaque, Payload, Position, Result, Rows, Run};

use super::frame::{PADDING, broken};

const ROWS: u8 = 1;
const CHANGE: u8 = 2;
const FRAME: u8 = 3;

const ENDS_POSITION: u8 = 1;
const HAS_NUMBER: u8 = 2;
const HAS_DISPLAY: u8 = 4;
const REPLICATED: u8 = 8;
const HAS_SITE: u8 = 16;
const REPLAYED: u8 = 32;
const HAS_EVENTS: u8 = 64;

/// Texts that a receiver remembers: lanes, formats, namespaces and groups, which nearly every message repeats.
const TEXTS_MAX: usize = 16;

/// The sending side's streams of rows.
#[derive(Default)]
pub struct Sent {
    recent: VecDeque<(u64, SchemaRef, StreamEncoder)>,
    last_id: u64,
}

impl Sent {
    /// Begins all streams anew.
    pub fn fresh(&self) -> Self {
        Self { recent: VecDeque::new(), last_id: self.last_id }
    }

    /// Head and part of a message.
    ///
    /// # Errors
    /// Rows of a type that Arrow IPC has no form for.
    pub fn encode(&mut self, message: &Message) -> Result<(Vec<u8>, Vec<Bytes>)> {
        let mut head = Put(Vec::with_capacity(128));
        put_header(&mut head, &message.header);
        let parts = match &message.payload {
            Payload::Frame(frame) => {
                head.0.push(FRAME);
                head.text(&frame.format).text(&frame.namespace).number(frame.rows).number(frame.tables.into());
                vec![frame.data.clone()]
            }
            Payload::Change(change) => {
                head.0.push(CHANGE);
                head.bytes(&serde_json::to_vec(&ChangeText::of(change)).expect("a change is plain JSON"));
                head.text(change.raw.as_ref().map_or("", |raw| &raw.format));
                change.raw.iter().map(|raw| raw.data.clone()).collect()
            }
            Payload::Rows(rows) => {
                head.0.push(ROWS);
                let (id, parts) = self.rows(rows)?;
                head.number(id).number(rows.runs.len() as u64);
                for run in &rows.runs {
                    head.number(run.first_row).text(&run.namespace).text(&run.table).text(&run.group).text(&run.labels);
                }
                parts
            }
        };
        Ok((head.0, parts))
    }

    fn rows(&mut self, rows: &Rows) -> Result<(u64, Vec<Bytes>)> {
        let schema = rows.batch.schema();
        let known = self.recent.iter().position(|(_, known, _)| Arc::ptr_eq(known, &schema) || *known == schema);
        let index = match known {
            Some(index) => index,
            None => {
                if self.recent.len() == SCHEMAS_MAX {
                    self.recent.pop_front();
                }
                self.last_id += 1;
                let encoder = StreamEncoder::try_new(&schema).map_err(|error| not_encoded(&error))?;
                self.recent.push_back((self.last_id, schema, encoder));
                self.recent.len() - 1
            }
        };
        let (id, _, encoder) = &mut self.recent[index];
        let buffers = encoder.encode(&rows.batch).map_err(|error| not_encoded(&error))?;
        Ok((*id, buffers.into_iter().map(|buffer| Bytes::from_owner(Owned(buffer))).collect()))
    }
}

struct Owned(arrow::buffer::Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

fn not_encoded(error: &arrow::error::ArrowError) -> Error {
    Error::rejected(format!("rows cannot go to a component's process: {error}"))
        .code("isolation.arrow")
        .hint("run the component without `isolation`, or convert the column before it")
}

fn put_header(head: &mut Put, header: &Header) {
    let (site, is_replicated) = match &header.mark {
        Mark::Local => (None, false),
        Mark::Replicated { site } => (site.as_deref(), true),
    };
    let flags = [
        (ENDS_POSITION, header.ends_position),
        (HAS_NUMBER, header.position.number.is_some()),
        (HAS_DISPLAY, header.position.display.is_some()),
        (REPLICATED, is_replicated),
        (HAS_SITE, site.is_some()),
        (REPLAYED, header.replayed),
        (HAS_EVENTS, header.events.is_some()),
    ];
    head.0.push(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag).sum());
    head.text(header.lane.as_str()).number(header.sequence).number(header.replayed_rows).bytes(&header.position.bytes);
    if let Some(number) = header.position.number {
        head.number(number as u64);
    }
    if let Some(display) = &header.position.display {
        head.text(display);
    }
    if let Some(site) = site {
        head.text(site);
    }
    if let Some((from, to)) = header.events {
        head.number(from as u64).number(to as u64);
    }
}

/// The receiving side's streams of rows, and texts.
#[derive(Default)]
pub struct Received {
    recent: VecDeque<(u64, StreamDecoder)>,
    texts: VecDeque<Arc<str>>,
}

impl Received {
    /// # Errors
    /// It is not what [`Sent::encode`] makes.
    pub fn decode(&mut self, head: &[u8], part: Vec<u8>) -> Result<Message> {
        let mut head = Take(head);
        let header = self.header(&mut head)?;
        let payload = match head.byte()? {
            FRAME => Payload::Frame(Frame {
                format: self.text(&mut head)?,
                namespace: self.text(&mut head)?,
                rows: head.number()?,
                tables: head.number()? as u32,
                data: part.into(),
            }),
            CHANGE => {
                let text: ChangeText = serde_json::from_slice(head.bytes()?).map_err(|error| broken(format!("a change that is not readable: {error}")))?;
                let format = self.text(&mut head)?;
                Payload::Change(text.into_change((!format.is_empty()).then(|| Opaque { format, data: part.into() })))
            }
            ROWS => Payload::Rows(self.rows(&mut head, part)?),
            kind => return Err(broken(format!("a message of unknown kind {kind}"))),
        };
        Ok(Message { header, payload })
    }

    fn header(&mut self, head: &mut Take<'_>) -> Result<Header> {
        let flags = head.byte()?;
        let has = |flag: u8| flags & flag != 0;
        let (lane, sequence, replayed_rows) = (Lane(self.text(head)?), head.number()?, head.number()?);
        let bytes = Bytes::copy_from_slice(head.bytes()?);
        let number = if has(HAS_NUMBER) { Some(head.number()? as i64) } else { None };
        let display = if has(HAS_DISPLAY) { Some(head.text()?.into()) } else { None };
        let site = if has(HAS_SITE) { Some(self.text(head)?) } else { None };
        let events = if has(HAS_EVENTS) { Some((head.number()? as i64, head.number()? as i64)) } else { None };
        Ok(Header {
            lane,
            sequence,
            position: Position { bytes, number, display },
            ends_position: has(ENDS_POSITION),
            mark: if has(REPLICATED) { Mark::Replicated { site } } else { Mark::Local },
            replayed: has(REPLAYED),
            replayed_rows,
            events,
        })
    }

    fn rows(&mut self, head: &mut Take<'_>, mut part: Vec<u8>) -> Result<Rows> {
        let (id, count) = (head.number()?, head.number()?);
        let mut runs = Vec::with_capacity((count as usize).min(head.0.len()));
        for _ in 0..count {
            let (first_row, namespace, table) = (head.number()?, self.text(head)?, head.text()?.into());
            runs.push(Run { first_row, namespace, table, group: self.text(head)?, labels: head.text()?.into() });
        }
        let index = match self.recent.iter().position(|(known, _)| *known == id) {
            Some(index) => index,
            None => {
                if self.recent.len() == SCHEMAS_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back((id, StreamDecoder::new()));
                self.recent.len() - 1
            }
        };
        part.extend([0; PADDING]);
        let mut buffer = arrow::buffer::Buffer::from_vec(part);
        let decoder = &mut self.recent[index].1;
        // Bytes that no build of ours wrote may be more than the decoder expects.
        let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(&mut buffer))).map_err(|_| broken("rows that cannot be".into()))?;
        let batch = decoded.map_err(|error| broken(format!("rows that are not readable: {error}")))?;
        let batch = batch.ok_or_else(|| broken("rows that are cut off".into()))?;
        Ok(Rows { batch, runs })
    }

    fn text(&mut self, head: &mut Take<'_>) -> Result<Arc<str>> {
        let text = head.text()?;
        if let Some(known) = self.texts.iter().find(|known| ***known == *text) {
            return Ok(known.clone());
        }
        if self.texts.len() == TEXTS_MAX {
            self.texts.pop_front();
        }
        let text: Arc<str> = text.into();
        self.texts.push_back(text.clone());
        Ok(text)
    }
}

struct Put(Vec<u8>);

impl Put {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend((bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }
}

struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn some(&mut self, length: usize) -> Result<&'a [u8]> {
        let (some, rest) = self.0.split_at_checked(length).ok_or_else(|| broken("a head that is cut off".into()))?;
        self.0 = rest;
        Ok(some)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.some(1)?[0])
    }

    fn number(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.some(8)?.try_into().expect("eight bytes")))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = u32::from_le_bytes(self.some(4)?.try_into().expect("four bytes"));
        self.some(length as usize)
    }

    fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|error| broken(format!("a text that is not UTF-8: {error}")))
    }
}
