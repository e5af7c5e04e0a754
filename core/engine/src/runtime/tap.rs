//! Looking into a run: copies of messages that pass a component, for who asks.
//!
//! Guarantees: a pipeline never waits for a tap. What does not fit a tap's buffer is counted and dropped; decoding and writing out is done
//! where the tap is read. A message that nobody looks at costs one load. Secrets are taken out of what is shown.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pipeline_sdk::{Error, Kind, Mark, Message, Payload, Result, Rows};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tokio::sync::Notify;

use super::run::{Running, Shared};
use crate::cases::batch_json;
use crate::config::problem::{closest, listed};
use crate::graph::PipelineGraph;

/// Taps of one run at a time.
pub const TAPS_MAX: usize = 16;
/// Messages that wait in a tap, and the bytes that they keep alive.
pub const TAP_MESSAGES_MAX: usize = 256;
pub const TAP_BYTES_MAX: u64 = 32 << 20;
/// Rows of one message that are shown where it is not said.
pub const TAP_ROWS_DEFAULT: u64 = 100;
/// The column that tells the table of a row, where there is one.
const TABLE_COLUMN: &str = "_table";

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TapQuery {
    /// The file of the pipeline, where several have one of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub pipeline: String,
    /// Name of a source, transform or sink of the pipeline, or `dead-letter`.
    pub component: String,
    /// One of so many messages; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u64>,
    /// Rows that are shown of one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// A message as a tap shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Seen {
    /// The pipeline's share, empty where it is not divided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    pub lane: String,
    pub position: String,
    /// When it passed, in milliseconds since the epoch.
    pub time_ms: i64,
    /// `rows`, `change` or `frame`: a frame that its source's plugin cannot decode.
    pub kind: SeenKind,
    /// Whether a replica wrote it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replicated: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<SeenColumn>,
    /// Rows without what is NULL, as many as were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Map<String, Json>>,
    /// All rows of the message.
    pub row_count: u64,
    pub bytes: u64,
    /// Of a change or frame: what it is.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub detail: Json,
    /// Messages that did not fit the tap's buffer, so far.
    pub dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SeenKind {
    Rows,
    Change,
    Frame,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SeenColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
}

/// The taps of a run.
#[derive(Default)]
pub(super) struct Taps {
    open: AtomicUsize,
    buffers: Mutex<Vec<Arc<Buffer>>>,
}

struct Buffer {
    pipeline: String,
    component: String,
    sample: u64,
    held: Mutex<Held>,
    filled: Notify,
}

#[derive(Default)]
struct Held {
    messages: VecDeque<Passed>,
    bytes: u64,
    passed: u64,
    dropped: u64,
}

struct Passed {
    task: String,
    time_ms: i64,
    message: Message,
    /// Before it.
    dropped: u64,
}

impl Taps {
    /// Whether anybody looks: cheap enough for every message.
    pub fn is_any(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Shows a message to who looks at this component.
    pub fn offer(&self, pipeline: &str, component: &str, task: &str, message: &Message, time_ms: impl Fn() -> i64) {
        if !self.is_any() {
            return;
        }
        for buffer in self.buffers.lock().iter().filter(|it| it.pipeline == pipeline && it.component == component) {
            buffer.put(task, message, time_ms());
        }
    }

    fn add(&self, buffer: Arc<Buffer>) -> Result<()> {
        let mut buffers = self.buffers.lock();
        if buffers.len() >= TAPS_MAX {
            let error = Error::fatal(format!("there are {TAPS_MAX} taps already")).code("tap.many");
            return Err(error.hint("end one of them"));
        }
        buffers.push(buffer);
        self.open.store(buffers.len(), Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, buffer: &Arc<Buffer>) {
        let mut buffers = self.buffers.lock();
        buffers.retain(|it| !Arc::ptr_eq(it, buffer));
        self.open.store(buffers.len(), Ordering::Relaxed);
    }
}

impl Buffer {
    fn put(&self, task: &str, message: &Message, time_ms: i64) {
        let mut held = self.held.lock();
        held.passed += 1;
        if !(held.passed - 1).is_multiple_of(self.sample) {
            return;
        }
        let bytes = message.byte_count();
        let is_full = held.messages.len() >= TAP_MESSAGES_MAX || (held.bytes + bytes > TAP_BYTES_MAX && !held.messages.is_empty());
        if is_full {
            held.dropped += 1;
            return;
        }
        held.bytes += bytes;
        let dropped = held.dropped;
        held.messages.push_back(Passed { task: task.to_owned(), time_ms, message: message.clone(), dropped });
        drop(held);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Passed> {
        let mut held = self.held.lock();
        let passed = held.messages.pop_front()?;
        held.bytes -= passed.message.byte_count();
        Some(passed)
    }
}

/// One look into a run; ends with this value.
pub struct Tap {
    run: Arc<Shared>,
    buffer: Arc<Buffer>,
    /// Type of the source that decodes frames; absent where it has a process of its own, which a tap does not disturb.
    decoder: Option<String>,
    rows: usize,
    /// Parts of the last frame.
    ready: VecDeque<Seen>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.run.taps.remove(&self.buffer);
    }
}

impl Tap {
    /// The next message; `None` once the run ends.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Some(seen);
            }
            if let Some(passed) = self.buffer.take() {
                self.ready = self.seen(passed).await.into();
                continue;
            }
            tokio::select! {
                biased;
                () = self.buffer.filled.notified() => {}
                () = self.run.stop.cancelled() => return self.buffer.take().map(|passed| self.described(&passed)),
            }
        }
    }

    /// A frame is decoded where it can be.
    async fn seen(&self, passed: Passed) -> Vec<Seen> {
        let decoder = self.decoder.clone().filter(|_| matches!(passed.message.payload, Payload::Frame(_)));
        let found = decoder.and_then(|decoder| Some((self.run.plugins.library(Kind::Source, &decoder).ok()?, decoder)));
        let Some((library, decoder)) = found else { return vec![self.described(&passed)] };
        let frame = passed.message.clone();
        // It takes as long as it takes: not in a thread that others need.
        let decoded = tokio::task::spawn_blocking(move || library.decode(&decoder, frame)).await;
        match decoded {
            Ok(Ok(parts)) => {
                let part = |message| Passed { message, task: passed.task.clone(), ..passed };
                parts.into_iter().map(|message| self.described(&part(message))).collect()
            }
            _ => vec![self.described(&passed)],
        }
    }

    fn described(&self, passed: &Passed) -> Seen {
        let Passed { task, time_ms, message, dropped } = passed;
        let mut seen = Seen {
            task: task.clone(),
            lane: message.header.lane.to_string(),
            position: message.header.position.to_string(),
            time_ms: *time_ms,
            kind: SeenKind::Rows,
            replicated: matches!(message.header.mark, Mark::Replicated { .. }),
            columns: Vec::new(),
            rows: Vec::new(),
            row_count: message.row_count(),
            bytes: message.byte_count(),
            detail: Json::Null,
            dropped: *dropped,
        };
        match &message.payload {
            Payload::Rows(rows) => {
                seen.columns = columns(rows);
                seen.rows = rows_json(rows, self.rows);
            }
            Payload::Change(_) => {
                seen.kind = SeenKind::Change;
                seen.detail = crate::state::payload_json(message);
            }
            Payload::Frame(frame) => {
                seen.kind = SeenKind::Frame;
                seen.detail = serde_json::json!({ "format": *frame.format, "namespace": *frame.namespace, "tables": frame.tables });
            }
        }
        let redact = |text: &str| self.run.redact(text);
        seen.rows.iter_mut().flat_map(Map::values_mut).chain([&mut seen.detail]).for_each(|value| redact_json(value, &redact));
        seen
    }
}

fn columns(rows: &Rows) -> Vec<SeenColumn> {
    let schema = rows.batch.schema();
    let of_table = has_tables(rows).then(|| SeenColumn { name: TABLE_COLUMN.into(), type_name: "Utf8".into() });
    let own = schema.fields().iter().map(|it| SeenColumn { name: it.name().clone(), type_name: it.data_type().to_string() });
    of_table.into_iter().chain(own).collect()
}

fn has_tables(rows: &Rows) -> bool {
    rows.runs.iter().any(|run| !run.table.is_empty())
}

fn rows_json(rows: &Rows, limit: usize) -> Vec<Map<String, Json>> {
    let mut shown = batch_json(&rows.batch, limit);
    if has_tables(rows) {
        for (index, row) in shown.iter_mut().enumerate() {
            let run = rows.runs.iter().rev().find(|run| run.first_row <= index as u64);
            row.insert(TABLE_COLUMN.into(), run.map_or("", |run| &*run.table).into());
        }
    }
    shown
}

fn redact_json(value: &mut Json, redact: &impl Fn(&str) -> String) {
    match value {
        Json::String(text) => *text = redact(text),
        Json::Array(items) => items.iter_mut().for_each(|item| redact_json(item, redact)),
        Json::Object(object) => object.values_mut().for_each(|item| redact_json(item, redact)),
        _ => {}
    }
}

impl Running {
    /// Looks at what leaves a source or transform, or reaches a sink, from now on.
    ///
    /// # Errors
    /// There is no such pipeline or component (code `tap.unknown`), or there are too many taps.
    pub fn tap(&self, query: &TapQuery) -> Result<Tap> {
        let graphs: Vec<_> = self.pipelines().iter().map(|it| it.graph()).collect();
        let unknown = |what: &str, name: &str, known: Vec<&str>| {
            let error = Error::fatal(format!("there is no {what} `{name}`")).code("tap.unknown");
            error.hint(match closest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known: {}", listed(&known)),
            })
        };
        let Some(graph) = graphs.iter().find(|it| it.name == query.pipeline) else {
            return Err(unknown("pipeline", &query.pipeline, graphs.iter().map(|it| it.name.as_str()).collect()));
        };
        let names = component_names(graph);
        if !names.contains(&query.component.as_str()) {
            return Err(unknown(&format!("component of `{}` named", graph.name), &query.component, names));
        }
        let buffer = Arc::new(Buffer {
            pipeline: query.pipeline.clone(),
            component: query.component.clone(),
            sample: query.sample.unwrap_or(1).max(1),
            held: Mutex::default(),
            filled: Notify::new(),
        });
        let rows = query.rows.unwrap_or(TAP_ROWS_DEFAULT) as usize;
        let decoder = (!graph.source.node.is_isolated()).then(|| graph.decoder.clone());
        self.shared.taps.add(buffer.clone())?;
        Ok(Tap { run: self.shared.clone(), buffer, decoder, rows, ready: VecDeque::new() })
    }
}

/// What dead letters pass where the pipeline has no sink of its own for them.
pub(super) const DEAD_LETTER: &str = "dead-letter";

fn component_names(graph: &PipelineGraph) -> Vec<&str> {
    let letters = graph.dead_letter.as_ref().map_or(DEAD_LETTER, |node| node.name.as_str());
    graph.steps().map(|step| step.node.name.as_str()).chain([letters]).collect()
}
