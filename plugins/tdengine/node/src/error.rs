//! Two kinds of error: [`NodeError`] for whoever runs a node, [`Fail`] for whoever asked it something.

use std::borrow::Cow;
use std::path::PathBuf;

use tdengine_store::ServerError;
use tdengine_wire::WireError;
use tdengine_wire::envelope::CODE_PROTOCOL;

/// Why a node could not start or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A key of the configuration is wrong.
    #[error("{key} {why}")]
    Config {
        /// The key with dots.
        key: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A port cannot be had.
    #[error("cannot listen on {address}: {source}; is another node running there?")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The data folder cannot be opened.
    #[error("cannot open the data in {}: {why}", folder.display())]
    Data {
        /// The folder.
        folder: PathBuf,
        /// Why, with the file and offset where one is damaged.
        why: String,
    },
    /// The fault `kill-before-reply` fired: what was appended is in the log, the reply was not sent.
    #[error("killed by an injected fault between the log and the reply")]
    Killed,
}

impl NodeError {
    pub(crate) fn config(key: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Config { key: key.into(), why: why.into() }
    }
}

/// What an error reply says: the low 16 bits of the server's code, or 0xFFFF for errors of the protocol itself
/// (PROTOCOL 1.4), and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fail {
    pub code: u32,
    pub message: Cow<'static, str>,
}

impl Fail {
    pub fn new(code: u32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// An error of the protocol itself.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(CODE_PROTOCOL, message)
    }
}

impl From<ServerError> for Fail {
    fn from(error: ServerError) -> Self {
        Self::new(u32::from(error.code), error.message)
    }
}

impl From<WireError> for Fail {
    /// Bytes that do not hold what they claim: 0x0115, as the engine says it.
    fn from(error: WireError) -> Self {
        tracing::debug!(%error, "malformed message");
        Self::new(0x0115, "Invalid message")
    }
}
