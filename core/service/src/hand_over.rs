//! How services that share tasks tell each other that a task was let go with nothing left to do.
//!
//! Each task has two notes: `taken` by whoever has it now, `released` by whoever let go of it, both with a text that is made when it is taken,
//! and says who takes it. It was handed over where they are equal. A note that is written late, or by a service that was thought lost, makes
//! them differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_engine::runtime::HandOvers;
use pipeline_engine::state::TaskKey;
use pipeline_sdk::{Error, Result};

use crate::member::Member;
use crate::notes::Notes;
use crate::sharing::SharedPlace;

/// For all files of a service.
pub struct HandOverNotes(Notes);

/// For the tasks of one file.
pub(crate) struct OfFile {
    notes: Arc<HandOverNotes>,
    file: String,
    /// By the note's name: the text that a task was taken with.
    taken: Mutex<BTreeMap<String, String>>,
}

impl HandOverNotes {
    pub(crate) fn new(place: Arc<SharedPlace>) -> Arc<Self> {
        Arc::new(Self(Notes::new(place)))
    }

    pub(crate) fn of_file(self: &Arc<Self>, file: &str) -> Arc<dyn HandOvers> {
        Arc::new(OfFile { notes: self.clone(), file: file.to_owned(), taken: Mutex::default() })
    }
}

impl OfFile {
    fn name(&self, what: &str, task: &TaskKey) -> String {
        name(what, &self.file, &task.pipeline, &task.task)
    }
}

fn name(what: &str, file: &str, pipeline: &str, value: &str) -> String {
    serde_json::json!([what, file, pipeline, value]).to_string()
}

/// Who has a task, as the notes tell; `None` where nobody took it, or who did let go of it.
pub(crate) fn holder(notes: &BTreeMap<String, String>, file: &str, pipeline: &str, value: &str) -> Option<Member> {
    let taken = notes.get(&name("taken", file, pipeline, value))?;
    if notes.get(&name("released", file, pipeline, value)) == Some(taken) {
        return None;
    }
    let (_, member) = taken.split_once(' ')?;
    Some(Member::of_note(member))
}

#[async_trait]
impl HandOvers for OfFile {
    async fn take(&self, task: &TaskKey) -> Result<bool> {
        let (taken, released) = (self.name("taken", task), self.name("released", task));
        let mut turn = self.notes.0.turn().await;
        let before = turn.exchange(BTreeMap::new()).await?;
        let is_handed_over = before.get(&taken).is_some_and(|text| before.get(&released) == Some(text));
        let text = format!("{:032x} {}", rand::random::<u128>(), self.notes.0.place.me.note());
        let after = turn.exchange(BTreeMap::from([(taken.clone(), text.clone())])).await?;
        if after.get(&taken) != Some(&text) {
            return Err(Error::disconnected("the note that the task is here is not the newest one: the site's clock went back"));
        }
        self.taken.lock().insert(taken, text);
        Ok(is_handed_over)
    }

    async fn release(&self, task: &TaskKey) -> Result<()> {
        let Some(text) = self.taken.lock().remove(&self.name("taken", task)) else { return Ok(()) };
        self.notes.0.turn().await.exchange(BTreeMap::from([(self.name("released", task), text)])).await.map(drop)
    }
}
