//! The admin API as any HTTP client sees it: over a unix socket, or over TCP with a token.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A service's socket.
#[derive(Clone, Debug)]
pub struct Api {
    pub socket: PathBuf,
}

impl Api {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Status and body; the body is text where it is no JSON.
    pub fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let stream = UnixStream::connect(&self.socket).with_context(|| self.socket.display().to_string())?;
        stream.set_read_timeout(Some(LIMIT))?;
        exchange(stream, method, path, body, None)
    }

    pub fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.try_ask(method, path, &body).unwrap_or_else(|error| panic!("{method} {path}: {error:#}"))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Waits until all files were begun.
    pub fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.try_ask("GET", "/readyz", &Value::Null).is_ok_and(|(status, _)| status == 200) {
            if Instant::now() > deadline {
                bail!("the service at {} is not ready", self.socket.display());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    /// Waits until what `path` answers is as it should be; what it last answered where that does not come.
    #[track_caller]
    pub fn until(&self, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.get(path);
            if is_so(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "never: {what}\n{answer:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The same over TCP.
pub fn ask_over_tcp(address: &str, path: &str, token: Option<&str>) -> Result<(u16, Value)> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    exchange(stream, "GET", path, &Value::Null, token)
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &Value, token: Option<&str>) -> Result<(u16, Value)> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, serde_json::from_str(body).unwrap_or_else(|_| body.into())))
}
