//! The runtime against fake components in paused time.

mod buffer;
mod faults;
mod flow;
mod lag;
mod log;
mod orders;
mod sharing;
mod whole;
mod world;
