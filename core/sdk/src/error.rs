//! Errors that name the reaction they call for.
//!
//! A component does not decide what happens after an error: it says which [`Reaction`] fits, and the engine applies the
//! pipeline's policy. Messages say what, where and what to do; they never hold a secret.

use std::fmt;

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Code of a source's error at connect: what it found is not what the positions were stored of (made anew, restored, another one).
/// A person may then ask to forget the positions; any other error they cannot answer so.
pub const SOURCE_REPLACED: &str = "source.replaced";
/// Code of the error with which a source refuses to read on because its log no longer holds what comes next.
pub const SOURCE_HOLE: &str = "source.hole";

/// What the host should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// The connection is gone: connect again with back-off. After a sink's, the task rewinds to its last checkpoint.
    Disconnected,
    /// The same call may succeed later.
    Retry,
    /// These rows or this change can never be written: dead-letter by policy; a rejected change stops the task.
    Rejected,
    /// The task cannot go on until a person does something (wrong password, a hole in the log, a bug).
    Fatal,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Error {
    pub reaction: Reaction,
    /// A short stable name, `source.code` (for example `tdengine.0x2603`), for metrics and scripts.
    #[serde(default)]
    pub code: String,
    /// The dotted path of the configuration key that is to blame, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Of a rejected message: which rows, where only some are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<u64>,
}

impl Error {
    pub fn new(reaction: Reaction, message: impl Into<String>) -> Self {
        Self { reaction, code: String::new(), path: None, message: message.into(), hint: None, rows: Vec::new() }
    }

    pub fn disconnected(message: impl Into<String>) -> Self {
        Self::new(Reaction::Disconnected, message)
    }

    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Reaction::Retry, message)
    }

    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(Reaction::Rejected, message)
    }

    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(Reaction::Fatal, message)
    }

    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the rows of a rejected message that it is about: its text is that of the first.
    pub fn of_rows(mut self, rows: Vec<u64>) -> Self {
        if rows.len() > 1 {
            self.message += &format!(" (the first of {} rows)", rows.len());
        }
        Self { rows, ..self }
    }

    /// Puts where it happened in front of the message.
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        if !self.code.is_empty() {
            write!(f, " [{}]", self.code)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}
