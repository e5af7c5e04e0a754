//! What operators want of tasks, where several services share them: told to one, it is done by all.
//!
//! An order is a note at the site that tasks are shared by, kept there beside nothing else; every service looks at the notes and does
//! what its own tasks do not do yet. A task that nobody gave an order for is as each service's own state says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::runtime::{Running, TaskName};
use pipeline_sdk::Result;
use tokio_util::sync::CancellationToken;

use crate::notes::{Notes, Turn as NotesTurn};
use crate::sharing::SharedPlace;
use crate::supervisor::{Managed, Supervisor};
use crate::tasks::stopped;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// What a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Stopped,
    Started,
    /// The task is gone: nothing is wanted of another one of its name.
    Forgotten,
}

impl Wanted {
    const fn note(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Started => "started",
            Self::Forgotten => "",
        }
    }
}

/// What operators told the services of a group.
pub struct Orders {
    /// Taken for as long as an order is told and done here, so that an older look does not undo it.
    notes: Notes,
}

/// Orders while nobody else reads or gives any.
pub(crate) struct Turn<'a>(NotesTurn<'a>);

impl Orders {
    pub(crate) fn new(place: Arc<SharedPlace>) -> Self {
        Self { notes: Notes::new(place) }
    }

    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn(self.notes.turn().await)
    }
}

impl Turn<'_> {
    /// Leaves an order for tasks, each with its file, for all services.
    pub async fn tell(&mut self, wanted: Wanted, tasks: &[(&str, TaskName)]) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        let notes = tasks.iter().map(|(file, task)| (name(file, task), wanted.note().to_owned()));
        self.0.exchange(notes.collect()).await.map(drop)
    }
}

fn name(file: &str, task: &TaskName) -> String {
    serde_json::json!([file, task.pipeline, task.value]).to_string()
}

impl Supervisor {
    /// Does what operators told other services, until told to stop.
    pub async fn follow(self: Arc<Self>, orders: Arc<Orders>, stop: CancellationToken) {
        let mut trouble = String::new();
        loop {
            let followed = async {
                let mut turn = orders.turn().await;
                let notes = turn.0.exchange(BTreeMap::new()).await?;
                for file in self.managed() {
                    obey(&file, &notes).await?;
                }
                Ok::<_, pipeline_sdk::Error>(())
            };
            let error = followed.await.err().map(|error| orders.notes.place.redactor.redact(&error.to_string())).unwrap_or_default();
            if !error.is_empty() && error != trouble {
                tracing::warn!(error, "what operators told other services is not known");
            }
            trouble = error;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

/// Brings the tasks of a file to what the notes say of them.
async fn obey(file: &Managed, notes: &BTreeMap<String, String>) -> Result<()> {
    let Some(running) = file.live.lock().running.clone() else { return Ok(()) };
    let (to_stop, to_start) = differing(&file.id, &running, notes);
    if to_stop.is_empty() && to_start.is_empty() {
        return Ok(());
    }
    let _change = file.change.lock().await;
    tracing::info!(file = file.id, stop = ?to_stop, start = ?to_start, "as an operator told another service");
    running.stop_tasks(&to_stop).await?;
    running.start_tasks(&to_start).await?;
    Ok(())
}

fn differing(file: &str, running: &Running, notes: &BTreeMap<String, String>) -> (Vec<TaskName>, Vec<TaskName>) {
    let stopped = stopped(running);
    let wanted = |task: &TaskName| notes.get(&name(file, task)).map(String::as_str);
    let (mut to_stop, mut to_start) = (Vec::new(), Vec::new());
    for task in running.tasks() {
        let is_stopped = stopped.contains(&task);
        match wanted(&task) {
            Some(note) if note == Wanted::Stopped.note() && !is_stopped => to_stop.push(task),
            Some(note) if note == Wanted::Started.note() && is_stopped => to_start.push(task),
            _ => {}
        }
    }
    (to_stop, to_start)
}
