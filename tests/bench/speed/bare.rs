//! A bare loop over the plugin's own client: no engine, no boundary, no state, no checks of schemas.
//!
//! It has the pipeline's shape, or the comparison would flatter: the next message is fetched while one is written, and each
//! vgroup has a connection of its own with one write in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use pipeline_tdengine::client::{SocketLimits, Subscription};
use pipeline_tdengine::log::{RAW_DATA, data::DataMessage};
use pipeline_tdengine::transport::Consumer;
use tokio::sync::mpsc;

use crate::load::{Address, topic};
use crate::process::cpu_seconds;

/// Messages that wait for a writer: as many as the engine's default buffer holds.
const WAITING_MAX: usize = 64;
const POLL: Duration = Duration::from_millis(10);

/// What is moved from where to where.
pub struct Job<'a> {
    pub from: &'a Address,
    pub to: &'a Address,
    pub source: &'a str,
    pub target: &'a str,
    pub rows: u64,
    /// A group that nobody used yet.
    pub group: String,
}

/// Measured from a tenth of the rows to the last: what starting costs is a figure of its own.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub rows_per_second: f64,
    /// Processor time of the process that moved a million rows.
    pub cpu_seconds_per_million: f64,
}

impl Rate {
    pub fn new(rows: u64, seconds: f64, cpu_seconds: f64) -> Self {
        Self { rows_per_second: rows as f64 / seconds, cpu_seconds_per_million: cpu_seconds / rows as f64 * 1e6 }
    }
}

/// Marks in time while rows go by.
pub struct Window {
    first: u64,
    last: u64,
    begun: Option<(Instant, u64, f64)>,
}

impl Window {
    pub fn new(rows: u64) -> Self {
        Self { first: rows / 10, last: rows, begun: None }
    }

    /// Takes the rows so far of process `id`; the rate once all went by.
    pub fn note(&mut self, rows: u64, at: Instant, id: u32) -> Result<Option<Rate>> {
        match self.begun {
            None if rows >= self.first => self.begun = Some((at, rows, cpu_seconds(id)?)),
            Some((begun, before, cpu)) if rows >= self.last => {
                let seconds = at.duration_since(begun).as_secs_f64();
                return Ok(Some(Rate::new(rows - before, seconds, cpu_seconds(id)? - cpu)));
            }
            _ => {}
        }
        Ok(None)
    }
}

pub async fn run(job: &Job<'_>) -> Result<Rate> {
    let subscription = Subscription {
        topic: topic(job.source),
        group: job.group.clone(),
        client: "bench".into(),
        exclude_marked: true,
        from_oldest: true,
        prefetch: 4,
        rows_min: None,
    };
    let mut consumer = Consumer::subscribe(&job.from.dsn, &subscription, SocketLimits::default()).await?;
    let written = Arc::new(AtomicU64::new(0));
    let (failed, mut failures) = mpsc::channel(1);
    let mut writers: HashMap<i32, mpsc::Sender<(Bytes, u64)>> = HashMap::new();
    let mut window = Window::new(job.rows);
    let id = std::process::id();
    loop {
        if let Some(rate) = window.note(written.load(Ordering::Relaxed), Instant::now(), id)? {
            drop(writers);
            consumer.unsubscribe().await?;
            return Ok(rate);
        }
        if let Ok(error) = failures.try_recv() {
            return Err(error);
        }
        let Some(message) = consumer.poll(POLL).await? else { continue };
        consumer.start_poll(POLL);
        if message.raw_type != RAW_DATA {
            continue;
        }
        let rows = DataMessage::parse(message.raw_type, message.body())?.rows();
        if !writers.contains_key(&message.vgroup) {
            writers.insert(message.vgroup, writer(job, written.clone(), failed.clone()).await?);
        }
        let _ = writers[&message.vgroup].send((message.raw, rows)).await;
    }
}

/// One lane's writer.
async fn writer(job: &Job<'_>, written: Arc<AtomicU64>, failed: mpsc::Sender<anyhow::Error>) -> Result<mpsc::Sender<(Bytes, u64)>> {
    let connection = job.to.connect(Some(job.target)).await?;
    let (sender, mut messages) = mpsc::channel::<(Bytes, u64)>(WAITING_MAX);
    tokio::spawn(async move {
        while let Some((raw, rows)) = messages.recv().await {
            if let Err(error) = connection.write_raw(&[&raw]).await {
                // The loop is over when nobody listens.
                let _ = failed.send(error.into()).await;
                return;
            }
            written.fetch_add(rows, Ordering::Relaxed);
        }
    });
    Ok(sender)
}
