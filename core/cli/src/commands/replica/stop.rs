//! `pipeline replica stop`: ends tasks until somebody starts them again.

use super::rows::print;
use super::service::{Asked, Chosen};
use super::status::StatusRow;
use crate::error::CommandResult;
use crate::output::Output;
use crate::progress;

/// Stop a database of a replica, a replica, or all replicas
///
/// What was read is written, positions are stored. What is stopped stays so, after a restart of the service too, until `restart` or
/// `start -i`. New databases are no longer looked for in a replica that is stopped as a whole, unless --no-new-databases leaves that
/// as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Leave the checking for new databases on
    #[arg(long)]
    no_new_databases: bool,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica stop k3f9xa power
  pipeline replica stop k3f9xa
  pipeline replica stop --no-new-databases";

impl Args {
    pub async fn run(self, output: &Output) -> CommandResult {
        let service = self.asked.service.connect().await?;
        let ids = service.look().await?.chosen(&self.chosen)?;
        let changed = progress::each("stopping", &ids, async |id| service.stop(id, &self.chosen.databases, self.no_new_databases).await).await?;
        if changed.is_empty() && !self.asked.json {
            output.error("hint", "nothing was running: `pipeline replica status` shows all");
            return Ok(());
        }
        print(&changed.iter().map(StatusRow::new).collect::<Vec<_>>(), self.asked.json, output);
        Ok(())
    }
}
