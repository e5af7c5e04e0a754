//! The checks, by kind of component. `Err` is an early end: a failure, or a reason why the check does not apply.

mod common;
mod service;
mod sink;
mod source;
mod trace;
mod transform;
mod types;

use pipeline_sdk::{Kind, PluginDescription};

use crate::bench::{Bench, Done};
use crate::{Check, Outcome};

pub fn run(bench: &Bench, plugin: &PluginDescription) -> Done {
    if bench.is_isolated() && matches!(bench.job.check, Check::AbiOlder | Check::AbiNewer) {
        return Ok(Outcome::not_applicable("the boundary's versions are between the library and its process: checked without isolation"));
    }
    match bench.job.check {
        Check::Description => return common::description(bench, plugin),
        Check::BadConfig => return common::bad_config(bench),
        Check::AbiOlder => return common::abi_older(bench),
        Check::AbiNewer => return common::abi_newer(bench),
        _ => {}
    }
    match bench.job.kind {
        Kind::Source => source::run(bench),
        Kind::Transform => transform::run(bench),
        Kind::Sink => sink::run(bench),
        Kind::Service => service::run(bench),
        Kind::Site => Ok(Outcome::not_applicable("sites are checked through the replicas that use them")),
    }
}
