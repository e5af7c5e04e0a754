//! What operators want of tasks, where several services share them: told to one, it is done by all.
//!
//! An order is a note at the site that tasks are shared by, kept there beside nothing else; every service looks at the notes and does
//! what its own tasks do not do yet. A task that nobody gave an order for is as each service's own state says. A restart is a note of its own
//! with another text each time: whoever sees a text that it did not know restarts the task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_engine::runtime::{Running, TaskName};
use pipeline_sdk::Result;
use tokio_util::sync::CancellationToken;

use crate::hand_over::holder;
use crate::member::Member;
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

type Seen = Arc<BTreeMap<String, String>>;

/// What operators told the services of a group.
pub struct Orders {
    /// Taken for as long as an order is told and done here, so that an older look does not undo it.
    notes: Notes,
    /// All notes, as they were at the last look; absent before the first.
    seen: Mutex<Option<Seen>>,
}

/// Orders while nobody else reads or gives any.
pub(crate) struct Turn<'a> {
    notes: NotesTurn<'a>,
    orders: &'a Orders,
}

impl Orders {
    pub(crate) fn new(place: Arc<SharedPlace>) -> Self {
        Self { notes: Notes::new(place), seen: Mutex::default() }
    }

    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn { notes: self.notes.turn().await, orders: self }
    }

    /// Which other service has a task, as of the last look.
    pub(crate) fn holder(&self, file: &str, pipeline: &str, value: &str) -> Option<Member> {
        let seen = self.seen.lock().clone()?;
        holder(&seen, file, pipeline, value).filter(|member| *member != self.notes.place.me)
    }
}

impl Turn<'_> {
    /// Leaves an order for tasks, each with its file, for all services.
    pub async fn tell(&mut self, wanted: Wanted, tasks: &[(&str, TaskName)]) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        let notes = tasks.iter().map(|(file, task)| (name(file, task), wanted.note().to_owned()));
        self.exchange(notes.collect()).await.map(drop)
    }

    /// Has tasks started, and begun anew where they run. It is known here that they were: who told it does it itself.
    pub async fn tell_restart(&mut self, tasks: &[(&str, TaskName)]) -> Result<()> {
        self.tell(Wanted::Started, tasks).await?;
        let text = format!("{:032x}", rand::random::<u128>());
        let notes = tasks.iter().map(|(file, task)| (restart_name(file, task), text.clone()));
        self.exchange(notes.collect()).await.map(drop)
    }

    /// Looks at the notes: what was seen before, and what there is now.
    pub async fn look(&mut self) -> Result<(Option<Seen>, Seen)> {
        let before = self.orders.seen.lock().clone();
        self.exchange(BTreeMap::new()).await.map(|now| (before, now))
    }

    async fn exchange(&mut self, notes: BTreeMap<String, String>) -> Result<Seen> {
        let seen = Arc::new(self.notes.exchange(notes).await?);
        *self.orders.seen.lock() = Some(seen.clone());
        Ok(seen)
    }
}

fn restart_name(file: &str, task: &TaskName) -> String {
    serde_json::json!(["restart", file, task.pipeline, task.value]).to_string()
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
                let (before, notes) = turn.look().await?;
                let mut followed = Ok::<_, pipeline_sdk::Error>(());
                for file in self.managed() {
                    followed = followed.and(obey(&file, before.as_deref(), &notes).await);
                }
                followed
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
async fn obey(file: &Managed, before: Option<&BTreeMap<String, String>>, notes: &BTreeMap<String, String>) -> Result<()> {
    let Some(running) = file.live.lock().running.clone() else { return Ok(()) };
    let (to_stop, to_start) = differing(&file.id, &running, notes);
    let to_restart = to_restart(&file.id, &running, before, notes);
    if to_stop.is_empty() && to_start.is_empty() && to_restart.is_empty() {
        return Ok(());
    }
    let _change = file.change.lock().await;
    tracing::info!(file = file.id, stop = ?to_stop, start = ?to_start, restart = ?to_restart, "as an operator told another service");
    running.stop_tasks(&to_stop).await?;
    running.start_tasks(&to_start).await?;
    running.restart_tasks(&to_restart).await?;
    Ok(())
}

/// Tasks that were told to begin anew since the look before. At the first look none: a service that starts has just begun them.
fn to_restart(
    file: &str,
    running: &Running,
    before: Option<&BTreeMap<String, String>>,
    notes: &BTreeMap<String, String>,
) -> Vec<TaskName> {
    let Some(before) = before else { return Vec::new() };
    let is_told = |task: &TaskName| {
        let name = restart_name(file, task);
        notes.get(&name).is_some_and(|text| before.get(&name) != Some(text))
    };
    running.tasks().into_iter().filter(is_told).collect()
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
