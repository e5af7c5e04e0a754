//! One error type for every decoder: malformed input is an error that says where, never a panic.

/// What is wrong with the bytes or the text that was to be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ends before the value does.
    #[error("{what}: {need} bytes needed at offset {at}, {left} left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Offset in the innermost structure.
        at: usize,
        /// Bytes that the value needs.
        need: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// The input is long enough but says something impossible.
    #[error("{what}: {why}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A column type that this library does not know.
    #[error("unknown column type {0}")]
    UnknownType(u8),
    /// Values that the wire format cannot hold, met while encoding.
    #[error("{what} cannot be encoded: {why}")]
    Unencodable {
        /// What was being written.
        what: &'static str,
        /// Why it does not fit.
        why: String,
    },
}

impl WireError {
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }

    pub(crate) fn unencodable(what: &'static str, why: impl Into<String>) -> Self {
        Self::Unencodable { what, why: why.into() }
    }
}

/// The result of every decoder and encoder here.
pub type Result<T, E = WireError> = std::result::Result<T, E>;
