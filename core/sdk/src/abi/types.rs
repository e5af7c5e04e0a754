//! The C structs of `include/pipeline_plugin.h`, field by field.

use std::ffi::c_void;

use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};

/// Borrowed bytes; valid for the call, or as long as what they stand in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    pub data: *const u8,
    pub len: usize,
}

impl Slice {
    pub const EMPTY: Slice = Slice { data: std::ptr::null(), len: 0 };

    pub fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// # Safety
    /// `data` points to `len` readable bytes that outlive `'a`, or is null with `len` 0.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: the caller vouches for pointer, length and lifetime.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// Owned bytes: the receiver calls `release(owner)` once, or never looks at it where `release` is null.
#[repr(C)]
#[derive(Debug)]
pub struct Buffer {
    pub data: *const u8,
    pub len: usize,
    pub owner: *mut c_void,
    pub release: Option<unsafe extern "C" fn(owner: *mut c_void)>,
}

impl Buffer {
    pub const EMPTY: Buffer = Buffer { data: std::ptr::null(), len: 0, owner: std::ptr::null_mut(), release: None };
}

pub const MESSAGE_ROWS: u32 = 1;
pub const MESSAGE_CHANGE: u32 = 2;
pub const MESSAGE_FRAME: u32 = 3;

pub const FLAG_ENDS_POSITION: u32 = 1;
pub const FLAG_HAS_NUMBER: u32 = 2;
pub const FLAG_REPLICATED: u32 = 4;
pub const FLAG_REPLAYED: u32 = 8;
pub const FLAG_HAS_EVENTS: u32 = 16;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RunSlice {
    pub first_row: u64,
    pub namespace: Slice,
    pub table: Slice,
    pub group: Slice,
    /// JSON object or empty.
    pub labels: Slice,
}

/// One message. Slices are valid until the array that holds it is released; buffers and Arrow structs are moved out.
#[repr(C)]
pub struct MessageRaw {
    pub size: u32,
    pub kind: u32,
    pub flags: u32,
    pub tables: u32,
    pub lane: Slice,
    pub sequence: u64,
    pub position: Slice,
    pub position_display: Slice,
    pub position_number: i64,
    /// Of a replicated message: where it comes from, or empty.
    pub site: Slice,
    /// Nanoseconds since the epoch.
    pub events_from: i64,
    pub events_to: i64,
    /// Frame: its namespace. Rows and changes: empty.
    pub namespace: Slice,
    /// Frame: the number of rows in it.
    pub rows: u64,
    /// Frame: its format. Change: the format of `data`, or empty.
    pub format: Slice,
    /// Frame: its bytes. Change: the opaque form.
    pub data: Buffer,
    /// Change: the change as JSON.
    pub change: Slice,
    /// Rows: the schema's id. `schema.release` is null where this side was sent that id before.
    pub schema_id: u64,
    pub schema: FFI_ArrowSchema,
    pub array: FFI_ArrowArray,
    pub runs: *const RunSlice,
    pub run_count: usize,
    pub replayed_rows: u64,
}

/// An array of messages; `release(owner)` frees the array and its slices, not what was moved out.
#[repr(C)]
#[derive(Debug)]
pub struct Messages {
    pub items: *mut MessageRaw,
    pub len: usize,
    pub owner: *mut c_void,
    pub release: Option<unsafe extern "C" fn(owner: *mut c_void)>,
}

impl Messages {
    pub const EMPTY: Messages =
        Messages { items: std::ptr::null_mut(), len: 0, owner: std::ptr::null_mut(), release: None };
}

pub const STATUS_OK: u32 = 0;
/// `bytes` holds the error as JSON: `{"reaction", "code", "path", "message", "hint", "rows"}`.
pub const STATUS_ERROR: u32 = 1;

pub const POLLED_MESSAGES: u32 = 0;
pub const POLLED_IDLE: u32 = 1;
pub const POLLED_END: u32 = 2;
/// `bytes` holds `{"assigned": [...], "revoked": [...]}`.
pub const POLLED_LANES: u32 = 3;

/// What a call returns.
#[repr(C)]
#[derive(Debug)]
pub struct OutputRaw {
    pub size: u32,
    pub status: u32,
    /// Of `next`: which of POLLED_*.
    pub kind: u32,
    pub reserved: u32,
    /// Of `write`: how many messages were written, also when an error follows.
    pub count: u64,
    /// The result, or the error as JSON.
    pub bytes: Buffer,
    pub messages: Messages,
}

impl Default for OutputRaw {
    fn default() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            status: STATUS_OK,
            kind: 0,
            reserved: 0,
            count: 0,
            bytes: Buffer::EMPTY,
            messages: Messages::EMPTY,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WakerTable {
    pub size: u32,
    pub clone: unsafe extern "C" fn(data: *const c_void) -> *const c_void,
    /// Wakes and consumes.
    pub wake: unsafe extern "C" fn(data: *const c_void),
    pub wake_by_ref: unsafe extern "C" fn(data: *const c_void),
    pub drop: unsafe extern "C" fn(data: *const c_void),
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WakerRaw {
    pub data: *const c_void,
    pub table: *const WakerTable,
}

pub const POLL_PENDING: u32 = 0;
pub const POLL_READY: u32 = 1;

/// A call under way. Polled until ready, then dropped; never polled again after ready.
#[repr(C)]
#[derive(Debug)]
pub struct FutureRaw {
    pub state: *mut c_void,
    /// The waker is borrowed for the call.
    pub poll: Option<unsafe extern "C" fn(state: *mut c_void, waker: *const WakerRaw, out: *mut OutputRaw) -> u32>,
    pub drop: Option<unsafe extern "C" fn(state: *mut c_void)>,
}

pub type Call0 = unsafe extern "C" fn(instance: *mut c_void) -> FutureRaw;
pub type CallBytes = unsafe extern "C" fn(instance: *mut c_void, argument: Slice) -> FutureRaw;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SourceTable {
    pub size: u32,
    /// Takes a checkpoint, returns the identity in `bytes`.
    pub connect: CallBytes,
    pub next: unsafe extern "C" fn(instance: *mut c_void, wait_ns: u64) -> FutureRaw,
    pub commit: CallBytes,
    /// Returns a JSON array of `{"lane", "oldest", "current", "latest"}`.
    pub progress: Call0,
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
    /// Since 1.1: ends the wait of the `next` under way, or of the next one; from any thread.
    pub interrupt: Option<unsafe extern "C" fn(instance: *mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct TransformTable {
    pub size: u32,
    pub apply: unsafe extern "C" fn(instance: *mut c_void, messages: Messages, out: *mut OutputRaw),
    pub barrier: unsafe extern "C" fn(instance: *mut c_void, out: *mut OutputRaw),
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SinkTable {
    pub size: u32,
    /// Returns the identity in `bytes`.
    pub connect: Call0,
    /// Writes in order; `count` tells how many, also when an error follows.
    pub write: unsafe extern "C" fn(instance: *mut c_void, messages: Messages) -> FutureRaw,
    pub flush: Call0,
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ServiceTable {
    pub size: u32,
    /// Runs until stopped; tells the host when it is ready.
    pub run: Call0,
    pub stop: unsafe extern "C" fn(instance: *mut c_void),
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SiteTable {
    pub size: u32,
    /// JSON in, JSON out.
    pub call: unsafe extern "C" fn(instance: *mut c_void, method: Slice, arguments: Slice) -> FutureRaw,
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
}

/// A component that was made. `table` is the table of its kind.
#[repr(C)]
pub struct InstanceRaw {
    pub size: u32,
    pub kind: u32,
    pub instance: *mut c_void,
    pub table: *const c_void,
}

pub const KIND_SOURCE: u32 = 1;
pub const KIND_TRANSFORM: u32 = 2;
pub const KIND_SINK: u32 = 3;
pub const KIND_SERVICE: u32 = 4;
pub const KIND_SITE: u32 = 5;

pub const LEVEL_ERROR: u32 = 1;
pub const LEVEL_TRACE: u32 = 5;

/// What the host offers, one per instance. The plugin copies the table during `create`; the context is valid until the plugin
/// calls `release` on it, which it does last of all.
#[repr(C)]
pub struct HostTable {
    pub size: u32,
    pub context: *mut c_void,
    /// May be called from any thread. `level` 1 error … 5 trace.
    pub log: unsafe extern "C" fn(context: *mut c_void, level: u32, target: Slice, message: Slice, fields: Slice),
    pub counter: unsafe extern "C" fn(context: *mut c_void, name: Slice, add: u64),
    pub gauge: unsafe extern "C" fn(context: *mut c_void, name: Slice, value: f64),
    /// JSON `{"kind", "message", "detail"}`.
    pub incident: unsafe extern "C" fn(context: *mut c_void, incident: Slice),
    /// `kind` of the output is 1 where the key exists.
    pub state_get: unsafe extern "C" fn(context: *mut c_void, shared: u32, key: Slice, out: *mut OutputRaw),
    /// Durable on return. `exists` 0 deletes.
    pub state_put:
        unsafe extern "C" fn(context: *mut c_void, shared: u32, key: Slice, exists: u32, value: Slice, out: *mut OutputRaw),
    /// JSON array of keys.
    pub state_keys: unsafe extern "C" fn(context: *mut c_void, shared: u32, prefix: Slice, out: *mut OutputRaw),
    pub is_cancelled: unsafe extern "C" fn(context: *mut c_void) -> u32,
    /// A service says that it can be used.
    pub ready: unsafe extern "C" fn(context: *mut c_void),
    pub release: unsafe extern "C" fn(context: *mut c_void),
}

/// The root table, which the one symbol returns. Valid for the life of the process.
#[repr(C)]
pub struct Root {
    pub size: u32,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub reserved: u32,
    /// JSON, see `PluginDescription`.
    pub description: unsafe extern "C" fn() -> Slice,
    /// JSON array of errors in `out.bytes`; empty array = nothing wrong.
    pub lint: unsafe extern "C" fn(kind: u32, component: Slice, config: Slice, out: *mut OutputRaw),
    /// `place` is JSON. Takes over `host`, also when it fails.
    pub create: unsafe extern "C" fn(
        kind: u32,
        component: Slice,
        config: Slice,
        place: Slice,
        host: *const HostTable,
        instance: *mut InstanceRaw,
        out: *mut OutputRaw,
    ),
    /// JSON array of task values in `bytes`.
    pub discover: unsafe extern "C" fn(component: Slice, config: Slice) -> FutureRaw,
    /// Pure and thread-safe: one frame in, messages out.
    pub decode: unsafe extern "C" fn(component: Slice, frame: Messages, out: *mut OutputRaw),
}

// SAFETY: a root table is immutable and its functions may be called from any thread.
unsafe impl Sync for Root {}

// Everything that crosses as owned may be used, polled and released from any thread, one at a time: the boundary's rule.

// SAFETY: see above.
unsafe impl Send for OutputRaw {}
// SAFETY: see above.
unsafe impl Send for FutureRaw {}
// SAFETY: see above.
unsafe impl Send for Buffer {}
// SAFETY: see above; a buffer is never written.
unsafe impl Sync for Buffer {}
// SAFETY: see above.
unsafe impl Send for Messages {}
