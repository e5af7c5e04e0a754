//! Reading the held message: block by block, whole, or its changes as JSON (PROTOCOL 6.1, 6.5).

use std::sync::Arc;

use tdengine_wire::block::BlockHeader;
use tdengine_wire::envelope::{
    BlockReply, FetchJsonMeta, FetchJsonMetaReply, FetchRaw, FetchRawData, RawDataReply, RawReply, Request, TmqFetch,
    TmqFetchBlock, TmqFetchReply,
};

use super::message::{Block, Content, Message};
use super::{Socket, not_subscribed, raw};
use crate::error::Fail;
use crate::reply::{Answer, Call, args, echo};
use crate::socket::Frame;

/// How far `fetch` read in which message.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    message_id: u64,
    /// Blocks that `fetch` named so far.
    named: usize,
    /// Of the last `fetch`.
    req_id: u64,
}

const NOT_DATA: &str = "message type is not data";

impl Socket {
    pub(super) fn fetch(&self, call: &Call, request: &Request<'_>) -> Answer {
        let TmqFetch { message_id } = args(request)?;
        let message = self.held(message_id, "message ID are not equal")?;
        let blocks = blocks(&message)?;
        let mut state = self.state.lock();
        if state.cursor.message_id != message_id {
            state.cursor = Cursor { message_id, ..Cursor::default() };
        }
        state.cursor.req_id = call.req_id;
        let Some(block) = blocks.get(state.cursor.named) else {
            return call.json(&TmqFetchReply { message_id, completed: true, ..TmqFetchReply::default() });
        };
        state.cursor.named += 1;
        let is_asked = state.consumer.as_ref().is_some_and(|consumer| consumer.options.with_table_name);
        let with_table_name = message.has_table_names && is_asked;
        let table_name = if with_table_name { block.table.to_string() } else { String::new() };
        let fields = &block.fields;
        call.json(&TmqFetchReply {
            message_id,
            completed: false,
            table_name,
            rows: BlockHeader::parse(&block.block)?.rows as i64,
            fields_count: fields.len() as i64,
            fields_names: Some(fields.iter().map(|field| field.name.clone()).collect()),
            fields_types: Some(fields.iter().map(|field| field.column_type.data_type.code()).collect()),
            fields_lengths: Some(fields.iter().map(|field| i64::from(field.column_type.query_length())).collect()),
            precision: i64::from(message.precision.code()),
        })
    }

    pub(super) fn fetch_block(&self, call: &Call, request: &Request<'_>) -> Answer {
        let TmqFetchBlock { message_id } = args(request)?;
        let message = self.held(message_id, "message is nil")?;
        let blocks = blocks(&message)?;
        let state = self.state.lock();
        let named = if state.cursor.message_id == message_id { state.cursor.named } else { 0 };
        let block = named.checked_sub(1).and_then(|at| blocks.get(at)).ok_or_else(|| Fail::protocol("no fetch data"))?;
        // 3.3.2.3 repeats the id of the `fetch` before (recordings c2, c4).
        let req_id = if self.shared.version.has_stmt2() { call.req_id } else { state.cursor.req_id };
        let (timing, req_id) = (call.timing(), Some(req_id));
        let reply = BlockReply { timing, req_id, id: message_id, block: &block.block };
        Ok(Some(Frame::Binary(reply.encode().into())))
    }

    pub(super) fn fetch_raw(&self, call: &Call, request: &Request<'_>) -> Answer {
        let FetchRaw { message_id } = args(request)?;
        let message = self.held(message_id, "message ID is not equal")?;
        let (raw_type, data) = raw::encode(&message)?;
        let (timing, req_id) = (call.timing(), call.req_id);
        let reply = RawReply { timing, req_id, message_id, raw_type, data: &data };
        Ok(Some(Frame::Binary(reply.encode().into())))
    }

    pub(super) fn fetch_raw_data(&self, call: &Call, request: &Request<'_>) -> Answer {
        let FetchRawData { message_id } = args(request)?;
        let message = self.held(message_id, "message ID is not equal")?;
        let (raw_type, data) = raw::encode(&message)?;
        let (timing, req_id) = (call.timing(), call.req_id);
        let reply =
            RawDataReply { timing, req_id, code: 0, message: "", message_id, raw: Some((raw_type, &data)) };
        Ok(Some(Frame::Binary(reply.encode().into())))
    }

    /// Errors of `fetch_raw_data` are binary as well.
    pub(super) fn raw_data_error(&self, call: &Call, request: &Request<'_>, fail: &Fail) -> Frame {
        let message_id = echo(request, &["message_id"]).get("message_id").and_then(|id| id.as_u64()).unwrap_or(0);
        let (timing, req_id) = (call.timing(), call.req_id);
        let reply = RawDataReply { timing, req_id, code: fail.code, message: &fail.message, message_id, raw: None };
        Frame::Binary(reply.encode().into())
    }

    pub(super) fn fetch_json_meta(&self, call: &Call, request: &Request<'_>) -> Answer {
        let FetchJsonMeta { message_id } = args(request)?;
        let message = self.held(message_id, "message ID is not equal")?;
        let data = raw::json(&message, !self.shared.version.has_stmt2())?;
        call.json(&FetchJsonMetaReply { message_id, data })
    }

    /// The held message, when it is the one that was asked for.
    fn held(&self, message_id: u64, other: &'static str) -> Result<Arc<Message>, Fail> {
        let state = self.state.lock();
        let Some(consumer) = &state.consumer else {
            return Err(if state.had_consumer { freed() } else { not_subscribed() });
        };
        match &consumer.held {
            Some(held) if held.id == message_id => Ok(held.clone()),
            Some(_) => Err(Fail::protocol(other)),
            None => Err(freed()),
        }
    }
}

fn blocks(message: &Message) -> Result<&[Block], Fail> {
    match &message.content {
        Content::Rows { blocks, .. } => Ok(blocks),
        Content::Meta(_) | Content::Metas(_) => Err(Fail::protocol(NOT_DATA)),
    }
}

fn freed() -> Fail {
    Fail::protocol("message has been freed")
}
