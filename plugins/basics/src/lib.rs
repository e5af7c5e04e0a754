//! What most pipelines need now and then, without a database behind it: light transforms over Arrow columns, and components that
//! make, drop, delay and break messages for tests and benchmarks.
//!
//! A schema change or a deletion passes through every transform as it is; a transform that looks into rows takes rows, and the engine
//! decodes frames before it.

pub mod expression;
mod select;
mod filter;
mod route;
mod dedupe;
mod sample;
mod pace;
mod fault;
mod generate;
mod blackhole;

use arrow::array::BooleanArray;
use pipeline_sdk::{Error, Plugin, Result, Rows};

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("basics", env!("CARGO_PKG_VERSION"), "Light transforms, and components for tests and benchmarks")
        .source::<generate::GenerateConfig>()
        .transform::<select::SelectConfig>()
        .transform::<filter::WhereConfig>()
        .transform::<route::RouteConfig>()
        .transform::<dedupe::DedupeConfig>()
        .transform::<sample::SampleConfig>()
        .transform::<pace::ThrottleConfig>()
        .transform::<pace::DelayConfig>()
        .transform::<fault::FaultConfig>()
        .sink::<fault::FaultConfig>()
        .sink::<blackhole::BlackholeConfig>()
}

/// The rows that a mask is true for.
fn kept(rows: &Rows, mask: &BooleanArray) -> Result<Rows> {
    rows.filter(mask).map_err(|error| Error::fatal(format!("cannot take rows out of a batch: {error}")))
}
