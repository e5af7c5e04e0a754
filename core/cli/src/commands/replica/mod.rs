//! `pipeline replica`: what an operator does to the replicas of a service. One file a verb.
//!
//! A replica is a file in the service's folder; the verbs write it and ask the service. Only `start` and `plan` look at the sites
//! themselves. What is printed as a table is printed as JSON with the same columns as keys.

mod diff;
mod ends;
mod plan;
mod ready;
mod remove;
mod restart;
mod rows;
pub(super) mod service;
mod sites;
mod start;
mod status;
mod stop;
mod update;

use clap::Subcommand;

use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::Output;

/// Run, watch and change the replicas of a service
#[derive(Debug, Subcommand)]
pub enum Replica {
    Start(start::Args),
    Status(status::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Update(update::Args),
    Diff(diff::Args),
    Remove(remove::Args),
    Ready(ready::Args),
    Plan(plan::Args),
}

impl Replica {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CommandError::failed(format!("cannot start: {error}")))?;
        runtime.block_on(async {
            match self {
                Self::Start(args) => args.run(host, output).await,
                Self::Status(args) => args.run(output).await,
                Self::Stop(args) => args.run(output).await,
                Self::Restart(args) => args.run(output).await,
                Self::Update(args) => args.run(host, output).await,
                Self::Diff(args) => args.run(output).await,
                Self::Remove(args) => args.run(host, output).await,
                Self::Ready(args) => args.run(output).await,
                Self::Plan(args) => args.run(host, output).await,
            }
        })
    }
}
