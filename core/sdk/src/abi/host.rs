//! The host table: the host makes one of a [`Host`], the plugin's glue makes a [`Host`] of one.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use super::convert::{bytes_output, error_output, panic_error, read_output, write_sized};
use super::types::*;
use crate::component::Ready;
use crate::context::{Host, Incident};
use crate::error::{Error, Result};

/// Takes a plugin's log events: level (1 error … 5 trace), target, message, fields as JSON.
pub type Log = dyn Fn(u32, &str, &str, &str) + Send + Sync;

/// What stands behind a host table, on the host's side.
pub struct HostSide {
    pub host: Arc<dyn Host>,
    pub log: Arc<Log>,
    pub ready: ReadySlot,
}

/// A place for a service's [`Ready`], filled before it runs.
#[derive(Clone, Debug, Default)]
pub struct ReadySlot(Arc<Mutex<Option<Ready>>>);

impl ReadySlot {
    pub fn put(&self, ready: Ready) {
        *self.0.lock().expect("no panic under this lock") = Some(ready);
    }

    fn tell(&self) {
        if let Some(mut ready) = self.0.lock().expect("no panic under this lock").take() {
            ready.ready();
        }
    }
}

/// Makes a table. The plugin copies it during `create` and owns its context from then on: it calls `release` last of all.
pub fn export_host(side: HostSide) -> HostTable {
    HostTable {
        size: size_of::<HostTable>() as u32,
        context: Box::into_raw(Box::new(side)).cast(),
        log,
        counter,
        gauge,
        incident,
        state_get,
        state_put,
        state_keys,
        is_cancelled,
        ready,
        release,
    }
}

/// # Safety
/// `context` is that of a live table.
unsafe fn side<'a>(context: *mut c_void) -> &'a HostSide {
    // SAFETY: of the caller.
    unsafe { &*context.cast::<HostSide>() }
}

/// Text of a plugin; what is not UTF-8 in it is replaced, as it is only shown.
///
/// # Safety
/// As [`Slice::bytes`].
unsafe fn shown<'a>(slice: Slice) -> std::borrow::Cow<'a, str> {
    // SAFETY: of the caller.
    String::from_utf8_lossy(unsafe { slice.bytes() })
}

fn guarded(body: impl FnOnce()) {
    // A panic of the host must not cross into the plugin; the host has reported it through its panic hook.
    let _ = catch_unwind(AssertUnwindSafe(body));
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, target: Slice, message: Slice, fields: Slice) {
    // SAFETY: the plugin passes the table's context and slices that live through the call; so in all functions below.
    let (side, target, message, fields) = unsafe { (side(context), shown(target), shown(message), shown(fields)) };
    guarded(|| (side.log)(level, &target, &message, &fields));
}

unsafe extern "C" fn counter(context: *mut c_void, name: Slice, add: u64) {
    // SAFETY: see `log`.
    let (side, name) = unsafe { (side(context), shown(name)) };
    guarded(|| side.host.counter(&name, add));
}

unsafe extern "C" fn gauge(context: *mut c_void, name: Slice, value: f64) {
    // SAFETY: see `log`.
    let (side, name) = unsafe { (side(context), shown(name)) };
    guarded(|| side.host.gauge(&name, value));
}

unsafe extern "C" fn incident(context: *mut c_void, incident: Slice) {
    // SAFETY: see `log`.
    let (side, bytes) = unsafe { (side(context), incident.bytes()) };
    guarded(|| match serde_json::from_slice::<Incident>(bytes) {
        Ok(incident) => side.host.incident(&incident),
        Err(error) => (side.log)(LEVEL_ERROR, "boundary", "an incident is not readable", &error.to_string()),
    });
}

/// Runs a state call of the host and writes what it returns.
unsafe fn state_call(out: *mut OutputRaw, body: impl FnOnce() -> Result<OutputRaw>) {
    let output = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => error_output(error),
        Err(_) => error_output(panic_error("in the host's state store")),
    };
    // SAFETY: `out` is the plugin's, writable for this call.
    unsafe { write_sized(out, output) };
}

unsafe extern "C" fn state_get(context: *mut c_void, shared: u32, key: Slice, out: *mut OutputRaw) {
    // SAFETY: see `log`.
    let (side, key) = unsafe { (side(context), shown(key)) };
    // SAFETY: `out` is the plugin's.
    unsafe {
        state_call(out, || {
            Ok(match side.host.state_get(shared != 0, &key)? {
                Some(value) => OutputRaw { kind: 1, ..bytes_output(value) },
                None => OutputRaw::default(),
            })
        });
    }
}

unsafe extern "C" fn state_put(
    context: *mut c_void,
    shared: u32,
    key: Slice,
    exists: u32,
    value: Slice,
    out: *mut OutputRaw,
) {
    // SAFETY: see `log`.
    let (side, key, value) = unsafe { (side(context), shown(key), value.bytes()) };
    // SAFETY: `out` is the plugin's.
    unsafe {
        state_call(out, || {
            side.host.state_put(shared != 0, &key, (exists != 0).then_some(value))?;
            Ok(OutputRaw::default())
        });
    }
}

unsafe extern "C" fn state_keys(context: *mut c_void, shared: u32, prefix: Slice, out: *mut OutputRaw) {
    // SAFETY: see `log`.
    let (side, prefix) = unsafe { (side(context), shown(prefix)) };
    // SAFETY: `out` is the plugin's.
    unsafe {
        state_call(out, || {
            let keys = side.host.state_keys(shared != 0, &prefix)?;
            Ok(bytes_output(serde_json::to_vec(&keys).expect("keys are plain JSON")))
        });
    }
}

unsafe extern "C" fn is_cancelled(context: *mut c_void) -> u32 {
    // SAFETY: see `log`.
    let side = unsafe { side(context) };
    u32::from(side.host.is_cancelled())
}

unsafe extern "C" fn ready(context: *mut c_void) {
    // SAFETY: see `log`.
    let side = unsafe { side(context) };
    guarded(|| side.ready.tell());
}

unsafe extern "C" fn release(context: *mut c_void) {
    // SAFETY: called once by the plugin, last of all.
    drop(unsafe { Box::from_raw(context.cast::<HostSide>()) });
}

/// The plugin's side: a [`Host`] over a table. Releases it when dropped.
pub struct ForeignHost {
    table: HostTable,
}

// SAFETY: every function of a host table may be called from any thread (rule of the boundary).
unsafe impl Send for ForeignHost {}
// SAFETY: as above.
unsafe impl Sync for ForeignHost {}

impl ForeignHost {
    /// # Safety
    /// `table` is a live host table whose ownership passes to this value.
    pub unsafe fn new(table: *const HostTable) -> Self {
        // SAFETY: of the caller; a bitwise copy of function pointers and the context that we now own.
        Self { table: unsafe { table.read() } }
    }

    pub fn log(&self, level: u32, target: &str, message: &str, fields: &str) {
        let table = &self.table;
        // SAFETY: the context belongs to the table, which lives until we release it.
        unsafe {
            (table.log)(
                table.context,
                level,
                Slice::of(target.as_bytes()),
                Slice::of(message.as_bytes()),
                Slice::of(fields.as_bytes()),
            );
        }
    }

    /// A [`Ready`] that tells the host.
    pub fn ready(self: &Arc<Self>) -> (Ready, impl Future<Output = ()> + Send + use<>) {
        let (ready, receiver) = Ready::channel();
        let host = self.clone();
        let tell = async move {
            if receiver.await.is_ok() {
                let table = &host.table;
                // SAFETY: see `log`.
                unsafe { (table.ready)(table.context) };
            }
        };
        (ready, tell)
    }
}

impl Drop for ForeignHost {
    fn drop(&mut self) {
        let table = &self.table;
        // SAFETY: released once, last of all.
        unsafe { (table.release)(table.context) };
    }
}

impl Host for ForeignHost {
    fn counter(&self, name: &str, add: u64) {
        let table = &self.table;
        // SAFETY: see `ForeignHost::log`.
        unsafe { (table.counter)(table.context, Slice::of(name.as_bytes()), add) };
    }

    fn gauge(&self, name: &str, value: f64) {
        let table = &self.table;
        // SAFETY: see `ForeignHost::log`.
        unsafe { (table.gauge)(table.context, Slice::of(name.as_bytes()), value) };
    }

    fn incident(&self, incident: &Incident) {
        let json = serde_json::to_vec(incident).expect("an incident is plain JSON");
        let table = &self.table;
        // SAFETY: see `ForeignHost::log`.
        unsafe { (table.incident)(table.context, Slice::of(&json)) };
    }

    fn state_get(&self, shared: bool, key: &str) -> Result<Option<Vec<u8>>> {
        let (table, mut output) = (&self.table, OutputRaw::default());
        // SAFETY: see `ForeignHost::log`; the output lives through the call.
        unsafe { (table.state_get)(table.context, shared.into(), Slice::of(key.as_bytes()), &mut output) };
        let exists = output.kind == 1;
        let bytes = read_output(&mut output)?;
        Ok(exists.then(|| bytes.to_vec()))
    }

    fn state_put(&self, shared: bool, key: &str, value: Option<&[u8]>) -> Result<()> {
        let (table, mut output) = (&self.table, OutputRaw::default());
        // SAFETY: see `ForeignHost::log`; the output lives through the call.
        unsafe {
            (table.state_put)(
                table.context,
                shared.into(),
                Slice::of(key.as_bytes()),
                value.is_some().into(),
                Slice::of(value.unwrap_or_default()),
                &mut output,
            );
        }
        read_output(&mut output).map(drop)
    }

    fn state_keys(&self, shared: bool, prefix: &str) -> Result<Vec<String>> {
        let (table, mut output) = (&self.table, OutputRaw::default());
        // SAFETY: see `ForeignHost::log`; the output lives through the call.
        unsafe { (table.state_keys)(table.context, shared.into(), Slice::of(prefix.as_bytes()), &mut output) };
        let bytes = read_output(&mut output)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::fatal(format!("keys of the state store: {error}")))
    }

    fn is_cancelled(&self) -> bool {
        let table = &self.table;
        // SAFETY: see `ForeignHost::log`.
        unsafe { (table.is_cancelled)(table.context) != 0 }
    }
}
