//! `pipeline replica restart`: ends tasks and starts them again.

use super::rows::print;
use super::service::{Asked, Chosen};
use super::status::StatusRow;
use crate::error::CommandResult;
use crate::output::Output;
use crate::progress;

/// Restart a database of a replica, a replica, or all replicas
///
/// What is running ends in order and starts behind what it has applied; what had failed starts as well. So does what was stopped, where
/// the replica or the database is named.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica restart k3f9xa power
  pipeline replica restart k3f9xa
  pipeline replica restart";

impl Args {
    pub async fn run(self, output: &Output) -> CommandResult {
        let service = self.asked.service.connect().await?;
        let ids = service.look().await?.chosen(&self.chosen)?;
        let changed = progress::each("restarting", &ids, async |id| service.restart(id, &self.chosen.databases, self.chosen.id.is_some()).await).await?;
        if changed.is_empty() && !self.asked.json {
            output.error("hint", "nothing was running: a replica that is named starts also where it was stopped");
            return Ok(());
        }
        print(&changed.iter().map(StatusRow::new).collect::<Vec<_>>(), self.asked.json, output);
        Ok(())
    }
}
