//! The admin API over HTTP: a unix socket that only its owner can use, and TCP for who brings the token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};
use pipeline_sdk::Error;
use pipeline_sdk::tls::Identity;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, ChooseTasks, DeleteFile, ErrorBody, File, ListTasks, PutFile, Service, TapQuery, Task};
use crate::listen::TlsListener;
use crate::openapi;
use crate::supervisor::Supervisor;
use crate::tasks::Order;
use crate::token::Token;

/// Where the API is offered.
#[derive(Default)]
pub struct Endpoints {
    pub unix: Option<UnixEndpoint>,
    pub tcp: Option<TcpEndpoint>,
}

pub struct UnixEndpoint {
    pub path: PathBuf,
    /// A group that may use it as well, by number.
    pub group: Option<u32>,
}

pub struct TcpEndpoint {
    pub address: SocketAddr,
    /// What every request must bring, but for `/healthz` and `/readyz`.
    pub token: String,
    /// What is shown to clients; in the clear where absent.
    pub tls: Option<Identity>,
}

/// The API while it is offered.
pub struct Server {
    parts: JoinSet<()>,
    stop: CancellationToken,
    socket: Option<PathBuf>,
    /// Where TCP is listened on.
    pub address: Option<SocketAddr>,
}

impl Server {
    /// Listens and answers until it is stopped.
    ///
    /// # Errors
    /// An endpoint is used by another process, or cannot be used.
    pub async fn start(supervisor: Arc<Supervisor>, endpoints: Endpoints) -> Result<Self, Error> {
        let router = router(supervisor);
        let mut server = Self { parts: JoinSet::new(), stop: CancellationToken::new(), socket: None, address: None };
        if let Some(tcp) = endpoints.tcp {
            let token = Token::new(&tcp.token).ok_or_else(|| {
                Error::fatal("the token is empty").code("service.token").hint("put a long random text into the token's file")
            })?;
            let failed = |error| {
                Error::fatal(format!("cannot listen on {}: {error}", tcp.address)).code("service.listen").hint("take another address")
            };
            let listener = TcpListener::bind(tcp.address).await.map_err(failed)?;
            server.address = listener.local_addr().ok();
            let guarded = router.clone().layer(axum::middleware::from_fn_with_state(token, require_token));
            let stopped = server.stop.clone().cancelled_owned();
            // They never end by themselves.
            match tcp.tls {
                Some(identity) => {
                    let listener = TlsListener::new(listener, identity).map_err(failed)?;
                    server.parts.spawn(async move { drop(axum::serve(listener, guarded).with_graceful_shutdown(stopped).await) });
                }
                None => {
                    server.parts.spawn(async move { drop(axum::serve(listener, guarded).with_graceful_shutdown(stopped).await) });
                }
            }
        }
        if let Some(unix) = endpoints.unix {
            let listener = crate::socket::listen(&unix.path, unix.group).await.map_err(|error| {
                let hint = match error.kind() {
                    std::io::ErrorKind::AddrInUse => "stop the other service, or give this one a socket of its own with --socket",
                    _ => "name a path in a folder that this user may write to with --socket or PIPELINE_SOCKET",
                };
                Error::fatal(format!("cannot listen on {}: {error}", unix.path.display())).code("service.socket").hint(hint)
            })?;
            server.socket = Some(unix.path);
            let stopped = server.stop.clone().cancelled_owned();
            server.parts.spawn(async move {
                let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            });
        }
        Ok(server)
    }

    /// Takes no more requests and takes the socket away; requests under way are given up soon.
    pub async fn stop(mut self) {
        /// For requests under way.
        const LIMIT: std::time::Duration = std::time::Duration::from_secs(2);
        self.stop.cancel();
        if let Some(socket) = &self.socket {
            // Somebody may have taken it away already.
            let _ = std::fs::remove_file(socket);
        }
        let ended = async { while self.parts.join_next().await.is_some() {} };
        if tokio::time::timeout(LIMIT, ended).await.is_err() {
            self.parts.abort_all();
        }
    }
}

async fn require_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    let is_open = matches!(request.uri().path(), "/healthz" | "/readyz");
    let given = request.headers().get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    if is_open || token.is_in(given) {
        return next.run(request).await;
    }
    let error = ApiError::new(401, "unauthorized", "the token is missing or wrong").hint("give the service's token: `--token-file FILE`");
    error.into_response()
}

type App = State<Arc<Supervisor>>;
type Answer<T> = Result<Json<T>, ApiError>;

/// Every route with its handler; the OpenAPI document describes exactly these (a test compares them).
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Supervisor>>)> {
    vec![
        ("/healthz", get(async || "ok\n")),
        ("/readyz", get(ready)),
        ("/metrics", get(metrics)),
        ("/openapi.json", get(async || Json(openapi::document()))),
        ("/api/v1/service", get(async |State(app): App| -> Json<Service> { Json(app.service()) })),
        ("/api/v1/files", get(async |State(app): App| -> Json<Vec<File>> { Json(app.files()) })),
        ("/api/v1/files/{id}", get(file).merge(put(put_file)).merge(delete(delete_file))),
        ("/api/v1/tasks", get(tasks)),
        ("/api/v1/tasks/stop", post(async |app: App, body: Body<ChooseTasks>| order(app, Order::Stop, body.0).await)),
        ("/api/v1/tasks/start", post(async |app: App, body: Body<ChooseTasks>| order(app, Order::Start, body.0).await)),
        ("/api/v1/tasks/restart", post(async |app: App, body: Body<ChooseTasks>| order(app, Order::Restart, body.0).await)),
        ("/api/v1/tasks/remove", post(remove)),
        ("/api/v1/tap", get(tap)),
        ("/api/v1/reload", post(reload)),
    ]
}

fn router(supervisor: Arc<Supervisor>) -> Router {
    let routes = routes().into_iter().fold(Router::new(), |router, (path, handlers)| router.route(path, handlers));
    let nothing = async || ApiError::not_found("there is nothing of this path").hint("`/openapi.json` lists what there is");
    let wrong = async || ApiError::new(405, "method", "this path takes another method").hint("`/openapi.json` lists what there is");
    routes.fallback(nothing).method_not_allowed_fallback(wrong).with_state(supervisor)
}

async fn ready(State(app): App) -> Response {
    match app.is_ready() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

async fn metrics(State(app): App) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics()).into_response()
}

async fn file(State(app): App, Path(id): Path<String>) -> Answer<File> {
    app.file(&id).map(Json)
}

async fn put_file(State(app): App, Path(id): Path<String>, Body(body): Body<PutFile>) -> Result<(StatusCode, Json<File>), ApiError> {
    // A client that goes away does not leave it half done.
    let done = tokio::spawn(async move {
        let is_new = app.put(&id, &body).await?;
        Ok::<_, ApiError>((is_new, app.file(&id)?))
    });
    let (is_new, file) = done.await.map_err(|error| ApiError::internal(error.to_string()))??;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(file)))
}

async fn delete_file(State(app): App, Path(id): Path<String>, Ask(query): Ask<DeleteFile>) -> Result<StatusCode, ApiError> {
    let done = tokio::spawn(async move { app.delete(&id, query.force).await });
    done.await.map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(StatusCode::NO_CONTENT)
}

async fn tasks(State(app): App, Ask(query): Ask<ListTasks>) -> Answer<Vec<Task>> {
    app.tasks(query.file.as_deref()).map(Json)
}

async fn order(State(app): App, order: Order, chosen: ChooseTasks) -> Answer<Vec<Task>> {
    let done = tokio::spawn(async move { app.order(order, &chosen).await });
    done.await.map_err(|error| ApiError::internal(error.to_string()))?.map(Json)
}

async fn remove(State(app): App, Body(chosen): Body<ChooseTasks>) -> Answer<Vec<Task>> {
    let (Some(file), Some(values)) = (chosen.file, chosen.values) else {
        return Err(ApiError::bad_request("`file` and `values` say what is to be removed").hint("DELETE of the file removes all of it"));
    };
    let done = tokio::spawn(async move { app.remove_tasks(&file, &values).await });
    done.await.map_err(|error| ApiError::internal(error.to_string()))?.map(Json)
}

/// A line of JSON for every message, until the client or the run ends.
async fn tap(State(app): App, Ask(query): Ask<TapQuery>) -> Result<Response, ApiError> {
    let lines = futures_util::stream::unfold(app.tap(&query)?, async |mut tap| {
        let seen = tap.next().await?;
        let mut line = serde_json::to_vec(&seen).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(line), tap))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], axum::body::Body::from_stream(lines)).into_response())
}

async fn reload(State(app): App) -> Answer<Vec<File>> {
    let done = tokio::spawn(async move {
        app.look().await?;
        Ok::<_, ApiError>(app.files())
    });
    done.await.map_err(|error| ApiError::internal(error.to_string()))?.map(Json)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody { error: self })).into_response()
    }
}

/// A body in JSON; what is wrong with it is said as every other error.
struct Body<T>(T);

impl<T: serde::de::DeserializeOwned> FromRequest<Arc<Supervisor>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<Supervisor>) -> Result<Self, ApiError> {
        let read: Result<Json<T>, JsonRejection> = Json::from_request(request, state).await;
        read.map(|Json(body)| Self(body)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// A query, likewise.
struct Ask<T>(T);

impl<T: serde::de::DeserializeOwned> FromRequestParts<Arc<Supervisor>> for Ask<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &Arc<Supervisor>) -> Result<Self, ApiError> {
        let read: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        read.map(|Query(query)| Self(query)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_every_route() {
        let document = openapi::document();
        let described: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        let mut offered: Vec<&str> = routes().iter().map(|(path, _)| *path).collect();
        offered.sort_unstable();
        assert_eq!(described, offered);
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
}
