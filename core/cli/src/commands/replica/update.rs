//! `pipeline replica update`: changes how often new databases are looked for, and nothing else.

use std::collections::BTreeSet;

use serde::Serialize;

use super::service::{Asked, parse, toml};
use super::sites::databases;
use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::Output;
use crate::progress::{self, Progress};

/// Change how often a replica looks for new databases
///
/// A replica of named databases takes new ones from then on; what exists now and is not named stays out (`exclude` in its file). With 0
/// a replica of all databases keeps those that it has: they are named in its file from then on.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The replica
    #[arg(value_name = "ID")]
    id: String,
    /// How often to look for new databases; 0 is never
    #[arg(long, value_name = "SECONDS")]
    new_database_checking_interval: u64,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica update k3f9xa --new-database-checking-interval 10
  pipeline replica update k3f9xa --new-database-checking-interval 0";

/// What was changed.
#[derive(Serialize)]
struct Updated<'a> {
    replica: &'a str,
    new_database_checking_interval: u64,
    changed: bool,
}

impl Args {
    pub async fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let service = self.asked.service.connect().await?;
        let found = service.replica(&self.id).await?;
        let plugins = host.plugins(&[], None, output);
        let mut file = parse(&found, &plugins)?;
        let seconds = self.new_database_checking_interval;
        let mut existing = BTreeSet::new();
        if seconds == 0 && file.takes_all() {
            existing.extend(service.tasks(Some(&self.id)).await?.into_iter().map(|task| task.value));
        }
        // Which they are matters, and is not known yet.
        if (seconds > 0) != file.takes_all() && existing.is_empty() {
            let look = async |_: &Progress| databases(&found, &plugins, output).await;
            existing = progress::during("looking at the source", 0, look).await?;
        }
        let existing: Vec<String> = existing.into_iter().collect();
        file.set_interval(seconds, &existing).map_err(CommandError::failed)?;
        let changed = file.text() != toml(&found);
        if changed {
            service.put(&self.id, &file.text(), false).await?;
        }
        if seconds > 0 {
            service.look_on(&self.id).await?;
        }
        let updated = Updated { replica: &self.id, new_database_checking_interval: seconds, changed };
        match (self.asked.json, seconds) {
            (true, _) => output.json(&[updated]),
            (false, 0) => output.line(&format!("{}: new databases are not looked for", self.id)),
            (false, _) => output.line(&format!("{}: new databases are looked for every {seconds} s", self.id)),
        }
        Ok(())
    }
}
