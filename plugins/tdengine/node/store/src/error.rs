//! What a statement or a write answers when it fails: the code that a real server gives (PROTOCOL 15,
//! recordings/errors.jsonl) and its text.

/// Codes, low 16 bits as the adapter sends them.
pub mod code {
    pub const OPERATION_NOT_SUPPORTED: u16 = 0x0100;
    pub const INVALID_MESSAGE: u16 = 0x0115;
    pub const INVALID_PARAMETER: u16 = 0x0118;
    pub const NO_DISK_SPACE: u16 = 0x012B;
    pub const SERVICE_OUT: u16 = 0x0020;
    pub const INVALID_OPERATION: u16 = 0x0200;
    pub const INSERT_SYNTAX: u16 = 0x0216;
    pub const CONNECTION_INVALID: u16 = 0x030E;
    pub const USER_EXISTS: u16 = 0x0350;
    pub const INVALID_USER: u16 = 0x0351;
    pub const AUTHENTICATION: u16 = 0x0357;
    pub const STABLE_EXISTS: u16 = 0x0360;
    pub const STABLE_MISSING: u16 = 0x0362;
    pub const TAG_EXISTS: u16 = 0x0369;
    pub const TAG_MISSING: u16 = 0x036A;
    pub const COLUMN_EXISTS: u16 = 0x036B;
    pub const COLUMN_MISSING: u16 = 0x036C;
    pub const DATABASE_UNAVAILABLE: u16 = 0x0380;
    pub const DATABASE_EXISTS: u16 = 0x0381;
    pub const DATABASE_MISSING: u16 = 0x0388;
    pub const INVALID_STABLE_ALTER: u16 = 0x03C2;
    pub const FIELD_USED_BY_TOPIC: u16 = 0x03C4;
    pub const INVALID_SCHEMA_VERSION: u16 = 0x03C7;
    pub const TOPIC_EXISTS: u16 = 0x03E0;
    pub const TOPIC_MISSING: u16 = 0x03E1;
    pub const SUBSCRIPTION_MISSING: u16 = 0x03E8;
    pub const TOPIC_SUBSCRIBED: u16 = 0x03EB;
    pub const GROUP_USED: u16 = 0x03EC;
    pub const TOPIC_FIRST: u16 = 0x03ED;
    pub const INDEX_MISSING: u16 = 0x0481;
    pub const INDEX_EXISTS: u16 = 0x0483;
    pub const VNODE_CLOSED: u16 = 0x0503;
    pub const INVALID_TABLE_ACTION: u16 = 0x0524;
    pub const TABLE_COLUMN_EXISTS: u16 = 0x0525;
    pub const TABLE_COLUMN_MISSING: u16 = 0x0526;
    pub const COLUMN_SUBSCRIBED: u16 = 0x0527;
    pub const TABLE_EXISTS: u16 = 0x0603;
    pub const TIMESTAMP_OUT_OF_RANGE: u16 = 0x060B;
    pub const TABLE_MISSING_VNODE: u16 = 0x0618;
    pub const STABLE_NOT_MATCHED: u16 = 0x061D;
    pub const WAL_ENTRY_MISSING: u16 = 0x1005;
    pub const SYNTAX: u16 = 0x2600;
    pub const INCOMPLETE: u16 = 0x2601;
    pub const INVALID_COLUMN: u16 = 0x2602;
    pub const TABLE_MISSING: u16 = 0x2603;
    pub const TAGS_NOT_MATCHED: u16 = 0x260D;
    pub const INVALID_TAG: u16 = 0x260E;
    pub const DATABASE_NOT_SPECIFIED: u16 = 0x2616;
    pub const INVALID_IDENTIFIER: u16 = 0x2617;
    pub const INVALID_OPTION: u16 = 0x2619;
    pub const JSON_TAG_ALONE: u16 = 0x2633;
    pub const DUPLICATED_COLUMN: u16 = 0x263C;
    pub const ROW_TOO_LONG: u16 = 0x263E;
    pub const COLUMN_COUNT: u16 = 0x263F;
    pub const FIRST_COLUMN_TIMESTAMP: u16 = 0x2641;
    pub const COLUMN_LENGTH: u16 = 0x2642;
    pub const TAG_COUNT: u16 = 0x2643;
    pub const INVALID_ALTER: u16 = 0x2649;
    pub const INVALID_MODIFY: u16 = 0x264B;
    pub const INVALID_DROP_COLUMN: u16 = 0x2651;
    pub const VALUE_TOO_LONG: u16 = 0x2653;
    pub const INVALID_DELETE: u16 = 0x2655;
    pub const TABLE_INFO: u16 = 0x2662;
    pub const SYSTEM_TABLE: u16 = 0x2669;
    pub const TIMESTAMP_VALUE: u16 = 0x2635;
    pub const PLANNER: u16 = 0x2700;
    pub const FUNCTION_TYPE: u16 = 0x2802;
    pub const INVALID_VARBINARY: u16 = 0x266A;
    pub const PRIMARY_KEY_SECOND: u16 = 0x2678;
    pub const PRIMARY_KEY_TYPE: u16 = 0x2679;
    pub const PRIMARY_KEY_NULL: u16 = 0x267B;
    pub const TOPIC_COUNT: u16 = 0x4004;
    pub const OFFSET_OUT_OF_RANGE: u16 = 0x4007;
}

/// A refusal as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("0x{code:04X} {message}")]
pub struct ServerError {
    /// Low 16 bits of the server's code, see [`code`].
    pub code: u16,
    /// The server's text.
    pub message: String,
}

impl ServerError {
    /// A code with its text.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// 0x2603.
    pub fn table_missing() -> Self {
        Self::new(code::TABLE_MISSING, "Table does not exist")
    }

    /// 0x0388.
    pub fn database_missing() -> Self {
        Self::new(code::DATABASE_MISSING, "Database not exist")
    }

    /// 0x2616.
    pub fn database_not_specified() -> Self {
        Self::new(code::DATABASE_NOT_SPECIFIED, "Database not specified")
    }

    /// 0x2602.
    pub fn invalid_column(name: &str) -> Self {
        Self::new(code::INVALID_COLUMN, format!("Invalid column name: {name}"))
    }

    /// 0x0118.
    pub fn invalid_parameter(why: impl Into<String>) -> Self {
        Self::new(code::INVALID_PARAMETER, why)
    }

    /// 0x0115.
    pub fn invalid_message() -> Self {
        Self::new(code::INVALID_MESSAGE, "Invalid message")
    }

    /// 0x266A.
    pub fn invalid_varbinary(name: &str) -> Self {
        Self::new(code::INVALID_VARBINARY, format!("Invalid varbinary value: {name}"))
    }

    /// 0x2653.
    pub fn value_too_long(name: &str) -> Self {
        Self::new(code::VALUE_TOO_LONG, format!("Value too long for column/tag: {name}"))
    }
}

impl From<std::io::Error> for ServerError {
    /// A full disk is 0x012B, so that a client knows that the write can be tried again; anything else 0x0503.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::new(code::NO_DISK_SPACE, "Out of disk space")
            }
            _ => Self::new(code::VNODE_CLOSED, format!("Vnode is closed or removed: {error}")),
        }
    }
}

impl From<tdengine_wire::WireError> for ServerError {
    fn from(error: tdengine_wire::WireError) -> Self {
        tracing::debug!(%error, "malformed message");
        Self::invalid_message()
    }
}

/// The result of everything that a client asks for.
pub type Result<T, E = ServerError> = std::result::Result<T, E>;
