//! `pipeline replica remove`: takes away stopped tasks, with what they left at the servers, and what is left of a replica then.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::Cell;
use pipeline_service::api::{File, Task};
use serde::Serialize;

use super::rows::{Row, print, text};
use super::service::{Service, Asked, is_over, parse, toml};
use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::Output;
use crate::progress;

/// Remove stopped tasks of a replica, or of all, with their topics and groups on the servers
///
/// A replica of which nothing is left goes as a whole: its file, its state, and what it made at the source (consumer groups, and
/// topics that nobody else reads). Databases and rows stay as they are, at both sites. A removed replica does not come back. One that is
/// made again reads all that the log still holds, and would write it over what is there: `start --from-now` does not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The replica; all where none is named
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// What still runs as well: it is stopped first
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica stop k3f9xa power && pipeline replica remove k3f9xa
  pipeline replica remove k3f9xa --force
  pipeline replica remove";

/// A database that a replica replicates no more.
#[derive(Serialize)]
struct RemovedRow {
    replica: String,
    database: String,
    /// What is left of the replica.
    left: String,
}

impl Row for RemovedRow {
    fn columns() -> Vec<&'static str> {
        vec!["replica", "database", "left"]
    }

    fn cells(&self) -> Vec<Cell> {
        vec![text(&self.replica), text(&self.database), text(&self.left)]
    }
}

impl Args {
    pub async fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let service = self.asked.service.connect().await?;
        let ids = service.look().await?.replicas(self.id.as_deref())?;
        let removed = progress::each("removing", &ids, async |id| self.remove(id, &service, host, output).await).await?;
        if removed.is_empty() && !self.asked.json {
            output.error("hint", "nothing was stopped: `pipeline replica stop` first, or --force");
            return Ok(());
        }
        print(&removed, self.asked.json, output);
        Ok(())
    }

    async fn remove(
        &self,
        id: &str,
        service: &Service,
        host: &HostArgs,
        output: &Output,
    ) -> Result<Vec<RemovedRow>, CommandError> {
        let tasks = service.tasks(Some(id)).await?;
        let over = over(&tasks);
        let is_all = over.values().all(|is_over| *is_over);
        if self.force || is_all {
            service.delete(id, self.force).await?;
            return Ok(rows(id, over.into_keys(), ""));
        }
        let values: Vec<String> = over.into_iter().filter(|(_, is_over)| *is_over).map(|(value, _)| value).collect();
        if values.is_empty() {
            if self.id.is_none() {
                return Ok(Vec::new());
            }
            let error = CommandError::failed(format!("nothing of replica `{id}` is stopped"));
            return Err(error.hint(format!("`pipeline replica stop {id}` first, or --force")));
        }
        let found = service.file(id).await?;
        self.leave(&found, &values, service, host, output).await
    }

    /// Takes some values out of a file that goes on with others.
    async fn leave(
        &self,
        found: &File,
        values: &[String],
        service: &Service,
        host: &HostArgs,
        output: &Output,
    ) -> Result<Vec<RemovedRow>, CommandError> {
        let plugins = host.plugins(&[], None, output);
        let mut file = parse(found, &plugins)?;
        for value in values {
            file.remove(value);
        }
        if file.text() != toml(found) {
            service.put(&found.id, &file.text(), false).await?;
        }
        service.remove_tasks(&found.id, values).await?;
        let left: BTreeSet<String> = service.tasks(Some(&found.id)).await?.into_iter().map(|task| task.value).collect();
        Ok(rows(&found.id, values.iter().cloned(), &left.into_iter().collect::<Vec<_>>().join(", ")))
    }
}

/// Values of tasks, and whether all tasks of a value are over.
fn over(tasks: &[Task]) -> BTreeMap<String, bool> {
    let mut over = BTreeMap::new();
    for task in tasks {
        *over.entry(task.value.clone()).or_insert(true) &= is_over(task);
    }
    over
}

fn rows(id: &str, values: impl Iterator<Item = String>, left: &str) -> Vec<RemovedRow> {
    let row = |database| RemovedRow { replica: id.to_owned(), database, left: left.to_owned() };
    let rows: Vec<RemovedRow> = values.map(row).collect();
    // A replica without tasks is removed as well, and said to be.
    if rows.is_empty() { vec![row(String::new())] } else { rows }
}
