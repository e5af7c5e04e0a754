//! What the server's errors call for.

use std::error::Error as _;

use pipeline_sdk::{Error, Reaction, tls};
use tokio_postgres::error::{DbError, SqlState};

/// By the start of the code, the longest that fits first (PostgreSQL, appendix A). What is not listed needs a person.
const REACTIONS: [(&str, Reaction); 17] = [
    // The class of connections, and the server's administrator ending them.
    ("08", Reaction::Disconnected),
    ("57P", Reaction::Disconnected),
    // Too many connections, a full disk, no memory: later.
    ("53", Reaction::Disconnected),
    ("58", Reaction::Disconnected),
    // A standby that is not the primary any more, or not yet.
    ("25006", Reaction::Disconnected),
    ("25P03", Reaction::Disconnected),
    // Cancelled, by a limit of time for instance; a deadlock; a lock that was not got.
    ("57014", Reaction::Retry),
    ("40", Reaction::Retry),
    ("55P03", Reaction::Retry),
    ("55006", Reaction::Retry),
    // Values and constraints; what a trigger raises; a view's check.
    ("22", Reaction::Rejected),
    ("23", Reaction::Rejected),
    ("P0001", Reaction::Rejected),
    ("44", Reaction::Rejected),
    // Text that is not of the server's encoding, or too much for one row.
    ("54", Reaction::Rejected),
    ("09", Reaction::Rejected),
    ("27", Reaction::Rejected),
];

const HINTS: [(&str, &str); 7] = [
    ("28", "see whether user and password are right, and what pg_hba.conf says of this host"),
    ("3D000", "make the database first: createdb"),
    ("3F000", "make the schema first: CREATE SCHEMA"),
    ("42501", "grant the user what it needs: INSERT; SELECT and UPDATE to upsert; CREATE on the schema to make tables"),
    ("42P10", "make a unique index over the columns of `key`"),
    ("42P01", "make the table, or set `create-table = true`"),
    ("53300", "raise max_connections: this sink has a connection a lane"),
];

/// The reaction for a code of five signs.
pub fn reaction(code: &str) -> Reaction {
    let fitting = REACTIONS.iter().filter(|(start, _)| code.starts_with(start));
    fitting.max_by_key(|(start, _)| start.len()).map_or(Reaction::Fatal, |(_, reaction)| *reaction)
}

/// The server's error, or the loss of the connection, as the engine understands it.
pub fn from_postgres(error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(error) => from_server(error),
        // Not the server's: the socket, TLS, or an answer that never came. A wrong password of the configuration is the server's.
        None => {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            let lost = Error::disconnected(format!("{error}{}", if error.to_string().contains(&cause) { "" } else { &cause }));
            match tls::advice(error) {
                Some(advice) => lost.code("postgres.tls").hint(advice),
                None => lost.code("postgres.connection"),
            }
        }
    }
}

fn from_server(error: &DbError) -> Error {
    let code = error.code().code();
    let mut text = error.message().to_owned();
    if let Some(detail) = error.detail() {
        text = format!("{text} ({detail})");
    }
    let mut made = Error::new(reaction(code), text).code(format!("postgres.{code}"));
    let known = HINTS.iter().find(|(start, _)| code.starts_with(start)).map(|(_, hint)| *hint);
    if let Some(hint) = error.hint().or(known) {
        made = made.hint(hint);
    }
    made
}

/// Whether rows are refused for the same reason: what differs is in the values.
pub fn is_same_reason(one: &tokio_postgres::Error, other: &tokio_postgres::Error) -> bool {
    match (one.as_db_error(), other.as_db_error()) {
        (Some(one), Some(other)) => {
            one.code() == other.code() && one.constraint() == other.constraint() && one.column() == other.column() && one.message() == other.message()
        }
        _ => false,
    }
}

/// Whether the table may be another one than the one that was looked at.
pub fn tells_of_another_table(error: &tokio_postgres::Error) -> bool {
    const BINARY: [SqlState; 2] = [SqlState::INVALID_BINARY_REPRESENTATION, SqlState::BAD_COPY_FILE_FORMAT];
    error.code().is_some_and(|code| code.code().starts_with("42") || BINARY.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_start_of_a_code_tells() {
        for (code, expected) in [
            ("57P01", Reaction::Disconnected),
            ("57014", Reaction::Retry),
            ("08006", Reaction::Disconnected),
            ("53300", Reaction::Disconnected),
            ("25006", Reaction::Disconnected),
            ("28P01", Reaction::Fatal),
            ("3D000", Reaction::Fatal),
            ("42501", Reaction::Fatal),
            ("40P01", Reaction::Retry),
            ("22003", Reaction::Rejected),
            ("23505", Reaction::Rejected),
            ("XX000", Reaction::Fatal),
        ] {
            assert_eq!(reaction(code), expected, "{code}");
        }
    }
}
