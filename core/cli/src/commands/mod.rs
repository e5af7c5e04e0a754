//! The verbs, one file each: an `Args` struct whose documentation is the help, and `run`.

mod init;
mod run;
mod serve;
mod validate;
mod test;
mod graph;
mod tap;
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
    Test(test::Args),
    Graph(graph::Args),
    Tap(tap::Args),
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
    /// What is logged where the user does not say: where a table shows what happens, lines that say the same are left out; in a test
    /// nothing, as what a pipeline rejects is expected there.
    pub fn logged(&self) -> &'static str {
        match self {
            Self::Run(args) if args.shows_table() => "warn",
            Self::Replica(_) => "warn",
            Self::Test(_) => "off",
            _ => "info",
        }
    }

    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        match self {
            Self::Init(args) => args.run(host, output),
            Self::Run(args) => args.run(host, output),
            Self::Serve(args) => args.run(host, output),
            Self::Validate(args) => args.run(host, output),
            Self::Test(args) => args.run(host, output),
            Self::Graph(args) => args.run(host, output),
            Self::Tap(args) => args.run(output),
            Self::Plugin(command) => command.run(host, output),
            Self::Schema(args) => args.run(host, output),
            Self::Node(args) => args.run(host, output),
            Self::Replica(command) => command.run(host, output),
            Self::Completions(args) => args.run(output),
            Self::Component(args) => args.run(),
        }
    }
}
