//! What a plugin of pipeline is written against.
//!
//! A plugin is a value: [`Plugin`] lists components, each made by its config struct. The [`plugin!`] macro turns that
//! value into the one C symbol that a shared library exports; everything that crosses it is in [`abi`], the only place
//! with `unsafe`. Components see nothing of the boundary: they implement the traits of [`component`] over the messages
//! of [`message`] and reach the host through a [`Context`].

pub mod message;
pub mod checkpoint;
pub mod error;
pub mod component;
pub mod context;
pub mod describe;
pub mod detached;
pub mod plugin;
pub mod site;
#[cfg(feature = "tls")]
pub mod tls;
pub mod units;
pub mod abi;

pub use arrow;
pub use async_trait::async_trait;
pub use bytes;
pub use checkpoint::{Checkpoint, LaneProgress};
pub use component::{Connected, Interrupt, Interrupted, Output, Polled, Ready, Service, Sink, Source, Stop, Transform};
pub use context::{Context, Incident, State};
pub use detached::Detached;
pub use describe::{
    Capability, ComponentDescription, Kind, PluginDescription, ReplicaDescription, Requirement,
};
pub use error::{Error, Reaction, Result, SOURCE_HOLE, SOURCE_REPLACED};
pub use message::{
    Change, ChangeKind, Frame, Header, Lane, Mark, Message, Opaque, Payload, Position, Rows, Run,
};
pub use plugin::{
    Plugin, ServiceConfig, SinkConfig, SiteConfig, SourceConfig, TransformConfig,
};
pub use site::Site;
