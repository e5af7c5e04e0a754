//! `pipeline replica stop`: ends tasks until somebody starts them again.

use super::rows::print;
use super::service::{ServiceArgs, once_each};
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
    /// The replica; all where none is named
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Its databases; all where none is named
    #[arg(value_name = "DATABASE")]
    databases: Vec<String>,
    /// Leave the checking for new databases on
    #[arg(long)]
    no_new_databases: bool,
    #[command(flatten)]
    service: ServiceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica stop k3f9xa power
  pipeline replica stop k3f9xa
  pipeline replica stop --no-new-databases";

impl Args {
    pub async fn run(self, output: &Output) -> CommandResult {
        once_each("database", &self.databases)?;
        let service = self.service.connect().await?;
        let ids = service.replicas(self.id.as_deref()).await?;
        let mut changed = Vec::new();
        progress::during("stopping", ids.len(), async |progress| {
            for id in &ids {
                progress.say(format!("stopping {id}"));
                changed.extend(service.stop(id, &self.databases, self.no_new_databases).await?);
                progress.step();
            }
            Ok::<_, crate::error::CommandError>(())
        })
        .await?;
        if changed.is_empty() && !self.json {
            output.error("hint", "nothing was running: `pipeline replica status` shows all");
            return Ok(());
        }
        print(&changed.iter().map(StatusRow::new).collect::<Vec<_>>(), self.json, output);
        Ok(())
    }
}
