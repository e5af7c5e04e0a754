//! A host, or a library, of the next minor version of the boundary, for the conformance kit.
//!
//! A minor version only appends: a newer host hands over longer tables, outputs and messages. What a library writes behind the end
//! that it was told of, or where it takes the next message to be, shows here and not years later in somebody's host.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::convert::*;
use super::future::ImportedFuture;
use super::host::{HostSide, ReadySlot, export_host};
use super::import::{HostParts, Library, kind_number, read_messages, table_of};
use super::types::*;
use crate::context::Place;
use crate::describe::Kind;
use crate::error::{Error, Result};
use crate::message::Message;

/// What the next minor version might append, in words of eight bytes.
const APPENDED: usize = 8;
/// What stands in the appended words before a call, and must stand there after it.
const UNTOUCHED: u64 = 0x5a5a_5a5a_5a5a_5a5a;
/// How often a call that waits is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// A struct of the boundary with a tail that the other side does not know.
#[repr(C)]
struct Long<T> {
    known: T,
    tail: [u64; APPENDED],
}

impl<T> Long<T> {
    fn new(known: T) -> Self {
        Self { known, tail: [UNTOUCHED; APPENDED] }
    }

    fn check(&self, what: &str, of: &str) -> Result<()> {
        if self.tail == [UNTOUCHED; APPENDED] {
            return Ok(());
        }
        Err(Error::fatal(format!("{of} wrote behind the end of `{what}` as this library knows it"))
            .code("boundary.size")
            .hint("write the fields one by one, or no more bytes than both sides know"))
    }
}

fn size_of_long<T>() -> u32 {
    size_of::<Long<T>>() as u32
}

fn long_output() -> Long<OutputRaw> {
    Long::new(OutputRaw { size: size_of_long::<OutputRaw>(), ..OutputRaw::default() })
}

/// The library as if it was built for the next minor version: the host must use the part that it knows.
pub fn newer(library: &Library) -> Result<Library> {
    let root = library.root;
    // SAFETY: a bitwise copy of a table of function pointers; leaked below, so it lives for ever.
    let mut copy = Long::new(unsafe { std::ptr::read(root) });
    copy.known.size = size_of_long::<Root>();
    copy.known.abi_minor += 1;
    // SAFETY: the table is the library's own but for size and version, which the host checks.
    unsafe { Library::new(&raw const Box::leak(Box::new(copy)).known) }
}

/// Calls the library as a host of the next minor version does: makes a component, connects it, has it take or give messages and
/// destroys it. Each call is waited for at most `wait`.
///
/// # Errors
/// The library's own, or that it wrote where it must not.
#[expect(clippy::too_many_arguments, reason = "what makes a component, and what it is fed")]
pub fn call_as_newer_host(
    library: &Library,
    kind: Kind,
    component: &str,
    config: &serde_json::Value,
    place: &Place,
    parts: HostParts,
    messages: Vec<Message>,
    wait: Duration,
) -> Result<()> {
    let (config, name) = (config.to_string(), Slice::of(component.as_bytes()));
    let config = Slice::of(config.as_bytes());
    let mut out = long_output();
    // SAFETY: the table's functions keep to the boundary's rules; what is passed lives through the call; so in all calls below.
    unsafe { (library.root.lint)(kind_number(kind), name, config, (&raw mut out).cast()) };
    out.check("pl_output", "`lint`")?;
    read_output(&mut out.known)?;

    let place = serde_json::to_string(place).expect("a place is plain JSON");
    let mut host = Long::new(export_host(HostSide { host: parts.host, log: parts.log, ready: ReadySlot::default() }));
    host.known.size = size_of_long::<HostTable>();
    let empty = InstanceRaw { size: size_of_long::<InstanceRaw>(), kind: 0, instance: std::ptr::null_mut(), table: std::ptr::null() };
    let (mut instance, mut out) = (Long::new(empty), long_output());
    // SAFETY: see above; the library takes the host table over.
    unsafe {
        let place = Slice::of(place.as_bytes());
        (library.root.create)(kind_number(kind), name, config, place, &host.known, (&raw mut instance).cast(), (&raw mut out).cast());
    }
    out.check("pl_output", "`create`")?;
    instance.check("pl_instance", "`create`")?;
    read_output(&mut out.known)?;
    let made = instance.known;
    if NonNull::new(made.instance).is_none() || made.table.is_null() {
        return Err(Error::fatal(format!("the plugin made no {kind} `{component}` though it said so")).code("boundary.create"));
    }
    let sent = LongMessages::new(messages)?;
    // SAFETY: the instance belongs to the table of its kind, and is destroyed once, with no call in flight.
    unsafe { exercise(kind, &made, sent, wait) }
}

/// # Safety
/// `made` was just made for `kind`; it is destroyed here, unless a call of it hangs.
unsafe fn exercise(kind: Kind, made: &InstanceRaw, sent: Box<LongMessages>, wait: Duration) -> Result<()> {
    let it = made.instance;
    // SAFETY: of the caller; so in the whole function.
    unsafe {
        match kind {
            Kind::Source => {
                let table = table_of::<SourceTable>(made.table)?;
                await_output((table.connect)(it, Slice::EMPTY), "connect", wait)?;
                let mut polled = await_output((table.next)(it, 0), "next", wait)?;
                if polled.kind == POLLED_MESSAGES {
                    read_messages(&mut polled, &mut SchemasReceived::default())?;
                }
                (table.destroy)(it);
            }
            Kind::Transform => {
                let table = table_of::<TransformTable>(made.table)?;
                let mut received = SchemasReceived::default();
                let mut out = long_output();
                (table.apply)(it, sent.hand_over(), (&raw mut out).cast());
                out.check("pl_output", "`apply`")?;
                read_messages(&mut out.known, &mut received)?;
                let mut out = long_output();
                (table.barrier)(it, (&raw mut out).cast());
                out.check("pl_output", "`barrier`")?;
                read_messages(&mut out.known, &mut received)?;
                (table.destroy)(it);
            }
            Kind::Sink => {
                let table = table_of::<SinkTable>(made.table)?;
                await_output((table.connect)(it), "connect", wait)?;
                await_output((table.write)(it, sent.hand_over()), "write", wait)?;
                await_output((table.flush)(it), "flush", wait)?;
                (table.destroy)(it);
            }
            Kind::Service => (table_of::<ServiceTable>(made.table)?.destroy)(it),
            Kind::Site => (table_of::<SiteTable>(made.table)?.destroy)(it),
        }
    }
    Ok(())
}

/// Polls a call to its end, with a longer output than the library knows.
///
/// # Safety
/// `raw` was just returned by the library.
unsafe fn await_output(raw: FutureRaw, what: &str, wait: Duration) -> Result<OutputRaw> {
    let deadline = Instant::now() + wait;
    let mut call = ImportedFuture::new(raw, std::sync::Arc::default());
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut out = long_output();
        // SAFETY: of the caller; the output is longer than it must be.
        let polled = unsafe { call.poll_into(&mut context, (&raw mut out).cast()) };
        out.check("pl_output", &format!("`{what}`"))?;
        match polled {
            Poll::Ready(()) => {
                let mut output = out.known;
                if output.status != STATUS_OK {
                    read_output(&mut output)?;
                }
                return Ok(output);
            }
            Poll::Pending if Instant::now() < deadline => std::thread::sleep(LOOK),
            Poll::Pending => return Err(Error::fatal(format!("`{what}` did not return within {wait:?}")).code("boundary.hang")),
        }
    }
}

/// Messages as a newer host has them: each is longer.
struct LongMessages {
    items: Vec<Long<MessageRaw>>,
    source: Messages,
}

impl LongMessages {
    fn new(messages: Vec<Message>) -> Result<Box<Self>> {
        let source = export_messages(messages, &mut SchemasSent::default())?;
        let take = |at: usize| {
            // SAFETY: `items` points to `len` messages; what is owned in the original is emptied below, so that it has one owner.
            let mut long = Long::new(unsafe { source.items.add(at).read() });
            long.known.size = size_of_long::<MessageRaw>();
            // SAFETY: as above; writing over the Arrow structs without dropping them moves them out.
            unsafe {
                let original = source.items.add(at);
                (&raw mut (*original).schema).write(arrow::ffi::FFI_ArrowSchema::empty());
                (&raw mut (*original).array).write(arrow::ffi::FFI_ArrowArray::empty());
                (&raw mut (*original).data).write(Buffer::EMPTY);
            }
            long
        };
        let items = (0..source.len).map(take).collect();
        Ok(Box::new(Self { items, source }))
    }

    fn hand_over(mut self: Box<Self>) -> Messages {
        let (items, len) = (self.items.as_mut_ptr().cast(), self.items.len());
        Messages { items, len, owner: Box::into_raw(self).cast(), release: Some(release_long) }
    }
}

impl Drop for LongMessages {
    fn drop(&mut self) {
        if let Some(release) = self.source.release {
            // SAFETY: released once, after the copies that borrow from it are of no use any more.
            unsafe { release(self.source.owner) };
        }
    }
}

unsafe extern "C" fn release_long(owner: *mut c_void) {
    // SAFETY: `owner` is the box of `hand_over`, released once.
    drop(unsafe { Box::from_raw(owner.cast::<LongMessages>()) });
}
