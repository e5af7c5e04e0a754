//! Calls of components with a deadline, and what kind of failure an error is.

use std::time::Duration;

use pipeline_sdk::{Error, Reaction, Result};

use crate::host::process::ENDED;

/// Code of the error that an overdue call leaves.
pub(super) const HANG: &str = "engine.hang";
/// Code of the error that a panic of a component leaves.
pub(super) const PANIC: &str = "boundary.panic";
/// Codes of errors after which an instance cannot be called again.
const BROKEN: [&str; 4] = [HANG, PANIC, "boundary.abandoned", ENDED];

/// Runs a call to its end, or abandons it when it is overdue: the boundary then leaks it and its instance.
pub(super) async fn call<T>(what: &str, limit: Duration, future: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(overdue(what, limit)),
    }
}

pub(super) fn overdue(what: &str, limit: Duration) -> Error {
    Error::disconnected(format!("{what} did not return within {}s: it hangs, and is abandoned", limit.as_secs_f64()))
        .code(HANG)
        .hint("see what it waits for; `call-timeout` of the pipeline says how long a call may take")
}

/// Whether the instance must be made anew.
pub(super) fn is_broken(error: &Error) -> bool {
    BROKEN.contains(&error.code.as_str())
}

/// Why a session cannot go on.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// A connection or an instance is gone: begin again at the last checkpoint.
    Lost(Error),
    /// A person must do something.
    Fatal(Error),
    /// The pipeline's policy says stop.
    Policy(Error),
}

impl Failure {
    /// Of an error that is nobody's to handle any more.
    pub fn of(error: Error) -> Self {
        match error.reaction {
            _ if is_broken(&error) => Self::Lost(error),
            Reaction::Disconnected | Reaction::Retry => Self::Lost(error),
            Reaction::Rejected => Self::Policy(error),
            Reaction::Fatal => Self::Fatal(error),
        }
    }

    pub fn context(self, place: &str) -> Self {
        match self {
            Self::Lost(error) => Self::Lost(error.context(place)),
            Self::Fatal(error) => Self::Fatal(error.context(place)),
            Self::Policy(error) => Self::Policy(error.context(place)),
        }
    }
}
