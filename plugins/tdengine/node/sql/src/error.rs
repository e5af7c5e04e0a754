//! What the parser says: code and text as a real server does (PROTOCOL 15).

/// A text that is no statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Low 16 bits of the server's code.
    pub code: u16,
    pub message: String,
}

/// Characters of the text that an error shows.
const SHOWN_MAX: usize = 64;

impl SyntaxError {
    /// 0x2600, near what follows.
    pub fn near(rest: &str) -> Self {
        let shown: String = rest.chars().take(SHOWN_MAX).collect();
        Self { code: 0x2600, message: format!("syntax error near \"{shown}\"") }
    }

    /// 0x2601: the text ends too early.
    pub fn incomplete(rest: &str) -> Self {
        let _ = rest;
        Self { code: 0x2601, message: "Incomplete SQL statement".into() }
    }

    /// 0x0216: an INSERT, which the server reads by another parser.
    pub fn insert(what: &str, rest: &str) -> Self {
        let shown: String = rest.chars().take(SHOWN_MAX).collect();
        Self { code: 0x0216, message: format!("syntax error near '{shown}' ({what})") }
    }

    pub fn code(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
