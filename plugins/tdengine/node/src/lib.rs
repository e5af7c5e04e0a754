//! An embedded node that speaks TDengine's WebSocket protocol on one port: `/ws`, `/rest/tmq`, `/rest/sql`, `/-/ping`.
//!
//! It is for trying, developing and testing, and is no TDengine. What a client can see of a real server, it does the same
//! way: replies, codes, orders, positions, marks, and the oddities that a replicator has to live with (PROTOCOL 1–6,
//! FACTS F1–F72). What it keeps is `tdengine-store`'s.
//!
//! Read in this order: [`config`], [`error`], [`node`], `server`, `socket`, `reply`, `ws`, `statement`, `schemaless`,
//! `tmq`, `rest`, [`fault`], `admin`, `service`.

pub mod config;
pub mod error;
pub mod node;
mod server;
mod socket;
mod reply;
mod ws;
mod statement;
mod schemaless;
mod tmq;
mod rest;
mod timezone;
pub mod fault;
mod admin;
mod service;

pub use config::{Config, Fsync, Limits, Mode};
pub use error::NodeError;
pub use fault::Fault;
pub use node::{BANNER, Node};
pub use service::plugin;
