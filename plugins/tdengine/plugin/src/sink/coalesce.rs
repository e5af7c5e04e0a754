//! Several messages in one write. A write costs a server, its adapter and the way to them as much as some hundred rows (FACTS F51), and over
//! a long way much more. Frames that wait go together where all of them fit as they are: their blocks stand one behind the other, and of a row
//! that is in several the last counts, as it does in a message that a server made of several entries of its log. Creations of tables
//! that wait are looked up and made together.

use std::collections::HashSet;

use pipeline_sdk::{ChangeKind, Error, Frame, Header, Message, Payload, Reaction, Result};
use tdengine_wire::tmq::enclose;

use super::changes::{self, Creation};
use super::decide::is_same;
use super::rows::{Planned, messages_of, place_of};
use super::target::Target;
use crate::errors::{CodeReaction, reaction_to, wire_error};
use crate::log::change::Change as Entry;
use crate::log::data::DataMessage;
use crate::log::{RAW_DATA, open_envelope};
use crate::source::CHANGE_FORMAT;
use crate::transport::Connection;

/// What goes in one write.
pub enum Together<'a> {
    Frames(Vec<&'a Frame>),
    Creations(Vec<Creation<'a>>),
}

impl<'a> Together<'a> {
    /// What stands at the start of `messages` and can go in one write of `bytes_max`.
    pub fn of(messages: &'a [Message], bytes_max: usize) -> Self {
        match messages.first().map(|message| &message.payload) {
            Some(Payload::Change(_)) => Self::Creations(creations_of(messages, bytes_max)),
            _ => Self::Frames(frames_of(messages, bytes_max)),
        }
    }

    /// How many messages that is.
    pub fn len(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.len(),
            Self::Creations(creations) => creations.len(),
        }
    }

    /// Writes what is more than one, of which the first has this header. Whether that was done: where anything does not fit, or is
    /// refused, each goes its own way.
    pub async fn write(&self, target: &mut Target, connection: &Connection, header: &Header) -> Result<bool> {
        let done = match self {
            Self::Frames(frames) => write_frames(target, connection, header, frames).await?,
            Self::Creations(creations) => create(target, connection, creations).await?,
        };
        if done {
            target.context.count("messages_coalesced", self.len() as u64);
        }
        Ok(done)
    }
}

/// None that may have been written before: those are compared first.
fn frames_of(messages: &[Message], bytes_max: usize) -> Vec<&Frame> {
    let (mut frames, mut bytes) = (Vec::<&Frame>::new(), 0);
    for message in messages {
        let Payload::Frame(frame) = &message.payload else { break };
        bytes += frame.data.len();
        let is_data = || matches!(open_envelope(&frame.data), Ok((RAW_DATA, _)));
        let is_alike = frames.first().is_none_or(|first| first.namespace == frame.namespace);
        if bytes > bytes_max || message.header.replayed || frame.rows == 0 || !is_alike || !is_data() {
            break;
        }
        frames.push(frame);
    }
    frames
}

/// Up to a name that comes a second time: it was dropped between.
fn creations_of(messages: &[Message], bytes_max: usize) -> Vec<Creation<'_>> {
    let (mut creations, mut names, mut bytes) = (Vec::<Creation<'_>>::new(), HashSet::new(), 0);
    for message in messages {
        let Payload::Change(change) = &message.payload else { break };
        let Some(raw) = change.raw.as_ref().filter(|raw| change.kind == ChangeKind::CreateTable && &*raw.format == CHANGE_FORMAT) else { break };
        bytes += raw.data.len();
        let is_alike = creations.first().is_none_or(|first| first.change.namespace == change.namespace);
        if bytes > bytes_max || !is_alike || !change.tables.iter().all(|name| names.insert(name)) {
            break;
        }
        let parsed = open_envelope(&raw.data).and_then(|(raw_type, body)| Entry::parse(raw_type, body));
        let Ok(Some(Entry::CreateTables(tables))) = parsed else { break };
        creations.push(Creation { header: &message.header, change, raw: &raw.data, tables });
    }
    creations
}

async fn create(target: &mut Target, connection: &Connection, creations: &[Creation<'_>]) -> Result<bool> {
    match changes::create(target, connection, creations).await {
        Ok(()) => Ok(true),
        // Those that were made are found to be there.
        Err(error) if matches!(error.reaction, Reaction::Retry | Reaction::Rejected) => {
            tracing::debug!(%error, creations = creations.len(), "refused together: each alone now");
            Ok(false)
        }
        Err(error) => {
            let first = creations.first().map_or_else(String::new, |first| changes::place_of(first.header, first.change));
            Err(error.context(behind(first, creations.len())))
        }
    }
}

/// For a person: the place of the first of so many messages.
fn behind(first: String, messages: usize) -> String {
    format!("{first}, with {} messages behind it", messages - 1)
}

/// As one message.
async fn write_frames(target: &mut Target, connection: &Connection, header: &Header, frames: &[&Frame]) -> Result<bool> {
    if target.waits_since.is_some() {
        return Ok(false);
    }
    let shared = target.shared.clone();
    let _held = shared.definitions.read().await;
    let bodies = frames.iter().map(|frame| open_envelope(&frame.data)).collect::<Result<Vec<_>, _>>().map_err(wire_error)?;
    let parsed = bodies.into_iter().map(|(raw_type, body)| DataMessage::parse(raw_type, body));
    let messages = parsed.collect::<Result<Vec<_>, _>>().map_err(wire_error)?;
    let mut planned = Vec::with_capacity(messages.iter().map(|message| message.blocks.len()).sum());
    for block in messages.iter().flat_map(|message| &message.blocks) {
        let Some(table) = target.find(connection, block.table).await? else { return Ok(false) };
        if !is_same(target, &table, block)? {
            return Ok(false);
        }
        planned.push(Planned { block, first_row: 0, names: None, rows: None });
    }
    if messages_of(&planned).len() > 1 {
        return Ok(false);
    }
    target.renew_server_cache(connection).await?;
    let (head, tail) = enclose(planned.len(), messages.iter().map(|message| message.entries.len()).sum());
    let entries = messages.iter().map(|message| message.entries);
    let pieces: Vec<&[u8]> = std::iter::once(&head[..]).chain(entries).chain([&tail[..]]).collect();
    match target.write_pieces(connection, &pieces).await {
        Ok(()) => Ok(true),
        Err(error) if error.code().is_some_and(|code| matches!(reaction_to(code), CodeReaction::ApplyMetaFirst | CodeReaction::Reject)) => {
            tracing::debug!(%error, frames = frames.len(), "refused together: each alone now");
            Ok(false)
        }
        Err(error) => {
            let first = place_of(target, header, &messages[0].blocks);
            Err(Error::from(error).context(behind(first, frames.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;
    use pipeline_sdk::{Lane, Position, Rows};

    use super::*;
    use crate::log::{RAW_METADATA, envelope};

    fn frame(namespace: &str, raw_type: u16, bytes: usize, rows: u64) -> Message {
        let data = envelope(raw_type, &vec![0; bytes - 6]).into();
        let frame = Frame { format: "x".into(), data, namespace: namespace.into(), rows, tables: 1 };
        Message { header: Header::new(Lane::new("1"), Position::from_number(1)), payload: Payload::Frame(frame) }
    }

    #[test]
    fn frames_go_together_within_the_limit_and_up_to_what_must_go_alone() {
        let rows = || frame("a", RAW_DATA, 100, 5);
        let mut replayed = rows();
        replayed.header.replayed = true;
        let decoded = Message { header: rows().header, payload: Payload::Rows(Rows::plain(RecordBatch::new_empty(Schema::empty().into()))) };
        for (what, messages, expect) in [
            ("all", vec![rows(), rows(), rows()], 3),
            ("the limit", vec![rows(), rows(), rows(), rows()], 3),
            ("too large alone", vec![frame("a", RAW_DATA, 301, 5), rows()], 0),
            ("another database", vec![rows(), frame("b", RAW_DATA, 100, 5), rows()], 1),
            ("with tables to make", vec![rows(), rows(), frame("a", RAW_METADATA, 100, 5)], 2),
            ("a position and no rows", vec![rows(), frame("a", RAW_DATA, 100, 0)], 1),
            ("to be compared", vec![rows(), replayed], 1),
            ("no frame", vec![rows(), decoded, rows()], 1),
        ] {
            assert_eq!(frames_of(&messages, 300).len(), expect, "{what}");
        }
    }
}
