//! The binary `pipeline`: registers its verbs and runs one.
//!
//! Printing, exit codes, the environment and the tracing subscriber live in this crate only; what libraries know, they return.

mod commands;
mod error;
mod host;
mod log;
mod output;
mod pager;
mod progress;
mod screen;
mod socket;
mod status;
mod summary;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;
use host::HostArgs;
use log::LogArgs;

/// Data pipelines between databases, files and brokers; active-active replication between TDengine deployments.
///
/// A pipeline file declares sources, transforms and sinks; every one of them is a component of a plugin.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    log: LogArgs,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 stopped by policy.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = output::Output::new();
    log::start(&cli.log, cli.command.logged(), &output);
    match cli.command.run(&cli.host, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.print(&output),
    }
}
