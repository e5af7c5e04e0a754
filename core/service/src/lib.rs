//! A folder of pipeline files as a service, and the admin API through which it is asked and told.
//!
//! A file is the truth about its pipelines: what the service adds is only what an operator stopped, which is stored beside it. A file
//! that is wrong changes nothing. This crate knows no database, reads no environment and prints nothing; the command line does.

pub mod api;
mod folder;
mod member;
mod hand_over;
mod notes;
mod orders;
mod sharing;
mod supervisor;
mod tasks;
mod removal;
mod metrics;
mod openapi;
mod listen;
mod server;
pub mod client;
pub mod socket;
mod token;

pub use hand_over::HandOverNotes;
pub use member::Member;
pub use orders::Orders;
pub use sharing::Sharing;
pub use folder::id_problem;
pub use server::{Endpoints, Server, TcpEndpoint, UnixEndpoint};
pub use supervisor::{OWN_FOLDER, Options, Supervisor};
