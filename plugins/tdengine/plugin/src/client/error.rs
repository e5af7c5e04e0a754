//! What can go wrong between us and a server, by kind and code, never by text (FACTS F29).

use std::time::Duration;

use tdengine_wire::WireError;

pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// An error of a call to a server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with a code other than 0.
    #[error("{action}: {message} (0x{code:04X})")]
    Server {
        action: String,
        /// The engine's code & 0xFFFF, or 0xFFFF for the adapter's own.
        code: u32,
        /// For people only: texts of raw writes are often left over from other failures (FACTS F29).
        message: String,
    },
    #[error("{place} cannot be reached: {why}")]
    Unreachable { place: String, why: String },
    /// Something takes the connection and answers in another protocol, or not at all.
    #[error("{place} does not answer as WebSocket: {why}")]
    NoWebSocket { place: String, why: String },
    /// The server is there, but not trusted.
    #[error("{place} cannot be trusted: {why}")]
    Untrusted { place: String, why: String },
    /// TLS cannot be set up here.
    #[error("{0}")]
    Tls(pipeline_sdk::Error),
    #[error("{place}: {action}: {why}")]
    Closed { place: String, action: String, why: String },
    #[error("{place}: {action} got no reply within {timeout:?}")]
    TimedOut { place: String, action: String, timeout: Duration },
    /// More than this side takes; the connection is gone with it.
    #[error("{place}: {action}: a message of {bytes} bytes came, {limit} are taken at most")]
    TooLarge { place: String, action: String, bytes: usize, limit: usize },
    #[error("unreadable bytes from the server: {0}")]
    Wire(#[from] WireError),
    #[error("{action}: {why}")]
    Unexpected { action: String, why: String },
}

impl ClientError {
    pub(crate) fn server(action: &str, code: u32, message: &str) -> Self {
        Self::Server { action: action.into(), code: code & 0xffff, message: message.into() }
    }

    pub(crate) fn unreachable(place: &str, why: impl Into<String>) -> Self {
        Self::Unreachable { place: place.into(), why: why.into() }
    }

    pub(crate) fn closed(place: &str, action: &str, why: impl Into<String>) -> Self {
        Self::Closed { place: place.into(), action: action.into(), why: why.into() }
    }

    pub(crate) fn timed_out(place: &str, action: &str, timeout: Duration) -> Self {
        Self::TimedOut { place: place.into(), action: action.into(), timeout }
    }

    pub(crate) fn unexpected(action: &str, why: impl Into<String>) -> Self {
        Self::Unexpected { action: action.into(), why: why.into() }
    }

    /// The server's code, where it answered with one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Puts the statement or place in front of a server's message.
    pub fn at(mut self, place: &str) -> Self {
        if let Self::Server { action, .. } = &mut self {
            *action = place.into();
        }
        self
    }
}
