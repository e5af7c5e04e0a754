//! The sink: rows as bodies, one request after the other, each awaited. What was answered with 2xx is written.

mod config;
mod client;

use bytes::Bytes;
use hyper::StatusCode;
use pipeline_formats::{Format, csv_header, delimiter, encode_lines};
use pipeline_sdk::{Connected, Context, Error, Message, Payload, Position, Result, Sink, async_trait};

pub use config::HttpSinkConfig;

use client::{Answer, Client};

/// How often a server may ask for another try in a row before the connection counts as lost, which is tried without end.
const REFUSALS_MAX: u32 = 5;

pub(crate) struct Http {
    config: HttpSinkConfig,
    context: Context,
    client: Client,
    refusals: u32,
    /// Of the message that is being written: rows that are done with, so that it is tried again behind them.
    written: usize,
    /// Of the same: rows that the server refuses, and why.
    refused: Vec<(usize, String)>,
    /// Where some rows of a message were refused, how many others were written: the engine brings those alone next.
    accepted: Option<(Position, usize)>,
}

impl Http {
    pub fn new(config: HttpSinkConfig, context: Context) -> Result<Self> {
        let client = Client::new(&config, &config.login())?;
        Ok(Self { config, context, client, refusals: 0, written: 0, refused: Vec::new(), accepted: None })
    }

    /// Writes rows from `written` on, and notes the ones that the server refuses for what is in them.
    async fn send_rows(&mut self, lines: &[&[u8]], header: &[u8]) -> Result<()> {
        while self.written < lines.len() {
            let from = self.written;
            let mut to = from + 1;
            let mut bytes = lines[from].len() as u64;
            while to < lines.len() && self.config.format != Format::Raw && bytes + (lines[to].len() as u64) < self.config.body_bytes_max {
                bytes += lines[to].len() as u64 + 1;
                to += 1;
            }
            self.send_part(lines, from, to, header).await?;
            self.written = to;
        }
        Ok(())
    }

    /// Sends rows; where the server refuses what is in them, the halves, to find which.
    async fn send_part(&mut self, lines: &[&[u8]], from: usize, to: usize, header: &[u8]) -> Result<()> {
        let answer = self.client.send(self.body(&lines[from..to], header)).await?;
        if answer.status.is_success() {
            self.refusals = 0;
            self.context.count("http_requests_sent", 1);
            return Ok(());
        }
        if !is_about_rows(answer.status) {
            return Err(self.failed(answer).await);
        }
        self.refusals = 0;
        if to - from == 1 {
            self.refused.push((from, shown(&answer)));
            return Ok(());
        }
        let middle = from + (to - from) / 2;
        Box::pin(self.send_part(lines, from, middle, header)).await?;
        // The first half is written: where the other one fails for now, only that is tried again.
        self.written = middle;
        Box::pin(self.send_part(lines, middle, to, header)).await
    }

    fn body(&self, lines: &[&[u8]], header: &[u8]) -> Bytes {
        if self.config.format == Format::Raw {
            return Bytes::copy_from_slice(lines[0]);
        }
        let mut body = Vec::with_capacity(header.len() + lines.iter().map(|line| line.len() + 1).sum::<usize>() + 2);
        body.extend(header);
        if self.config.array {
            body.push(b'[');
            body.extend(lines.join(&b','));
            body.push(b']');
        } else {
            for line in lines {
                body.extend(*line);
                body.push(b'\n');
            }
        }
        body.into()
    }

    /// What an answer calls for that is not about the rows.
    async fn failed(&mut self, answer: Answer) -> Error {
        let text = shown(&answer);
        let status = answer.status;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Error::fatal(text).code("http.login").hint("check `token`, or `username` and `password`");
        }
        if status.is_redirection() {
            return Error::fatal(text).code("http.redirect").path("url").hint("name the address that it leads to");
        }
        if let Some(wait) = answer.retry_after {
            tokio::time::sleep(wait.min(self.config.retry_after_max)).await;
        }
        self.refusals += 1;
        match self.refusals > REFUSALS_MAX {
            true => Error::disconnected(text).code("http.status"),
            false => Error::retry(text).code("http.status"),
        }
    }
}

/// Whether another body could be taken: every 4xx that asks neither for another try nor for another login.
fn is_about_rows(status: StatusCode) -> bool {
    let asks_for_more = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !asks_for_more.contains(&status)
}

fn shown(answer: &Answer) -> String {
    let separator = if answer.text.is_empty() { "" } else { ": " };
    format!("the server answers {}{separator}{}", answer.status, answer.text)
}

#[async_trait]
impl Sink for Http {
    async fn connect(&mut self) -> Result<Connected> {
        (self.refusals, self.written, self.accepted) = (0, 0, None);
        self.refused.clear();
        self.client.connect().await?;
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        let Payload::Rows(rows) = &message.payload else {
            self.context.count("changes_left_out", 1);
            return Ok(());
        };
        if rows.batch.num_rows() == 0 || rows.batch.num_columns() == 0 {
            return Ok(());
        }
        let here = (message.header.position.clone(), rows.batch.num_rows());
        if self.accepted.take() == Some(here) {
            return Ok(());
        }
        let delimiter = delimiter(self.config.delimiter.as_deref());
        let lines = encode_lines(&rows.batch, self.config.format, delimiter)?;
        let header = match self.config.format == Format::Csv && self.config.header {
            true => csv_header(&rows.batch.schema(), delimiter)?,
            false => Vec::new(),
        };
        let all: Vec<&[u8]> = lines.iter().collect();
        self.send_rows(&all, &header).await?;
        self.written = 0;
        let refused = std::mem::take(&mut self.refused);
        let Some((_, why)) = refused.first() else { return Ok(()) };
        self.accepted = Some((message.header.position.clone(), all.len() - refused.len()));
        let mut error = Error::rejected(why.clone()).code("http.rows");
        error.rows = refused.iter().map(|(row, _)| *row as u64).collect();
        Err(error)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
