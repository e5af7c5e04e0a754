//! The engine's own sink and source around a log.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{Checkpoint, Connected, Error, Lane, LaneProgress, Message, Polled, Position, Result, SOURCE_HOLE, Sink, Source, async_trait};

use super::log::{Appended, Log, Mark, Read};
use super::{FULL, LANE, record};
use crate::config::{Buffer, OnCorrupt, WhenFull};
use crate::graph::{BuiltIn, BuiltInHost};

/// What is read in one go.
const MESSAGES_MAX: usize = 64;
const BYTES_MAX: usize = 4 << 20;

/// A buffer, as a graph holds it: nothing is opened before a component is made of it.
#[derive(Clone, Debug)]
pub(crate) struct DiskBuffer {
    pub folder: PathBuf,
    pub settings: Buffer,
}

impl BuiltIn for DiskBuffer {
    fn source(&self, host: &BuiltInHost<'_>) -> Result<Box<dyn Source>> {
        let log = host.buffers.log(&self.folder, &self.settings)?;
        Ok(Box::new(BufferSource { log, skipped: host.counter("buffer_messages_skipped"), lane: Lane::new(LANE), at: Mark::default(), given: VecDeque::new() }))
    }

    fn sink(&self, host: &BuiltInHost<'_>) -> Result<Box<dyn Sink>> {
        let log = host.buffers.log(&self.folder, &self.settings)?;
        Ok(Box::new(BufferSink { log, dropped: host.counter("buffer_rows_dropped") }))
    }

    fn buffer(&self) -> Option<&std::path::Path> {
        Some(&self.folder)
    }
}

struct BufferSink {
    log: Arc<Log>,
    dropped: crate::metrics::Counter,
}

#[async_trait]
impl Sink for BufferSink {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        match self.log.append(message)? {
            Appended::Done => Ok(()),
            Appended::Full(why) => match self.log.when_full() {
                WhenFull::Block => Err(Error::retry(why).code(FULL).hint("it goes on when the sink has taken some of it")),
                WhenFull::DropNewest => {
                    if self.dropped.get() == 0 {
                        tracing::warn!(folder = %self.log.folder.display(), why, "the buffer is full: what comes is dropped, as its `when-full` says");
                    }
                    self.dropped.add(message.row_count().max(1));
                    Ok(())
                }
            },
        }
    }

    async fn flush(&mut self) -> Result<()> {
        self.log.sync()
    }
}

struct BufferSource {
    log: Arc<Log>,
    skipped: crate::metrics::Counter,
    lane: Lane,
    at: Mark,
    /// Places behind what was handed out and is not done.
    given: VecDeque<Mark>,
}

impl BufferSource {
    fn read(&mut self) -> Result<Vec<Message>> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while messages.len() < MESSAGES_MAX && bytes < BYTES_MAX {
            match self.log.read(&self.at)? {
                Read::Nothing => break,
                Read::Record { payload, behind } => {
                    bytes += payload.len();
                    messages.push(record::decode(&payload, &self.lane)?);
                    self.at = behind;
                    self.given.push_back(behind);
                }
                // What was read before is handed out first.
                Read::Damaged { .. } if !messages.is_empty() => break,
                Read::Damaged { place, lost, behind } => self.damaged(&place, lost, behind)?,
            }
        }
        Ok(messages)
    }

    fn damaged(&mut self, place: &str, lost: u64, behind: Mark) -> Result<()> {
        match self.log.on_corrupt() {
            OnCorrupt::Stop => {
                let text = format!("the buffer is damaged, {place}: {lost} messages cannot be read");
                let hint = "nothing behind it is written until you decide: restore the file, or let `on-corrupt = \"skip\"` of the buffer leave them out";
                Err(Error::rejected(text).code(SOURCE_HOLE).hint(hint))
            }
            OnCorrupt::Skip => {
                tracing::error!(place, lost, "the buffer is damaged: messages are left out, as its `on-corrupt` says");
                self.skipped.add(lost);
                self.at = behind;
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Source for BufferSource {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        let number = from.lanes.get(&self.lane).and_then(|position| position.number);
        let sequence = number.map_or_else(|| self.log.ends().0, |number| number as u64);
        self.at = self.log.seek(sequence)?;
        self.given.clear();
        self.log.release(self.at);
        Ok(Connected { identity: Some(self.log.identity.clone()) })
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let messages = self.read()?;
        if !messages.is_empty() {
            return Ok(Polled::Messages(messages));
        }
        // An append between the look and the wait is kept for the wait.
        if tokio::time::timeout(wait, self.log.appended.notified()).await.is_err() {
            return Ok(Polled::Idle);
        }
        Ok(match self.read()? {
            messages if messages.is_empty() => Polled::Idle,
            messages => Polled::Messages(messages),
        })
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        let Some(number) = upto.lanes.get(&self.lane).and_then(|position| position.number) else { return Ok(()) };
        let mut done = None;
        while self.given.front().is_some_and(|mark| mark.sequence <= number as u64) {
            done = self.given.pop_front();
        }
        if let Some(mark) = done {
            self.log.release(mark);
        }
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let (oldest, next) = self.log.ends();
        let position = |sequence: u64| Some(Position::from_number(sequence as i64));
        Ok(vec![LaneProgress {
            lane: self.lane.clone(),
            oldest: position(oldest),
            current: position(self.at.sequence),
            latest: position(next),
            retention_seconds: None,
            ends: false,
        }])
    }
}
