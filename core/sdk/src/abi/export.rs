//! The plugin's side: the functions of the root table over a [`Plugin`].
//!
//! Every entry catches panics; one that panicked is poisoned and answers nothing but that from then on.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;
use tokio::sync::watch;

use super::convert::*;
use super::future::{export_future, panic_text, ready_future};
use super::glue::{Runtime, component_span};
use super::host::ForeignHost;
use super::types::*;
use crate::checkpoint::Checkpoint;
use crate::component::{Interrupt, Output, Polled, Service, Sink, Source, Stop, Transform};
use crate::context::{Context, Place};
use crate::describe::Kind;
use crate::error::{Error, Result};
use crate::message::{Message, Payload};
use crate::plugin::{Instance, Plugin};
use crate::site::Site;

/// An instance, behind the pointer that the host holds.
struct Exported<T: ?Sized> {
    shared: Arc<Shared<T>>,
}

struct Shared<T: ?Sized> {
    poisoned: Arc<AtomicBool>,
    runtime: Runtime,
    span: Arc<tracing::Span>,
    host: Arc<ForeignHost>,
    stop: watch::Sender<bool>,
    interrupt: Option<Interrupt>,
    sent: std::sync::Mutex<SchemasSent>,
    received: std::sync::Mutex<SchemasReceived>,
    component: Mutex<Option<Box<T>>>,
}

impl<T: ?Sized + 'static> Exported<T> {
    fn raw(component: Box<T>, interrupt: Option<Interrupt>, runtime: Runtime, host: Arc<ForeignHost>) -> *mut c_void {
        let shared = Arc::new(Shared {
            poisoned: Arc::new(AtomicBool::new(false)),
            runtime,
            span: Arc::new(component_span(&host)),
            host,
            stop: watch::Sender::new(false),
            interrupt,
            sent: std::sync::Mutex::default(),
            received: std::sync::Mutex::default(),
            component: Mutex::new(Some(component)),
        });
        Box::into_raw(Box::new(Self { shared })).cast()
    }
}

/// # Safety
/// `instance` was made by `Exported::<T>::raw` and not destroyed.
unsafe fn shared<T: ?Sized>(instance: *mut c_void) -> Arc<Shared<T>> {
    // SAFETY: of the caller.
    unsafe { &*instance.cast::<Exported<T>>() }.shared.clone()
}

unsafe extern "C" fn destroy<T: ?Sized>(instance: *mut c_void) {
    // SAFETY: the host destroys an instance once, with no call in flight.
    let exported = unsafe { Box::from_raw(instance.cast::<Exported<T>>()) };
    let runtime = exported.shared.runtime;
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _runtime = runtime.enter();
        drop(exported);
    }));
}

/// An asynchronous call: locks the component, runs `body` on it, hands the output over.
fn call<T, F>(shared: Arc<Shared<T>>, body: F) -> FutureRaw
where
    T: ?Sized + Send + 'static,
    F: for<'a> FnOnce(
            &'a Shared<T>,
            &'a mut T,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<OutputRaw>> + Send + 'a>>
        + Send
        + 'static,
{
    if shared.poisoned.load(Ordering::Acquire) {
        return ready_future(error_output(panic_error("in an earlier call")));
    }
    let (runtime, poisoned, span) = (shared.runtime, shared.poisoned.clone(), shared.span.clone());
    export_future(runtime, poisoned, span, async move {
        let mut component = shared.component.lock().await;
        let Some(component) = component.as_mut() else {
            return error_output(Error::fatal("the component has ended"));
        };
        body(&shared, component).await.unwrap_or_else(error_output)
    })
}

/// A synchronous entry: catches panics and writes the output.
///
/// # Safety
/// `out` is writable.
unsafe fn entry(out: *mut OutputRaw, body: impl FnOnce() -> Result<OutputRaw>) {
    let output = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result.unwrap_or_else(error_output),
        Err(panic) => error_output(panic_error(&panic_text(&*panic))),
    };
    // SAFETY: of the caller.
    unsafe { write_sized(out, output) };
}

fn messages_output<T: ?Sized>(shared: &Shared<T>, messages: Vec<Message>) -> Result<OutputRaw> {
    let mut sent = shared.sent.lock().expect("no panic under this lock");
    Ok(OutputRaw { messages: export_messages(messages, &mut sent)?, ..OutputRaw::default() })
}

fn json(value: &impl serde::Serialize) -> OutputRaw {
    bytes_output(serde_json::to_vec(value).expect("the boundary's values are plain JSON"))
}

// Sources

static SOURCE: SourceTable = SourceTable {
    size: size_of::<SourceTable>() as u32,
    connect: source_connect,
    next: source_next,
    commit: source_commit,
    progress: source_progress,
    destroy: destroy::<dyn Source>,
    interrupt: Some(source_interrupt),
};

static UNINTERRUPTED_SOURCE: SourceTable = SourceTable { interrupt: None, ..SOURCE };

unsafe extern "C" fn source_connect(instance: *mut c_void, checkpoint: Slice) -> FutureRaw {
    // SAFETY: the host passes an instance of this table and a slice that lives through the call; so in all entries below.
    let (shared, bytes) = unsafe { (shared::<dyn Source>(instance), checkpoint.bytes().to_vec()) };
    call(shared, |_, source| {
        Box::pin(async move {
            let connected = source.connect(&Checkpoint::decode(&bytes)?).await?;
            Ok(bytes_output(connected.identity.unwrap_or_default()))
        })
    })
}

unsafe extern "C" fn source_next(instance: *mut c_void, wait_ns: u64) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let shared = unsafe { shared::<dyn Source>(instance) };
    call(shared, move |shared, source| {
        Box::pin(async move {
            let polled = source.next(std::time::Duration::from_nanos(wait_ns)).await?;
            Ok(match polled {
                Polled::Messages(messages) => messages_output(shared, messages)?,
                Polled::Idle => OutputRaw { kind: POLLED_IDLE, ..OutputRaw::default() },
                Polled::End => OutputRaw { kind: POLLED_END, ..OutputRaw::default() },
                Polled::Lanes { assigned, revoked } => {
                    let lanes = serde_json::json!({ "assigned": assigned, "revoked": revoked });
                    OutputRaw { kind: POLLED_LANES, ..json(&lanes) }
                }
            })
        })
    })
}

unsafe extern "C" fn source_commit(instance: *mut c_void, checkpoint: Slice) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let (shared, bytes) = unsafe { (shared::<dyn Source>(instance), checkpoint.bytes().to_vec()) };
    call(shared, |_, source| {
        Box::pin(async move {
            source.commit(&Checkpoint::decode(&bytes)?).await?;
            Ok(OutputRaw::default())
        })
    })
}

unsafe extern "C" fn source_progress(instance: *mut c_void) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let shared = unsafe { shared::<dyn Source>(instance) };
    call(shared, |_, source| Box::pin(async move { Ok(json(&source.progress().await?)) }))
}

unsafe extern "C" fn source_interrupt(instance: *mut c_void) {
    // SAFETY: see `source_connect`; this one may be called under another.
    let shared = unsafe { shared::<dyn Source>(instance) };
    if let Some(interrupt) = &shared.interrupt {
        let _ = catch_unwind(AssertUnwindSafe(|| interrupt.interrupt()));
    }
}

// Transforms

static TRANSFORM: TransformTable = TransformTable {
    size: size_of::<TransformTable>() as u32,
    apply: transform_apply,
    barrier: transform_barrier,
    destroy: destroy::<dyn Transform>,
};

fn transform(
    shared: &Shared<dyn Transform>,
    body: impl FnOnce(&mut dyn Transform, &mut Output) -> Result<()>,
) -> Result<OutputRaw> {
    if shared.poisoned.load(Ordering::Acquire) {
        return Err(panic_error("in an earlier call"));
    }
    let _span = shared.span.enter();
    let mut component = shared.component.try_lock().map_err(|_| Error::fatal("two calls at once"))?;
    let component = component.as_mut().expect("only a service is taken out");
    let mut output = Output::default();
    let done = catch_unwind(AssertUnwindSafe(|| body(&mut **component, &mut output)));
    match done {
        Ok(result) => result?,
        Err(panic) => {
            shared.poisoned.store(true, Ordering::Release);
            return Err(panic_error(&panic_text(&*panic)));
        }
    }
    messages_output(shared, output.messages)
}

unsafe extern "C" fn transform_apply(instance: *mut c_void, messages: Messages, out: *mut OutputRaw) {
    // SAFETY: see `source_connect`; `out` is the host's.
    unsafe {
        let shared = shared::<dyn Transform>(instance);
        entry(out, || {
            let messages =
                import_messages(messages, &mut shared.received.lock().expect("no panic under this lock"))?;
            transform(&shared, |transform, output| {
                messages.into_iter().try_for_each(|message| transform.apply(message, output))
            })
        });
    }
}

unsafe extern "C" fn transform_barrier(instance: *mut c_void, out: *mut OutputRaw) {
    // SAFETY: see `source_connect`; `out` is the host's.
    unsafe {
        let shared = shared::<dyn Transform>(instance);
        entry(out, || transform(&shared, |transform, output| transform.barrier(output)));
    }
}

// Sinks

static SINK: SinkTable = SinkTable {
    size: size_of::<SinkTable>() as u32,
    connect: sink_connect,
    write: sink_write,
    flush: sink_flush,
    destroy: destroy::<dyn Sink>,
};

unsafe extern "C" fn sink_connect(instance: *mut c_void) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let shared = unsafe { shared::<dyn Sink>(instance) };
    call(shared, |_, sink| {
        Box::pin(async move {
            Ok(bytes_output(sink.connect().await?.identity.unwrap_or_default()))
        })
    })
}

unsafe extern "C" fn sink_write(instance: *mut c_void, messages: Messages) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let shared = unsafe { shared::<dyn Sink>(instance) };
    // SAFETY: the host gave the messages away.
    let messages =
        unsafe { import_messages(messages, &mut shared.received.lock().expect("no panic under this lock")) };
    call(shared, |_, sink| {
        Box::pin(async move {
            let (count, result) = sink.write_many(&messages?).await;
            let output = result.map_or_else(error_output, |()| OutputRaw::default());
            Ok(OutputRaw { count: count as u64, ..output })
        })
    })
}

unsafe extern "C" fn sink_flush(instance: *mut c_void) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let shared = unsafe { shared::<dyn Sink>(instance) };
    call(shared, |_, sink| {
        Box::pin(async move {
            sink.flush().await?;
            Ok(OutputRaw::default())
        })
    })
}

// Services

static SERVICE: ServiceTable = ServiceTable {
    size: size_of::<ServiceTable>() as u32,
    run: service_run,
    stop: service_stop,
    destroy: destroy::<dyn Service>,
};

unsafe extern "C" fn service_run(instance: *mut c_void) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let shared = unsafe { shared::<dyn Service>(instance) };
    let (runtime, poisoned, span) = (shared.runtime, shared.poisoned.clone(), shared.span.clone());
    export_future(runtime, poisoned, span, async move {
        let Some(service) = shared.component.lock().await.take() else {
            return error_output(Error::fatal("a service runs once"));
        };
        let (ready, tell) = shared.host.ready();
        let stop = Stop { receiver: shared.stop.subscribe() };
        // `ready` is dropped with the service at the latest, so that telling ends.
        let (result, ()) = tokio::join!(service.run(ready, stop), tell);
        result.map_or_else(error_output, |()| OutputRaw::default())
    })
}

unsafe extern "C" fn service_stop(instance: *mut c_void) {
    // SAFETY: see `source_connect`.
    unsafe { shared::<dyn Service>(instance) }.stop.send_replace(true);
}

// Sites

static SITE: SiteTable = SiteTable { size: size_of::<SiteTable>() as u32, call: site_call, destroy: destroy::<dyn Site> };

unsafe extern "C" fn site_call(instance: *mut c_void, method: Slice, arguments: Slice) -> FutureRaw {
    // SAFETY: see `source_connect`.
    let (shared, method, arguments) =
        unsafe { (shared::<dyn Site>(instance), text(method), arguments.bytes().to_vec()) };
    call(shared, |_, site| {
        Box::pin(async move {
            let arguments = serde_json::from_slice(&arguments)
                .map_err(|error| Error::fatal(format!("arguments of a site call: {error}")))?;
            Ok(json(&site.call(&method?, arguments).await?))
        })
    })
}

// The root table's functions; the macro closes them over the plugin.

pub fn kind_of(number: u32) -> Result<Kind> {
    Ok(match number {
        KIND_SOURCE => Kind::Source,
        KIND_TRANSFORM => Kind::Transform,
        KIND_SINK => Kind::Sink,
        KIND_SERVICE => Kind::Service,
        KIND_SITE => Kind::Site,
        _ => return Err(Error::fatal(format!("component kind {number} is not known to this plugin"))),
    })
}

/// # Safety
/// Slices live through the call; `out` is writable. So in all functions below.
pub unsafe fn lint(plugin: &Plugin, kind: u32, component: Slice, config: Slice, out: *mut OutputRaw) {
    // SAFETY: of the caller.
    unsafe {
        entry(out, || {
            let component = plugin.component(kind_of(kind)?, &text(component)?)?;
            let config = parse_config(config)?;
            Ok(json(&(component.lint)(&config)))
        });
    }
}

/// # Safety
/// See [`lint`]; takes over `host`.
#[expect(clippy::too_many_arguments, reason = "the root table's function has these")]
pub unsafe fn create(
    plugin: &Plugin,
    runtime: Runtime,
    kind: u32,
    component: Slice,
    config: Slice,
    place: Slice,
    host: *const HostTable,
    instance: *mut InstanceRaw,
    out: *mut OutputRaw,
) {
    // SAFETY: of the caller.
    unsafe {
        let host = Arc::new(ForeignHost::new(host));
        entry(out, || {
            let component = plugin.component(kind_of(kind)?, &text(component)?)?;
            let place: Place = serde_json::from_slice(place.bytes())
                .map_err(|error| Error::fatal(format!("the host's description of the place: {error}")))?;
            let context = Context::new(place, host.clone());
            let runtime = runtime.blocking(component.description.blocking);
            let _runtime = runtime.enter();
            let (pointer, table): (_, *const c_void) = match (component.build)(parse_config(config)?, context)? {
                Instance::Source(it) => {
                    let (interrupt, table) = match it.interrupt() {
                        Some(interrupt) => (Some(interrupt), &raw const SOURCE),
                        None => (None, &raw const UNINTERRUPTED_SOURCE),
                    };
                    (Exported::raw(it, interrupt, runtime, host), table.cast())
                }
                Instance::Transform(it) => (Exported::raw(it, None, runtime, host), (&raw const TRANSFORM).cast()),
                Instance::Sink(it) => (Exported::raw(it, None, runtime, host), (&raw const SINK).cast()),
                Instance::Service(it) => (Exported::raw(it, None, runtime, host), (&raw const SERVICE).cast()),
                Instance::Site(it) => (Exported::raw(it, None, runtime, host), (&raw const SITE).cast()),
            };
            write_sized(instance, InstanceRaw { size: size_of::<InstanceRaw>() as u32, kind, instance: pointer, table });
            Ok(OutputRaw::default())
        });
    }
}

/// # Safety
/// See [`lint`].
pub unsafe fn discover(plugin: &Plugin, runtime: Runtime, component: Slice, config: Slice) -> FutureRaw {
    // SAFETY: of the caller.
    let prepared = catch_unwind(AssertUnwindSafe(|| unsafe {
        let component = plugin.component(Kind::Source, &text(component)?)?;
        let discover = component.discover.clone().ok_or_else(|| Error::fatal("this source discovers nothing"))?;
        Ok::<_, Error>((runtime.blocking(component.description.blocking), discover(parse_config(config)?)))
    }));
    match prepared {
        Ok(Ok((runtime, task))) => export_future(runtime, Arc::new(AtomicBool::new(false)), Arc::new(tracing::Span::none()), async move {
            task.await.map_or_else(error_output, |values| json(&values))
        }),
        Ok(Err(error)) => ready_future(error_output(error)),
        Err(panic) => ready_future(error_output(panic_error(&panic_text(&*panic)))),
    }
}

/// # Safety
/// See [`lint`]; takes over `frame`.
pub unsafe fn decode(plugin: &Plugin, component: Slice, frame: Messages, out: *mut OutputRaw) {
    // SAFETY: of the caller.
    unsafe {
        entry(out, || {
            let component = plugin.component(Kind::Source, &text(component)?)?;
            let decode = component.decode.clone().ok_or_else(|| Error::fatal("this source has no decoder"))?;
            let mut decoded = Vec::new();
            for message in import_messages(frame, &mut SchemasReceived::default())? {
                match &message.payload {
                    Payload::Frame(frame) => decoded.extend(decode(&message.header, frame)?),
                    _ => decoded.push(message),
                }
            }
            Ok(OutputRaw {
                messages: export_messages(decoded, &mut SchemasSent::default())?,
                ..OutputRaw::default()
            })
        });
    }
}

/// # Safety
/// As [`Slice::bytes`].
unsafe fn parse_config(config: Slice) -> Result<serde_json::Value> {
    // SAFETY: of the caller.
    serde_json::from_slice(unsafe { config.bytes() })
        .map_err(|error| Error::fatal(format!("the configuration that the host passed is not JSON: {error}")))
}

/// Makes the root table of a plugin as a static, and a function that returns it.
///
/// `root!(runtime, path::to::plugin)`: `plugin` is a function that returns a [`Plugin`]; it is called once.
#[macro_export]
macro_rules! root {
    ($runtime:expr, $plugin:expr) => {{
        use $crate::abi::{export, types};

        fn the_plugin() -> &'static $crate::Plugin {
            static PLUGIN: std::sync::OnceLock<$crate::Plugin> = std::sync::OnceLock::new();
            PLUGIN.get_or_init(|| $plugin())
        }

        unsafe extern "C" fn description() -> types::Slice {
            static TEXT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            types::Slice::of(TEXT.get_or_init(|| export::description(the_plugin())))
        }

        unsafe extern "C" fn lint(
            kind: u32,
            component: types::Slice,
            config: types::Slice,
            out: *mut types::OutputRaw,
        ) {
            // SAFETY: the host keeps to the boundary's rules; so in all functions of this macro.
            unsafe { export::lint(the_plugin(), kind, component, config, out) }
        }

        unsafe extern "C" fn create(
            kind: u32,
            component: types::Slice,
            config: types::Slice,
            place: types::Slice,
            host: *const types::HostTable,
            instance: *mut types::InstanceRaw,
            out: *mut types::OutputRaw,
        ) {
            // SAFETY: see `lint`.
            unsafe {
                export::create(the_plugin(), $runtime, kind, component, config, place, host, instance, out)
            }
        }

        unsafe extern "C" fn discover(component: types::Slice, config: types::Slice) -> types::FutureRaw {
            // SAFETY: see `lint`.
            unsafe { export::discover(the_plugin(), $runtime, component, config) }
        }

        unsafe extern "C" fn decode(
            component: types::Slice,
            frame: types::Messages,
            out: *mut types::OutputRaw,
        ) {
            // SAFETY: see `lint`.
            unsafe { export::decode(the_plugin(), component, frame, out) }
        }

        static ROOT: types::Root = types::Root {
            size: size_of::<types::Root>() as u32,
            abi_major: $crate::abi::ABI_MAJOR,
            abi_minor: $crate::abi::ABI_MINOR,
            reserved: 0,
            description,
            lint,
            create,
            discover,
            decode,
        };
        &ROOT
    }};
}

/// Exports a plugin from a shared library: `pipeline_sdk::plugin!(my_plugin::plugin);`, where `plugin` is a function that
/// returns a [`Plugin`](crate::Plugin). Belongs into a cdylib of its own, made of the plugin's rlib: two rlibs with the
/// symbol do not link together.
///
/// `plugin!(my_plugin::plugin, ["lines"])` says as well which types it has (its components' and its replica's), so that a host can
/// tell without opening the library, and opens it only when a file names one of them.
#[macro_export]
macro_rules! plugin {
    ($plugin:expr, [$($type_name:literal),+ $(,)?]) => {
        $crate::plugin!($plugin);

        /// The types in the library, each with a line feed behind it.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals)]
        pub static pipeline_plugin_types: [u8; TYPES.len()] = {
            let mut bytes = [0; TYPES.len()];
            bytes.copy_from_slice(TYPES.as_bytes());
            bytes
        };
        const TYPES: &str = concat!($($type_name, "\n"),+);
    };
    ($plugin:expr) => {
        #[cfg(panic = "abort")]
        compile_error!("a plugin contains its panics, which needs panic = \"unwind\"");

        /// The one symbol of the library.
        #[unsafe(no_mangle)]
        pub extern "C" fn pipeline_plugin_root() -> *const $crate::abi::types::Root {
            $crate::abi::glue::forward_events();
            $crate::root!($crate::abi::glue::Runtime::Library, $plugin)
        }
    };
}

/// The root's description as JSON.
pub fn description(plugin: &Plugin) -> Vec<u8> {
    serde_json::to_vec(&plugin.describe()).expect("a description is plain JSON")
}
