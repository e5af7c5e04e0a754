//! Our own WebSocket client of TDengine: SQL and raw writes on `/ws`, consumers on `/rest/tmq`.
//!
//! The published crate cannot ask for exclusion there, loses polls on a time-out and costs 44 ms a round trip
//! (PROTOCOL T1–T6, FACTS F49), so this one is written from the protocol. Nothing here knows what a pipeline is.

pub mod error;
pub mod socket;
pub mod sql;
pub mod tmq;

pub use error::{ClientError, Result};
pub use socket::SocketLimits;
pub use sql::ResultSet;
pub use tmq::{Message, Subscription};
