//! What a shared library needs around its plugin: a runtime, and a way for its log events to reach the host.
//!
//! Only the [`plugin!`](crate::plugin!) macro, in a cdylib, turns these on: a plugin that is linked in uses the runtime and
//! the subscriber of the program it is linked into.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::host::ForeignHost;

/// The runtime that a plugin's futures are polled under.
#[derive(Clone, Copy, Debug)]
pub enum Runtime {
    /// The library's own: calls that wait are moved to its threads.
    Library,
    /// The library's own, but every poll is done by the host's thread, as it may block.
    LibraryBlocking,
    /// Whatever the polling thread has: the plugin is linked in.
    None,
}

impl Runtime {
    pub fn enter(self) -> Option<tokio::runtime::EnterGuard<'static>> {
        match self {
            Runtime::Library | Runtime::LibraryBlocking => Some(library_runtime().enter()),
            Runtime::None => None,
        }
    }

    /// The same for a component whose polls may block their thread: those of a library's runtime must not be blocked.
    pub fn blocking(self, is_blocking: bool) -> Self {
        match self {
            Runtime::Library if is_blocking => Runtime::LibraryBlocking,
            other => other,
        }
    }

    /// Where calls that wait go on.
    pub fn mover(self) -> Option<&'static tokio::runtime::Handle> {
        matches!(self, Runtime::Library).then(|| library_runtime().handle())
    }
}

fn library_runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // The host's threads and these do their work in turns: half of the cores each.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads((cores / 2).max(1))
            .thread_name("pipeline-plugin")
            .enable_all()
            .build()
            .expect("the system gives no threads for a runtime")
    })
}

/// Sends the library's `tracing` events to the host, under the name of the component that they happen in.
pub fn forward_events() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Forward);
        // Fails where the library has a subscriber of its own: then that one keeps the events.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
}

/// The span that a component's calls run in. `host` takes its events.
pub fn component_span(host: &Arc<ForeignHost>) -> tracing::Span {
    let span = tracing::info_span!("component");
    span.with_subscriber(|(id, dispatch)| {
        if let Some(registry) = dispatch.downcast_ref::<tracing_subscriber::Registry>()
            && let Some(span) = registry.span(id)
        {
            span.extensions_mut().replace(host.clone());
        }
    });
    span
}

struct Forward;

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Forward {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        // Libraries below a plugin are chatty at debug and trace.
        *metadata.level() <= tracing::Level::DEBUG
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let Some(scope) = context.event_scope(event) else { return };
        let Some(host) = scope.into_iter().find_map(|span| span.extensions().get::<Arc<ForeignHost>>().cloned()) else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => 1,
            tracing::Level::WARN => 2,
            tracing::Level::INFO => 3,
            tracing::Level::DEBUG => 4,
            tracing::Level::TRACE => 5,
        };
        host.log(level, event.metadata().target(), &text.message, &text.fields);
    }
}

/// An event's message, and its fields as `key=value` text.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            let separator = if self.fields.is_empty() { "" } else { " " };
            let _ = write!(self.fields, "{separator}{}={value:?}", field.name());
        }
    }
}
