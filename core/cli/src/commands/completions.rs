//! `pipeline completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::CommandResult;
use crate::output::Output;

/// Print a script that completes this program's arguments in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(pipeline completions bash)
  pipeline completions zsh > \"${fpath[1]}/_pipeline\"
  pipeline completions fish > ~/.config/fish/completions/pipeline.fish";

impl Args {
    pub fn run(self, output: &Output) -> CommandResult {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "pipeline", &mut script);
        output.line(String::from_utf8_lossy(&script).trim_end());
        Ok(())
    }
}
