//! What a connection remembers between statements.

/// The state of one connection, or of one statement when there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// `USE`d database; unqualified names belong to it.
    pub database: Option<String>,
    /// Who is connected.
    pub user: String,
    /// Seconds east of UTC, for time literals without a zone.
    pub timezone_offset_s: i32,
    /// Source byte of what this session writes by SQL: 0 for users, 0x8 for changes that schemaless makes by itself
    /// (FACTS F10).
    pub source: u8,
}

/// The mark on replicated writes (PROTOCOL 10.1).
pub const MARK: u8 = 0x8;

impl Session {
    /// A user's session in UTC without a database.
    pub fn new(user: impl Into<String>) -> Self {
        Self { database: None, user: user.into(), timezone_offset_s: 0, source: 0 }
    }

    /// The same with a database.
    pub fn with_database(user: impl Into<String>, database: impl Into<String>) -> Self {
        Self { database: Some(database.into()), ..Self::new(user) }
    }
}
