//! Replicas: sites that symmetric pipelines keep in step, seen as one thing.
//!
//! Sites are reached through the Site facet of their plugin only: this crate knows no database. What a replica's pipelines are is
//! the graph's business ([`pipeline_engine::graph`]).

mod site;
mod compare;

pub use compare::{Comparison, DatabaseComparison, DIFFERENCES_SHOWN_MAX, Difference, SiteContent, compare};
