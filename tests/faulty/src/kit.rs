//! Components with one defect each, for every check of the conformance kit. Without a defect they pass all of them.

mod serving;
mod source;
mod sink;
mod transform;

use std::time::Duration;

use pipeline_sdk::Plugin;
use schemars::JsonSchema;
use serde::Deserialize;

/// What is wrong, named as the check that must see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Defect {
    #[default]
    None,
    BadConfig,
    Order,
    EndOfStream,
    Cancel,
    Reconnect,
    CommitAfterDurable,
    DuplicatesAfterKill,
    BackPressure,
    Panic,
    BadPosition,
    Hang,
    Leak,
    Batches,
    ArrowTypes,
    SchemaChange,
    TwoInstances,
    Marks,
    /// Ends the process.
    Abort,
}

/// Of a call that hangs: longer than any check waits.
pub const SLOW: Duration = Duration::from_secs(3_600);

/// Keeps what is given to it for ever.
pub fn leak(bytes: usize) {
    std::mem::forget(vec![1u8; bytes]);
}

pub fn components(plugin: Plugin) -> Plugin {
    plugin
        .source::<source::Config>()
        .source::<source::Undocumented>()
        .transform::<transform::Config>()
        .sink::<sink::Config>()
        .service::<serving::Config>()
}
