//! Futures over the boundary: a state, a poll function, a waker table.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use super::convert::{error_output, panic_error, write_sized};
use super::glue::Runtime;
use super::types::{FutureRaw, OutputRaw, POLL_PENDING, POLL_READY, WakerRaw, WakerTable};

type Task = Pin<Box<dyn Future<Output = OutputRaw> + Send>>;

/// The plugin's side of a call.
///
/// It is first polled by the host's thread, as most calls are ready at once. One that waits goes on in the library's runtime, beside
/// the sockets and timers that it waits for: of all that wakes it only its end crosses to the host's threads.
struct Exported {
    part: Part,
    runtime: Runtime,
    poisoned: Arc<AtomicBool>,
    span: Arc<tracing::Span>,
}

enum Part {
    Here(Task),
    Moved(tokio::task::JoinHandle<OutputRaw>),
    Over,
}

/// Hands a future to the host.
pub fn export_future(
    runtime: Runtime,
    poisoned: Arc<AtomicBool>,
    span: Arc<tracing::Span>,
    task: impl Future<Output = OutputRaw> + Send + 'static,
) -> FutureRaw {
    let exported = Box::new(Exported { part: Part::Here(Box::pin(task)), runtime, poisoned, span });
    FutureRaw { state: Box::into_raw(exported).cast(), poll: Some(poll_exported), drop: Some(drop_exported) }
}

impl Exported {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<OutputRaw> {
        if let Part::Here(task) = &mut self.part {
            let polled = {
                let _span = self.span.enter();
                let _runtime = self.runtime.enter();
                task.as_mut().poll(context)
            };
            match (polled, self.runtime.mover()) {
                (Poll::Ready(output), _) => return Poll::Ready(output),
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Pending, Some(handle)) => {
                    let Part::Here(task) = std::mem::replace(&mut self.part, Part::Over) else { unreachable!("it was here above") };
                    self.part = Part::Moved(handle.spawn(Spanned { task, span: self.span.clone() }));
                }
            }
        }
        match &mut self.part {
            Part::Moved(handle) => Pin::new(handle).poll(context).map(|joined| match joined {
                Ok(output) => output,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(error) => error_output(panic_error(&error.to_string())),
                },
            }),
            Part::Here(_) | Part::Over => Poll::Ready(error_output(panic_error("a finished call was polled again"))),
        }
    }
}

/// A moved task in its component's span.
struct Spanned {
    task: Task,
    span: Arc<tracing::Span>,
}

impl Future for Spanned {
    type Output = OutputRaw;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<OutputRaw> {
        let Self { task, span } = &mut *self;
        let _span = span.enter();
        task.as_mut().poll(context)
    }
}

/// A call that is over before it is polled.
pub fn ready_future(output: OutputRaw) -> FutureRaw {
    let span = Arc::new(tracing::Span::none());
    export_future(Runtime::None, Arc::new(AtomicBool::new(false)), span, async move { output })
}

unsafe extern "C" fn poll_exported(state: *mut c_void, waker: *const WakerRaw, out: *mut OutputRaw) -> u32 {
    // SAFETY: the host passes the state it was given, from one thread at a time.
    let exported = unsafe { &mut *state.cast::<Exported>() };
    // SAFETY: the waker is borrowed for this call.
    let waker = unsafe { import_waker(&*waker) };
    let polled = catch_unwind(AssertUnwindSafe(|| exported.poll(&mut Context::from_waker(&waker))));
    let output = match polled {
        Ok(Poll::Pending) => return POLL_PENDING,
        Ok(Poll::Ready(output)) => output,
        Err(panic) => {
            exported.poisoned.store(true, Ordering::Release);
            error_output(panic_error(&panic_text(&*panic)))
        }
    };
    // A task that panicked is dropped like any other; a second panic in its drop is caught as well.
    let _ = catch_unwind(AssertUnwindSafe(|| exported.part = Part::Over));
    // SAFETY: `out` is the host's, writable for this call.
    unsafe { write_sized(out, output) };
    POLL_READY
}

unsafe extern "C" fn drop_exported(state: *mut c_void) {
    // SAFETY: the host drops a future once, after which it does not use it.
    let exported = unsafe { Box::from_raw(state.cast::<Exported>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _runtime = exported.runtime.enter();
        drop(exported.part);
    }));
}

/// The text of a caught panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}

/// The host's side of a call.
///
/// Dropped before it is ready, it leaks the call and says so through `abandoned`: the plugin may still work on it, so
/// neither it nor its instance may be freed.
pub struct ImportedFuture {
    raw: FutureRaw,
    done: bool,
    abandoned: Arc<AtomicBool>,
}

impl ImportedFuture {
    /// `abandoned` is set when the call is dropped before it is ready.
    pub fn new(raw: FutureRaw, abandoned: Arc<AtomicBool>) -> Self {
        Self { raw, done: false, abandoned }
    }
}

impl ImportedFuture {
    /// Polls the call; once it is ready, its output stands in `out`.
    ///
    /// # Safety
    /// `out` is writable, and as long as its first word says.
    pub(super) unsafe fn poll_into(&mut self, context: &mut Context<'_>, out: *mut OutputRaw) -> Poll<()> {
        let Some(poll) = self.raw.poll else {
            self.done = true;
            // SAFETY: of the caller.
            unsafe { write_sized(out, error_output(panic_error("the plugin returned a call without a poll function"))) };
            return Poll::Ready(());
        };
        // Borrowed: most calls are ready at once, and those that wait take a clone.
        let raw = WakerRaw { data: (context.waker() as *const Waker).cast(), table: &HOST_WAKER };
        // SAFETY: state and poll function belong together; the waker and the output live through the call.
        let status = unsafe { poll(self.raw.state, &raw, out) };
        if status == POLL_PENDING {
            return Poll::Pending;
        }
        self.done = true;
        Poll::Ready(())
    }
}

impl Future for ImportedFuture {
    type Output = OutputRaw;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<OutputRaw> {
        let mut output = OutputRaw::default();
        // SAFETY: the output is ours and has its size.
        unsafe { self.poll_into(context, &mut output) }.map(|()| output)
    }
}

impl Drop for ImportedFuture {
    fn drop(&mut self) {
        if !self.done {
            self.abandoned.store(true, Ordering::Release);
            return;
        }
        if let Some(drop) = self.raw.drop {
            // SAFETY: the call is ready and is dropped once.
            unsafe { drop(self.raw.state) };
        }
    }
}

/// The host's wakers as the plugin sees them: `data` is a `Waker`, borrowed for a poll or boxed by `clone`.
static HOST_WAKER: WakerTable = WakerTable {
    size: size_of::<WakerTable>() as u32,
    clone: clone_host_waker,
    wake: wake_host,
    wake_by_ref: wake_host_by_ref,
    drop: drop_host_waker,
};

unsafe extern "C" fn clone_host_waker(data: *const c_void) -> *const c_void {
    // SAFETY: `data` is a waker that is alive during the call.
    let waker = unsafe { &*data.cast::<Waker>() };
    Box::into_raw(Box::new(waker.clone())).cast_const().cast()
}

unsafe extern "C" fn wake_host(data: *const c_void) {
    // SAFETY: `data` is a box that `clone` made and this call consumes.
    unsafe { Box::from_raw(data.cast_mut().cast::<Waker>()) }.wake_by_ref();
}

unsafe extern "C" fn wake_host_by_ref(data: *const c_void) {
    // SAFETY: `data` is alive during the call.
    unsafe { &*data.cast::<Waker>() }.wake_by_ref();
}

unsafe extern "C" fn drop_host_waker(data: *const c_void) {
    // SAFETY: `data` is a box that `clone` made and this call consumes.
    drop(unsafe { Box::from_raw(data.cast_mut().cast::<Waker>()) });
}

/// The plugin's copy of a host's waker.
struct ForeignWaker {
    data: *const c_void,
    table: *const WakerTable,
}

// SAFETY: wakers may be used and dropped on any thread (rule of the boundary).
unsafe impl Send for ForeignWaker {}
// SAFETY: as above.
unsafe impl Sync for ForeignWaker {}

impl Wake for ForeignWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // SAFETY: `data` is a counted reference and the host's table outlives every plugin.
        unsafe { ((*self.table).wake_by_ref)(self.data) };
    }
}

impl Drop for ForeignWaker {
    fn drop(&mut self) {
        // SAFETY: the reference that `clone` counted is given back once.
        unsafe { ((*self.table).drop)(self.data) };
    }
}

/// A waker over a borrowed raw one: the host's is counted up only when the future keeps a clone.
///
/// # Safety
/// The waker is not used after `raw` is gone.
unsafe fn import_waker(raw: &WakerRaw) -> Waker {
    // SAFETY: the vtable's functions keep to the contract of `RawWaker`; the caller vouches for the lifetime.
    unsafe { Waker::from_raw(RawWaker::new((raw as *const WakerRaw).cast(), &BORROWED)) }
}

static BORROWED: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: `data` is the `WakerRaw` that is borrowed for the current poll.
        let raw = unsafe { &*data.cast::<WakerRaw>() };
        // SAFETY: the table's functions take the data they belong to.
        let data = unsafe { ((*raw.table).clone)(raw.data) };
        let owned = Waker::from(Arc::new(ForeignWaker { data, table: raw.table }));
        let parts = RawWaker::new(owned.data(), owned.vtable());
        std::mem::forget(owned);
        parts
    },
    wake_borrowed,
    wake_borrowed,
    |_| {},
);

fn wake_borrowed(data: *const ()) {
    // SAFETY: `data` is the `WakerRaw` that is borrowed for the current poll.
    let raw = unsafe { &*data.cast::<WakerRaw>() };
    // SAFETY: the table's functions take the data they belong to.
    unsafe { ((*raw.table).wake_by_ref)(raw.data) };
}
