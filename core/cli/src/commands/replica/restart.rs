//! `pipeline replica restart`: ends tasks and starts them again.

use super::rows::print;
use super::service::{ServiceArgs, once_each};
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
    /// The replica; all where none is named
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Its databases; all where none is named
    #[arg(value_name = "DATABASE")]
    databases: Vec<String>,
    #[command(flatten)]
    service: ServiceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica restart k3f9xa power
  pipeline replica restart k3f9xa
  pipeline replica restart";

impl Args {
    pub async fn run(self, output: &Output) -> CommandResult {
        once_each("database", &self.databases)?;
        let service = self.service.connect().await?;
        let ids = service.replicas(self.id.as_deref()).await?;
        let mut changed = Vec::new();
        progress::during("restarting", ids.len(), async |progress| {
            for id in &ids {
                progress.say(format!("restarting {id}"));
                changed.extend(service.restart(id, &self.databases, self.id.is_some()).await?);
                progress.step();
            }
            Ok::<_, crate::error::CommandError>(())
        })
        .await?;
        print(&changed.iter().map(StatusRow::new).collect::<Vec<_>>(), self.json, output);
        Ok(())
    }
}
