//! Faults that a test asks for (PROTOCOL 13.3, 12): a full disk, a frozen vgroup, a death between log and answer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// Shared by every log of a store; does nothing until it is told to.
#[derive(Default)]
pub struct Faults {
    /// Bytes that may still be written; negative for no limit.
    disk_left: AtomicI64,
    disk_limited: std::sync::atomic::AtomicBool,
    /// Appends until the crash hook is called; 0 for never.
    appends_to_crash: AtomicI64,
    crash: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Faults").field("disk_left", &self.disk_left).finish_non_exhaustive()
    }
}

impl Faults {
    /// From now on only this many bytes fit the disk; `None` takes the limit away.
    pub fn limit_disk(&self, bytes: Option<u64>) {
        self.disk_left.store(bytes.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)), Ordering::SeqCst);
        self.disk_limited.store(bytes.is_some(), Ordering::SeqCst);
    }

    /// Calls `hook` in the `appends`-th append from now, after it is in the log and before it is answered.
    pub fn crash_after(&self, appends: u32, hook: Arc<dyn Fn() + Send + Sync>) {
        *self.crash.lock() = Some(hook);
        self.appends_to_crash.store(i64::from(appends), Ordering::SeqCst);
    }

    /// Takes bytes of what is left.
    pub(crate) fn take_disk(&self, bytes: usize) -> io::Result<()> {
        if !self.disk_limited.load(Ordering::Relaxed) {
            return Ok(());
        }
        let take = |left: i64| left.checked_sub(bytes as i64).filter(|left| *left >= 0);
        match self.disk_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::from(io::ErrorKind::StorageFull)),
        }
    }

    /// To be called after each append.
    pub(crate) fn appended(&self) {
        if self.appends_to_crash.load(Ordering::Relaxed) <= 0 {
            return;
        }
        if self.appends_to_crash.fetch_sub(1, Ordering::SeqCst) == 1 {
            let hook = self.crash.lock().take();
            if let Some(hook) = hook {
                hook();
            }
        }
    }
}
