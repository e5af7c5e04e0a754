//! The native transport: libtaos, loaded at run time, behind the same methods as the WebSocket client.
//!
//! A binding of our own over the few functions that are needed. The published `taos-optin` 0.12 was looked at: it cuts
//! offsets to 32 bits, takes offset 0 for an error, hides errors of assignments and loses a polled message on a time-out.
//!
//! All `unsafe` is in [`library`] and [`handle`]. Guarantees: libtaos is loaded only when a native address is used; its calls
//! run on blocking threads, never on a runtime's; a call that takes too long is left to its thread, and its handle, which
//! lives until then, is not used again.

mod library;
mod handle;
mod sql;
mod tmq;

pub use sql::NativeConnection;
pub use tmq::NativeConsumer;

use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;

use crate::client::{ClientError, Result};

/// Runs a call of libtaos on a blocking thread.
async fn blocking<T: Send + 'static>(
    place: &str,
    action: &str,
    timeout: Duration,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(timeout, tokio::task::spawn_blocking(|| keeping_umask(call))).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(ClientError::unexpected(action, error.to_string())),
        Err(_) => Err(ClientError::timed_out(place, action, timeout)),
    }
}

/// libtaos sets the process's umask to 0 whenever it opens a log of its own (seen on 3.3.0.1): what this process makes from then on could be
/// written by everybody.
fn keeping_umask<T>(call: impl FnOnce() -> T) -> T {
    static BEFORE: OnceLock<Mode> = OnceLock::new();
    let before = *BEFORE.get_or_init(|| {
        let before = umask(Mode::RWXG | Mode::RWXO);
        umask(before);
        before
    });
    let outcome = call();
    umask(before);
    outcome
}
