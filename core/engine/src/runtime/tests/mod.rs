//! The runtime against fake components in paused time.

mod faults;
mod flow;
mod orders;
mod whole;
mod world;
