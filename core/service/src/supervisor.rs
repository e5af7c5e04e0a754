//! Files and their runs: what each should be, and getting it there.
//!
//! A file is checked against the plugins and against all others before anything is touched; only then is it what is *wanted*.
//! [`Supervisor::converge`] brings the run of one file to what is wanted, one such change at a time, and touches only what differs. A file
//! that is wrong leaves its run as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_engine::config::{File as ConfigFile, Redactor};
use pipeline_engine::graph::Graph;
use pipeline_engine::host::Plugins;
use pipeline_engine::runtime::{Engine, RunEnd, RunOptions, Running};
use pipeline_engine::state::Lock;
use pipeline_sdk::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiError, FileStatus};
use crate::folder::{self, Fingerprint};
use crate::hand_over::HandOverNotes;
use crate::orders::{Orders, Turn};
use crate::tasks::Ends;

/// Beside the state folders: the lock, and what the service needs for itself.
pub const OWN_FOLDER: &str = ".service";

/// What a service takes from its surroundings.
#[derive(Clone)]
pub struct Options {
    /// The folder whose files are run; without, files are handed in by [`Supervisor::adopt`].
    pub folder: Option<PathBuf>,
    /// Where state folders are, instead of beside the files.
    pub states: Option<PathBuf>,
    pub version: String,
    /// Shown to who asks.
    pub socket: Option<PathBuf>,
    /// Where `${NAME}` in files comes from.
    pub environment: Arc<dyn Fn(&str) -> Option<String> + Send + Sync>,
    /// Made anew for every run.
    pub run: Arc<dyn Fn() -> RunOptions + Send + Sync>,
    /// Where other services that share the tasks are told what operators want; absent where there are none.
    pub orders: Option<Arc<Orders>>,
    /// Where other services share the tasks.
    pub hand_overs: Option<Arc<HandOverNotes>>,
    /// Told the secrets of every file before anything of it is done.
    pub learn: Arc<dyn Fn(&Redactor) + Send + Sync>,
}

pub struct Supervisor {
    pub(crate) options: Options,
    pub(crate) plugins: Arc<Plugins>,
    files: Mutex<BTreeMap<String, Arc<Managed>>>,
    /// What is wanted is decided by one at a time: files are checked against each other.
    deciding: tokio::sync::Mutex<()>,
    started_ms: i64,
    is_ready: AtomicBool,
    _lock: Option<Lock>,
}

/// A file and its run.
pub(crate) struct Managed {
    pub id: String,
    pub path: PathBuf,
    pub live: Mutex<Live>,
    /// Held while the run is changed.
    pub change: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(crate) struct Live {
    print: Option<Fingerprint>,
    /// What should run; absent where there is nothing right yet, or the file is gone.
    pub wanted: Option<Arc<Graph>>,
    /// What runs, and where its pipelines' ends are.
    pub running: Option<Arc<Running>>,
    pub applied: Option<Arc<Graph>>,
    pub ends: Arc<BTreeMap<String, Ends>>,
    /// What is wrong with the file as it stands.
    broken: Option<String>,
    /// Why what is wanted could not be started.
    failed: Option<String>,
    is_starting: bool,
    since_ms: i64,
}

impl Supervisor {
    /// # Errors
    /// Another service runs the folder, or it cannot be used.
    pub fn new(options: Options, plugins: Arc<Plugins>) -> Result<Arc<Self>, Error> {
        let own = options.states.as_deref().or(options.folder.as_deref());
        let lock = options.folder.as_deref().zip(own).map(|(folder, own)| take_folder(folder, own)).transpose()?;
        let started_ms = ((options.run)().clock)();
        Ok(Arc::new(Self {
            options,
            plugins,
            files: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
            started_ms,
            is_ready: AtomicBool::new(false),
            _lock: lock,
        }))
    }

    /// Takes a run that somebody else started and will end.
    pub fn adopt(&self, path: &Path, graph: Graph, running: Arc<Running>) {
        let id = folder::id_of(path).unwrap_or_else(|| path.display().to_string());
        let graph = Arc::new(graph);
        let live = Live {
            wanted: Some(graph.clone()),
            running: Some(running),
            ends: Arc::new(Ends::of(&graph)),
            applied: Some(graph),
            since_ms: self.now_ms(),
            ..Live::default()
        };
        let managed = Managed { id: id.clone(), path: path.to_owned(), live: Mutex::new(live), change: Default::default() };
        self.files.lock().insert(id, Arc::new(managed));
        self.is_ready.store(true, Ordering::Relaxed);
    }

    pub fn orders(&self) -> Option<Arc<Orders>> {
        self.options.orders.clone()
    }

    /// Where other services share the tasks: nobody else gives orders meanwhile. Taken before the change of a file.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        match &self.options.orders {
            Some(orders) => Some(orders.turn().await),
            None => None,
        }
    }

    /// Whether the files that were there at the start have been looked at and begun.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed) && !self.managed().iter().any(|it| it.live.lock().is_starting)
    }

    /// Looks at the folder now, checks what is there and applies what differs.
    ///
    /// # Errors
    /// The folder cannot be read, or there is none.
    pub async fn look(self: &Arc<Self>) -> Result<(), ApiError> {
        let found = folder::scan(self.folder()?).map_err(|error| self.unreadable(&error))?;
        let ids = found.keys().cloned().collect();
        self.take(ids, Some(&found)).await;
        self.is_ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Looks again and again until told to stop. A change is taken when it has not changed again since the look before: what an
    /// editor is still writing may read as less than it will be.
    pub async fn watch(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        let mut before = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let Ok(folder) = self.folder() else { return };
            let found = match folder::scan(folder) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "the folder cannot be read");
                    continue;
                }
            };
            let known: BTreeMap<String, Option<Fingerprint>> =
                self.managed().iter().map(|it| (it.id.clone(), it.live.lock().print)).collect();
            let differs = |id: &&String| known.get(*id).copied().flatten().as_ref() != found.get(*id);
            let is_settled = |id: &&String| before.get(*id) == found.get(*id);
            let changed = known.keys().chain(found.keys().filter(|id| !known.contains_key(*id)));
            let mut changed: Vec<String> = changed.filter(differs).filter(is_settled).cloned().collect();
            if !changed.is_empty() {
                // What was wrong may have been wrong only beside another file.
                let broken = self.managed().into_iter().filter(|it| it.live.lock().broken.is_some()).map(|it| it.id.clone());
                changed.extend(broken.filter(|id| found.contains_key(id)));
                changed.sort();
                changed.dedup();
                self.take(changed, None).await;
            }
            before = found;
        }
    }

    /// Reads and checks these files and applies them. With all that was `found`, every other file is gone.
    async fn take(self: &Arc<Self>, ids: Vec<String>, found: Option<&BTreeMap<String, Fingerprint>>) {
        let mut touched = Vec::new();
        {
            let _deciding = self.deciding.lock().await;
            let mut good = Vec::new();
            for id in ids {
                let Ok(path) = self.folder().map(|folder| folder::path_of(folder, &id)) else { return };
                // The file may have changed between: then the next look finds another fingerprint.
                let print = Fingerprint::of(&path).ok();
                match (print, std::fs::read_to_string(&path)) {
                    (Some(print), Ok(text)) => match self.check(&path, &text) {
                        Ok(graph) => good.push((id, print, graph)),
                        Err(report) => self.break_file(&id, &path, print, report),
                    },
                    (Some(print), Err(error)) => self.break_file(&id, &path, print, format!("{} cannot be read: {error}", path.display())),
                    (None, _) => touched.extend(self.want_nothing(&id)),
                }
            }
            if let Some(found) = found {
                let gone = self.managed().into_iter().filter(|it| !found.contains_key(&it.id));
                touched.extend(gone.filter_map(|it| self.want_nothing(&it.id)));
            }
            touched.extend(self.want(good));
        }
        let mut changes = JoinSet::new();
        for file in touched {
            let supervisor = self.clone();
            changes.spawn(async move { supervisor.converge(&file).await });
        }
        changes.join_all().await;
    }

    /// Checks a file by itself.
    ///
    /// # Errors
    /// The report.
    pub(crate) fn check(&self, path: &Path, text: &str) -> Result<Graph, String> {
        let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let environment = self.options.environment.clone();
        let parsed = ConfigFile::parse(&path.display().to_string(), text, parent, &move |name| environment(name));
        let mut file = parsed.map_err(|report| report.to_string())?;
        (self.options.learn)(&file.redactor);
        if let (Some(states), Some(name)) = (&self.options.states, file.state.file_name()) {
            file.state = states.join(name);
        }
        for (name, pin) in &file.plugins {
            let loaded = self.plugins.loaded().iter().find(|it| it.description.name == *name);
            if let Some(plugin) = loaded.filter(|it| !it.sha256.eq_ignore_ascii_case(&pin.sha256)) {
                return Err(format!(
                    "{}: plugin `{name}` is pinned to SHA-256 {}, this service runs one that has {}; restart it with the pinned one",
                    path.display(),
                    pin.sha256,
                    plugin.sha256
                ));
            }
        }
        Graph::build(&file, &*self.plugins).map_err(|report| report.to_string())
    }

    /// Checks a file together with all others that are wanted.
    ///
    /// # Errors
    /// The report, which may be on another file.
    fn check_with_others(&self, id: &str, graph: &Graph) -> Result<(), String> {
        let others: Vec<Arc<Graph>> =
            self.managed().iter().filter(|it| it.id != id).filter_map(|it| it.live.lock().wanted.clone()).collect();
        Graph::check_together(others.iter().map(|it| &**it).chain([graph])).map_err(|report| report.to_string())
    }

    /// Files that are right by themselves become what is wanted, unless they clash with another one.
    fn want(&self, good: Vec<(String, Fingerprint, Graph)>) -> Vec<Arc<Managed>> {
        let others: Vec<Arc<Graph>> = {
            let is_new = |id: &str| good.iter().any(|(it, ..)| it == id);
            self.managed().iter().filter(|it| !is_new(&it.id)).filter_map(|it| it.live.lock().wanted.clone()).collect()
        };
        // One check for all of them is enough where nothing is wrong, which is the rule.
        let all = others.iter().map(|it| &**it).chain(good.iter().map(|(.., graph)| graph));
        let is_right = Graph::check_together(all).is_ok();
        let mut touched = Vec::new();
        for (id, print, graph) in good {
            let path = PathBuf::from(&graph.file);
            match if is_right { Ok(()) } else { self.check_with_others(&id, &graph) } {
                Ok(()) => touched.push(self.set_wanted(&id, &path, print, graph)),
                Err(report) => self.break_file(&id, &path, print, report),
            }
        }
        touched
    }

    fn set_wanted(&self, id: &str, path: &Path, print: Fingerprint, graph: Graph) -> Arc<Managed> {
        let file = self.file_or_new(id, path);
        let mut live = file.live.lock();
        live.print = Some(print);
        live.wanted = Some(Arc::new(graph));
        if live.broken.take().is_some() {
            live.since_ms = self.now_ms();
        }
        drop(live);
        file
    }

    fn break_file(&self, id: &str, path: &Path, print: Fingerprint, report: String) {
        tracing::error!(file = id, report, "the file is wrong: nothing of it is changed");
        let file = self.file_or_new(id, path);
        let mut live = file.live.lock();
        live.print = Some(print);
        if live.broken.replace(report).is_none() {
            live.since_ms = self.now_ms();
        }
    }

    fn want_nothing(&self, id: &str) -> Option<Arc<Managed>> {
        let file = self.files.lock().get(id).cloned()?;
        let mut live = file.live.lock();
        (live.wanted, live.print, live.broken) = (None, None, None);
        drop(live);
        Some(file)
    }

    fn file_or_new(&self, id: &str, path: &Path) -> Arc<Managed> {
        let new = || {
            let live = Live { since_ms: self.now_ms(), ..Live::default() };
            Arc::new(Managed { id: id.to_owned(), path: path.to_owned(), live: Mutex::new(live), change: Default::default() })
        };
        self.files.lock().entry(id.to_owned()).or_insert_with(new).clone()
    }

    /// Brings the run of a file to what is wanted.
    pub(crate) async fn converge(&self, file: &Arc<Managed>) {
        let _change = file.change.lock().await;
        let (wanted, running, applied) = {
            let live = file.live.lock();
            (live.wanted.clone(), live.running.clone(), live.applied.clone())
        };
        let is_elsewhere = |graph: &Graph| applied.as_ref().is_some_and(|it| it.state != graph.state);
        match (wanted, running) {
            (None, running) => {
                if let Some(running) = running {
                    running.stop().await;
                    tracing::info!(file = file.id, "the file is gone: its pipelines were stopped");
                }
                *file.live.lock() = Live { since_ms: self.now_ms(), ..Live::default() };
                self.files.lock().remove(&file.id);
            }
            (Some(graph), Some(running)) if !is_elsewhere(&graph) => {
                let reloaded = running.reload(Graph::clone(&graph)).await;
                match &reloaded {
                    Ok(reloaded) => tracing::info!(file = file.id, ?reloaded, "the file was applied"),
                    Err(error) => tracing::error!(file = file.id, %error, "the file was applied in part"),
                }
                self.applied(file, graph, running, reloaded.err());
            }
            (Some(graph), running) => {
                if let Some(running) = running {
                    running.stop().await;
                    file.live.lock().running = None;
                }
                file.live.lock().is_starting = true;
                let mut options = (self.options.run)();
                options.hand_overs = self.options.hand_overs.as_ref().map(|notes| notes.of_file(&file.id));
                let started = Engine::start(Graph::clone(&graph), self.plugins.clone(), options).await;
                file.live.lock().is_starting = false;
                match started {
                    Ok(running) => self.applied(file, graph, Arc::new(running), None),
                    Err(error) => {
                        tracing::error!(file = file.id, %error, "the file cannot be started");
                        let mut live = file.live.lock();
                        (live.running, live.applied, live.since_ms) = (None, None, self.now_ms());
                        live.failed = Some(graph.redactor.redact(&error.to_string()));
                    }
                }
            }
        }
    }

    fn applied(&self, file: &Managed, graph: Arc<Graph>, running: Arc<Running>, error: Option<Error>) {
        let ends = Arc::new(Ends::of(&graph));
        let mut live = file.live.lock();
        live.failed = error.map(|error| graph.redactor.redact(&error.to_string()));
        (live.running, live.applied, live.ends, live.since_ms) = (Some(running), Some(graph), ends, self.now_ms());
    }

    /// Stops all runs side by side. Their ends, by id.
    pub async fn stop(&self) -> Vec<(String, RunEnd)> {
        let mut ends = JoinSet::new();
        for file in self.managed() {
            ends.spawn(async move {
                let _change = file.change.lock().await;
                let running = file.live.lock().running.clone();
                match running {
                    Some(running) => Some((file.id.clone(), running.stop().await)),
                    None => None,
                }
            });
        }
        ends.join_all().await.into_iter().flatten().collect()
    }

    /// Ends all runs as they are.
    pub fn abort(&self) {
        self.managed().iter().filter_map(|file| file.live.lock().running.clone()).for_each(|running| running.abort());
    }

    /// Checks a file's text, writes it and applies it. Whether it is new.
    ///
    /// # Errors
    /// It is wrong or exists already: nothing is changed.
    pub async fn put(self: &Arc<Self>, id: &str, body: &api::PutFile) -> Result<bool, ApiError> {
        let path = folder::path_of(self.folder()?, id);
        if let Some(problem) = folder::id_problem(id) {
            return Err(ApiError::bad_request(problem));
        }
        let (file, is_new) = {
            let _deciding = self.deciding.lock().await;
            let is_new = !path.exists();
            if body.create && !is_new {
                let hint = "take another id, or leave out `create` to replace it";
                return Err(ApiError::conflict(format!("there is a file `{id}` already")).hint(hint));
            }
            let checked = self.check(&path, &body.toml).and_then(|graph| self.check_with_others(id, &graph).map(|()| graph));
            let graph = checked.map_err(ApiError::invalid)?;
            let written = folder::write(&path, &body.toml).and_then(|()| Fingerprint::of(&path));
            let print = written.map_err(|error| {
                ApiError::internal(format!("{} cannot be written: {error}", path.display())).hint("nothing was changed")
            })?;
            (self.set_wanted(id, &path, print, graph), is_new)
        };
        self.converge(&file).await;
        Ok(is_new)
    }

    /// Takes a file out: it is no longer wanted, and its run was stopped by the caller.
    pub(crate) fn forget_file(&self, file: &Managed) {
        *file.live.lock() = Live::default();
        self.files.lock().remove(&file.id);
    }

    pub(crate) async fn decide(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.deciding.lock().await
    }

    pub fn service(&self) -> api::Service {
        let managed = self.managed();
        let running = managed.iter().filter_map(|it| it.live.lock().running.clone());
        api::Service {
            version: self.options.version.clone(),
            folder: self.options.folder.as_ref().map(|it| it.display().to_string()),
            pid: std::process::id(),
            started: crate::tasks::timestamp(self.started_ms),
            socket: self.options.socket.as_ref().map(|it| it.display().to_string()),
            files: managed.len(),
            tasks: running.map(|it| it.task_count()).sum(),
        }
    }

    pub fn files(&self) -> Vec<api::File> {
        self.managed().iter().map(|file| file.show()).collect()
    }

    /// One file, with its text.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn file(&self, id: &str) -> Result<api::File, ApiError> {
        let file = self.managed_file(id)?;
        Ok(api::File { toml: std::fs::read_to_string(&file.path).ok(), ..file.show() })
    }

    pub(crate) fn managed(&self) -> Vec<Arc<Managed>> {
        self.files.lock().values().cloned().collect()
    }

    pub(crate) fn managed_file(&self, id: &str) -> Result<Arc<Managed>, ApiError> {
        let files = self.files.lock();
        files.get(id).cloned().ok_or_else(|| crate::tasks::unknown("file", id, files.keys().map(String::as_str)))
    }

    pub(crate) fn folder(&self) -> Result<&Path, ApiError> {
        self.options.folder.as_deref().ok_or_else(|| {
            ApiError::conflict("these files were named one by one: they cannot be changed here")
                .hint("`pipeline serve --dir DIR` runs a folder")
        })
    }

    fn unreadable(&self, error: &std::io::Error) -> ApiError {
        let folder = self.options.folder.as_deref().unwrap_or(Path::new("")).display();
        ApiError::internal(format!("the folder {folder} cannot be read: {error}"))
    }

    pub(crate) fn started_ms(&self) -> i64 {
        self.started_ms
    }

    pub(crate) fn now_ms(&self) -> i64 {
        ((self.options.run)().clock)()
    }
}

impl Managed {
    fn show(&self) -> api::File {
        let live = self.live.lock();
        let stopped_since = live.running.as_ref().and_then(|running| crate::tasks::all_stopped_since(running));
        let (status, problem, since_ms) = match (&live.broken, &live.failed) {
            (Some(report), _) => (FileStatus::Broken, Some(report.clone()), live.since_ms),
            _ if live.is_starting => (FileStatus::Starting, None, live.since_ms),
            (_, Some(reason)) => (FileStatus::Failed, Some(reason.clone()), live.since_ms),
            _ if live.running.is_none() => (FileStatus::Starting, None, live.since_ms),
            _ => match stopped_since {
                Some(since_ms) => (FileStatus::Stopped, None, since_ms),
                None => (FileStatus::Running, None, live.since_ms),
            },
        };
        let replicas = live.wanted.iter().flat_map(|graph| &graph.replicas).map(|replica| api::Replica {
            name: replica.name.clone(),
            type_name: replica.type_name.clone(),
            pipelines: replica.pipelines.clone(),
            sites: replica.sites.iter().map(|site| site.name.clone()).collect(),
            values: replica.task_values.clone(),
        });
        api::File {
            id: self.id.clone(),
            path: self.path.display().to_string(),
            status,
            problem,
            since: crate::tasks::timestamp(since_ms),
            replicas: replicas.collect(),
            toml: None,
        }
    }
}

/// One service at a time runs a folder.
fn take_folder(folder: &Path, states: &Path) -> Result<Lock, Error> {
    let own = states.join(OWN_FOLDER);
    if !folder.is_dir() {
        return Err(Error::fatal(format!("{} is no folder", folder.display())).code("service.folder").hint("make it first"));
    }
    pipeline_engine::folder::make_private(&own).map_err(|error| {
        Error::fatal(format!("{} cannot be made: {error}", own.display()))
            .code("service.folder")
            .hint("the service keeps its lock and its state beside the files: let it write there, or give it a folder with --state")
    })?;
    Lock::take_for(&own, |owner| {
        Error::fatal(format!("another service{owner} runs the folder {}", folder.display()))
            .code("service.locked")
            .hint("stop it first, or use it: `pipeline replica status`")
    })
}
