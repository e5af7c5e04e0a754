//! Messages over the boundary without copying their payloads.
//!
//! Header texts are borrowed from the array and copied by the receiver; frame bytes and Arrow buffers change hands with a
//! release function. A schema crosses once per id and direction.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type, to_ffi};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::types::*;
use crate::error::{Error, Result};
use crate::message::*;

/// Schemas that a direction remembers; beyond it the oldest is sent anew under a new id.
pub const SCHEMAS_MAX: usize = 256;

/// The sending side's memory of schemas.
#[derive(Debug, Default)]
pub struct SchemasSent {
    recent: VecDeque<(u64, SchemaRef)>,
    last_id: u64,
}

/// Texts that a receiver remembers: lanes, formats, namespaces and groups, which nearly every message repeats.
const TEXTS_MAX: usize = 16;

/// The receiving side's memory of schemas, and of texts.
#[derive(Debug, Default)]
pub struct SchemasReceived {
    recent: VecDeque<(u64, SchemaRef)>,
    texts: Vec<Arc<str>>,
    oldest_text: usize,
}

impl SchemasSent {
    /// The id of a schema and whether it must be sent along.
    fn id(&mut self, schema: &SchemaRef) -> (u64, bool) {
        let known = self.recent.iter().find(|(_, known)| Arc::ptr_eq(known, schema) || known == schema);
        if let Some((id, _)) = known {
            return (*id, false);
        }
        self.last_id += 1;
        if self.recent.len() == SCHEMAS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((self.last_id, schema.clone()));
        (self.last_id, true)
    }
}

impl SchemasReceived {
    fn learn(&mut self, id: u64, schema: SchemaRef) {
        if self.recent.len() == SCHEMAS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((id, schema));
    }

    fn get(&self, id: u64) -> Result<&SchemaRef> {
        self.recent
            .iter()
            .find_map(|(known, schema)| (*known == id).then_some(schema))
            .ok_or_else(|| Error::fatal(format!("schema {id} was never sent or is forgotten")))
    }

    /// As [`text`], without an allocation for one that came lately.
    ///
    /// # Safety
    /// As [`Slice::bytes`].
    unsafe fn text(&mut self, slice: Slice) -> Result<Arc<str>> {
        // SAFETY: of the caller.
        let bytes = unsafe { slice.bytes() };
        if let Some(known) = self.texts.iter().find(|known| known.as_bytes() == bytes) {
            return Ok(known.clone());
        }
        // SAFETY: of the caller.
        let fresh = unsafe { text(slice) }?;
        if self.texts.len() < TEXTS_MAX {
            self.texts.push(fresh.clone());
        } else {
            self.texts[self.oldest_text] = fresh.clone();
            self.oldest_text = (self.oldest_text + 1) % TEXTS_MAX;
        }
        Ok(fresh)
    }
}

/// What keeps the slices of an array of messages alive.
struct Owner {
    items: Vec<MessageRaw>,
    messages: Vec<Message>,
    changes: Vec<Vec<u8>>,
    runs: Vec<Vec<RunSlice>>,
}

/// Hands messages over. The texts stay with the returned array, payload buffers are given away.
pub fn export_messages(messages: Vec<Message>, schemas: &mut SchemasSent) -> Result<Messages> {
    let mut owner = Box::new(Owner {
        items: Vec::with_capacity(messages.len()),
        messages,
        changes: Vec::new(),
        runs: Vec::new(),
    });
    let Owner { items, messages, changes, runs } = &mut *owner;
    for message in messages.iter() {
        items.push(export_message(message, schemas, changes, runs)?);
    }
    let (items, len) = (owner.items.as_mut_ptr(), owner.items.len());
    Ok(Messages { items, len, owner: Box::into_raw(owner).cast(), release: Some(release_owner) })
}

unsafe extern "C" fn release_owner(owner: *mut c_void) {
    // SAFETY: `owner` is the box made in `export_messages`, released once. What was moved out left an empty struct behind.
    drop(unsafe { Box::from_raw(owner.cast::<Owner>()) });
}

fn export_message(
    message: &Message,
    schemas: &mut SchemasSent,
    changes: &mut Vec<Vec<u8>>,
    runs: &mut Vec<Vec<RunSlice>>,
) -> Result<MessageRaw> {
    let header = &message.header;
    let mut raw = MessageRaw {
        size: size_of::<MessageRaw>() as u32,
        kind: 0,
        flags: 0,
        tables: 0,
        lane: Slice::of(header.lane.as_str().as_bytes()),
        sequence: header.sequence,
        position: Slice::of(&header.position.bytes),
        position_display: Slice::of(header.position.display.as_deref().unwrap_or("").as_bytes()),
        position_number: header.position.number.unwrap_or(0),
        site: Slice::EMPTY,
        events_from: header.events.map_or(0, |(from, _)| from),
        events_to: header.events.map_or(0, |(_, to)| to),
        namespace: Slice::EMPTY,
        rows: 0,
        format: Slice::EMPTY,
        data: Buffer::EMPTY,
        change: Slice::EMPTY,
        schema_id: 0,
        schema: FFI_ArrowSchema::empty(),
        array: FFI_ArrowArray::empty(),
        runs: std::ptr::null(),
        run_count: 0,
        replayed_rows: header.replayed_rows,
    };
    for (flag, set) in [
        (FLAG_ENDS_POSITION, header.ends_position),
        (FLAG_HAS_NUMBER, header.position.number.is_some()),
        (FLAG_REPLICATED, header.mark != Mark::Local),
        (FLAG_REPLAYED, header.replayed),
        (FLAG_HAS_EVENTS, header.events.is_some()),
    ] {
        raw.flags |= if set { flag } else { 0 };
    }
    if let Mark::Replicated { site: Some(site) } = &header.mark {
        raw.site = Slice::of(site.as_bytes());
    }
    match &message.payload {
        Payload::Frame(frame) => {
            raw.kind = MESSAGE_FRAME;
            raw.namespace = Slice::of(frame.namespace.as_bytes());
            raw.rows = frame.rows;
            raw.tables = frame.tables;
            raw.format = Slice::of(frame.format.as_bytes());
            raw.data = export_bytes(frame.data.clone());
        }
        Payload::Change(change) => {
            raw.kind = MESSAGE_CHANGE;
            changes.push(serde_json::to_vec(&ChangeText::of(change)).expect("a change is plain JSON"));
            raw.change = Slice::of(changes.last().expect("just pushed"));
            if let Some(opaque) = &change.raw {
                raw.format = Slice::of(opaque.format.as_bytes());
                raw.data = export_bytes(opaque.data.clone());
            }
        }
        Payload::Rows(rows) => export_rows(&mut raw, rows, schemas, runs)?,
    }
    Ok(raw)
}

fn export_rows(
    raw: &mut MessageRaw,
    rows: &Rows,
    schemas: &mut SchemasSent,
    runs: &mut Vec<Vec<RunSlice>>,
) -> Result<()> {
    let schema = rows.batch.schema();
    let (id, new) = schemas.id(&schema);
    let data = StructArray::from(rows.batch.clone()).into_data();
    let (array, _) = to_ffi(&data).map_err(arrow_error)?;
    raw.kind = MESSAGE_ROWS;
    raw.schema_id = id;
    raw.array = array;
    if new {
        raw.schema = FFI_ArrowSchema::try_from(schema.as_ref()).map_err(arrow_error)?;
    }
    runs.push(
        rows.runs
            .iter()
            .map(|run| RunSlice {
                first_row: run.first_row,
                namespace: Slice::of(run.namespace.as_bytes()),
                table: Slice::of(run.table.as_bytes()),
                group: Slice::of(run.group.as_bytes()),
                labels: Slice::of(run.labels.as_bytes()),
            })
            .collect(),
    );
    let slices = runs.last().expect("just pushed");
    (raw.runs, raw.run_count) = (slices.as_ptr(), slices.len());
    Ok(())
}

/// Takes messages over and releases the array.
///
/// # Safety
/// `messages` came from the other side under the rules of the boundary and is not used again.
pub unsafe fn import_messages(messages: Messages, schemas: &mut SchemasReceived) -> Result<Vec<Message>> {
    let mut taken = Vec::with_capacity(messages.len);
    let mut failure = None;
    // A sender of a newer minor version has longer messages: the first tells how far the next one is.
    // SAFETY: `items` points to `len` messages, each with its size first.
    let width = if messages.len == 0 { size_of::<MessageRaw>() } else { unsafe { (*messages.items).size as usize } };
    let is_whole = width >= size_of::<MessageRaw>();
    for at in 0..if is_whole { messages.len } else { 0 } {
        // SAFETY: as above, and each is at least as long as the one we know.
        let raw = unsafe { &mut *messages.items.byte_add(at * width) };
        // SAFETY: the slices live until the array is released below.
        match unsafe { import_message(raw, schemas) } {
            Ok(message) => taken.push(message),
            // The rest is taken over all the same, so that its buffers are released.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if let Some(release) = messages.release {
        // SAFETY: released once, after everything was moved out.
        unsafe { release(messages.owner) };
    }
    if !is_whole {
        let message = format!("messages of {width} bytes crossed the boundary, at least {} are needed", size_of::<MessageRaw>());
        return Err(Error::fatal(message).code("boundary.message"));
    }
    failure.map_or(Ok(taken), Err)
}

unsafe fn import_message(raw: &mut MessageRaw, schemas: &mut SchemasReceived) -> Result<Message> {
    // SAFETY: of this function's caller: every slice in `raw` is alive.
    let display = if raw.position_display.len == 0 { None } else { Some(unsafe { text(raw.position_display) }?) };
    // SAFETY: as above.
    let mut text = |slice: Slice| unsafe { schemas.text(slice) };
    // SAFETY: as above.
    let position = Bytes::copy_from_slice(unsafe { raw.position.bytes() });
    let has = |flag: u32| raw.flags & flag != 0;
    let mark = match has(FLAG_REPLICATED) {
        false => Mark::Local,
        true => Mark::Replicated { site: Some(text(raw.site)?).filter(|site| !site.is_empty()) },
    };
    let header = Header {
        lane: Lane(text(raw.lane)?),
        sequence: raw.sequence,
        position: Position {
            bytes: position,
            number: has(FLAG_HAS_NUMBER).then_some(raw.position_number),
            display,
        },
        ends_position: has(FLAG_ENDS_POSITION),
        mark,
        replayed: has(FLAG_REPLAYED),
        replayed_rows: raw.replayed_rows,
        events: has(FLAG_HAS_EVENTS).then_some((raw.events_from, raw.events_to)),
    };
    let data = import_bytes(std::mem::replace(&mut raw.data, Buffer::EMPTY));
    let payload = match raw.kind {
        MESSAGE_FRAME => Payload::Frame(Frame {
            format: text(raw.format)?,
            data,
            namespace: text(raw.namespace)?,
            rows: raw.rows,
            tables: raw.tables,
        }),
        MESSAGE_CHANGE => {
            let format = text(raw.format)?;
            // SAFETY: as above.
            let change: ChangeText = serde_json::from_slice(unsafe { raw.change.bytes() })
                .map_err(|error| Error::fatal(format!("a change crossed the boundary unreadable: {error}")))?;
            Payload::Change(change.into_change((!format.is_empty()).then_some(Opaque { format, data })))
        }
        // SAFETY: as above.
        MESSAGE_ROWS => Payload::Rows(unsafe { import_rows(raw, schemas) }?),
        kind => return Err(Error::fatal(format!("a message of unknown kind {kind} crossed the boundary"))),
    };
    Ok(Message { header, payload })
}

unsafe fn import_rows(raw: &mut MessageRaw, schemas: &mut SchemasReceived) -> Result<Rows> {
    let array = std::mem::replace(&mut raw.array, FFI_ArrowArray::empty());
    let ffi = std::mem::replace(&mut raw.schema, FFI_ArrowSchema::empty());
    if has_schema(&ffi) {
        schemas.learn(raw.schema_id, Arc::new(Schema::try_from(&ffi).map_err(arrow_error)?));
    }
    let schema = schemas.get(raw.schema_id)?.clone();
    // SAFETY: the other side vouches that array and schema belong together.
    let data = unsafe { from_ffi_and_data_type(array, DataType::Struct(schema.fields().clone())) }.map_err(arrow_error)?;
    let batch = RecordBatch::from(StructArray::from(data));
    let batch = batch.with_schema(schema).map_err(arrow_error)?;
    let slices = if raw.run_count == 0 {
        &[]
    } else {
        // SAFETY: of the caller: `runs` points to `run_count` runs.
        unsafe { std::slice::from_raw_parts(raw.runs, raw.run_count) }
    };
    let runs = slices
        .iter()
        .map(|run| {
            // SAFETY: of the caller: the run's slices are alive.
            unsafe {
                Ok(Run {
                    first_row: run.first_row,
                    namespace: schemas.text(run.namespace)?,
                    table: text(run.table)?,
                    group: schemas.text(run.group)?,
                    labels: if run.labels.len == 0 { schemas.text(run.labels)? } else { text(run.labels)? },
                })
            }
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Rows { batch, runs })
}

/// A schema that was released or never filled has no release function; Arrow's struct keeps that private.
fn has_schema(schema: &FFI_ArrowSchema) -> bool {
    // The format text of an empty schema is null, which `format()` does not allow to be asked.
    let words = (schema as *const FFI_ArrowSchema).cast::<*const c_void>();
    // SAFETY: the format pointer is the first word of the C Data Interface's struct.
    unsafe { !words.read().is_null() }
}

/// # Safety
/// As [`Slice::bytes`].
pub unsafe fn text(slice: Slice) -> Result<Arc<str>> {
    // SAFETY: the caller vouches for the slice.
    std::str::from_utf8(unsafe { slice.bytes() })
        .map(Arc::from)
        .map_err(|error| Error::fatal(format!("a text that is not UTF-8 crossed the boundary: {error}")))
}

/// Gives bytes away; the other side releases them.
pub fn export_bytes(bytes: Bytes) -> Buffer {
    if bytes.is_empty() {
        return Buffer::EMPTY;
    }
    let owner = Box::new(bytes);
    Buffer {
        data: owner.as_ptr(),
        len: owner.len(),
        owner: Box::into_raw(owner).cast(),
        release: Some(release_bytes),
    }
}

unsafe extern "C" fn release_bytes(owner: *mut c_void) {
    // SAFETY: `owner` is the box made in `export_bytes`, released once.
    drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
}

/// Takes bytes over without copying them.
pub fn import_bytes(buffer: Buffer) -> Bytes {
    if buffer.data.is_null() || buffer.len == 0 {
        drop(Foreign(buffer));
        return Bytes::new();
    }
    Bytes::from_owner(Foreign(buffer))
}

struct Foreign(Buffer);

impl AsRef<[u8]> for Foreign {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the buffer is ours until it is released in drop.
        unsafe { Slice { data: self.0.data, len: self.0.len }.bytes() }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: released once.
            unsafe { release(self.0.owner) };
        }
    }
}

pub fn bytes_output(bytes: impl Into<Bytes>) -> OutputRaw {
    OutputRaw { bytes: export_bytes(bytes.into()), ..OutputRaw::default() }
}

pub fn error_output(error: Error) -> OutputRaw {
    let json = serde_json::to_vec(&error).expect("an error is plain JSON");
    OutputRaw { status: STATUS_ERROR, bytes: export_bytes(json.into()), ..OutputRaw::default() }
}

/// Writes what a call returns where the other side wants it: as much as both know. Its own `size` stays.
///
/// # Safety
/// `out` is writable and starts with its size; `T` is a struct of the boundary, with its size first.
pub unsafe fn write_sized<T>(out: *mut T, value: T) {
    // SAFETY: of the caller: the size is the first word of both.
    let room = unsafe { *out.cast::<u32>() } as usize;
    let known = room.min(size_of::<T>()).saturating_sub(size_of::<u32>());
    let value = std::mem::ManuallyDrop::new(value);
    // SAFETY: both are at least `size_of::<u32>() + known` bytes long.
    unsafe {
        let from = (&raw const *value).cast::<u8>().add(size_of::<u32>());
        out.cast::<u8>().add(size_of::<u32>()).copy_from_nonoverlapping(from, known);
    }
}

/// Splits an output into its parts, or the error it holds.
pub fn read_output(output: &mut OutputRaw) -> Result<Bytes> {
    let bytes = import_bytes(std::mem::replace(&mut output.bytes, Buffer::EMPTY));
    if output.status == STATUS_OK {
        return Ok(bytes);
    }
    Err(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        Error::fatal(format!("the plugin failed with an unreadable error: {error}")).code("boundary.error")
    }))
}

pub fn panic_error(what: &str) -> Error {
    Error::fatal(format!("the component panicked: {what}")).code("boundary.panic")
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::fatal(format!("rows cannot cross the boundary: {error}")).code("boundary.arrow")
}

/// A change as it crosses: everything but the opaque form.
#[derive(Serialize, Deserialize)]
pub struct ChangeText {
    kind: ChangeKind,
    #[serde(default)]
    identity: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    detail: serde_json::Value,
}

impl ChangeText {
    pub fn of(change: &Change) -> Self {
        Self {
            kind: change.kind,
            identity: change.identity.clone(),
            namespace: change.namespace.to_string(),
            group: change.group.as_deref().map(str::to_owned),
            tables: change.tables.iter().map(|table| table.to_string()).collect(),
            detail: change.detail.clone(),
        }
    }

    pub fn into_change(self, raw: Option<Opaque>) -> Change {
        Change {
            kind: self.kind,
            identity: self.identity,
            namespace: self.namespace.into(),
            group: self.group.map(Arc::from),
            tables: self.tables.into_iter().map(Arc::from).collect(),
            detail: self.detail,
            raw,
        }
    }
}
