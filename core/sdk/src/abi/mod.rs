//! The C boundary between host and plugin: the only place with `unsafe`.
//!
//! [`types`] mirrors `include/pipeline_plugin.h` field by field. [`convert`] moves messages over it without copying their
//! payloads. [`export`] is the plugin's side: it makes a root table of a [`crate::Plugin`]. [`import`] is the host's side:
//! it makes the traits of [`crate::component`] of a root table. Both sides live here so that one reader can check that they
//! agree; the simulation links them without a dlopen. [`skew`] plays a host, or a library, of another minor version.
//!
//! Rules: every struct of functions starts with its size, both sides use the part that both know; memory is freed by who
//! made it; a panic never crosses; a call in flight is never dropped and its instance never destroyed under it.

pub mod types;
pub mod future;
pub mod convert;
pub mod host;
pub mod export;
pub mod import;
pub mod skew;
pub mod glue;

/// The name of the one symbol that a plugin exports: `const pl_root *pipeline_plugin_root(void)`.
pub const ROOT_SYMBOL: &str = "pipeline_plugin_root";
/// The name of a constant that a plugin may export: `const char pipeline_plugin_types[]`, the names of its types, each with a line
/// feed behind it. A host reads it from the file and opens only libraries that it needs.
pub const TYPES_SYMBOL: &str = "pipeline_plugin_types";
/// Another major version does not load.
pub const ABI_MAJOR: u32 = 1;
/// Both sides use the lower minor version.
pub const ABI_MINOR: u32 = 1;
