//! `/ws`: one connection's session, results and statements, and what each action does (PROTOCOL 2, 3, 4).

mod query;
mod raw;
mod session;
mod statement;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};
use tdengine_store::Session;
use tdengine_wire::envelope::{BinaryRequest, Request, binary_action};

use self::query::Results;
use crate::error::Fail;
use crate::node::Shared;
use crate::reply::{Answer, Call, echo};
use crate::socket::{Protocol, Reply};
use crate::statement::Statements;

/// One connection.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    /// `None` before `conn`.
    session: Mutex<Option<Session>>,
    results: Mutex<Results>,
    statements: Statements,
}

impl Connection {
    pub fn new(shared: Arc<Shared>) -> Self {
        let results = Results::new(shared.config.limits.results_per_connection);
        let statements = Statements::new(&shared.config.limits);
        Self { session: Mutex::new(None), results: Mutex::new(results), statements, shared }
    }

    /// A copy of the session, for one request.
    fn session(&self) -> Result<Session, Fail> {
        self.session.lock().clone().ok_or_else(not_connected)
    }

    /// Takes over what a request changed in its copy.
    fn keep(&self, before: &Session, after: Session) {
        if *before == after {
            return;
        }
        if let Some(session) = self.session.lock().as_mut() {
            *session = after;
        }
    }

    async fn act(&self, call: &Call, request: &Request<'_>) -> Answer {
        let modern = self.shared.version.has_stmt2();
        match &*request.action {
            "version" => self.version(call),
            "conn" => self.connect(call, request).await,
            "" => Err(Fail::protocol("request no action")),
            "check_server_status" if modern => self.check_server_status(call),
            _ if self.session.lock().is_none() => Err(not_connected()),
            "query" => self.query(call, request).await,
            "fetch" => self.fetch(call, request).await,
            "fetch_block" => self.fetch_block(call, request),
            "free_result" => self.free_result(request),
            "num_fields" => self.num_fields(call, request),
            "get_current_db" => self.current_database(call),
            "get_server_info" => self.server_info(call),
            "get_connection_info" if modern => self.connection_info(call, request),
            "options_connection" if modern => self.options(call, request),
            "insert" => self.insert(call, request).await,
            action if is_statement(action) => self.statement(call, request).await,
            action if modern && action.starts_with("stmt2_") => self.statement2(call, request).await,
            action => Err(Fail::protocol(format!("unknown action {action}"))),
        }
    }

    async fn act_binary(&self, call: &Call, frame: &Bytes, id: u64, request: BinaryRequest<'_>) -> Answer {
        if self.session.lock().is_none() {
            return Err(not_connected());
        }
        let modern = self.shared.version.has_stmt2();
        let is_binary = self.shared.version.has_binary_query();
        match request {
            BinaryRequest::Query { .. } | BinaryRequest::FetchBlock if !is_binary => Err(unknown_binary()),
            BinaryRequest::StmtSetTags { block } => self.statement_tags(call, id, block).await,
            BinaryRequest::StmtBind { block } => self.statement_bind(call, id, block).await,
            BinaryRequest::WriteRaw { raw_type, data } => self.write_raw(call, raw_type, data, frame).await,
            BinaryRequest::WriteBlock { table, block, .. } => {
                self.write_block(call, table, block, frame, None).await
            }
            BinaryRequest::WriteBlockWithFields { table, block, fields, .. } => {
                self.write_block(call, table, block, frame, Some(fields)).await
            }
            BinaryRequest::Query { sql: "" } => Err(Fail::protocol("message length is too short")),
            BinaryRequest::Query { sql } => self.query_sql(call, sql).await,
            BinaryRequest::FetchBlock => self.fetch_raw_block(call, id).await,
            BinaryRequest::Stmt2Bind { column, data } if modern => self.statement2_bind(call, id, column, data).await,
            BinaryRequest::Stmt2BindExec { data } if modern => self.statement2_bind_exec(call, id, data).await,
            BinaryRequest::ValidateSql { sql } if modern => self.validate(call, sql),
            BinaryRequest::Unknown { action: 6, version } => {
                Err(Fail::protocol(format!("unknown binary query version:{}", version.unwrap_or_default())))
            }
            _ => Err(unknown_binary()),
        }
    }

    /// Keys that error replies carry besides the envelope: the statement's id, and what old decoders have no default
    /// for (PROTOCOL 1.3).
    fn error_keys(&self, request: &Request<'_>) -> Map<String, Json> {
        let known = is_statement(&request.action) || self.shared.version.has_stmt2();
        let mut keys = if known { echo(request, &["stmt_id"]) } else { Map::new() };
        if self.shared.version.has_stmt2() && request.action == "prepare" {
            keys.insert("is_insert".into(), Json::Bool(false));
        }
        keys
    }
}

impl Protocol for Connection {
    async fn text(self: Arc<Self>, text: String) -> Option<Reply> {
        let request = match Request::parse(&text) {
            Ok(request) => request,
            Err(error) => {
                self.shared.count_malformed("/ws", &error);
                return None;
            }
        };
        let mut call = Call::new(request.action.clone().into_owned(), request.req_id);
        let answer = match self.shared.faults.before(&request.action) {
            Some(fail) => Err(fail),
            None => self.act(&call, &request).await,
        };
        if answer.as_ref().is_err_and(|fail| *fail == not_connected()) {
            call.req_id = 0;
        }
        call.finish(answer, &self.error_keys(&request))
    }

    async fn binary(self: Arc<Self>, frame: Bytes) -> Option<Reply> {
        let (req_id, id, action) = head(&frame);
        let is_known = self.shared.version.has_binary_query() || !matches!(action, 6 | 7);
        let call = Call::new(if is_known { binary_action(action) } else { UNKNOWN }, req_id);
        let answer = match (self.shared.faults.before(&call.action), BinaryRequest::decode(&frame)) {
            (Some(fail), _) => Err(fail),
            (None, Ok((_, id, request))) => self.act_binary(&call, &frame, id, request).await,
            (None, Err(_)) if frame.len() < HEAD_BYTES => Err(unknown_binary()),
            (None, Err(error)) => Err(error.into()),
        };
        match answer {
            Err(fail) if action == 7 && self.shared.version.has_binary_query() => {
                let frame = call.block_error(id, &fail);
                Some(Reply { action: call.action, hands_out: false, frame })
            }
            answer if matches!(action, 1 | 2 | 9 | 11) => call.finish(answer, &serde_json::json!({ "stmt_id": id })),
            answer => call.finish(answer, &Map::new()),
        }
    }

    fn closed(&self) {
        self.results.lock().clear();
        self.statements.clear();
    }
}

/// How replies name a binary request that is not known.
const UNKNOWN: &str = "unknown";

/// Bytes before a binary request's own fields.
const HEAD_BYTES: usize = 24;

/// Request id, result or statement id and action; words that are missing count as 0.
fn head(frame: &[u8]) -> (u64, u64, u64) {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        let from = frame.get(at..).unwrap_or_default();
        let length = from.len().min(8);
        bytes[..length].copy_from_slice(&from[..length]);
        u64::from_le_bytes(bytes)
    };
    (word(0), word(8), word(16))
}

/// Actions of statements of version 1.
fn is_statement(action: &str) -> bool {
    const ACTIONS: [&str; 13] = [
        "init", "prepare", "set_table_name", "set_tags", "bind", "add_batch", "exec", "get_tag_fields", "get_col_fields",
        "use_result", "stmt_num_params", "stmt_get_param", "close",
    ];
    ACTIONS.contains(&action)
}

fn not_connected() -> Fail {
    Fail::protocol("server not connected")
}

fn unknown_binary() -> Fail {
    Fail::protocol("unknown action unknown")
}
