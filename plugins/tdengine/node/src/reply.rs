//! From the outcome of a request to the frame that answers it.

use std::borrow::Cow;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tdengine_wire::envelope::{self, Empty, Request, ResultBlockReply};

use crate::error::Fail;
use crate::socket::{Frame, Reply};

/// A request being answered: what its reply repeats.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The action as the reply names it.
    pub action: Cow<'static, str>,
    pub req_id: u64,
    started: Instant,
}

/// What became of a request; `None` for those that get no reply.
pub(crate) type Answer = Result<Option<Frame>, Fail>;

impl Call {
    pub fn new(action: impl Into<Cow<'static, str>>, req_id: u64) -> Self {
        Self { action: action.into(), req_id, started: Instant::now() }
    }

    /// Nanoseconds since the request was read.
    pub fn timing(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A JSON reply with the keys of `body` behind the envelope's.
    pub fn json(&self, body: &impl Serialize) -> Answer {
        let text = envelope::reply_text(&self.action, self.req_id, self.timing() as i64, body)?;
        Ok(Some(Frame::Text(text)))
    }

    /// A JSON reply with nothing but the envelope.
    pub fn done(&self) -> Answer {
        self.json(&Empty {})
    }

    /// The reply, or the error in JSON with the keys of `extra`.
    pub fn finish(self, answer: Answer, extra: &impl Serialize) -> Option<Reply> {
        let frame = match answer {
            Ok(frame) => frame?,
            Err(fail) => Frame::Text(self.error_text(&fail, extra)),
        };
        Some(Reply { action: self.action, hands_out: false, frame })
    }

    fn error_text(&self, fail: &Fail, extra: &impl Serialize) -> String {
        let timing = self.timing() as i64;
        envelope::error_text(fail.code, &fail.message, &self.action, self.req_id, timing, extra).unwrap_or_else(|error| {
            tracing::error!(%error, "an error reply does not serialize");
            String::new()
        })
    }

    /// The error form of the reply to binary request 7 (PROTOCOL 3.1).
    pub fn block_error(&self, result_id: u64, fail: &Fail) -> Frame {
        let (timing, req_id) = (self.timing(), self.req_id);
        let reply =
            ResultBlockReply { timing, req_id, code: fail.code, message: &fail.message, result_id, block: None };
        Frame::Binary(reply.encode().into())
    }
}

/// Reads the arguments of an action.
///
/// # Errors
/// With the text of the adapter when they do not fit (PROTOCOL 1.4).
pub(crate) fn args<A: for<'de> Deserialize<'de>>(request: &Request<'_>) -> Result<A, Fail> {
    request.args().map_err(|error| {
        tracing::debug!(%error, action = %request.action, "malformed arguments");
        Fail::protocol(format!("unmarshal {} request error", request.action))
    })
}

/// The keys of `names` that the request's arguments have, to be repeated in an error reply.
pub(crate) fn echo(request: &Request<'_>, names: &[&str]) -> Map<String, Json> {
    let args: Map<String, Json> =
        request.args_text().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    args.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect()
}
