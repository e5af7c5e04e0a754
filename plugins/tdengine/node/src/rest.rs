//! REST: one SQL text per request, for curl, dashboards and probes (PROTOCOL 5, recording a3).
//!
//! Tokens are opaque: those of `/rest/login`. Newer servers have tokens of another kind for `Bearer` and for `bearer_token` of `conn`;
//! here the same ones count there.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tdengine_store::{Outcome, ResultSet, Session};
use tdengine_wire::block::BlockView;
use tdengine_wire::value::{self, Value};
use tdengine_wire::{ColumnType, Precision};

use crate::error::Fail;
use crate::node::Shared;
use crate::timezone;

/// Tokens of `/rest/login` that are honoured at a time; the oldest goes first.
const TOKENS_MAX: usize = 1_024;

/// Tokens handed out and whom they stand for.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<VecDeque<(String, String)>>);

impl Tokens {
    fn issue(&self, user: String) -> String {
        let token = BASE64_STANDARD.encode(rand::random::<[u8; 48]>());
        let mut tokens = self.0.lock();
        tokens.truncate(TOKENS_MAX - 1);
        tokens.push_front((token.clone(), user));
        token
    }

    /// Whom a token stands for.
    pub fn user(&self, token: &str) -> Option<String> {
        self.0.lock().iter().find(|(known, _)| known == token).map(|(_, user)| user.clone())
    }
}

/// Query parameters; others are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    tz: Option<String>,
    conn_tz: Option<String>,
    timing: Option<bool>,
    row_with_meta: Option<bool>,
}

/// An error with its HTTP status.
struct Refusal(StatusCode, u32, String);

impl From<Fail> for Refusal {
    /// The server's own errors come with status 200 by default.
    fn from(fail: Fail) -> Self {
        Self(StatusCode::OK, fail.code, fail.message.into_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, axum::Json(json!({ "code": self.1, "desc": self.2 }))).into_response()
    }
}

pub(crate) async fn ping(State(shared): State<Arc<Shared>>) -> StatusCode {
    if shared.stopped.is_cancelled() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

pub(crate) async fn login(State(shared): State<Arc<Shared>>, Path((user, password)): Path<(String, String)>) -> Response {
    match shared.sign_in(user.clone(), password, None).await {
        Ok(_) => axum::Json(json!({ "code": 0, "desc": shared.tokens.issue(user) })).into_response(),
        Err(fail) => Refusal(StatusCode::UNAUTHORIZED, 3, fail.message.into_owned()).into_response(),
    }
}

pub(crate) async fn sql(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    answer(shared, None, parameters, headers, body).await
}

pub(crate) async fn sql_in(
    State(shared): State<Arc<Shared>>,
    Path(database): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    answer(shared, Some(database), parameters, headers, body).await
}

async fn answer(
    shared: Arc<Shared>,
    database: Option<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match execute(shared, database, parameters, &headers, &body).await {
        Ok(body) => axum::Json(body).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn execute(
    shared: Arc<Shared>,
    database: Option<String>,
    parameters: Parameters,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Json, Refusal> {
    let started = std::time::Instant::now();
    let sql = String::from_utf8_lossy(body).into_owned();
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let mut session = authorize(&shared, authorization).await?;
    if sql.trim().is_empty() {
        return Err(Refusal(StatusCode::BAD_REQUEST, 0x1106, "request is empty".into()));
    }
    let name = parameters.conn_tz.or(parameters.tz);
    let zone = name.as_deref().map_or(Some(TimeZone::UTC), timezone::parse);
    let zone = zone.ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, 0x1107, "invalid tz".into()))?;
    session.timezone_offset_s = zone.to_offset(jiff::Timestamp::now()).seconds();
    session.database = database;
    if let Some(fail) = shared.faults.before("rest") {
        return Err(fail.into());
    }
    let by_name = parameters.row_with_meta == Some(true);
    let run = move |shared: &Shared| match shared.store.execute(&mut session, &sql)? {
        Outcome::Update { affected } => {
            Ok(json!({ "code": 0, "column_meta": [["affected_rows", "INT", 4]], "data": [[affected]], "rows": 1 }))
        }
        Outcome::Rows(set) => rows(set, &zone, by_name),
    };
    let mut body = shared.blocking(run).await?;
    if parameters.timing == Some(true) {
        body["timing"] = json!(started.elapsed().as_nanos() as u64);
    }
    Ok(body)
}

async fn authorize(shared: &Arc<Shared>, authorization: Option<&str>) -> Result<Session, Refusal> {
    let unauthorized = |code, text: &str| Refusal(StatusCode::UNAUTHORIZED, code, text.into());
    let Some((scheme, secret)) = authorization.and_then(|value| value.trim().split_once(' ')) else {
        return Err(unauthorized(0x1105, "no auth info input"));
    };
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64_STANDARD.decode(secret.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = pair.ok_or_else(|| unauthorized(0x1124, "invalid basic auth"))?;
        return Ok(shared.sign_in(user.into(), password.into(), None).await?);
    }
    if scheme.eq_ignore_ascii_case("taosd") || scheme.eq_ignore_ascii_case("bearer") {
        let user = shared.tokens.user(secret.trim());
        return user.map(Session::new).ok_or_else(|| unauthorized(0x1125, "invalid taosd Authorization"));
    }
    Err(unauthorized(0x1105, "no auth info input"))
}

fn rows(mut set: ResultSet, zone: &TimeZone, by_name: bool) -> Result<Json, Fail> {
    let meta: Vec<Json> = set
        .fields
        .iter()
        .map(|field| json!([field.name, field.column_type.data_type.name(), field.column_type.query_length()]))
        .collect();
    let names: Vec<String> = set.fields.iter().map(|field| field.name.clone()).collect();
    let types: Vec<ColumnType> = set.fields.iter().map(|field| field.column_type).collect();
    let mut data = Vec::new();
    while let Some(block) = set.next_block()? {
        let view = BlockView::parse(&block)?;
        for row in 0..view.rows() {
            let cells = view.columns().iter().zip(&types);
            let cells = cells.map(|(column, column_type)| cell(column.value(row), *column_type, set.precision, zone));
            data.push(match by_name {
                true => Json::Object(names.iter().cloned().zip(cells).collect::<Map<_, _>>()),
                false => Json::Array(cells.collect()),
            });
        }
    }
    let rows = data.len();
    Ok(json!({ "code": 0, "column_meta": meta, "data": data, "rows": rows }))
}

/// A value as the adapter writes it: times as RFC 3339, binary as hex, JSON as it is.
fn cell(value: Value<'_>, column_type: ColumnType, precision: Precision, zone: &TimeZone) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::UInt(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Double(value) => json!(value),
        Value::Timestamp(value) => json!(timezone::rfc3339(value, precision, zone)),
        Value::Decimal(value) => {
            json!(value::decimal_text(value, column_type.decimal_parts().map_or(0, |(_, scale)| scale)))
        }
        Value::Varchar(bytes) => json!(String::from_utf8_lossy(bytes)),
        Value::Nchar(bytes) => json!(value::nchar_text(bytes)),
        Value::Json(bytes) => serde_json::from_slice(bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(bytes))),
        Value::Varbinary(bytes) | Value::Geometry(bytes) | Value::Blob(bytes) => {
            json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    }
}
