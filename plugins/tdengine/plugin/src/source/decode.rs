//! Frames into rows: pure, so that the engine can call it wherever rows are needed.

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use pipeline_sdk::{Error, Frame, Header, Message, Payload, Result, Rows, Run};
use std::sync::Arc;
use tdengine_wire::block::BlockView;

use crate::errors::wire_error;
use crate::log::data::DataMessage;
use crate::log::open_envelope;

/// Rows of one table wait for those of the next with the same columns up to this many.
const ROWS_PER_BATCH: usize = 65_536;

/// Decodes a frame: neighbouring blocks of the same columns become one message, in the order of the log.
pub fn decode(header: &Header, frame: &Frame) -> Result<Vec<Message>> {
    if frame.data.is_empty() {
        return Ok(Vec::new());
    }
    let (raw_type, body) = open_envelope(&frame.data).map_err(wire_error)?;
    let data = DataMessage::parse(raw_type, body).map_err(wire_error)?;
    let mut groups: Vec<Group> = Vec::new();
    for block in &data.blocks {
        let fits = groups.last().is_some_and(|group| {
            group.schema == block.schema && group.precision == block.precision && group.rows < ROWS_PER_BATCH
        });
        if !fits {
            groups.push(Group { schema: block.schema, precision: block.precision, rows: 0, parts: Vec::new(), runs: Vec::new() });
        }
        let group = groups.last_mut().expect("one was just pushed");
        group.runs.push(Run {
            first_row: group.rows as u64,
            namespace: frame.namespace.clone(),
            table: block.table.into(),
            ..Run::default()
        });
        let view = BlockView::parse(block.bytes).map_err(wire_error)?;
        let fields = block.fields().map_err(wire_error)?;
        let names = fields.iter().map(|field| field.name.as_str());
        group.parts.push(tdengine_wire::arrow::to_batch(&view, names, block.precision).map_err(wire_error)?);
        group.rows += block.rows;
    }
    let count = groups.len();
    groups
        .into_iter()
        .enumerate()
        .map(|(index, group)| {
            let mut header = header.clone();
            header.ends_position &= index + 1 == count;
            Ok(Message { header, payload: Payload::Rows(group.into_rows()?) })
        })
        .collect()
}

struct Group<'a> {
    schema: &'a [u8],
    precision: tdengine_wire::Precision,
    rows: usize,
    parts: Vec<RecordBatch>,
    runs: Vec<Run>,
}

impl Group<'_> {
    fn into_rows(self) -> Result<Rows> {
        let batch = match self.parts.as_slice() {
            [one] => one.clone(),
            parts => {
                let schema: Arc<_> = parts[0].schema();
                concat_batches(&schema, parts)
                    .map_err(|error| Error::fatal(format!("blocks of equal columns do not join: {error}")))?
            }
        };
        Ok(Rows { batch, runs: self.runs })
    }
}
