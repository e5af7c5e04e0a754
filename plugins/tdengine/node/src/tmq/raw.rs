//! The held message as the engine's raw forms: rows with their head and schemas (types 2 and 4), one change (its own type),
//! several changes (type 5), and changes as JSON (PROTOCOL 8, 9).

use std::borrow::Cow;

use serde_json::value::RawValue;
use tdengine_wire::meta::{
    CreateTable, Meta as Change, RawMeta, Rendering, SOURCE_LOCAL, kind, render, to_json, to_json_batch,
};
use tdengine_wire::tmq::{BlockParts, DATA, DataBuilder, METADATA, Offset};

use super::message::{Block, Content, Message, Meta};
use crate::error::Fail;

/// Version that a real server gives with the schema of rows, whatever that of the table (recordings c2, c3).
const SCHEMA_VERSION: i32 = 0;

/// Raw type and body of a message.
pub(super) fn encode(message: &Message) -> Result<(u16, Cow<'_, [u8]>), Fail> {
    match &message.content {
        Content::Meta(meta) => Ok((meta.raw_type, Cow::Borrowed(&meta.body))),
        Content::Metas(metas) => Ok((kind::BATCH, Cow::Owned(batch(metas)))),
        Content::Rows { blocks, created } => {
            let (start, next) = (Offset::Log(message.start), Offset::Log(message.next));
            let mut builder = match message.has_table_names {
                true => DataBuilder::new(&start, &next),
                false => DataBuilder::without_table_names(&start, &next),
            };
            for Block { table, fields, block } in blocks {
                let schema_version = SCHEMA_VERSION;
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
    let rendering = if faithful { Rendering::Faithful } else { Rendering::Exact };
    let change = |meta: &Meta| render(&RawMeta::decode(meta.raw_type, &meta.body)?.meta, rendering);
    let text = match &message.content {
        Content::Rows { created, .. } if created.is_empty() => return Ok(None),
        Content::Rows { created, .. } => {
            let tables = created.iter().map(|request| CreateTable::decode(request)).collect::<Result<_, _>>()?;
            to_json(&render(&Change::CreateTables { tables, source: SOURCE_LOCAL, rest: Vec::new() }, rendering)?)?
        }
        Content::Meta(meta) => to_json(&change(meta)?)?,
        Content::Metas(metas) => to_json_batch(&metas.iter().map(change).collect::<Result<Vec<_>, _>>()?)?,
    };
    let failed = |error: serde_json::Error| Fail::protocol(format!("the change does not serialize: {error}"));
    RawValue::from_string(text).map(Some).map_err(failed)
}
