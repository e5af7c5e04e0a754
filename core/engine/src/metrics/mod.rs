//! What a run counts: a plain registry that is read as a snapshot, and incidents.
//!
//! Counting costs an atomic addition: who counts often keeps the [`Counter`].

mod registry;
mod status;

pub use registry::{Counter, INCIDENTS_MAX, IncidentRecord, Labels, Registry, Sample};
pub use status::{Counts, LagClock, LaneStatus, PipelineStatus, RunStatus, ServiceStatus, TaskState};
