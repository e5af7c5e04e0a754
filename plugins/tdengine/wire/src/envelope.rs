//! Requests and replies of `/ws` and `/rest/tmq`, both sides (PROTOCOL 1.3, 2, 3, 4, 6).
//!
//! An action is a struct of arguments that implements [`Action`]: its name and the struct of its reply. A client
//! writes [`request_text`] and reads [`Reply::parse`]; a server reads [`Request::parse`] and writes [`reply_text`] or
//! [`error_text`]. `req_id` is kept as the exact u64 everywhere, 0 and ids beyond `i64::MAX` included.

mod binary;
mod scalar;
mod tmq_actions;
mod ws_actions;

pub use binary::{
    BinaryReply, BinaryRequest, BlockReply, RawDataReply, RawReply, ResultBlockReply, WriteField, binary_action,
};
pub use scalar::Scalar;
pub use tmq_actions::*;
pub use ws_actions::*;

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Result, WireError};

/// Code of errors of the protocol itself (PROTOCOL 1.4).
pub const CODE_PROTOCOL: u32 = 0xffff;

/// The arguments of one action.
pub trait Action: Serialize + DeserializeOwned {
    /// Its name on the wire.
    const NAME: &'static str;
    /// What a successful reply holds besides the envelope.
    type Reply: Serialize + DeserializeOwned;
}

/// A request as a server reads it; the arguments are still text.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The action; empty when the request has none.
    pub action: Cow<'a, str>,
    /// To be echoed exactly; 0 when absent.
    pub req_id: u64,
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RequestText<'a> {
    #[serde(borrow, default)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct RequestId {
    #[serde(default, deserialize_with = "scalar::u64_or_default")]
    req_id: u64,
}

impl<'a> Request<'a> {
    /// Reads the envelope. An unreadable `req_id` counts as 0.
    ///
    /// # Errors
    /// When the text is no JSON object.
    pub fn parse(text: &'a str) -> Result<Self> {
        let request: RequestText<'a> = serde_json::from_str(text).map_err(|error| json_error("request", &error))?;
        let id: RequestId = request.args.and_then(|args| serde_json::from_str(args.get()).ok()).unwrap_or_default();
        Ok(Self { action: request.action.unwrap_or_default(), req_id: id.req_id, args: request.args })
    }

    /// Reads the arguments; absent ones count as an empty object.
    ///
    /// # Errors
    /// When they do not fit the action.
    pub fn args<A: DeserializeOwned>(&self) -> Result<A> {
        let text = self.args.map_or("{}", RawValue::get);
        serde_json::from_str(text).map_err(|error| json_error("request arguments", &error))
    }

    /// The arguments as they came.
    pub fn args_text(&self) -> Option<&'a str> {
        self.args.map(RawValue::get)
    }
}

/// The text of a request.
///
/// # Errors
/// When the arguments do not serialize, which no struct here does.
pub fn request_text<A: Action>(req_id: u64, args: &A) -> Result<String> {
    #[derive(Serialize)]
    struct Args<'a, A> {
        req_id: u64,
        #[serde(flatten)]
        args: &'a A,
    }
    #[derive(Serialize)]
    struct Text<'a, A> {
        action: &'static str,
        args: Args<'a, A>,
    }
    let text = Text { action: A::NAME, args: Args { req_id, args } };
    serde_json::to_string(&text).map_err(|error| json_error("request", &error))
}

/// The five keys that every JSON reply has; the action's own keys are still text.
#[derive(Debug, Clone)]
pub struct Reply<'a> {
    /// 0, an engine's error & 0xFFFF, or [`CODE_PROTOCOL`].
    pub code: u32,
    /// Empty on success.
    pub message: Cow<'a, str>,
    /// Echo of the request's action; a binary request's reply has a name of its own ([`binary_action`]).
    pub action: Cow<'a, str>,
    /// Echo of the request's id; 0 in the errors that the server sends before `conn` (FACTS).
    pub req_id: u64,
    /// Nanoseconds that the server took.
    pub timing: i64,
    text: &'a str,
}

#[derive(Deserialize)]
struct ReplyText<'a> {
    code: i64,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    action: Cow<'a, str>,
    #[serde(default)]
    req_id: u64,
    #[serde(default)]
    timing: i64,
}

impl<'a> Reply<'a> {
    /// Reads the envelope.
    ///
    /// # Errors
    /// When the text is no JSON object with a `code`.
    pub fn parse(text: &'a str) -> Result<Self> {
        let reply: ReplyText<'a> = serde_json::from_str(text).map_err(|error| json_error("reply", &error))?;
        Ok(Self {
            code: reply.code as u32,
            message: reply.message,
            action: reply.action,
            req_id: reply.req_id,
            timing: reply.timing,
            text,
        })
    }

    /// Reads what the action's reply holds besides the envelope.
    ///
    /// # Errors
    /// When keys are missing or have other types; in an error reply most are.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.text).map_err(|error| json_error("reply", &error))
    }

    /// The whole reply as it came.
    pub fn text(&self) -> &'a str {
        self.text
    }
}

/// The text of a reply: the envelope, then the keys of `body` (`&Empty {}` for none; any map or struct will do).
///
/// # Errors
/// When `body` does not serialize to a JSON object.
pub fn reply_text(action: &str, req_id: u64, timing_ns: i64, body: &impl Serialize) -> Result<String> {
    envelope_text(0, "", action, req_id, timing_ns, body)
}

/// The text of an error reply. `body` carries the keys that clients insist on even then (PROTOCOL 1.3).
///
/// # Errors
/// When `body` does not serialize to a JSON object.
pub fn error_text(
    code: u32,
    message: &str,
    action: &str,
    req_id: u64,
    timing_ns: i64,
    body: &impl Serialize,
) -> Result<String> {
    envelope_text(code, message, action, req_id, timing_ns, body)
}

fn envelope_text(
    code: u32,
    message: &str,
    action: &str,
    req_id: u64,
    timing: i64,
    body: &impl Serialize,
) -> Result<String> {
    #[derive(Serialize)]
    struct Text<'a, T> {
        code: u32,
        message: &'a str,
        action: &'a str,
        req_id: u64,
        timing: i64,
        #[serde(flatten)]
        body: &'a T,
    }
    let text = Text { code, message, action, req_id, timing, body };
    serde_json::to_string(&text).map_err(|error| json_error("reply", &error))
}

/// No keys, or keys that do not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

fn json_error(what: &'static str, error: &serde_json::Error) -> WireError {
    WireError::invalid(what, error.to_string())
}

macro_rules! action {
    ($args:ty, $name:literal, $reply:ty) => {
        impl $crate::envelope::Action for $args {
            const NAME: &'static str = $name;
            type Reply = $reply;
        }
    };
}
use action;

#[cfg(test)]
mod tests;
