//! The verbs, one file each: an `Args` struct whose documentation is the help, and `run`.

mod init;
mod run;
mod serve;
mod validate;
mod graph;
mod plugin;
mod schema;
mod node;
mod replica;
mod completions;
mod component;

use clap::Subcommand;

use crate::error::CommandResult;
use crate::host::HostArgs;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::Args),
    Run(run::Args),
    Serve(serve::Args),
    Validate(validate::Args),
    Graph(graph::Args),
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    Schema(schema::Args),
    Node(node::Args),
    #[command(subcommand)]
    Replica(replica::Replica),
    Completions(completions::Args),
    #[command(name = component::VERB, hide = true)]
    Component(component::Args),
}

impl Command {
    /// Whether what is printed is read as a table, so that only warnings are to be logged.
    pub fn shows_table(&self) -> bool {
        match self {
            Self::Run(args) => args.shows_table(),
            Self::Replica(_) => true,
            _ => false,
        }
    }

    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        match self {
            Self::Init(args) => args.run(host, output),
            Self::Run(args) => args.run(host, output),
            Self::Serve(args) => args.run(host, output),
            Self::Validate(args) => args.run(host, output),
            Self::Graph(args) => args.run(host, output),
            Self::Plugin(command) => command.run(host, output),
            Self::Schema(args) => args.run(host, output),
            Self::Node(args) => args.run(host, output),
            Self::Replica(command) => command.run(host, output),
            Self::Completions(args) => args.run(output),
            Self::Component(args) => args.run(),
        }
    }
}
