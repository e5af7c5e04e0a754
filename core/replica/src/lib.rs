//! Replicas: sites that symmetric pipelines keep in step, seen as one thing.
//!
//! Sites are reached through the Site facet of their plugin only: this crate knows no database. What a replica's pipelines are is
//! the graph's business ([`pipeline_engine::graph`]).

mod site;
mod compare;
mod endpoint;
mod id;
mod list;
mod file;
mod plan;

pub use compare::{Comparison, DatabaseComparison, DIFFERENCES_SHOWN_MAX, Difference, SiteContent, compare};
pub use endpoint::{PasswordFrom, with_password};
pub use file::{Kinds, New, ReplicaFile, kinds};
pub use id::{make_id, suggestion};
pub use plan::{Ends, Plan, SiteLook, plan};
pub use site::{OpenSite, open, within};
