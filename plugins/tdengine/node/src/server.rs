//! The one public port: WebSocket endpoints and REST (PROTOCOL 1.1).

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{get, post};

use crate::node::Shared;
use crate::socket::{Protocol, serve};
use crate::{rest, tmq, ws};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let body_bytes_max = shared.config.limits.message_bytes;
    Router::new()
        .route("/ws", get(query_socket))
        .route("/rest/ws", get(query_socket))
        .route("/rest/stmt", get(query_socket))
        .route("/rest/schemaless", get(query_socket))
        .route("/rest/tmq", get(consumer_socket))
        .route("/rest/sql", post(rest::sql))
        .route("/rest/sql/{database}", post(rest::sql_in))
        .route("/rest/login/{user}/{password}", get(rest::login))
        .route("/-/ping", get(rest::ping))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .with_state(shared)
}

async fn query_socket(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    let connection = ws::Connection::new(shared.clone());
    open(shared, upgrade, connection)
}

async fn consumer_socket(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    let consumer = tmq::Socket::new(shared.clone());
    open(shared, upgrade, consumer)
}

/// What is read at once: each read clears this much first, and most requests are small. A large one is read in as many pieces.
const READ_BUFFER_BYTES: usize = 16 << 10;

fn open(shared: Arc<Shared>, upgrade: WebSocketUpgrade, protocol: impl Protocol) -> Response {
    let bytes_max = shared.config.limits.message_bytes;
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max)
        .on_upgrade(move |socket| serve(shared, socket, protocol))
}
