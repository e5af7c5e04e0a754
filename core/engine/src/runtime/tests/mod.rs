//! The runtime against fake components in paused time.

mod faults;
mod flow;
mod orders;
mod sharing;
mod whole;
mod world;
