//! The server: takes requests, lets them wait for their answer, and refuses what is too much.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pipeline_sdk::tls::{self, Identity};
use pipeline_sdk::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::HEALTH_PATH;
use super::config::{Answer, HttpSourceConfig};
use crate::login::Guard;

/// Bodies are counted in these.
const PERMIT_BYTES: u64 = 1 << 10;
/// What a client is told to wait where it came too much.
const RETRY_SECONDS: &str = "1";

/// What becomes of a request.
pub(super) enum Fate {
    Durable,
    /// Why it makes no rows.
    Bad(String),
}

/// A request's share of what may wait: one of `requests-max`, and bytes.
pub(super) struct Room {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// A request that waits.
pub(super) struct Waiting {
    pub body: Bytes,
    /// Dropped without a word where the session ended: it is to be repeated. `None` where it was answered already.
    pub answer: Option<oneshot::Sender<Fate>>,
    pub room: Room,
}

struct Shared {
    path: String,
    answer: Answer,
    guard: Guard,
    body_bytes_max: u64,
    receive_timeout: Duration,
    answer_timeout: Duration,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting: mpsc::Sender<Waiting>,
    is_open: AtomicBool,
}

/// Listens until it is dropped; requests under way then are answered with 503.
pub(super) struct Server {
    shared: Arc<Shared>,
    accepting: tokio::task::AbortHandle,
    pub waiting: mpsc::Receiver<Waiting>,
    pub address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_open.store(false, Ordering::Relaxed);
        self.accepting.abort();
    }
}

impl Server {
    /// # Errors
    /// Disconnected: the address cannot be taken now. Fatal: the certificate cannot be used.
    pub async fn open(config: &HttpSourceConfig) -> Result<Self> {
        let address = config.address()?;
        let identity = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Identity::load(certificate, key)?)),
            _ => None,
        };
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let error = Error::disconnected(format!("cannot listen at {address}: {error}")).code("http.listen").path("listen");
            error.hint("another process may have the port; below 1024 it takes a privilege")
        })?;
        let address = listener.local_addr().map_err(|error| Error::disconnected(error.to_string()).code("http.listen"))?;
        let (sender, waiting) = mpsc::channel(config.requests_max as usize);
        let permits = usize::try_from(config.waiting_bytes_max.div_ceil(PERMIT_BYTES)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            path: config.path.clone(),
            answer: config.answer,
            guard: Guard::new(&config.login()),
            body_bytes_max: config.body_bytes_max,
            receive_timeout: config.receive_timeout,
            answer_timeout: config.answer_timeout,
            requests: Arc::new(Semaphore::new(config.requests_max as usize)),
            bytes: Arc::new(Semaphore::new(permits)),
            waiting: sender,
            is_open: AtomicBool::new(true),
        });
        let slots = Arc::new(Semaphore::new(config.connections_max as usize));
        let accepting = tokio::spawn(accept(listener, identity, shared.clone(), slots)).abort_handle();
        Ok(Self { shared, accepting, waiting, address })
    }
}

async fn accept(listener: TcpListener, identity: Option<Arc<Identity>>, shared: Arc<Shared>, slots: Arc<Semaphore>) {
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, _) = tls::accept(&listener).await;
        let (identity, shared) = (identity.clone(), shared.clone());
        tokio::spawn(async move {
            connection(stream, identity, shared).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, identity: Option<Arc<Identity>>, shared: Arc<Shared>) {
    let Some(identity) = identity else { return serve(stream, shared).await };
    if let Some(stream) = identity.shake(stream, shared.receive_timeout).await {
        serve(stream, shared).await;
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let timeout = shared.receive_timeout;
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let serving = builder.timer(TokioTimer::new()).header_read_timeout(timeout).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !self.is_open.load(Ordering::Relaxed) {
            return self.overloaded("stopping");
        }
        if request.uri().path() == HEALTH_PATH {
            return respond(StatusCode::OK, "ok");
        }
        if request.uri().path() != self.path {
            return respond(StatusCode::NOT_FOUND, "no such path");
        }
        if !self.guard.lets_in(request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes)) {
            let mut response = respond(StatusCode::UNAUTHORIZED, "a valid `Authorization` is needed");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic"));
            return response;
        }
        if !matches!(*request.method(), Method::POST | Method::PUT) {
            return respond(StatusCode::METHOD_NOT_ALLOWED, "POST or PUT is taken here");
        }
        if request.headers().get(CONTENT_ENCODING).is_some_and(|it| it != "identity") {
            return respond(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bodies are taken as they are, without an encoding");
        }
        match self.take(request).await {
            Ok(response) | Err(response) => response,
        }
    }

    async fn take(&self, request: Request<Incoming>) -> std::result::Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
        let too_large = || respond(StatusCode::PAYLOAD_TOO_LARGE, &format!("more than {} bytes", self.body_bytes_max));
        // Room is taken before the body is: what is refused costs nothing.
        let expected = request.body().size_hint().upper().unwrap_or(self.body_bytes_max);
        if expected > self.body_bytes_max {
            return Err(too_large());
        }
        let permits = u32::try_from(expected.div_ceil(PERMIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let request_room = self.requests.clone().try_acquire_owned().map_err(|_| self.overloaded("too many requests wait to be written"))?;
        let bytes = self.bytes.clone().try_acquire_many_owned(permits).map_err(|_| self.overloaded("too much waits to be written"))?;
        let room = Room { _request: request_room, _bytes: bytes };
        // As many places as requests: there is one.
        let place = self.waiting.clone().try_reserve_owned().map_err(|_| self.overloaded("too many requests wait to be written"))?;
        let limit = usize::try_from(self.body_bytes_max).unwrap_or(usize::MAX);
        let body = match tokio::time::timeout(self.receive_timeout, Limited::new(request.into_body(), limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(error)) => return Err(respond(StatusCode::BAD_REQUEST, &format!("the body could not be read: {error}"))),
            Err(_) => return Err(respond(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
        };
        if self.answer == Answer::Received {
            place.send(Waiting { body, answer: None, room });
            return Ok(respond(StatusCode::ACCEPTED, "received"));
        }
        let (answer, told) = oneshot::channel();
        place.send(Waiting { body, answer: Some(answer), room });
        match tokio::time::timeout(self.answer_timeout, told).await {
            Ok(Ok(Fate::Durable)) => Ok(respond(StatusCode::OK, "written")),
            Ok(Ok(Fate::Bad(why))) => Err(respond(StatusCode::UNPROCESSABLE_ENTITY, &why)),
            Ok(Err(_)) => Err(self.overloaded("the pipeline was interrupted: send it again")),
            Err(_) => Err(self.overloaded("it is not written yet: send it again")),
        }
    }

    fn overloaded(&self, why: &str) -> Response<Full<Bytes>> {
        let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, why);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        if !self.is_open.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn respond(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
