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

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};

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
    let cli = Cli::try_parse().unwrap_or_else(|error| with_usage(error).exit());
    let output = output::Output::new();
    log::start(&cli.log, cli.command.logged(), &output);
    match cli.command.run(&cli.host, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.print(&output),
    }
}

/// With the usage as the help shows it: clap's own names options that only the environment gave as if they had to be typed.
fn with_usage(mut error: clap::Error) -> clap::Error {
    if error.get(ContextKind::Usage).is_some() {
        let mut cli = Cli::command();
        cli.build();
        let mut verb = &mut cli;
        for name in std::env::args().skip(1) {
            if verb.find_subcommand(&name).is_some() {
                verb = verb.find_subcommand_mut(&name).expect("it was just found");
            }
        }
        error.insert(ContextKind::Usage, ContextValue::StyledStr(verb.render_usage()));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap breaks lines of the width of a narrow terminal, and what is broken cannot be copied.
    const WIDTH: usize = 80;

    fn check(command: &clap::Command) {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            if verb.has_subcommands() {
                check(verb);
                continue;
            }
            let help = verb.get_after_help().or(verb.get_after_long_help()).map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  "), "{} has no examples", verb.get_name());
            for line in help.lines().filter(|line| line.starts_with(' ')) {
                assert!(line.chars().count() <= WIDTH, "{}: {line}", verb.get_name());
            }
        }
    }

    #[test]
    fn every_verb_has_examples_that_can_be_copied() {
        check(&Cli::command());
    }
}
