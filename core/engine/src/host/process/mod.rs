//! Components in processes of their own (`isolation = "process"`): whatever one does there costs its process and nothing else
//! (invariant `contained`).
//!
//! One process is one component of one task: the instances of a sink, one a lane, are in it together, as they may share memory. The
//! process is this same program ([`Launch`]) with the same library; the host's side ([`process`], [`proxy`]) implements the traits of
//! the SDK over a connection an instance ([`line`], [`frame`], [`message`]), the other side ([`child`]) calls the library as any host
//! does and passes on what it asks of its host ([`hosts`]). A process that ends, or whose call is overdue and that is therefore killed, gives errors that
//! ask for a new connection: the task makes the component anew and goes on at its checkpoint. A process whose host is gone ends.

mod frame;
mod message;
mod hosts;
mod process;
mod line;
mod proxy;
pub mod child;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use pipeline_sdk::Kind;
use pipeline_sdk::context::Place;
use serde::{Deserialize, Serialize};

pub use process::{Process, shown_exit};
pub use proxy::Decoder;

/// Code of the error that the end of a component's process leaves.
pub const ENDED: &str = "isolation.ended";
/// Code of the error that a process which does not come up leaves.
pub const START: &str = "isolation.start";

/// How a program starts the process of a component: itself, told so by an argument. Libraries do not look for executables.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    /// The name of a socket is appended.
    pub arguments: Vec<String>,
    /// All of the environment that the process has.
    pub environment: Vec<(OsString, OsString)>,
}

/// The first that a process is told.
#[derive(Serialize, Deserialize)]
struct Hello {
    /// Of the program: both ends must be of one build.
    version: String,
    library: PathBuf,
    /// Abstract name at which the process takes connections, one an instance.
    entrance: String,
    /// With which each of them must begin.
    token: String,
    frame_bytes_max: u64,
}

/// The first on a connection of an instance.
#[derive(Serialize, Deserialize)]
struct Create {
    token: String,
    /// Absent for what needs no instance: decoding and discovery.
    kind: Option<Kind>,
    component: String,
    config: serde_json::Value,
    place: Place,
    /// Of the instance, in what it asks of its host.
    id: u64,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
