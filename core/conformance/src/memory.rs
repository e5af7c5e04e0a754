//! What the process holds, and buffers that tell when they are given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use bytes::Bytes;

/// The process of the component under check, where it has one of its own.
static BESIDE: AtomicU32 = AtomicU32::new(0);

/// That process counts as well from now on.
pub fn count_beside(process: u32) {
    BESIDE.store(process, Ordering::Relaxed);
}

/// Bytes of memory that the process has resident, and the component's; 0 where the system does not tell.
pub fn resident() -> i64 {
    let beside = match BESIDE.load(Ordering::Relaxed) {
        0 => 0,
        process => resident_in(&process.to_string()),
    };
    resident_in("self") + beside
}

fn resident_in(process: &str) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// Counts buffers that are still held by somebody.
#[derive(Clone, Default)]
pub struct Held(Arc<AtomicI64>);

struct Counted {
    bytes: Vec<u8>,
    held: Arc<AtomicI64>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    pub fn buffer(&self, bytes: Vec<u8>) -> Bytes {
        self.0.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Counted { bytes, held: self.0.clone() })
    }

    pub fn count(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes for people.
pub fn shown(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
