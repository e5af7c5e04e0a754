//! The built binary and its shared libraries, as a user has them. One test binary: it links once, and what waits runs beside what computes.

mod bad_input;
mod buffers;
mod columns;
mod command_line;
mod dlopen;
mod hard_cases;
mod isolation;
mod kills;
mod pipelines;
mod replica_commands;
mod service;
mod sharing;
mod shipped;
mod tls;
