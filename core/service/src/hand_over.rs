//! How services that share tasks tell each other that a task was let go with nothing left to do.
//!
//! Each task has three notes: `taken` by whoever has it now, `released` by whoever let go of it with nothing left to do, `left` by whoever was
//! stopped before that, all with a text that is made when it is taken, and says who takes it. It was handed over where `released` is equal to
//! `taken`, and is nobody's where one of the others is. A note that is written late, or by a service that was thought lost, makes them differ.

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
    if ["released", "left"].iter().any(|what| notes.get(&name(what, file, pipeline, value)) == Some(taken)) {
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
        // Known before it is told: whoever is stopped meanwhile lets go of what may have been told. The same again where it was not.
        let new = || format!("{:032x} {}", rand::random::<u128>(), self.notes.0.place.me.note());
        let text = self.taken.lock().entry(taken.clone()).or_insert_with(new).clone();
        let after = turn.exchange(BTreeMap::from([(taken.clone(), text.clone())])).await?;
        if after.get(&taken) != Some(&text) {
            return Err(Error::disconnected("the note that the task is here is not the newest one: the site's clock went back"));
        }
        Ok(is_handed_over)
    }

    async fn release(&self, task: &TaskKey, is_done: bool) -> Result<()> {
        let Some(text) = self.taken.lock().remove(&self.name("taken", task)) else { return Ok(()) };
        let what = if is_done { "released" } else { "left" };
        self.notes.0.turn().await.exchange(BTreeMap::from([(self.name(what, task), text)])).await.map(drop)
    }
}
