//! Taking files and tasks out for good: what they left at their sources, and what is stored of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::graph::{Graph, facet};
use pipeline_engine::runtime::{ALL_VALUES, Running, TaskName};
use pipeline_engine::state::{self, TaskKey};
use pipeline_replica::within;

use crate::api::{ApiError, Task};
use crate::orders::Wanted;
use crate::supervisor::Supervisor;
use crate::tasks::{removed, unknown};

/// A call that removes what reading a database left: it waits for consumers that are on their way out.
const FORGET_LIMIT: Duration = Duration::from_secs(120);
/// What a state folder holds that is ours, beside the store's files.
const STATE_FOLDERS: [&str; 2] = ["plugins", pipeline_engine::buffer::FOLDER];

impl Supervisor {
    /// Removes a file with its state and with what its pipelines left at their sources. With `force` also while tasks run, and though a
    /// source cannot be reached.
    ///
    /// # Errors
    /// There is no such file, tasks of it run, or a source cannot be cleared: then it is as it was.
    pub async fn delete(self: &Arc<Self>, id: &str, force: bool) -> Result<(), ApiError> {
        self.folder()?;
        let mut turn = self.turn().await;
        let _deciding = self.decide().await;
        let file = self.managed_file(id)?;
        let change = file.change.lock().await;
        let (running, graph) = {
            let live = file.live.lock();
            (live.running.clone(), live.applied.clone())
        };
        let tasks = running.as_ref().map(|running| running.tasks());
        let (wanted, stored) = (file.live.lock().wanted.clone(), graph.clone());
        if let (Some(running), Some(graph)) = (running, graph) {
            let goes_on = running.states().into_iter().find(|(_, state, _)| !state.is_over());
            if let Some((task, ..)) = goes_on.filter(|_| !force) {
                return Err(ApiError::conflict(format!("`{}` of `{id}` still runs for `{}`", task.pipeline, task.value))
                    .hint("stop it first, or say that it is to be stopped (`--force`)"));
            }
            let keys = running.keys()?;
            running.stop().await;
            if let Err(error) = self.forget_at_sources(&graph, &keys).await {
                if !force {
                    let supervisor = self.clone();
                    let again = file.clone();
                    file.live.lock().running = None;
                    // Its state is free again only now.
                    drop((running, change));
                    supervisor.converge(&again).await;
                    return Err(error);
                }
                tracing::warn!(file = id, %error, "what its pipelines left at a source stays there");
            }
        }
        if let (Some(turn), Some(tasks)) = (&mut turn, &tasks) {
            let told: Vec<(&str, TaskName)> = tasks.iter().map(|task| (id, task.clone())).collect();
            turn.tell(Wanted::Forgotten, &told).await?;
        }
        remove_existing(&file.path)?;
        if let Some(graph) = stored.or(wanted) {
            remove_state(&graph.state)?;
        }
        self.forget_file(&file);
        tracing::info!(file = id, "the file was removed");
        Ok(())
    }

    /// Removes tasks that are over: what they left at their sources and what is stored of them, but their dead letters.
    ///
    /// # Errors
    /// An unknown file or value, or a task that runs: nothing is changed. A source that cannot be reached.
    pub async fn remove_tasks(&self, id: &str, values: &[String]) -> Result<Vec<Task>, ApiError> {
        let file = self.managed_file(id)?;
        let mut turn = self.turn().await;
        let _change = file.change.lock().await;
        let (running, graph, ends) = {
            let live = file.live.lock();
            (live.running.clone(), live.applied.clone(), live.ends.clone())
        };
        let (Some(running), Some(graph)) = (running, graph) else {
            return Err(ApiError::conflict(format!("`{id}` does not run: what is stored of it cannot be reached")));
        };
        let mut keys = Vec::new();
        for value in values {
            let found = running.keys_of(value)?;
            if found.is_empty() {
                let known: Vec<String> = running.keys()?.into_iter().map(|key| key.task).collect();
                return Err(unknown("task for", value, known.iter().map(String::as_str)));
            }
            keys.extend(found);
        }
        check_over(&running, &keys)?;
        self.forget_at_sources(&graph, &keys).await?;
        if let Some(turn) = &mut turn {
            let name = |key: &TaskKey| TaskName { pipeline: key.pipeline.clone(), value: key.task.clone() };
            let told: Vec<(&str, TaskName)> = keys.iter().map(|key| (id, name(key))).collect();
            turn.tell(Wanted::Forgotten, &told).await?;
        }
        running.forget_tasks(&keys).await?;
        Ok(keys.iter().map(|key| removed(id, &ends, &key.pipeline, &key.task, self.now_ms())).collect())
    }

    /// Removes what the pipelines of a file left at their sources to read these values.
    async fn forget_at_sources(&self, graph: &Graph, keys: &[TaskKey]) -> Result<(), ApiError> {
        let redactor = Arc::new(graph.redactor.clone());
        for pipeline in &graph.pipelines {
            let Some(site) = facet(&pipeline.source.node, &*self.plugins) else { continue };
            let mut site = pipeline_replica::open(&site, &self.plugins, &redactor)?;
            let names = [pipeline.name.clone()];
            for key in keys.iter().filter(|key| key.pipeline == pipeline.name && key.task != ALL_VALUES) {
                within(FORGET_LIMIT, &site.name, site.site.forget(&key.task, &names)).await?;
            }
        }
        Ok(())
    }
}

fn check_over(running: &Running, keys: &[TaskKey]) -> Result<(), ApiError> {
    let is_meant = |pipeline: &str, value: &str| keys.iter().any(|key| key.pipeline == pipeline && key.task == value);
    let goes_on = running.states().into_iter().find(|(task, state, _)| is_meant(&task.pipeline, &task.value) && !state.is_over());
    match goes_on {
        Some((task, ..)) => {
            Err(ApiError::conflict(format!("`{}` still runs for `{}`", task.pipeline, task.value)).hint("stop it first"))
        }
        None => Ok(()),
    }
}

fn remove_existing(path: &Path) -> Result<(), ApiError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ApiError::internal(format!("{} cannot be removed: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Removes what is ours in a state folder, and the folder where nothing else is in it.
fn remove_state(folder: &Path) -> Result<(), ApiError> {
    // A run that was killed leaves its socket.
    let files = state::FILES.iter().chain(std::iter::once(&crate::socket::RUN_FILE));
    files.into_iter().try_for_each(|name| remove_existing(&folder.join(name)))?;
    for name in STATE_FOLDERS {
        // Copies of libraries: what stays takes room only.
        let _ = std::fs::remove_dir_all(folder.join(name));
    }
    // Something else is in it.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

