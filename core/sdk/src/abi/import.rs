//! The host's side: the traits of [`crate::component`] over a root table.
//!
//! An imported component whose call was dropped before it was ready is abandoned: it answers only that, and is leaked
//! rather than destroyed under a call in flight.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::{MaybeUninit, offset_of};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use super::convert::*;
use super::future::ImportedFuture;
use super::host::{HostSide, ReadySlot, export_host};
use super::types::*;
use crate::checkpoint::{Checkpoint, LaneProgress};
use crate::component::{Connected, Interrupt, Output, Polled, Ready, Service, Sink, Source, Stop, Transform};
use crate::context::{Host, Place};
use crate::describe::{Kind, PluginDescription};
use crate::error::{Error, Result};
use crate::message::{Lane, Message};
use crate::site::Site;

/// A plugin whose root table was checked.
#[derive(Clone, Copy)]
pub struct Library {
    pub(super) root: &'static Root,
}

impl Library {
    /// Checks version and sizes.
    ///
    /// # Safety
    /// `root` is null or points to a root table that lives for ever and keeps to the boundary's rules.
    pub unsafe fn new(root: *const Root) -> Result<Self> {
        if root.is_null() {
            return Err(Error::fatal("the library's root function returned nothing").code("boundary.root"));
        }
        // SAFETY: of the caller; the version words are the same in every version of the table.
        let (size, major, minor) = unsafe { ((*root).size, (*root).abi_major, (*root).abi_minor) };
        if major != super::ABI_MAJOR {
            return Err(Error::fatal(format!(
                "the library speaks version {major}.{minor} of the plugin boundary, this host version {}.{}",
                super::ABI_MAJOR,
                super::ABI_MINOR
            ))
            .code("boundary.version")
            .hint(format!("build the plugin against a version {}.x of the SDK", super::ABI_MAJOR)));
        }
        if (size as usize) < size_of::<Root>() {
            return Err(Error::fatal(format!(
                "the library's root table has {size} bytes, version {major}.0 has {}",
                size_of::<Root>()
            ))
            .code("boundary.root"));
        }
        // SAFETY: of the caller, and the table is at least as long as the one we know.
        Ok(Self { root: unsafe { &*root } })
    }

    pub fn describe(&self) -> Result<PluginDescription> {
        // SAFETY: the table's functions keep to the boundary's rules; so in all calls below.
        let text = unsafe { (self.root.description)().bytes() };
        serde_json::from_slice(text).map_err(|error| {
            Error::fatal(format!("the library's description of itself is not readable: {error}"))
                .code("boundary.description")
        })
    }

    /// All that is wrong with a configuration.
    pub fn lint(&self, kind: Kind, component: &str, config: &serde_json::Value) -> Result<Vec<Error>> {
        let (config, mut output) = (config.to_string(), OutputRaw::default());
        // SAFETY: see `describe`.
        unsafe {
            (self.root.lint)(
                kind_number(kind),
                Slice::of(component.as_bytes()),
                Slice::of(config.as_bytes()),
                &mut output,
            );
        }
        read_json(&mut output)
    }

    pub async fn discover(&self, component: &str, config: &serde_json::Value) -> Result<Vec<String>> {
        let config = config.to_string();
        // SAFETY: see `describe`.
        let raw =
            unsafe { (self.root.discover)(Slice::of(component.as_bytes()), Slice::of(config.as_bytes())) };
        let mut output = ImportedFuture::new(raw, Arc::default()).await;
        read_json(&mut output)
    }

    /// Turns a frame into rows; anything else comes back as it is.
    pub fn decode(&self, component: &str, frame: Message) -> Result<Vec<Message>> {
        let messages = export_messages(vec![frame], &mut SchemasSent::default())?;
        let mut output = OutputRaw::default();
        // SAFETY: see `describe`.
        unsafe { (self.root.decode)(Slice::of(component.as_bytes()), messages, &mut output) };
        read_messages(&mut output, &mut SchemasReceived::default())
    }

    pub fn source(&self, component: &str, config: &serde_json::Value, place: &Place, host: HostParts) -> Result<Box<dyn Source>> {
        let (made, table) = self.create(Kind::Source, component, config, place, host, ReadySlot::default())?;
        Ok(Box::new(ImportedSource { made: Arc::new(made), table, received: SchemasReceived::default() }))
    }

    pub fn transform(&self, component: &str, config: &serde_json::Value, place: &Place, host: HostParts) -> Result<Box<dyn Transform>> {
        let (made, table) = self.create(Kind::Transform, component, config, place, host, ReadySlot::default())?;
        Ok(Box::new(ImportedTransform {
            made,
            table,
            sent: SchemasSent::default(),
            received: SchemasReceived::default(),
        }))
    }

    pub fn sink(&self, component: &str, config: &serde_json::Value, place: &Place, host: HostParts) -> Result<Box<dyn Sink>> {
        let (made, table) = self.create(Kind::Sink, component, config, place, host, ReadySlot::default())?;
        Ok(Box::new(ImportedSink { made, table, sent: SchemasSent::default() }))
    }

    pub fn service(&self, component: &str, config: &serde_json::Value, place: &Place, host: HostParts) -> Result<Box<dyn Service>> {
        let ready = ReadySlot::default();
        let (made, table) = self.create(Kind::Service, component, config, place, host, ready.clone())?;
        Ok(Box::new(ImportedService { made, table, ready }))
    }

    pub fn site(&self, component: &str, config: &serde_json::Value, place: &Place, host: HostParts) -> Result<Box<dyn Site>> {
        let (made, table) = self.create(Kind::Site, component, config, place, host, ReadySlot::default())?;
        Ok(Box::new(ImportedSite { made, table }))
    }

    fn create<T: Table>(
        &self,
        kind: Kind,
        component: &str,
        config: &serde_json::Value,
        place: &Place,
        host: HostParts,
        ready: ReadySlot,
    ) -> Result<(Made, T)> {
        let config = config.to_string();
        let place = serde_json::to_string(place).expect("a place is plain JSON");
        let table = export_host(HostSide { host: host.host, log: host.log, ready });
        let mut instance =
            InstanceRaw { size: size_of::<InstanceRaw>() as u32, kind: 0, instance: std::ptr::null_mut(), table: std::ptr::null() };
        let mut output = OutputRaw::default();
        // SAFETY: see `describe`; the plugin takes the host table over, also when it fails.
        unsafe {
            (self.root.create)(
                kind_number(kind),
                Slice::of(component.as_bytes()),
                Slice::of(config.as_bytes()),
                Slice::of(place.as_bytes()),
                &table,
                &mut instance,
                &mut output,
            );
        }
        read_output(&mut output)?;
        if instance.instance.is_null() || instance.table.is_null() || instance.kind != kind_number(kind) {
            return Err(Error::fatal(format!("the plugin made no {kind} `{component}` though it said so"))
                .code("boundary.create"));
        }
        let table = table_of::<T>(instance.table)?;
        Ok((Made { instance: instance.instance, abandoned: Arc::default(), destroy: table.destroy() }, table))
    }
}

/// What the host gives to a component that it makes.
#[derive(Clone)]
pub struct HostParts {
    pub host: Arc<dyn Host>,
    pub log: Arc<super::host::Log>,
}

/// An instance that the plugin made, destroyed with this value unless a call of it was abandoned.
struct Made {
    instance: *mut c_void,
    abandoned: Arc<AtomicBool>,
    destroy: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: an instance may be called from any thread, one call at a time (rule of the boundary).
unsafe impl Send for Made {}
// SAFETY: a shared reference allows `stop` and `interrupt` alone, which may be called from any thread.
unsafe impl Sync for Made {}

/// The tables of the kinds: their size stands first, `destroy` is known to each. All zeros are a value of what a later minor version
/// appended: functions that are absent.
pub(super) trait Table: Copy + 'static {
    /// Of version 1.0, which every library has.
    const SIZE_MIN: usize;
    fn destroy(&self) -> unsafe extern "C" fn(*mut c_void);
}

macro_rules! table {
    ($($table:ty: $size_min:expr),*) => {
        $(impl Table for $table {
            const SIZE_MIN: usize = $size_min;
            fn destroy(&self) -> unsafe extern "C" fn(*mut c_void) {
                self.destroy
            }
        })*
    };
}
table!(
    SourceTable: offset_of!(SourceTable, interrupt),
    TransformTable: size_of::<TransformTable>(),
    SinkTable: size_of::<SinkTable>(),
    ServiceTable: size_of::<ServiceTable>(),
    SiteTable: size_of::<SiteTable>()
);

/// A component's table, as much of it as both sides know.
pub(super) fn table_of<T: Table>(table: *const c_void) -> Result<T> {
    // SAFETY: every table starts with its size.
    let size = unsafe { *table.cast::<u32>() } as usize;
    if size < T::SIZE_MIN {
        return Err(Error::fatal(format!("a component's table has {size} bytes, version 1.0 has {}", T::SIZE_MIN)).code("boundary.table"));
    }
    let mut known = MaybeUninit::<T>::zeroed();
    // SAFETY: both are as long as what is copied; the table is the one of the kind that was asked for, and behind what every version has,
    // zeros are a value.
    unsafe {
        known.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(table.cast(), size.min(size_of::<T>()));
        Ok(known.assume_init())
    }
}

impl Made {
    /// Runs a call to its end.
    async fn call(&self, raw: FutureRaw) -> OutputRaw {
        ImportedFuture::new(raw, self.abandoned.clone()).await
    }

    fn check(&self) -> Result<()> {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(Error::fatal("an earlier call of this component was abandoned while it ran").code("boundary.abandoned"));
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Acquire) {
            tracing::warn!("a component with a call in flight is left behind instead of destroyed");
            return;
        }
        // SAFETY: no call is in flight, and this is the one destruction.
        unsafe { (self.destroy)(self.instance) };
    }
}

pub(super) fn kind_number(kind: Kind) -> u32 {
    match kind {
        Kind::Source => KIND_SOURCE,
        Kind::Transform => KIND_TRANSFORM,
        Kind::Sink => KIND_SINK,
        Kind::Service => KIND_SERVICE,
        Kind::Site => KIND_SITE,
    }
}

fn read_json<T: serde::de::DeserializeOwned>(output: &mut OutputRaw) -> Result<T> {
    let bytes = read_output(output)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::fatal(format!("the plugin answered what is not expected: {error}")).code("boundary.answer"))
}

pub(super) fn read_messages(output: &mut OutputRaw, received: &mut SchemasReceived) -> Result<Vec<Message>> {
    read_output(output)?;
    let messages = std::mem::replace(&mut output.messages, Messages::EMPTY);
    // SAFETY: the plugin gave the messages away under the boundary's rules.
    unsafe { import_messages(messages, received) }
}

fn identity(bytes: &Bytes) -> Connected {
    let text = String::from_utf8_lossy(bytes).into_owned();
    Connected { identity: Some(text).filter(|text| !text.is_empty()) }
}

struct ImportedSource {
    made: Arc<Made>,
    table: SourceTable,
    received: SchemasReceived,
}

#[async_trait]
impl Source for ImportedSource {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        self.made.check()?;
        let checkpoint = from.encode();
        // SAFETY: the instance belongs to the table; so in all calls below.
        let raw = unsafe { (self.table.connect)(self.made.instance, Slice::of(&checkpoint)) };
        let mut output = self.made.call(raw).await;
        Ok(identity(&read_output(&mut output)?))
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        #[derive(Deserialize)]
        struct Lanes {
            assigned: Vec<Lane>,
            revoked: Vec<Lane>,
        }
        self.made.check()?;
        // SAFETY: see `connect`.
        let raw = unsafe {
            (self.table.next)(self.made.instance, u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
        };
        let mut output = self.made.call(raw).await;
        if output.status != STATUS_OK {
            read_output(&mut output)?;
        }
        match output.kind {
            POLLED_MESSAGES => Ok(Polled::Messages(read_messages(&mut output, &mut self.received)?)),
            POLLED_IDLE => Ok(Polled::Idle),
            POLLED_END => Ok(Polled::End),
            POLLED_LANES => {
                let Lanes { assigned, revoked } = read_json(&mut output)?;
                Ok(Polled::Lanes { assigned, revoked })
            }
            kind => Err(Error::fatal(format!("the source returned {kind}, which is no kind of poll")).code("boundary.answer")),
        }
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        self.made.check()?;
        let checkpoint = upto.encode();
        // SAFETY: see `connect`.
        let raw = unsafe { (self.table.commit)(self.made.instance, Slice::of(&checkpoint)) };
        let mut output = self.made.call(raw).await;
        read_output(&mut output).map(drop)
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        self.made.check()?;
        // SAFETY: see `connect`.
        let raw = unsafe { (self.table.progress)(self.made.instance) };
        let mut output = self.made.call(raw).await;
        read_json(&mut output)
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let (interrupt, made) = (self.table.interrupt?, self.made.clone());
        // SAFETY: the instance belongs to the table, and lives as long as the last that holds it.
        Some(Interrupt::new(move || unsafe { interrupt(made.instance) }))
    }
}

struct ImportedTransform {
    made: Made,
    table: TransformTable,
    sent: SchemasSent,
    received: SchemasReceived,
}

impl Transform for ImportedTransform {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        let messages = export_messages(vec![message], &mut self.sent)?;
        let mut output = OutputRaw::default();
        // SAFETY: the instance belongs to the table.
        unsafe { (self.table.apply)(self.made.instance, messages, &mut output) };
        out.messages.extend(read_messages(&mut output, &mut self.received)?);
        Ok(())
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        let mut output = OutputRaw::default();
        // SAFETY: the instance belongs to the table.
        unsafe { (self.table.barrier)(self.made.instance, &mut output) };
        out.messages.extend(read_messages(&mut output, &mut self.received)?);
        Ok(())
    }
}

struct ImportedSink {
    made: Made,
    table: SinkTable,
    sent: SchemasSent,
}

#[async_trait]
impl Sink for ImportedSink {
    async fn connect(&mut self) -> Result<Connected> {
        self.made.check()?;
        // SAFETY: the instance belongs to the table; so in all calls below.
        let raw = unsafe { (self.table.connect)(self.made.instance) };
        let mut output = self.made.call(raw).await;
        Ok(identity(&read_output(&mut output)?))
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        self.write_many(std::slice::from_ref(message)).await.1
    }

    async fn flush(&mut self) -> Result<()> {
        self.made.check()?;
        // SAFETY: see `connect`.
        let raw = unsafe { (self.table.flush)(self.made.instance) };
        let mut output = self.made.call(raw).await;
        read_output(&mut output).map(drop)
    }

    async fn write_many(&mut self, messages: &[Message]) -> (usize, Result<()>) {
        let begun = self.made.check().and_then(|()| {
            let messages = export_messages(messages.to_vec(), &mut self.sent)?;
            // SAFETY: see `connect`.
            Ok(unsafe { (self.table.write)(self.made.instance, messages) })
        });
        let raw = match begun {
            Ok(raw) => raw,
            Err(error) => return (0, Err(error)),
        };
        let mut output = self.made.call(raw).await;
        match read_output(&mut output) {
            Ok(_) => (messages.len(), Ok(())),
            Err(error) => ((output.count as usize).min(messages.len()), Err(error)),
        }
    }
}

struct ImportedService {
    made: Made,
    table: ServiceTable,
    ready: ReadySlot,
}

#[async_trait]
impl Service for ImportedService {
    async fn run(self: Box<Self>, ready: Ready, stop: Stop) -> Result<()> {
        self.ready.put(ready);
        // SAFETY: the instance belongs to the table.
        let raw = unsafe { (self.table.run)(self.made.instance) };
        let running = self.made.call(raw);
        tokio::pin!(running);
        let mut output = tokio::select! {
            output = &mut running => output,
            () = stop.stopped() => {
                // SAFETY: as above; `stop` may be called while `run` is under way.
                unsafe { (self.table.stop)(self.made.instance) };
                running.await
            }
        };
        read_output(&mut output).map(drop)
    }
}

struct ImportedSite {
    made: Made,
    table: SiteTable,
}

impl ImportedSite {
    async fn ask<T: serde::de::DeserializeOwned>(&mut self, method: &str, arguments: serde_json::Value) -> Result<T> {
        let value = self.call(method, arguments).await?;
        serde_json::from_value(value)
            .map_err(|error| Error::fatal(format!("site call {method}: {error}")).code("boundary.answer"))
    }
}

#[async_trait]
impl Site for ImportedSite {
    async fn call(&mut self, method: &str, arguments: serde_json::Value) -> Result<serde_json::Value> {
        self.made.check()?;
        let arguments = arguments.to_string();
        // SAFETY: the instance belongs to the table.
        let raw = unsafe {
            (self.table.call)(self.made.instance, Slice::of(method.as_bytes()), Slice::of(arguments.as_bytes()))
        };
        let mut output = self.made.call(raw).await;
        read_json(&mut output)
    }

    async fn address(&mut self) -> Result<String> {
        self.ask("address", serde_json::json!({})).await
    }

    async fn identity(&mut self) -> Result<String> {
        self.ask("identity", serde_json::json!({})).await
    }

    async fn databases(&mut self) -> Result<Vec<String>> {
        self.ask("databases", serde_json::json!({})).await
    }

    async fn schema(&mut self, database: &str) -> Result<serde_json::Value> {
        self.ask("schema", serde_json::json!({ "database": database })).await
    }

    async fn digest(&mut self, database: &str, range: Option<(i64, i64)>) -> Result<crate::site::Digest> {
        self.ask("digest", serde_json::json!({ "database": database, "range": range })).await
    }

    async fn lanes(&mut self, database: &str) -> Result<Vec<LaneProgress>> {
        self.ask("lanes", serde_json::json!({ "database": database })).await
    }

    async fn plan(&mut self, databases: &[String]) -> Result<serde_json::Value> {
        self.ask("plan", serde_json::json!({ "databases": databases })).await
    }

    async fn review(&mut self, source: &serde_json::Value, sink: &serde_json::Value) -> Result<Vec<crate::site::Check>> {
        self.ask("review", serde_json::json!({ "source": source, "sink": sink })).await
    }

    async fn forget(&mut self, database: &str, pipelines: &[String]) -> Result<()> {
        self.ask("forget", serde_json::json!({ "database": database, "pipelines": pipelines })).await
    }

    async fn hold(&mut self, group: &str) -> Result<crate::site::Holding> {
        self.ask("hold", serde_json::json!({ "group": group })).await
    }

    async fn notes(&mut self, group: &str, notes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        self.ask("notes", serde_json::json!({ "group": group, "notes": notes })).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::future::ready_future;

    unsafe extern "C" fn with_bytes(_: *mut c_void, _: Slice) -> FutureRaw {
        ready_future(OutputRaw::default())
    }

    unsafe extern "C" fn with_wait(_: *mut c_void, _: u64) -> FutureRaw {
        ready_future(OutputRaw::default())
    }

    unsafe extern "C" fn alone(_: *mut c_void) -> FutureRaw {
        ready_future(OutputRaw::default())
    }

    unsafe extern "C" fn nothing(_: *mut c_void) {}

    /// The beginning of a table that can be interrupted, in as many bytes as it says.
    fn cut(size: usize) -> Vec<u64> {
        let whole = SourceTable {
            size: size as u32,
            connect: with_bytes,
            next: with_wait,
            commit: with_bytes,
            progress: alone,
            destroy: nothing,
            interrupt: Some(nothing),
        };
        let mut words = vec![0; size / size_of::<u64>()];
        // SAFETY: the words are a part of the table, and may be anything.
        unsafe { words.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping((&raw const whole).cast(), size) };
        words
    }

    #[test]
    fn a_table_of_the_first_version_lacks_what_came_later() {
        let whole = cut(size_of::<SourceTable>());
        let first = cut(SourceTable::SIZE_MIN);
        let shorter = cut(SourceTable::SIZE_MIN - size_of::<u64>());
        assert!(table_of::<SourceTable>(whole.as_ptr().cast()).unwrap().interrupt.is_some());
        assert!(table_of::<SourceTable>(first.as_ptr().cast()).unwrap().interrupt.is_none());
        let error = table_of::<SourceTable>(shorter.as_ptr().cast()).err().unwrap();
        assert_eq!(error.code, "boundary.table");
    }
}
