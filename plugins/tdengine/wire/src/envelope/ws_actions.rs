//! The JSON actions of `/ws` (PROTOCOL 2, 4).

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Empty, action, scalar};
use crate::error::Result;
use crate::types::ColumnType;

/// `version`, on both endpoints and allowed before anything else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Version {}
action!(Version, "version", VersionReply);

/// Reply of [`Version`], [`Connect`] and `subscribe`; older servers leave it out of the latter two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionReply {
    /// Four numbers with dots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `conn`: must be first.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// User name.
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub user: String,
    /// Password.
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub password: String,
    /// Current database; empty for none.
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub db: String,
    /// 0 is BI mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<i32>,
    /// Time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// Name of the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Address of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Name and version of the client library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Token instead of user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<String>,
}
action!(Connect, "conn", VersionReply);

impl std::fmt::Debug for Connect {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connect").field("user", &self.user).field("db", &self.db).finish_non_exhaustive()
    }
}

/// `query`; binary request 6 is its newer form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// One statement.
    pub sql: String,
}
action!(Query, "query", QueryReply);

/// Reply of `query`, `binary_query`, `use_result` (with `stmt_id`) and `stmt2_result` (PROTOCOL 2.1).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueryReply {
    /// Result id, per connection from 1; 0 for updates.
    #[serde(default)]
    pub id: u64,
    /// Whether there are no rows to fetch.
    #[serde(default)]
    pub is_update: bool,
    /// Rows changed.
    #[serde(default)]
    pub affected_rows: i64,
    /// Columns.
    #[serde(default)]
    pub fields_count: i64,
    /// Names; `null` for updates, as are the next two.
    #[serde(default)]
    pub fields_names: Option<Vec<String>>,
    /// Type codes.
    #[serde(default)]
    pub fields_types: Option<Vec<u8>>,
    /// Widths in the form of [`ColumnType::query_length`].
    #[serde(default)]
    pub fields_lengths: Option<Vec<i64>>,
    /// 0 ms, 1 us, 2 ns.
    #[serde(default)]
    pub precision: i64,
    /// Of decimals; `null` for updates, and 3.3.2.3 and before do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields_precisions: Option<Option<Vec<i64>>>,
    /// Of decimals; `null` for updates, and 3.3.2.3 and before do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields_scales: Option<Option<Vec<i64>>>,
}

impl QueryReply {
    /// For rows to fetch under result id `id`.
    pub fn rows(id: u64, fields: &[(String, ColumnType)], precision: crate::types::Precision) -> Self {
        let part = |pick: fn((u8, u8)) -> u8| {
            fields.iter().map(|(_, column)| column.decimal_parts().map_or(0, |parts| i64::from(pick(parts)))).collect()
        };
        Self {
            id,
            fields_count: fields.len() as i64,
            fields_names: Some(fields.iter().map(|(name, _)| name.clone()).collect()),
            fields_types: Some(fields.iter().map(|(_, column)| column.data_type.code()).collect()),
            fields_lengths: Some(fields.iter().map(|(_, column)| i64::from(column.query_length())).collect()),
            precision: i64::from(precision.code()),
            fields_precisions: Some(Some(part(|parts| parts.0))),
            fields_scales: Some(Some(part(|parts| parts.1))),
            ..Self::default()
        }
    }

    /// For a statement without rows.
    pub fn update(affected_rows: i64) -> Self {
        let (fields_precisions, fields_scales) = (Some(None), Some(None));
        Self { is_update: true, affected_rows, fields_precisions, fields_scales, ..Self::default() }
    }

    /// Names and types of the columns.
    ///
    /// # Errors
    /// When the arrays have different lengths or an unknown type.
    pub fn fields(&self) -> Result<Vec<(String, ColumnType)>> {
        let names = self.fields_names.as_deref().unwrap_or_default();
        let types = self.fields_types.as_deref().unwrap_or_default();
        let lengths = self.fields_lengths.as_deref().unwrap_or_default();
        if names.len() != types.len() || types.len() != lengths.len() {
            return Err(crate::WireError::invalid("query reply", "field arrays of different lengths"));
        }
        let part = |parts: &Option<Option<Vec<i64>>>, index: usize| {
            parts.as_ref().and_then(Option::as_ref).and_then(|parts| parts.get(index)).map_or(0, |part| *part as u8)
        };
        let column = |index: usize| {
            let precision = part(&self.fields_precisions, index);
            let scale = part(&self.fields_scales, index);
            ColumnType::from_query(types[index], lengths[index] as i32, precision, scale)
        };
        names.iter().enumerate().map(|(index, name)| Ok((name.clone(), column(index)?))).collect()
    }
}

/// `fetch`: asks for the next block of a result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fetch {
    /// Result id.
    pub id: u64,
}
action!(Fetch, "fetch", FetchReply);

/// Reply of [`Fetch`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FetchReply {
    /// Result id.
    pub id: u64,
    /// No block follows, and the result is freed.
    pub completed: bool,
    /// Data length of each column.
    #[serde(default)]
    pub lengths: Option<Vec<i64>>,
    /// Rows of the block.
    #[serde(default)]
    pub rows: i64,
}

/// `fetch_block`: answered by a [`super::BlockReply`], in JSON only on error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FetchBlock {
    /// Result id.
    pub id: u64,
}
action!(FetchBlock, "fetch_block", Empty);

/// `free_result`: no reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FreeResult {
    /// Result id.
    pub id: u64,
}
action!(FreeResult, "free_result", Empty);

/// `num_fields`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NumFields {
    /// Result id.
    pub result_id: u64,
}
action!(NumFields, "num_fields", NumFieldsReply);

/// Reply of [`NumFields`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NumFieldsReply {
    /// Columns.
    pub num_fields: i64,
}

/// `insert`: schemaless lines.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Insert {
    /// 1 line, 2 telnet, 3 JSON.
    #[serde(deserialize_with = "scalar::i32_or_default")]
    pub protocol: i32,
    /// `h m s ms us ns` or empty.
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub precision: String,
    /// Days to live; 0 for ever.
    #[serde(deserialize_with = "scalar::i32_or_default")]
    pub ttl: i32,
    /// The lines.
    pub data: String,
    /// The tag that names tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_name_key: Option<String>,
}
action!(Insert, "insert", InsertReply);

/// Reply of [`Insert`]; 3.3.2.3 leaves both out (FACTS F35).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InsertReply {
    /// Rows written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected_rows: Option<i64>,
    /// Rows given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_rows: Option<i64>,
}

/// `check_server_status`: allowed before `conn` in newer servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckServerStatus {
    /// Host to check; absent for the own one.
    pub fqdn: Option<String>,
    /// Its port.
    #[serde(deserialize_with = "scalar::i32_or_default")]
    pub port: i32,
}
action!(CheckServerStatus, "check_server_status", CheckServerStatusReply);

/// Reply of [`CheckServerStatus`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckServerStatusReply {
    /// 2 is good.
    pub status: i32,
    /// More words.
    #[serde(default)]
    pub details: String,
}

/// `get_current_db`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GetCurrentDb {}
action!(GetCurrentDb, "get_current_db", GetCurrentDbReply);

/// Reply of [`GetCurrentDb`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GetCurrentDbReply {
    /// Empty for none.
    #[serde(default)]
    pub db: String,
}

/// `get_server_info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GetServerInfo {}
action!(GetServerInfo, "get_server_info", InfoReply);

/// `get_connection_info`; newer servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetConnectionInfo {
    /// Which information.
    #[serde(deserialize_with = "scalar::i32_or_default")]
    pub info: i32,
}
action!(GetConnectionInfo, "get_connection_info", InfoReply);

/// Reply of [`GetServerInfo`] and [`GetConnectionInfo`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InfoReply {
    /// The information.
    #[serde(default)]
    pub info: String,
}

/// `options_connection`; newer servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptionsConnection {
    /// In order.
    pub options: Vec<ConnectionOption>,
}
action!(OptionsConnection, "options_connection", Empty);

/// One option of [`OptionsConnection`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionOption {
    /// −1 clear all, 0 charset, 1 time zone, 2 user address, 3 application, 4 connector.
    #[serde(deserialize_with = "scalar::i32_or_default")]
    pub option: i32,
    /// `null` clears it.
    pub value: Option<String>,
}

/// `init`: a statement of version 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtInit {}
action!(StmtInit, "init", StmtReply);

/// Reply of most statement actions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
}

/// `prepare`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtPrepare {
    /// Statement id.
    pub stmt_id: u64,
    /// With question marks.
    pub sql: String,
}
action!(StmtPrepare, "prepare", StmtPrepareReply);

/// Reply of [`StmtPrepare`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtPrepareReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// Whether it writes.
    #[serde(default)]
    pub is_insert: bool,
}

/// `set_table_name`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtSetTableName {
    /// Statement id.
    pub stmt_id: u64,
    /// Possibly with its database.
    pub name: String,
}
action!(StmtSetTableName, "set_table_name", StmtReply);

/// `set_tags` in JSON; binary request 1 is the other form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtSetTags {
    /// Statement id.
    pub stmt_id: u64,
    /// One value a tag.
    #[serde(default)]
    pub tags: Vec<Json>,
}
action!(StmtSetTags, "set_tags", StmtReply);

/// `bind` in JSON; binary request 2 is the other form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtBind {
    /// Statement id.
    pub stmt_id: u64,
    /// Values by column.
    #[serde(default)]
    pub columns: Vec<Vec<Json>>,
}
action!(StmtBind, "bind", StmtReply);

macro_rules! stmt_id_only {
    ($($(#[$doc:meta])* $name:ident, $action:literal, $reply:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// Statement id.
            pub stmt_id: u64,
        }
        action!($name, $action, $reply);
    )*};
}

stmt_id_only! {
    /// `add_batch`.
    StmtAddBatch, "add_batch", StmtReply;
    /// `exec`.
    StmtExec, "exec", StmtExecReply;
    /// `get_tag_fields`.
    StmtGetTagFields, "get_tag_fields", StmtFieldsReply;
    /// `get_col_fields`.
    StmtGetColFields, "get_col_fields", StmtFieldsReply;
    /// `use_result`.
    StmtUseResult, "use_result", StmtUseResultReply;
    /// `stmt_num_params`.
    StmtNumParams, "stmt_num_params", StmtNumParamsReply;
    /// `close`: no reply.
    StmtClose, "close", Empty;
    /// `stmt2_exec`.
    Stmt2Exec, "stmt2_exec", StmtExecReply;
    /// `stmt2_result`.
    Stmt2Result, "stmt2_result", Stmt2ResultReply;
    /// `stmt2_close`: with a reply.
    Stmt2Close, "stmt2_close", StmtReply;
}

/// Reply of [`StmtExec`], [`Stmt2Exec`] and binary request 11.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtExecReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// Rows written.
    #[serde(default)]
    pub affected: i64,
}

/// A column, tag or parameter of a statement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtField {
    /// Its name.
    pub name: String,
    /// Type code.
    pub field_type: u8,
    /// Of timestamps and decimals.
    #[serde(default)]
    pub precision: u8,
    /// Of decimals.
    #[serde(default)]
    pub scale: u8,
    /// In the form of raw block schemas.
    #[serde(default)]
    pub bytes: i32,
    /// Version 2 only: 1 column, 2 tag, 3 query parameter, 4 table name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_type: Option<i8>,
}

/// Reply of [`StmtGetTagFields`] and [`StmtGetColFields`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtFieldsReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// The fields.
    #[serde(default)]
    pub fields: Option<Vec<StmtField>>,
}

/// Reply of [`StmtUseResult`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtUseResultReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// Result id.
    #[serde(default)]
    pub result_id: u64,
    /// The fields as in a query reply; its `id` stays 0.
    #[serde(flatten)]
    pub fields: QueryReply,
}

/// Reply of [`StmtNumParams`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtNumParamsReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// Question marks.
    #[serde(default)]
    pub num_params: i32,
}

/// `stmt_get_param`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtGetParam {
    /// Statement id.
    pub stmt_id: u64,
    /// From 0.
    pub index: i32,
}
action!(StmtGetParam, "stmt_get_param", StmtGetParamReply);

/// Reply of [`StmtGetParam`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtGetParamReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// From 0.
    #[serde(default)]
    pub index: i32,
    /// Type code.
    #[serde(default)]
    pub data_type: i32,
    /// Width.
    #[serde(default)]
    pub length: i32,
}

/// `stmt2_init`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stmt2Init {
    /// Only one super table is written.
    pub single_stb_insert: bool,
    /// Each table is bound once a batch.
    pub single_table_bind_once: bool,
}
action!(Stmt2Init, "stmt2_init", StmtReply);

/// `stmt2_prepare`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stmt2Prepare {
    /// Statement id.
    pub stmt_id: u64,
    /// With question marks.
    pub sql: String,
    /// Whether the reply shall list the fields.
    #[serde(default)]
    pub get_fields: bool,
}
action!(Stmt2Prepare, "stmt2_prepare", Stmt2PrepareReply);

/// Reply of [`Stmt2Prepare`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stmt2PrepareReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// Whether it writes.
    #[serde(default)]
    pub is_insert: bool,
    /// In the order of the question marks; `null` for queries.
    #[serde(default)]
    pub fields: Option<Vec<StmtField>>,
    /// Question marks.
    #[serde(default)]
    pub fields_count: i32,
}

/// Reply of [`Stmt2Result`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stmt2ResultReply {
    /// Statement id.
    #[serde(default)]
    pub stmt_id: u64,
    /// The result as of a query.
    #[serde(flatten)]
    pub result: QueryReply,
}

/// Reply of binary request 10.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ValidateSqlReply {
    /// 0 when the statement is good.
    pub result_code: i64,
}
