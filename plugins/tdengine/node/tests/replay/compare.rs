//! When two answers are the same: all but ids that a server gives out and times.

use std::collections::HashMap;

use serde_json::Value as Json;
use tdengine_wire::block::BlockView;
use tdengine_wire::envelope::{BinaryReply, RawReply};
use tdengine_wire::tmq::{DATA, DataView, METADATA};

use crate::recording::Content;

/// Vgroup ids of the recording and the node's.
#[derive(Default)]
pub struct Names {
    vgroups: HashMap<i64, i64>,
    /// Whether the recorded tokens and the node's have been told apart already; they are opaque.
    tokens: HashMap<String, String>,
}

impl Names {
    /// The request with the node's ids instead of the recording's.
    pub fn request(&self, text: &str) -> String {
        match serde_json::from_str::<Json>(text) {
            Ok(mut json) => {
                self.translate(&mut json);
                json.to_string()
            }
            Err(_) => text.to_owned(),
        }
    }

    fn translate(&self, json: &mut Json) {
        match json {
            Json::Object(object) => {
                for (key, value) in object {
                    match (key.as_str(), value.as_i64().and_then(|id| self.vgroups.get(&id))) {
                        ("vgroup_id", Some(id)) => *value = (*id).into(),
                        _ => self.translate(value),
                    }
                }
            }
            Json::Array(values) => values.iter_mut().for_each(|value| self.translate(value)),
            _ => {}
        }
    }
}

pub fn same(expected: &Content, got: &Content, names: &mut Names) -> Result<(), String> {
    match (expected, got) {
        (Content::Text(expected), Content::Text(got)) => {
            let parse = |text: &str| serde_json::from_str::<Json>(text).map_err(|error| error.to_string());
            same_json("", &parse(expected)?, &parse(got)?, names)
        }
        (Content::Binary(expected), Content::Binary(got)) => same_binary(expected, got),
        _ => Err(format!("got {}, recorded {}", show(got), show(expected))),
    }
}

fn show(content: &Content) -> String {
    match content {
        Content::Text(text) => text.chars().take(200).collect(),
        Content::Binary(bytes) => format!("{} bytes", bytes.len()),
        Content::Http(text) | Content::Sql(text, _) => text.clone(),
    }
}

fn same_json(path: &str, expected: &Json, got: &Json, names: &mut Names) -> Result<(), String> {
    let differs = || Err(format!("{path}: {got}, recorded {expected}"));
    match (expected, got) {
        (Json::Object(recorded), Json::Object(object)) => {
            let is_error = recorded.get("code").is_some_and(|code| *code != 0);
            for key in recorded.keys().chain(object.keys()) {
                let place = format!("{path}.{key}");
                match (recorded.get(key), object.get(key)) {
                    (Some(_), Some(_)) if key == "timing" => {}
                    // The text behind "detail:" is stale at best (FACTS F29).
                    (Some(Json::String(text)), Some(_)) if is_error && key == "message" && text.contains(",detail:") => {}
                    // A build of its own.
                    (Some(Json::String(text)), Some(_)) if key == "info" && text.starts_with("ver:") => {}
                    (Some(Json::String(text)), Some(Json::String(got))) if path.is_empty() && key == "desc" && text.len() == 64 => {
                        names.tokens.insert(text.clone(), got.clone());
                    }
                    (Some(recorded), Some(value)) => same_json(&place, recorded, value, names)?,
                    (None, Some(value)) => return Err(format!("{place}: {value}, not recorded")),
                    (Some(recorded), None) => return Err(format!("{place} is missing, recorded {recorded}")),
                    (None, None) => {}
                }
            }
            Ok(())
        }
        (Json::Array(recorded), Json::Array(values)) if recorded.len() == values.len() => {
            let mut pairs = recorded.iter().zip(values).enumerate();
            pairs.try_for_each(|(at, (recorded, value))| same_json(&format!("{path}[{at}]"), recorded, value, names))
        }
        (Json::Number(recorded), Json::Number(number)) if path.ends_with(".vgroup_id") => {
            let (Some(recorded), Some(number)) = (recorded.as_i64(), number.as_i64()) else { return differs() };
            let known = *names.vgroups.entry(recorded).or_insert(number);
            if known == number { Ok(()) } else { differs() }
        }
        _ if expected == got => Ok(()),
        _ => differs(),
    }
}

fn same_binary(expected: &[u8], got: &[u8]) -> Result<(), String> {
    let decode = |bytes| BinaryReply::decode(bytes).map_err(|error| error.to_string());
    match (decode(expected)?, decode(got)?) {
        (BinaryReply::ResultBlock(recorded), BinaryReply::ResultBlock(reply)) => {
            let head = |reply: &tdengine_wire::envelope::ResultBlockReply<'_>| {
                (reply.req_id, reply.code, reply.message.to_owned(), reply.result_id)
            };
            if head(&recorded) != head(&reply) {
                return Err(format!("{:?}, recorded {:?}", head(&reply), head(&recorded)));
            }
            same_block(recorded.block, reply.block)
        }
        (BinaryReply::RawData(recorded), BinaryReply::RawData(reply)) => {
            let head = |reply: &tdengine_wire::envelope::RawDataReply<'_>| {
                (reply.req_id, reply.code, reply.message.to_owned(), reply.message_id)
            };
            if head(&recorded) != head(&reply) {
                return Err(format!("{:?}, recorded {:?}", head(&reply), head(&recorded)));
            }
            same_raw(recorded.raw, reply.raw)
        }
        (BinaryReply::Old(recorded), BinaryReply::Old(reply)) => same_old(recorded, reply),
        _ => Err("another kind of binary reply".into()),
    }
}

/// Old forms begin with the time that the server took.
fn same_old(recorded: &[u8], reply: &[u8]) -> Result<(), String> {
    if let (Ok(recorded), Ok(reply)) = (RawReply::decode(recorded), RawReply::decode(reply)) {
        if (recorded.req_id, recorded.message_id) != (reply.req_id, reply.message_id) {
            return Err("another request or message id".into());
        }
        return same_raw(Some((recorded.raw_type, recorded.data)), Some((reply.raw_type, reply.data)));
    }
    // `/ws` has one more word before the block, `/rest/tmq` two.
    for words in [2, 3] {
        let from = 8 * words;
        let (Some(recorded_block), Some(block)) = (recorded.get(from..), reply.get(from..)) else { continue };
        if BlockView::parse(recorded_block).is_ok() {
            if recorded[8..from] != reply[8..from] {
                return Err("another id before the block".into());
            }
            return same_block(Some(recorded_block), Some(block));
        }
    }
    Err("no block in the recorded reply".into())
}

fn same_block(recorded: Option<&[u8]>, block: Option<&[u8]>) -> Result<(), String> {
    if recorded == block {
        return Ok(());
    }
    match (recorded, block) {
        (Some(recorded), Some(block)) => Err(format!("block {}, recorded {}", text(block), text(recorded))),
        (Some(recorded), None) => Err(format!("no block, recorded {}", text(recorded))),
        (_, block) => Err(format!("block {}, recorded none", block.map(text).unwrap_or_default())),
    }
}

fn text(block: &[u8]) -> String {
    let Ok(view) = BlockView::parse(block) else { return "that cannot be read".into() };
    let columns = view.columns().iter().map(|column| {
        let values = (0..view.rows().min(4)).map(|row| format!("{:?}", column.value(row))).collect::<Vec<_>>().join(" ");
        format!("{}/{}: {values}", column.data_type(), column.column_type().bytes)
    });
    format!("{} rows, {} bytes, {}", view.rows(), block.len(), columns.collect::<Vec<_>>().join("; "))
}

/// Rows: byte for byte, but for the tail of creations. Creations and changes: their type and length; uids and times in
/// them have a fixed width, and their content is compared as JSON by `fetch_json_meta`.
fn same_raw(recorded: Option<(u16, &[u8])>, raw: Option<(u16, &[u8])>) -> Result<(), String> {
    let (Some((recorded_type, recorded)), Some((raw_type, raw))) = (recorded, raw) else {
        let same = recorded.is_none() == raw.is_none();
        return if same { Ok(()) } else { Err("one has a body, the other has none".into()) };
    };
    if recorded_type != raw_type {
        return Err(format!("raw type {raw_type}, recorded {recorded_type}"));
    }
    if !matches!(raw_type, DATA | METADATA) {
        let lengths = (raw.len(), recorded.len());
        return if lengths.0 == lengths.1 { Ok(()) } else { Err(format!("raw type {raw_type}: {lengths:?} bytes")) };
    }
    let rows = |body| -> tdengine_wire::Result<Vec<u8>> {
        let view = DataView::parse(body)?;
        let offsets = format!("{:?} {:?}", view.request_offset(), view.response_offset()).into_bytes();
        view.blocks().try_fold(offsets, |mut all, entry| {
            all.extend_from_slice(entry?.as_bytes());
            Ok(all)
        })
    };
    let parse = |body| rows(body).map_err(|error| error.to_string());
    let (recorded, raw) = (parse(recorded)?, parse(raw)?);
    if recorded == raw {
        return Ok(());
    }
    let at = recorded.iter().zip(&raw).take_while(|(recorded, got)| recorded == got).count();
    let around = |bytes: &[u8]| bytes[at.saturating_sub(16)..].iter().take(48).map(|byte| format!("{byte:02x}")).collect::<String>();
    Err(format!("raw type {raw_type}: other blocks or offsets from byte {at}: {}, recorded {}", around(&raw), around(&recorded)))
}
