//! Payloads that make no rows, on their way to a dead letter.
//!
//! A source has no sink to reject anything, and a broker would send such a payload for ever. So it is passed on as a frame that no
//! decoder takes: the engine does with it what `on-error` of the pipeline says, as with any rows that are rejected.

use std::sync::Arc;

use pipeline_sdk::{Error, Frame, Message, Result};
use serde::{Deserialize, Serialize};

/// The format of such frames; a source that emits them names it in its description and decodes by [`refuse`].
pub const UNDECODABLE: &str = "undecodable-payload";

/// What a frame holds, as JSON.
#[derive(Serialize, Deserialize)]
struct Letter {
    /// Where it came from: a topic, a subject.
    from: String,
    payload: String,
    error: Error,
}

/// A payload that makes no rows, and why. What is no UTF-8 in it is shown as such.
pub fn undecodable(from: &str, payload: &[u8], error: Error) -> Frame {
    let letter = Letter { from: from.to_owned(), payload: String::from_utf8_lossy(payload).into_owned(), error };
    let data = serde_json::to_vec(&letter).unwrap_or_default();
    Frame { format: Arc::from(UNDECODABLE), data: data.into(), namespace: Arc::from(""), rows: 1, tables: 1 }
}

/// The decoder of such frames.
///
/// # Errors
/// Always: rejected, with what was wrong with the payload.
pub fn refuse(frame: &Frame) -> Result<Vec<Message>> {
    let letter = serde_json::from_slice::<Letter>(&frame.data);
    Err(match letter {
        Ok(letter) => letter.error.context(&letter.from),
        Err(_) => Error::fatal(format!("this is no frame of format `{UNDECODABLE}`")),
    })
}
