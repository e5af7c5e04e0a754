//! Which reaction a server's code calls for. Decided by code alone: texts are stale or missing (FACTS F29).

use pipeline_sdk::{Error, Reaction};

use crate::client::ClientError;

/// What to do about a code of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeReaction {
    /// Connect again.
    Reconnect,
    /// The same call may succeed in a moment.
    Retry,
    /// A table or column is not there (yet): its entry of the log comes first.
    ApplyMetaFirst,
    /// These rows can never be written.
    Reject,
    /// A person has to do something.
    Fatal,
    /// Something at the target, a topic of a user's, forbids this change for now (FACTS F69).
    Park,
}

/// The reaction to a code (PROTOCOL 15, FACTS F32, F58, F69).
pub fn reaction_to(code: u32) -> CodeReaction {
    match code {
        // No network, a broken or busy one, no reply of another server in time, no leader, vnode moved, vnode stopped, time-out, sync not ready, service stopped; the server is
        // starting or stopping (0x0130 seen on a 3.3.0.1 that came back).
        0x000b | 0x0018..=0x0019 | 0x0020 | 0x0021 | 0x0023..=0x0024 | 0x0130 | 0x0131 | 0x090c | 0x0911 | 0x0914 | 0x0503 | 0x0900..=0x090b | 0x012c
        | 0xe000..=0xe0ff => CodeReaction::Reconnect,
        // Conflicting transactions, a consumer not ready, a group being re-balanced, a consumer closing, a lane on the move between an
        // assignment and the seek or commit behind it (a busy 3.3.0.1, FACTS F39), a database that another lane is making. The disk is
        // full: somebody may make room. Too many sessions, memory of queues used up, a replica that cannot follow (its buffer full, writes
        // stalled, its window full).
        0x012b | 0x0396 | 0x03d3 | 0x03ea | 0x03e6 | 0x03d4 | 0x4002 | 0x4008 | 0x4010 | 0x0b01 | 0x0a0e | 0x0022 | 0x0125 | 0x0126
        | 0x0916..=0x0918 => CodeReaction::Retry,
        // Table, super table, its column or its tag is missing; the client library knows an older schema (0x061B, seen on 3.3.0.1 right
        // behind an ALTER); schema older than the rows; INSERT, SELECT, vnode.
        0x2602 | 0x2603 | 0x0618 | 0x260e | 0x2662 | 0x0362 | 0x061b | 0x061d | 0x0129 => CodeReaction::ApplyMetaFirst,
        // Invalid parameter or message, value too long or out of range, name too long, literal wrong.
        0x0118 | 0x0115 | 0x2653 | 0x060b | 0x0200 | 0x0216 | 0x2617 | 0x2642 | 0x264b => CodeReaction::Reject,
        // The last is of a column of a normal table, seen on 3.3.0.1.
        0x03c4 | 0x03ed | 0x0527 => CodeReaction::Park,
        _ => CodeReaction::Fatal,
    }
}

/// Whether a call that failed with this code may succeed in a moment on the same connection: consumers and lanes on the
/// move, transactions in each other's way.
pub fn is_transient(code: u32) -> bool {
    matches!(reaction_to(code), CodeReaction::Retry)
}

/// What to do about a code, in words, where words help.
fn hint(code: u32) -> Option<&'static str> {
    Some(match code {
        0x0357 | 0x0351 => "check user and password of the address",
        0x038c => "a database whose log is not kept cannot be read: ALTER DATABASE … WAL_RETENTION_PERIOD 86400 at the source",
        0x0388 | 0x0383 => "create the database, or allow the sink to (create-database = true)",
        0x012b => "make room on the disk of that server; it is tried again until `retry-attempts-max`",
        0x2653 => "a column is narrower here than at the source: widen it (a topic here that selects it forbids that), then run again",
        0x03e1 => "the topic was dropped while in use; restart the task to make it again",
        0x4004 => "the cluster has no topic left (20 by default): drop unused ones or raise tmqMaxTopicNum",
        0x0303 | 0x2644 => "grant the user what a replica needs: create topic, subscribe, read and write",
        _ => return None,
    })
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let (reaction, code) = match &error {
            ClientError::Server { code, .. } => {
                let reaction = match reaction_to(*code) {
                    CodeReaction::Reconnect => Reaction::Disconnected,
                    CodeReaction::Retry | CodeReaction::ApplyMetaFirst | CodeReaction::Park => Reaction::Retry,
                    CodeReaction::Reject => Reaction::Rejected,
                    CodeReaction::Fatal => Reaction::Fatal,
                };
                (reaction, format!("tdengine.0x{code:04X}"))
            }
            ClientError::Unreachable { .. } => (Reaction::Disconnected, "tdengine.unreachable".into()),
            ClientError::NoWebSocket { .. } => (Reaction::Disconnected, "tdengine.no-web-socket".into()),
            ClientError::Untrusted { .. } => (Reaction::Disconnected, "tdengine.tls".into()),
            ClientError::Tls(error) => return error.clone(),
            ClientError::Closed { .. } => (Reaction::Disconnected, "tdengine.closed".into()),
            ClientError::TimedOut { .. } => (Reaction::Disconnected, "tdengine.timeout".into()),
            ClientError::TooLarge { .. } => (Reaction::Fatal, "tdengine.too-large".into()),
            ClientError::Wire(_) => (Reaction::Fatal, "tdengine.wire".into()),
            ClientError::Unexpected { .. } => (Reaction::Fatal, "tdengine.unexpected".into()),
        };
        let mut made = Error::new(reaction, error.to_string()).code(code);
        made.hint = match &error {
            ClientError::TooLarge { .. } => Some("raise `message-bytes-max` of the source"),
            ClientError::Unreachable { .. } => Some("check the address, and whether the server runs and lets this machine in"),
            ClientError::NoWebSocket { .. } => Some(
                "is it taosadapter's port (6041), and does that speak TLS (`wss://`) or not (`ws://`)? The native protocol on another port than \
                 6030 is asked for with `taos://HOST:PORT`",
            ),
            ClientError::Untrusted { .. } => Some("name the authority that signed its certificate: `wss://HOST:PORT?caFile=FILE`"),
            other => other.code().and_then(hint),
        }
        .map(str::to_owned);
        made
    }
}

/// An error of decoding bytes that a server or a plugin gave.
pub fn wire_error(error: tdengine_wire::WireError) -> Error {
    ClientError::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_notes_have_their_reactions() {
        for (code, expect) in [
            (0x000b, Reaction::Disconnected),
            (0x090c, Reaction::Disconnected),
            (0x0503, Reaction::Disconnected),
            (0x012c, Reaction::Disconnected),
            (0xe002, Reaction::Disconnected),
            (0x0018, Reaction::Disconnected),
            (0x0021, Reaction::Disconnected),
            (0x0019, Reaction::Disconnected),
            (0x0023, Reaction::Disconnected),
            (0x0024, Reaction::Disconnected),
            (0x0911, Reaction::Disconnected),
            (0x0022, Reaction::Retry),
            (0x0125, Reaction::Retry),
            (0x0126, Reaction::Retry),
            (0x0916, Reaction::Retry),
            (0x0917, Reaction::Retry),
            (0x0918, Reaction::Retry),
            (0x03ea, Reaction::Retry),
            (0x0130, Reaction::Disconnected),
            (0x03d3, Reaction::Retry),
            (0x0396, Reaction::Retry),
            (0x4010, Reaction::Retry),
            (0x2602, Reaction::Retry),
            (0x2603, Reaction::Retry),
            (0x0618, Reaction::Retry),
            (0x0118, Reaction::Rejected),
            (0x2653, Reaction::Rejected),
            (0x2600, Reaction::Fatal),
            (0x0357, Reaction::Fatal),
        ] {
            let error: Error = ClientError::server("x", 0x8000_0000 | code, "detail: stale").into();
            assert_eq!(error.reaction, expect, "0x{code:04X}");
            assert_eq!(error.code, format!("tdengine.0x{code:04X}"));
        }
    }

    #[test]
    fn a_log_that_is_not_kept_has_its_hint() {
        let error: Error = ClientError::server("create topic", 0x8000_038c, "WAL retention period is zero").into();
        assert_eq!(error.reaction, Reaction::Fatal);
        assert!(error.hint.is_some_and(|hint| hint.contains("WAL_RETENTION_PERIOD")));
    }
}
