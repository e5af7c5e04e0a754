//! A client of the admin API, for commands: one connection a request.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pipeline_sdk::Error;
use pipeline_sdk::tls::rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::api::{ApiError, ChooseTasks, ErrorBody, File, PutFile, Seen, Service, TapQuery, Task};

/// Where a service listens.
#[derive(Clone, Debug)]
pub enum Address {
    Unix(PathBuf),
    Tcp(TcpAddress),
}

/// Of a service that listens on TCP.
#[derive(Clone)]
pub struct TcpAddress {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    token: String,
}

impl TcpAddress {
    /// Reads `HOST:PORT`, or `https://HOST:PORT` for TLS; `ca_file` has signed its certificate, or else one whom this machine trusts.
    ///
    /// # Errors
    /// Fatal: what is wrong with the address or the file.
    pub fn parse(text: &str, token: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let (is_tls, place) = match text.split_once("://") {
            Some(("https", place)) => (true, place),
            Some(("http", place)) => (false, place),
            Some(_) => return Err(no_address(text)),
            None => (false, text),
        };
        let (host, port) = place.trim_end_matches('/').rsplit_once(':').ok_or_else(|| no_address(text))?;
        let port = port.parse().map_err(|_| no_address(text))?;
        if !is_tls && ca_file.is_some() {
            let error = Error::fatal(format!("`{text}` is not encrypted, and a certificate authority is given"));
            return Err(error.code("service.address").hint("write `https://HOST:PORT`"));
        }
        let tls = is_tls.then(|| pipeline_sdk::tls::client(ca_file).map(TlsConnector::from)).transpose()?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, tls, token: token.trim().to_owned() })
    }
}

fn no_address(text: &str) -> Error {
    Error::fatal(format!("`{text}` is no address of a service")).code("service.address").hint("write HOST:PORT, or https://HOST:PORT for TLS")
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https://" } else { "" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no service answers at {place}: {why}")]
    NotRunning { place: String, why: String },
    /// The socket belongs to somebody else.
    #[error("{place} may not be used: {why}")]
    Denied { place: String, why: String },
    /// It is not trusted, or does not speak TLS.
    #[error("no TLS with {place}: {why}")]
    NoTls { place: String, why: String },
    /// The service says no.
    #[error(transparent)]
    Refused(ApiError),
    /// What came back is not understood, or nothing came.
    #[error("the service at {place} does not answer as it should: {why}")]
    Broken { place: String, why: String },
}

impl ClientError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => Some("start it with `pipeline serve --dir DIR`, or say with `--socket` where it listens".into()),
            Self::Denied { .. } => Some("run this as the service's user, or let the service give its group access: `--socket-group`".into()),
            Self::NoTls { .. } => Some("name the authority that signed its certificate with `--ca-file`, or write HOST:PORT if it has no TLS".into()),
            Self::Refused(error) => error.hint.clone(),
            Self::Broken { .. } => None,
        }
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    limit: Duration,
}

impl Client {
    /// `limit` is that of one request: an order waits until tasks have stopped.
    pub fn new(address: Address, limit: Duration) -> Self {
        Self { address, limit }
    }

    pub async fn service(&self) -> Result<Service, ClientError> {
        self.ask(Method::GET, "/api/v1/service", None::<&()>).await
    }

    pub async fn files(&self) -> Result<Vec<File>, ClientError> {
        self.ask(Method::GET, "/api/v1/files", None::<&()>).await
    }

    pub async fn file(&self, id: &str) -> Result<File, ClientError> {
        self.ask(Method::GET, &file_path(id), None::<&()>).await
    }

    pub async fn put(&self, id: &str, body: &PutFile) -> Result<File, ClientError> {
        self.ask(Method::PUT, &file_path(id), Some(body)).await
    }

    pub async fn delete(&self, id: &str, force: bool) -> Result<(), ClientError> {
        let path = format!("{}?force={force}", file_path(id));
        self.send(Method::DELETE, &path, None::<&()>).await.map(drop)
    }

    pub async fn tasks(&self, file: Option<&str>) -> Result<Vec<Task>, ClientError> {
        let path = match file {
            Some(id) => format!("/api/v1/tasks?file={}", encoded(id)),
            None => "/api/v1/tasks".to_owned(),
        };
        self.ask(Method::GET, &path, None::<&()>).await
    }

    pub async fn stop(&self, tasks: &ChooseTasks) -> Result<Vec<Task>, ClientError> {
        self.ask(Method::POST, "/api/v1/tasks/stop", Some(tasks)).await
    }

    pub async fn start(&self, tasks: &ChooseTasks) -> Result<Vec<Task>, ClientError> {
        self.ask(Method::POST, "/api/v1/tasks/start", Some(tasks)).await
    }

    pub async fn restart(&self, tasks: &ChooseTasks) -> Result<Vec<Task>, ClientError> {
        self.ask(Method::POST, "/api/v1/tasks/restart", Some(tasks)).await
    }

    pub async fn remove(&self, tasks: &ChooseTasks) -> Result<Vec<Task>, ClientError> {
        self.ask(Method::POST, "/api/v1/tasks/remove", Some(tasks)).await
    }

    pub async fn reload(&self) -> Result<Vec<File>, ClientError> {
        self.ask(Method::POST, "/api/v1/reload", None::<&()>).await
    }

    /// The page of `/metrics`.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let bytes = self.send(Method::GET, "/metrics", None::<&()>).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Looks into a pipeline until `on_seen` says that it is enough, or the run ends.
    ///
    /// # Errors
    /// As of every request; a connection that is lost meanwhile is one.
    pub async fn tap(&self, query: &TapQuery, mut on_seen: impl FnMut(Seen) -> bool) -> Result<(), ClientError> {
        let mut path = format!("/api/v1/tap?pipeline={}&component={}", encoded(&query.pipeline), encoded(&query.component));
        if let Some(file) = &query.file {
            path.push_str(&format!("&file={}", encoded(file)));
        }
        for (name, value) in [("sample", query.sample), ("rows", query.rows)] {
            path.extend(value.map(|value| format!("&{name}={value}")));
        }
        let response = match tokio::time::timeout(self.limit, self.request(Method::GET, &path, None::<&()>)).await {
            Ok(response) => response?,
            Err(_) => return Err(self.broken(format!("nothing came within {} s", self.limit.as_secs()))),
        };
        if !response.status().is_success() {
            return self.whole(response).await.map(drop);
        }
        let (mut body, mut held) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(error))?;
            held.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                if !on_seen(serde_json::from_slice(&line).map_err(|error| self.broken(error))?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<T, ClientError> {
        let bytes = self.send(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    async fn send(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Bytes, ClientError> {
        let exchange = async { self.whole(self.request(method, path, body).await?).await };
        match tokio::time::timeout(self.limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(format!("nothing came within {} s", self.limit.as_secs()))),
        }
    }

    /// The head of the answer.
    async fn request(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Response<Incoming>, ClientError> {
        match &self.address {
            Address::Unix(path_of_socket) => {
                let stream = UnixStream::connect(path_of_socket).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, method, path, body).await
            }
            Address::Tcp(tcp) => {
                let stream = TcpStream::connect((tcp.host.as_str(), tcp.port)).await.map_err(|error| self.unreachable(&error))?;
                let Some(tls) = &tcp.tls else { return self.exchange(stream, method, path, body).await };
                let name = ServerName::try_from(tcp.host.clone()).map_err(|error| self.broken(error))?;
                let stream = tls.connect(name, stream).await.map_err(|error| self.no_tls(&error))?;
                self.exchange(stream, method, path, body).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, ClientError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // It ends with the request's sender.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "pipeline");
        if let Address::Tcp(tcp) = &self.address {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", tcp.token));
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|error| self.broken(error))?
            }
            None => Vec::new(),
        };
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| self.broken(error))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    /// The whole answer; an error where it is none of success.
    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(ErrorBody { error }) => Err(ClientError::Refused(ApiError { status: status.as_u16(), ..error })),
            Err(_) => Err(self.broken(format!("HTTP status {status}"))),
        }
    }

    fn place(&self) -> String {
        match &self.address {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(tcp) => tcp.to_string(),
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> ClientError {
        let (place, why) = (self.place(), error.to_string());
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::Denied { place, why },
            _ => ClientError::NotRunning { place, why },
        }
    }

    fn no_tls(&self, error: &std::io::Error) -> ClientError {
        ClientError::NoTls { place: self.place(), why: error.to_string() }
    }

    fn broken(&self, why: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { place: self.place(), why: why.to_string() }
    }
}

fn file_path(id: &str) -> String {
    format!("/api/v1/files/{}", encoded(id))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
