//! The store itself, over redb, with the intents in a [`Journal`] beside it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline_sdk::{Checkpoint, Error, Result};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::sync::oneshot;

use super::intent::Intent;
use super::error;
use super::journal::{self, Journal};
use super::key::{Scope, TaskKey};
use super::letters::DeadLetter;
use super::lock::Lock;

/// Version of what is stored; a higher one is refused.
pub const FORMAT: u64 = 1;
pub(super) const FILE: &str = "state.redb";
/// Pages of the store that are kept in memory.
const CACHE_BYTES_MAX: usize = 4 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Task and source identity → checkpoint.
const CHECKPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("checkpoints");
/// Task → identity of the source that its positions belong to.
const IDENTITIES: TableDefinition<'_, &str, &str> = TableDefinition::new("identities");
/// Scope and key → value.
const PLUGIN_STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("plugin-state");
/// Number → dead letter.
const DEAD_LETTERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead-letters");
/// Task → what an operator wants (`stopped`, `started`).
const DESIRED: TableDefinition<'_, &str, &str> = TableDefinition::new("desired");
/// What an operator asked for last.
const STOPPED: &str = "stopped";
const STARTED: &str = "started";

/// Something to be stored.
#[derive(Clone, Debug)]
pub enum Change {
    Checkpoint { task: TaskKey, identity: String, checkpoint: Checkpoint },
    /// Up to where a sink may have written.
    Intent { task: TaskKey, identity: String, sink: String, intent: Intent },
    DeadLetter(DeadLetter),
    State { scope: Scope, key: String, value: Option<Vec<u8>> },
    /// What an operator asked for last.
    Desired { task: TaskKey, is_stopped: bool },
    /// Forgets the positions of every source that this task ever had.
    Forget { task: TaskKey },
    /// Forgets what another process may have gone beyond: positions, and what components keep. Who the source was stays known.
    HandOver { task: TaskKey },
    /// Forgets everything of a task but its dead letters.
    Remove { task: TaskKey },
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    path: PathBuf,
    /// Of the store's file.
    queue: Mutex<Queue>,
    /// Task, identity and sink → positions that may have been written.
    intents: Mutex<Journal>,
    /// Of the journal: writes wait for intents, and intents not for the store's transactions.
    intent_queue: Mutex<Queue>,
    /// Absent for a store in memory.
    lock: Option<Lock>,
}

/// Commits that wait for the one under way. Bounded by the callers, of whom each waits for its own.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Vec<Change>, oneshot::Sender<Result<()>>)>,
    is_busy: bool,
}

impl Store {
    /// Opens the store in a folder, which is made if missing.
    ///
    /// # Errors
    /// Another process uses it; it is damaged, newer than this program, or cannot be written.
    pub fn open(folder: &Path) -> Result<Self> {
        crate::folder::make_private(folder).map_err(|error| error::io(folder, &error))?;
        let lock = Lock::take(folder)?;
        let path = folder.join(FILE);
        // redb checks what it reads, but a file cut in odd places may still trip an assertion in it.
        let opened = catch_unwind(AssertUnwindSafe(|| Database::builder().set_cache_size(CACHE_BYTES_MAX).create(&path)))
            .map_err(|_| error::damaged(&path, "it is cut off or overwritten"))?;
        let database = opened.map_err(|error| error::storage(&path, error.into()))?;
        let intents = Journal::open(folder).map_err(|error| error::io(&folder.join(journal::FILE), &error))?;
        Self::with(database, path, intents, Some(lock))
    }

    /// A store that is forgotten.
    pub fn in_memory() -> Self {
        let database = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
        let database = database.expect("memory takes an empty store");
        Self::with(database, "in memory".into(), Journal::default(), None).expect("an empty store has the current format")
    }

    fn with(database: Database, path: PathBuf, intents: Journal, lock: Option<Lock>) -> Result<Self> {
        let (queue, intent_queue, intents) = (Mutex::default(), Mutex::default(), Mutex::new(intents));
        let shared = Shared { database, path, queue, intents, intent_queue, lock };
        let store = Self { shared: Arc::new(shared) };
        store.shared.check_format()?;
        Ok(store)
    }

    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Stores changes together; durable when it returns `Ok`. Commits that come meanwhile share the next fsync.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<()> {
        // A store in memory commits at once, in the caller: tests with paused time stay deterministic.
        if self.shared.lock.is_none() {
            return self.shared.write(&changes);
        }
        let (sender, receiver) = oneshot::channel();
        let queue: fn(&Shared) -> &Mutex<Queue> = match changes.iter().all(|change| matches!(change, Change::Intent { .. })) {
            true => |shared| &shared.intent_queue,
            false => |shared| &shared.queue,
        };
        let must_lead = {
            let mut queue = queue(&self.shared).lock();
            queue.waiting.push_back((changes, sender));
            !std::mem::replace(&mut queue.is_busy, true)
        };
        if must_lead {
            let shared = self.shared.clone();
            tokio::task::spawn_blocking(move || shared.lead(queue(&shared)));
        }
        receiver.await.map_err(|_| error::damaged(self.path(), "the writer ended"))?
    }

    /// As [`Store::commit`], in the calling thread.
    pub fn commit_blocking(&self, changes: &[Change]) -> Result<()> {
        self.shared.write(changes)
    }

    /// The checkpoint under a source identity; empty where there is none.
    pub fn checkpoint(&self, task: &TaskKey, identity: &str) -> Result<Checkpoint> {
        Checkpoint::decode(&self.bytes(CHECKPOINTS, &task.with(identity))?.unwrap_or_default())
            .map_err(|error| error::damaged(self.path(), error.message))
    }

    /// Who the source of the task was when its positions were last stored.
    pub fn identity(&self, task: &TaskKey) -> Result<Option<String>> {
        self.read(|transaction| Ok(transaction.open_table(IDENTITIES)?.get(task.encode().as_str())?.map(|it| it.value().to_owned())))
    }

    /// What a sink may have written.
    pub fn intent(&self, task: &TaskKey, identity: &str, sink: &str) -> Result<Intent> {
        Intent::decode(self.shared.intents.lock().get(&intent_key(task, identity, sink)).unwrap_or_default())
            .map_err(|error| error::damaged(self.path(), error.message))
    }

    pub fn state(&self, scope: &Scope, key: &str) -> Result<Option<Vec<u8>>> {
        self.bytes(PLUGIN_STATE, &scope.key(key))
    }

    /// Keys of a scope that start with `prefix`, in order.
    pub fn state_keys(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        let (start, cut) = (scope.key(prefix), scope.key("").len());
        self.read(|transaction| {
            let mut keys = Vec::new();
            for entry in transaction.open_table(PLUGIN_STATE)?.range(start.as_str()..)? {
                let key = entry?.0.value().to_owned();
                if !key.starts_with(&start) {
                    break;
                }
                keys.push(key[cut..].to_owned());
            }
            Ok(keys)
        })
    }

    /// Whether an operator stopped the task.
    pub fn is_stopped(&self, task: &TaskKey) -> Result<bool> {
        self.read(|transaction| Ok(transaction.open_table(DESIRED)?.get(task.encode().as_str())?.is_some_and(|it| it.value() == STOPPED)))
    }

    /// Values of a pipeline's tasks that an operator stopped, in order.
    pub fn stopped_tasks(&self, pipeline: &str, source: &str) -> Result<Vec<String>> {
        self.read(|transaction| task_values(&transaction.open_table(DESIRED)?, pipeline, source, |wish| wish == STOPPED))
    }

    /// Values of a pipeline's tasks that have positions, were stopped or were started, in order.
    pub fn known_tasks(&self, pipeline: &str, source: &str) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut values = task_values(&transaction.open_table(IDENTITIES)?, pipeline, source, |_| true)?;
            values.extend(task_values(&transaction.open_table(DESIRED)?, pipeline, source, |_| true)?);
            values.sort();
            values.dedup();
            Ok(values)
        })
    }

    pub fn dead_letter_count(&self) -> Result<u64> {
        self.read(|transaction| Ok(transaction.open_table(DEAD_LETTERS)?.len()?))
    }

    /// Dead letters in the order in which they came, at most `limit`.
    pub fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        let letters = self.read(|transaction| {
            let table = transaction.open_table(DEAD_LETTERS)?;
            table.iter()?.take(limit).map(|entry| Ok(entry?.1.value().to_vec())).collect::<Result<Vec<_>, redb::Error>>()
        })?;
        letters
            .iter()
            .map(|bytes| serde_json::from_slice(bytes).map_err(|error| error::damaged(self.path(), error)))
            .collect()
    }

    fn bytes(&self, table: TableDefinition<'_, &str, &[u8]>, key: &str) -> Result<Option<Vec<u8>>> {
        self.read(|transaction| Ok(transaction.open_table(table)?.get(key)?.map(|it| it.value().to_vec())))
    }

    fn read<T>(&self, body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T> {
        let transaction = self.shared.database.begin_read().map_err(redb::Error::from);
        transaction.and_then(|it| body(&it)).map_err(|error| error::storage(self.path(), error))
    }
}

/// Values of one pipeline's tasks in a table that has one entry for each.
fn task_values(
    table: &impl ReadableTable<&'static str, &'static str>,
    pipeline: &str,
    source: &str,
    is_meant: impl Fn(&str) -> bool,
) -> Result<Vec<String>, redb::Error> {
    let start = TaskKey { pipeline: pipeline.into(), task: String::new(), source: String::new() }.prefix();
    let mut values = Vec::new();
    for entry in table.range(start.as_str()..)? {
        let (key, value) = entry?;
        if !key.value().starts_with(&start) {
            break;
        }
        let key = TaskKey::decode(key.value()).filter(|it| it.source == source && is_meant(value.value()));
        values.extend(key.map(|it| it.task));
    }
    Ok(values)
}

fn intent_key(task: &TaskKey, identity: &str, sink: &str) -> String {
    format!("{}\0{sink}", task.with(identity))
}

impl Shared {
    /// Refuses a newer format; makes all tables, so that reading never finds one missing.
    fn check_format(&self) -> Result<()> {
        let prepared = || -> Result<u64, redb::Error> {
            let transaction = self.database.begin_write()?;
            let found = {
                let mut meta = transaction.open_table(META)?;
                let found = meta.get("format")?.map(|it| it.value());
                if found.is_none() {
                    meta.insert("format", FORMAT)?;
                }
                found.unwrap_or(FORMAT)
            };
            if found == FORMAT {
                transaction.open_table(CHECKPOINTS)?;
                transaction.open_table(IDENTITIES)?;
                transaction.open_table(PLUGIN_STATE)?;
                transaction.open_table(DEAD_LETTERS)?;
                transaction.open_table(DESIRED)?;
            }
            transaction.commit()?;
            Ok(found)
        };
        match prepared() {
            Ok(FORMAT) => Ok(()),
            Ok(found) => Err(Error::fatal(format!(
                "the state store {} has format {found}, this program knows {FORMAT}",
                self.path.display()
            ))
            .code("state.format")
            .hint("use the program that wrote it, or a newer one")),
            Err(error) => Err(error::storage(&self.path, error)),
        }
    }

    /// Writes what waits in a queue until nothing does, each time all of it in one transaction.
    fn lead(&self, queue: &Mutex<Queue>) {
        loop {
            let batch = {
                let mut queue = queue.lock();
                if queue.waiting.is_empty() {
                    queue.is_busy = false;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            let (changes, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let result = self.write(changes.iter().flatten());
            for sender in senders {
                // Who went away does not need the answer.
                let _ = sender.send(result.clone());
            }
        }
    }

    fn write<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Result<()> {
        let mut intents = Vec::new();
        let changes: Vec<&Change> = changes.into_iter().filter(|change| !self.take_intent(change, &mut intents)).collect();
        if !intents.is_empty() {
            let put = self.intents.lock().put(intents);
            put.map_err(|error| error::io(&self.path.with_file_name(journal::FILE), &error))?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        let written = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            for change in changes {
                apply(&transaction, change)?;
            }
            transaction.commit()?;
            Ok(())
        };
        written().map_err(|error| error::storage(&self.path, error))
    }

    /// Collects what a change does to intents. Whether that is all that it does.
    fn take_intent(&self, change: &Change, intents: &mut Vec<(String, Vec<u8>)>) -> bool {
        match change {
            Change::Intent { task, identity, sink, intent } => {
                intents.push((intent_key(task, identity, sink), intent.encode()));
                true
            }
            Change::Forget { task } | Change::HandOver { task } | Change::Remove { task } => {
                let known = self.intents.lock().keys(&task.with(""));
                intents.extend(known.into_iter().map(|key| (key, Vec::new())));
                false
            }
            _ => false,
        }
    }
}

fn apply(transaction: &redb::WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Checkpoint { task, identity, checkpoint } => {
            transaction.open_table(IDENTITIES)?.insert(task.encode().as_str(), identity.as_str())?;
            let mut table = transaction.open_table(CHECKPOINTS)?;
            table.insert(task.with(identity).as_str(), checkpoint.encode().as_slice())?;
        }
        // In the journal.
        Change::Intent { .. } => {}
        Change::DeadLetter(letter) => {
            let bytes = serde_json::to_vec(letter).expect("a dead letter is plain JSON");
            let mut table = transaction.open_table(DEAD_LETTERS)?;
            let next = table.last()?.map_or(0, |(number, _)| number.value() + 1);
            table.insert(next, bytes.as_slice())?;
        }
        Change::State { scope, key, value } => {
            let mut table = transaction.open_table(PLUGIN_STATE)?;
            let key = scope.key(key);
            match value {
                Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
                None => drop(table.remove(key.as_str())?),
            }
        }
        Change::Desired { task, is_stopped } => {
            let wish = if *is_stopped { STOPPED } else { STARTED };
            transaction.open_table(DESIRED)?.insert(task.encode().as_str(), wish)?;
        }
        Change::Forget { task } => forget(transaction, task)?,
        Change::HandOver { task } => {
            forget_positions(transaction, task)?;
            forget_components(transaction, task)?;
        }
        Change::Remove { task } => {
            forget(transaction, task)?;
            transaction.open_table(DESIRED)?.remove(task.encode().as_str())?;
            forget_components(transaction, task)?;
        }
    }
    Ok(())
}

fn forget(transaction: &redb::WriteTransaction, task: &TaskKey) -> Result<(), redb::Error> {
    transaction.open_table(IDENTITIES)?.remove(task.encode().as_str())?;
    forget_positions(transaction, task)
}

fn forget_components(transaction: &redb::WriteTransaction, task: &TaskKey) -> Result<(), redb::Error> {
    let scopes = Scope::prefixes_of_task(&task.pipeline, &task.task);
    transaction.open_table(PLUGIN_STATE)?.retain(|key, _| !scopes.iter().any(|it| key.starts_with(it)))?;
    Ok(())
}

fn forget_positions(transaction: &redb::WriteTransaction, task: &TaskKey) -> Result<(), redb::Error> {
    let prefix = task.with("");
    transaction.open_table(CHECKPOINTS)?.retain(|key, _| !key.starts_with(&prefix))?;
    Ok(())
}
