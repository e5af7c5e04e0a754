//! The runtime against fake components in paused time.

mod faults;
mod flow;
mod whole;
mod world;
