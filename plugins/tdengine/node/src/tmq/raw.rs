//! The held message as the engine's raw forms: rows with their head and schemas (types 2 and 4), one change (its own type),
//! several changes (type 5), and changes as JSON (PROTOCOL 8, 9).

use std::borrow::Cow;

use serde_json::value::RawValue;
use tdengine_wire::tmq::{BlockParts, DATA, DataBuilder, METADATA, Offset};

use super::json;
use super::message::{Block, Content, Message, Meta};
use crate::error::Fail;

/// Raw type of several changes in one body.
const BATCH: u16 = 5;

/// Raw type and body of a message.
pub(super) fn encode(message: &Message) -> Result<(u16, Cow<'_, [u8]>), Fail> {
    match &message.content {
        Content::Meta(meta) => Ok((meta.raw_type, Cow::Borrowed(&meta.body))),
        Content::Metas(metas) => Ok((BATCH, Cow::Owned(batch(metas)))),
        Content::Rows { blocks, created } => {
            let mut builder = DataBuilder::new(&Offset::Log(message.start), &Offset::Log(message.next));
            for Block { table, fields, schema_version, block } in blocks {
                let schema_version = *schema_version;
                builder.push(&BlockParts { table, fields, schema_version, precision: message.precision, block })?;
            }
            match created.is_empty() {
                true => Ok((DATA, Cow::Owned(builder.finish()))),
                false => {
                    let creates = created.iter().map(|create| &create[..]);
                    Ok((METADATA, Cow::Owned(builder.finish_with_creates(creates))))
                }
            }
        }
    }
}

/// A form of this node's own, for no client reads it: the number of changes, then each as action 3 takes it.
fn batch(metas: &[Meta]) -> Vec<u8> {
    let mut body = (metas.len() as u32).to_le_bytes().to_vec();
    for meta in metas {
        body.extend((meta.body.len() as u32).to_le_bytes());
        body.extend(meta.raw_type.to_le_bytes());
        body.extend(&meta.body);
    }
    body
}

/// The changes of a message as JSON: those of its own, or the creation of its tables; `None` when it has neither.
pub(super) fn json(message: &Message, faithful: bool) -> Result<Option<Box<RawValue>>, Fail> {
    let change = |meta: &Meta| json::change(meta.raw_type, &meta.body, faithful);
    let value = match &message.content {
        Content::Rows { created, .. } if created.is_empty() => return Ok(None),
        Content::Rows { created, .. } => json::creations(created.iter().map(|create| &create[..]), faithful)?,
        Content::Meta(meta) => change(meta)?,
        Content::Metas(metas) => {
            let metas = metas.iter().map(change).collect::<Result<Vec<_>, _>>()?;
            serde_json::json!({ "tmq_meta_version": "1.0", "metas": metas })
        }
    };
    let failed = |error: serde_json::Error| Fail::protocol(format!("the change does not serialize: {error}"));
    serde_json::value::to_raw_value(&value).map(Some).map_err(failed)
}
