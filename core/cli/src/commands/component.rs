//! The process of a component that a pipeline file isolates: this executable again, started by the engine and by nobody else.

use std::path::{Path, PathBuf};

use pipeline_engine::host::process::{Launch, child};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{CommandError, CommandResult};

pub const VERB: &str = "component";
/// What the system keeps of a process's executable: the right one also when another was installed meanwhile.
const OWN_EXECUTABLE: &str = "/proc/self/exe";
/// All of the environment that a component's process has: what finds libraries, certificates, folders and the time zone. Values of a
/// pipeline file, among them secrets, are not given so.
const ENVIRONMENT: [&str; 13] = [
    "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "TZDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_BACKTRACE",
    "LD_PRELOAD", "FAKETIME",
];

/// One component of a pipeline, in a process of its own
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the engine waits for it
    socket: String,
}

impl Args {
    pub fn run(self) -> CommandResult {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(|error| CommandError::failed(format!("cannot watch signals: {error}")))?;
        let _signals = runtime.block_on(async {
            // A service manager tells every process to end: this one ends when its host is done with it.
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal)
        });
        Ok(child::run(&self.socket)?)
    }
}

/// How the engine starts this executable for a component.
pub fn launch() -> Launch {
    let own = Path::new(OWN_EXECUTABLE);
    Launch {
        program: if own.exists() { own.to_owned() } else { std::env::current_exe().unwrap_or_else(|_| PathBuf::from("pipeline")) },
        arguments: vec![VERB.into()],
        environment: ENVIRONMENT.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect(),
    }
}
