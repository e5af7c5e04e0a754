//! `pipeline schema`.

use pipeline_engine::config::file_schema;

use crate::error::CommandResult;
use crate::host::HostArgs;
use crate::output::Output;

/// Print the JSON Schema of pipeline files, with the components of the plugins that were found
///
/// Editors that know TOML complete and check files with it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

const EXAMPLES: &str = "\
Examples:
  pipeline schema > pipeline.schema.json";

impl Args {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        output.json(&file_schema(&host.plugins(&[], None, output)));
        Ok(())
    }
}
