//! One connection to a server that is kept, and made anew where the server has closed it.

use std::error::Error as Cause;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pipeline_sdk::tls::rustls::pki_types::ServerName;
use pipeline_sdk::tls::rustls::ClientConfig;
use pipeline_sdk::{Error, Result, tls};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::{HttpSinkConfig, Target};
use crate::login::Login;

/// What is read of an answer, for messages and so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How much of it a message shows.
const SHOWN_CHARS: usize = 200;

/// What a server answered.
pub(super) struct Answer {
    pub status: StatusCode,
    /// The start of its body.
    pub text: String,
    pub retry_after: Option<Duration>,
}

pub(super) struct Client {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    method: Method,
    headers: HeaderMap,
    timeout: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// # Errors
    /// Fatal: keys that cannot be used.
    pub fn new(config: &HttpSinkConfig, login: &Login) -> Result<Self> {
        let target = config.target()?;
        let wrong = |name: &str| Error::fatal("this is no header").path(format!("headers.{name}"));
        let content_type = match (config.format, config.array) {
            (pipeline_formats::Format::Ndjson, true) => "application/json",
            (pipeline_formats::Format::Ndjson, false) => "application/x-ndjson",
            (pipeline_formats::Format::Csv, _) => "text/csv; charset=utf-8",
            (pipeline_formats::Format::Raw, _) => "application/octet-stream",
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pipeline/", env!("CARGO_PKG_VERSION"))));
        headers.insert(HOST, HeaderValue::try_from(&target.authority).map_err(|_| Error::fatal("the host's name cannot be sent").path("url"))?);
        if let Some(value) = login.header() {
            let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| Error::fatal("this cannot be sent in a header").path("token"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &config.headers {
            let value = HeaderValue::try_from(value.expose_secret()).map_err(|_| wrong(name))?;
            headers.insert(HeaderName::try_from(name.as_str()).map_err(|_| wrong(name))?, value);
        }
        let tls = if target.has_tls { Some(config.tls.client()?) } else { None };
        let method = match config.method {
            super::config::Method::Post => Method::POST,
            super::config::Method::Put => Method::PUT,
        };
        Ok(Self { target, tls, method, headers, timeout: config.timeout, connection: None })
    }

    /// # Errors
    /// Disconnected.
    pub async fn connect(&mut self) -> Result<()> {
        self.connection = None;
        let opened = tokio::time::timeout(self.timeout, self.open()).await;
        self.connection = Some(opened.map_err(|_| self.lost("it does not answer"))??);
        Ok(())
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>> {
        let Target { host, port, .. } = &self.target;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| self.failed(&error))?;
        stream.set_nodelay(true).map_err(|error| self.failed(&error))?;
        let Some(config) = &self.tls else { return self.shake(stream).await };
        let name = ServerName::try_from(host.clone()).map_err(|_| Error::fatal("the host's name cannot be in a certificate").path("url"))?;
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|error| self.failed(&error))?;
        self.shake(stream).await
    }

    async fn shake(&self, stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) -> Result<SendRequest<Full<Bytes>>> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(&error))?;
        // It ends with the sender; what went wrong is told to whoever waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// Sends a body and reads the answer.
    ///
    /// # Errors
    /// Disconnected: there was no answer.
    pub async fn send(&mut self, body: Bytes) -> Result<Answer> {
        // What was idle may have been closed by the server: that is no failure, and nothing was sent.
        let is_ready = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !is_ready {
            self.connect().await?;
        }
        let Some(connection) = &mut self.connection else { return Err(self.lost("not connected")) };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.path.parse().map_err(|_| Error::fatal("its path cannot be sent").path("url"))?;
        request.headers_mut().clone_from(&self.headers);
        let answered = async {
            let response = connection.send_request(request).await?;
            Ok::<_, hyper::Error>(read(response).await)
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.connection = None;
                Err(self.failed(&error))
            }
            Err(_) => {
                self.connection = None;
                Err(self.lost(&format!("no answer within {}", pipeline_sdk::units::format_duration(self.timeout))))
            }
        }
    }

    fn failed(&self, error: &(dyn Cause + 'static)) -> Error {
        let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
        let lost = self.lost(&format!("{error}{cause}"));
        match tls::advice(error) {
            Some(advice) => lost.code("http.tls").hint(advice),
            None => lost,
        }
    }

    fn lost(&self, why: &str) -> Error {
        Error::disconnected(format!("{}: {why}", self.target.authority)).code("http.connection")
    }
}

async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, jiff::Timestamp::now()));
    // Where its text cannot be read, its status still tells.
    let text = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().chars().take(SHOWN_CHARS).collect();
    Answer { status: head.status, text, retry_after }
}

/// Seconds, or a moment (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(moment.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_moment() {
        let now: jiff::Timestamp = "2026-11-29T03:00:00Z".parse().unwrap();
        let check = |text: &str, expected: Option<u64>| assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        check("7", Some(7));
        check("Sun, 29 Nov 2026 03:00:30 GMT", Some(30));
        check("Sun, 29 Nov 2026 02:00:30 GMT", Some(0));
        check("soon", None);
    }
}
