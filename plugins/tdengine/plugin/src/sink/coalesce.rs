//! Several frames in one write. A write costs a server, its adapter and the way to them as much as some hundred rows (FACTS F51): frames
//! that wait go together where all of them fit as they are. Their blocks stand one behind the other, and of a row that is in several the
//! last counts, as it does in a message that a server made of several entries of its log.

use pipeline_sdk::{Error, Frame, Message, Payload, Result};
use tdengine_wire::tmq::enclose;

use super::decide::{Fit, fit_of};
use super::rows::{Planned, messages_of};
use super::target::Target;
use crate::errors::{CodeReaction, reaction_to, wire_error};
use crate::log::data::DataMessage;
use crate::log::{RAW_DATA, open_envelope};
use crate::transport::Connection;

/// The frames at the start of `messages` that can go in one write of `bytes_max`. None that may have been written before: those are
/// compared first.
pub fn frames_of(messages: &[Message], bytes_max: usize) -> Vec<&Frame> {
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

/// Writes frames as one message. Whether they were: where anything does not fit, or is refused, each of them goes its own way.
pub async fn write(target: &mut Target, connection: &Connection, frames: &[&Frame]) -> Result<bool> {
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
        if *fit_of(target, &table, block)?.0 != Fit::Same {
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
        Ok(()) => {
            target.context.count("messages_coalesced", frames.len() as u64);
            Ok(true)
        }
        Err(error) if error.code().is_some_and(|code| matches!(reaction_to(code), CodeReaction::ApplyMetaFirst | CodeReaction::Reject)) => {
            tracing::debug!(%error, frames = frames.len(), "refused together: each alone now");
            Ok(false)
        }
        Err(error) => Err(Error::from(error).context(format!("rows of `{}`", target.database))),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;
    use pipeline_sdk::{Header, Lane, Position, Rows};

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
