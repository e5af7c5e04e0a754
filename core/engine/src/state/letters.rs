//! Dead letters: what could never be written, with the reason, in a form that a person can read.

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pipeline_sdk::{Error, Message, Payload};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// One message, or the rows of it that were rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetter {
    pub pipeline: String,
    pub task: String,
    /// The component that rejected it.
    pub component: String,
    pub lane: String,
    pub position: String,
    /// Milliseconds since the epoch.
    pub time_ms: i64,
    pub error: Error,
    pub rows: u64,
    /// `{"kind": "rows", "columns": […], "runs": […], "rows": [[text or null]]}`, `{"kind": "change", …}` or
    /// `{"kind": "frame", "format": …, "data": hexadecimal}` where it could not be decoded.
    pub payload: Json,
}

/// A payload as JSON.
pub(crate) fn payload_json(message: &Message) -> Json {
    match &message.payload {
        Payload::Rows(rows) => {
            let runs: Vec<Json> = rows
                .runs
                .iter()
                .map(|run| {
                    json!({
                        "first-row": run.first_row, "namespace": *run.namespace, "table": *run.table,
                        "group": *run.group, "labels": *run.labels,
                    })
                })
                .collect();
            let columns: Vec<Json> = rows
                .batch
                .schema()
                .fields()
                .iter()
                .map(|field| json!({ "name": field.name(), "type": field.data_type().to_string() }))
                .collect();
            json!({ "kind": "rows", "columns": columns, "runs": runs, "rows": cells(&rows.batch) })
        }
        Payload::Change(change) => json!({
            "kind": "change", "change": change.kind, "namespace": *change.namespace, "group": change.group.as_deref(),
            "tables": change.tables.iter().map(|it| &**it).collect::<Vec<_>>(), "detail": change.detail,
        }),
        Payload::Frame(frame) => json!({
            "kind": "frame", "format": *frame.format, "namespace": *frame.namespace,
            "data": frame.data.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        }),
    }
}

fn cells(batch: &RecordBatch) -> Vec<Vec<Json>> {
    let options = FormatOptions::default().with_display_error(true);
    let columns: Vec<_> = batch.columns().iter().map(|it| (it, ArrayFormatter::try_new(it.as_ref(), &options))).collect();
    let cell = |row: usize| {
        columns.iter().map(move |(array, formatter)| match formatter {
            _ if array.is_null(row) => Json::Null,
            Ok(formatter) => formatter.value(row).to_string().into(),
            Err(error) => error.to_string().into(),
        })
    };
    (0..batch.num_rows()).map(|row| cell(row).collect()).collect()
}
