//! The checked graph of a file: which components, joined how, agreed on what.
//!
//! Guarantees: every type is known, every configuration passed its schema and its plugin; a pipeline that could loop is refused;
//! no two tasks do the same; a decoder stands before the first consumer that needs rows, branch by branch, and nowhere else.

pub mod catalog;
pub mod model;
mod build;
mod expand;
mod negotiate;
mod topology;
mod render;

pub use catalog::{Catalog, Linked};
pub use expand::{expand, to_toml};
pub(crate) use expand::toml_value;
pub use model::{BuiltIn, BuiltInHost, Direction, DISCOVER_INTERVAL_KEY, Graph, GraphJson, Node, PipelineGraph, ReplicaGraph, SiteGraph, Step};
pub use topology::facet;
