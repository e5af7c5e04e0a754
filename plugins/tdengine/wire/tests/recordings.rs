//! Every recorded frame of a real server is decoded, and what can be encoded again must give the same bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use tdengine_wire::arrow::{from_batch, to_batch};
use tdengine_wire::block::{BlockBuilder, BlockView};
use tdengine_wire::envelope::*;
use tdengine_wire::meta::{CreateTable, RawMeta, Rendering, parse_json, render, to_json};
use tdengine_wire::tmq::{self, BlockParts, DataBuilder, DataView, Tail};
use tdengine_wire::{Precision, Result, WireError};

/// Decoded, or why not, by kind of frame.
#[derive(Default)]
struct Tally {
    decoded: BTreeMap<&'static str, usize>,
    failed: Vec<String>,
}

impl Tally {
    fn add(&mut self, kind: &'static str, place: &str, result: Result<()>) {
        match result {
            Ok(()) => *self.decoded.entry(kind).or_default() += 1,
            Err(error) => self.failed.push(format!("{place}: {kind}: {error}")),
        }
    }
}

fn different(what: &'static str, why: impl Into<String>) -> WireError {
    WireError::Invalid { what, why: why.into() }
}

fn recordings() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../tests/recordings");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_frame() {
    let mut tally = Tally::default();
    for (file, text) in recordings() {
        let mut json_metas = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let frame: Json = serde_json::from_str(line).unwrap();
            let place = format!("{file}:{}", number + 1);
            let is_reply = frame["dir"] == "s2c";
            match (frame["kind"].as_str(), frame["text"].as_str(), frame["base64"].as_str()) {
                (Some("text"), Some(text), _) if is_reply => {
                    tally.add("text reply", &place, text_reply(text, file.starts_with('c'), &mut json_metas));
                }
                // Some requests are malformed on purpose: what the server says to them is what counts.
                (Some("text"), Some(text), _) => {
                    if let Ok(request) = Request::parse(text) {
                        tally.add("text request", &place, request.args::<Json>().map(drop));
                    }
                }
                (Some("binary"), _, Some(bytes)) => {
                    let bytes = STANDARD.decode(bytes).unwrap();
                    if is_reply {
                        tally.add("binary reply", &place, binary_reply(&bytes, &json_metas));
                    } else {
                        tally.add("binary request", &place, binary_request(&bytes));
                    }
                }
                _ => {}
            }
        }
    }
    let decoded: usize = tally.decoded.values().sum();
    let all = decoded + tally.failed.len();
    println!("{decoded} of {all} frames decode ({:.1} %): {:?}", decoded as f64 * 100.0 / all as f64, tally.decoded);
    assert!(tally.failed.is_empty(), "{} do not:\n{}", tally.failed.len(), tally.failed.join("\n"));
    assert!(all > 1_500, "only {all} frames found");
}

/// Envelope and, without an error in it, the keys of its action.
fn text_reply(text: &str, is_tmq: bool, json_metas: &mut BTreeMap<u64, String>) -> Result<()> {
    let reply = Reply::parse(text)?;
    if reply.code != 0 {
        return reply.body::<Empty>().map(drop);
    }
    match &*reply.action {
        "version" | "conn" | "subscribe" => reply.body::<VersionReply>().map(drop),
        "query" | "binary_query" => reply.body::<QueryReply>()?.fields().map(drop),
        "fetch" if is_tmq || text.contains("message_id") => reply.body::<TmqFetchReply>().map(drop),
        "fetch" => reply.body::<FetchReply>().map(drop),
        "insert" => reply.body::<InsertReply>().map(drop),
        "prepare" => reply.body::<StmtPrepareReply>().map(drop),
        "exec" => reply.body::<StmtExecReply>().map(drop),
        "get_tag_fields" | "get_col_fields" => reply.body::<StmtFieldsReply>().map(drop),
        "poll" => reply.body::<PollReply>().map(drop),
        "assignment" => reply.body::<AssignmentReply>().map(drop),
        "committed" => reply.body::<CommittedReply>().map(drop),
        "position" => reply.body::<PositionReply>().map(drop),
        "commit_offset" => reply.body::<CommitOffset>().map(drop),
        "list_topics" => reply.body::<ListTopicsReply>().map(drop),
        "fetch_json_meta" => {
            let body: FetchJsonMetaReply = reply.body()?;
            let data = body.data.as_ref().map_or("null", |data| data.get());
            for meta in parse_json(data)? {
                let same = parsed(&to_json(&meta)?)? == parsed(data)?;
                same.then_some(()).ok_or_else(|| different("json meta", to_json(&meta).unwrap_or_default()))?;
            }
            json_metas.insert(body.message_id, data.to_owned());
            Ok(())
        }
        _ => reply.body::<Empty>().map(drop),
    }
}

fn parsed(text: &str) -> Result<Json> {
    serde_json::from_str(text).map_err(|error| different("json", error.to_string()))
}

fn binary_request(bytes: &[u8]) -> Result<()> {
    if bytes.len() < 24 {
        return Ok(());
    }
    let (req_id, id, request) = BinaryRequest::decode(bytes)?;
    if let BinaryRequest::Unknown { .. } = request {
        return Ok(());
    }
    match &request {
        BinaryRequest::StmtBind { block } | BinaryRequest::StmtSetTags { block } => drop(BlockView::parse(block)?),
        BinaryRequest::WriteBlock { block, .. } | BinaryRequest::WriteBlockWithFields { block, .. } => {
            check_block(block, Precision::Milliseconds)?;
        }
        // Two recorded bodies are garbage on purpose.
        BinaryRequest::WriteRaw { raw_type, data } if data.len() > 1 && !data.starts_with(b"garbage") => {
            check_raw(*raw_type, data)?;
        }
        _ => {}
    }
    if request.encode(req_id, id)? == bytes { Ok(()) } else { Err(different("request", "encodes differently")) }
}

fn binary_reply(bytes: &[u8], json_metas: &BTreeMap<u64, String>) -> Result<()> {
    match BinaryReply::decode(bytes)? {
        BinaryReply::ResultBlock(reply) => {
            reply.block.map_or(Ok(()), |block| check_block(block, Precision::Milliseconds))?;
            same_bytes(&reply.encode(), bytes)
        }
        BinaryReply::RawData(reply) => {
            reply.raw.map_or(Ok(()), |(raw_type, data)| check_raw(raw_type, data))?;
            same_bytes(&reply.encode(), bytes)
        }
        BinaryReply::Old(_) => old_reply(bytes, json_metas),
    }
}

fn old_reply(bytes: &[u8], json_metas: &BTreeMap<u64, String>) -> Result<()> {
    if let Ok(raw) = RawReply::decode(bytes) {
        check_raw(raw.raw_type, raw.data)?;
        if let Some(json) = json_metas.get(&raw.message_id).filter(|_| raw.raw_type > 100) {
            let rendered = render(&RawMeta::decode(raw.raw_type, raw.data)?.meta, Rendering::Faithful)?;
            let rendered = to_json(&rendered)?;
            if parsed(&rendered)? != parsed(json)? {
                return Err(different("rendering", format!("\n  ours {rendered}\n  real {json}")));
            }
        }
        return same_bytes(&raw.encode(), bytes);
    }
    let ws = BlockReply::decode_ws(bytes)?;
    let reply = if BlockView::parse(ws.block).is_ok() { ws } else { BlockReply::decode_tmq(bytes)? };
    check_block(reply.block, Precision::Milliseconds)?;
    same_bytes(&reply.encode(), bytes)
}

fn same_bytes(ours: &[u8], real: &[u8]) -> Result<()> {
    let at = ours.iter().zip(real).position(|(ours, real)| ours != real).unwrap_or(ours.len().min(real.len()));
    if ours == real {
        return Ok(());
    }
    let show = |bytes: &[u8]| bytes.get(at..).map(|rest| rest[..rest.len().min(24)].to_vec());
    Err(different("bytes", format!("at {at} of {}: {:x?} for {:x?}", real.len(), show(ours), show(real))))
}

/// Values survive the builder and Arrow.
fn check_block(block: &[u8], precision: Precision) -> Result<()> {
    let view = BlockView::parse(block)?;
    let mut builder = BlockBuilder::new(view.columns().iter().map(|column| column.column_type()));
    for (into, from) in builder.columns_mut().iter_mut().zip(view.columns()) {
        into.extend_from(from, 0..from.rows())?;
    }
    let built = builder.encode(view.header().version)?;
    let names: Vec<String> = (0..view.columns().len()).map(|index| index.to_string()).collect();
    let batch = to_batch(&view, names.iter().map(String::as_str), precision)?;
    let arrow = from_batch(&batch, view.header().version)?;
    for other in [&built, &arrow] {
        let other = BlockView::parse(other)?;
        for (real, ours) in view.columns().iter().zip(other.columns()) {
            let same = real.column_type() == ours.column_type();
            if !same || (0..view.rows()).any(|row| real.bytes(row) != ours.bytes(row)) {
                return Err(different("block", format!("a {} column changes", real.column_type())));
            }
        }
    }
    Ok(())
}

fn check_raw(raw_type: u16, data: &[u8]) -> Result<()> {
    if !matches!(raw_type, tmq::DATA | tmq::METADATA) {
        let raw = RawMeta::decode(raw_type, data)?;
        return same_bytes(&raw.encode()?.1, data);
    }
    let view = DataView::parse(data)?;
    let mut builder = DataBuilder::new(view.request_offset(), view.response_offset());
    for entry in view.blocks() {
        let entry = entry?;
        check_block(entry.block, entry.precision)?;
        let fields = entry.fields.ok_or_else(|| different("entry", "no schema"))?;
        builder.push(&BlockParts {
            table: entry.table.ok_or_else(|| different("entry", "no table"))?,
            fields: &fields.to_vec()?,
            schema_version: fields.version(),
            precision: entry.precision,
            block: entry.block,
        })?;
    }
    let Tail::Creates(creates) = view.tail(raw_type)? else {
        return same_bytes(&builder.finish(), data);
    };
    for create in &creates {
        same_bytes(&CreateTable::decode(create)?.encode()?, create)?;
    }
    let (rows, split) = tmq::split(data)?;
    same_bytes(&tmq::join(&rows, split.iter().copied())?, data)?;
    let batch = tmq::create_batch(2, split.into_iter(), 0);
    same_bytes(&RawMeta::decode(515, &batch)?.encode()?.1, &batch)?;
    same_bytes(&builder.finish_with_creates(creates.into_iter()), data)
}
