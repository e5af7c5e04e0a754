//! The parent's side: starts a child for every check, waits for it with a limit, kills it where the check wants that.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pipeline_engine::host::process::shown_exit;
use pipeline_sdk::{ComponentDescription, Error, Kind, PluginDescription};

use crate::job::{Described, Job, Task};
use crate::settings::Setups;
use crate::{Check, Finding, Outcome, Report};

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Components that are checked side by side; the checks of one run one after the other, as they may share a port or a topic.
const COMPONENTS_AT_ONCE: usize = 4;
/// Lines of a child's standard error that a failure shows.
const STDERR_LINES: usize = 10;

/// What is checked, and how.
pub struct Kit {
    pub library: PathBuf,
    /// The program and arguments that run [`crate::child::run`]; the folder is appended.
    pub child: (PathBuf, Vec<String>),
    pub setups: Setups,
    /// Empty: all.
    pub only: Vec<Check>,
    /// Types of components; empty: all.
    pub components: Vec<String>,
    /// How long one call of a component may take.
    pub call_timeout: Duration,
    /// How long a check may take.
    pub check_timeout: Duration,
    /// Components run as with `isolation = "process"`.
    pub is_isolated: bool,
}

impl Kit {
    /// Runs the checks; each finding is told as it comes.
    ///
    /// # Errors
    /// The library is no plugin that can be used, or the kit's own folders cannot be made.
    pub fn run(&self, tell: &(dyn Fn(&Finding) + Sync)) -> Result<Report, Error> {
        let library = std::path::absolute(&self.library).map_err(|error| io_error("the library's path", &error))?;
        let plugin = self.describe(&library)?;
        let wanted = |it: &&ComponentDescription| self.components.is_empty() || self.components.contains(&it.type_name);
        let queue: Mutex<VecDeque<(usize, &ComponentDescription)>> =
            Mutex::new(plugin.components.iter().filter(wanted).enumerate().collect());
        if queue.lock().expect("no panic under this lock").is_empty() {
            let names: Vec<&str> = plugin.components.iter().map(|it| it.type_name.as_str()).collect();
            return Err(Error::fatal(format!("plugin {} has no such component; it has {}", plugin.name, names.join(", "))));
        }
        let found: Mutex<Vec<(usize, Vec<Finding>)>> = Mutex::default();
        let work = || {
            loop {
                let next = queue.lock().expect("no panic under this lock").pop_front();
                let Some((index, component)) = next else { break };
                let findings = self.check_component(&library, component, tell);
                found.lock().expect("no panic under this lock").push((index, findings));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(COMPONENTS_AT_ONCE);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        let mut found = found.into_inner().expect("no panic under this lock");
        found.sort_by_key(|(index, _)| *index);
        Ok(Report {
            library: self.library.display().to_string(),
            plugin: plugin.name,
            version: plugin.version,
            findings: found.into_iter().flat_map(|(_, findings)| findings).collect(),
        })
    }

    fn check_component(&self, library: &Path, component: &ComponentDescription, tell: &(dyn Fn(&Finding) + Sync)) -> Vec<Finding> {
        let setup = self.setups.of(component);
        let checks = Check::ALL.iter().copied().filter(|check| self.only.is_empty() || self.only.contains(check));
        let is_for = |check: &Check| component.kind != Kind::Site || *check == Check::Description;
        let run = |check: Check| {
            let begin = Instant::now();
            let outcome = match setup.kit.skip.get(check.name()) {
                Some(reason) => Outcome::not_applicable(format!("left out: {reason}")),
                None => self.check(Job {
                    library: library.to_owned(),
                    kind: component.kind,
                    component: component.type_name.clone(),
                    check,
                    setup: setup.clone(),
                    folder: PathBuf::new(),
                    is_after_kill: false,
                    call_timeout: self.call_timeout,
                    is_isolated: self.is_isolated,
                }),
            };
            let seconds = begin.elapsed().as_secs_f64();
            let finding = Finding { component: component.type_name.clone(), kind: component.kind, check, outcome, seconds };
            tell(&finding);
            finding
        };
        checks.filter(is_for).map(run).collect()
    }

    fn check(&self, job: Job) -> Outcome {
        let failed = |error: &std::io::Error| Outcome::failed("kit", error.to_string());
        let folder = match folder() {
            Ok(folder) => folder,
            Err(error) => return failed(&error),
        };
        let mut job = Job { folder: folder.path().to_owned(), ..job };
        let kill_file = job.kill_file();
        let first = self.run_child(&job.folder, &Task::Check(Box::new(job.clone())), &kill_file);
        let ended = match first {
            Ok(Ended::Killed) => {
                job.is_after_kill = true;
                // Nothing may be there to be found again if the second phase does not get as far as to ask.
                std::fs::remove_file(&kill_file)
                    .and_then(|()| self.run_child(&job.folder, &Task::Check(Box::new(job.clone())), &kill_file))
            }
            other => other,
        };
        match ended {
            Ok(ended) => self.outcome_of(&job.folder, &ended),
            Err(error) => failed(&error),
        }
    }

    fn outcome_of(&self, folder: &Path, ended: &Ended) -> Outcome {
        let written = std::fs::read(Job::outcome_file(folder)).ok().and_then(|bytes| serde_json::from_slice::<Outcome>(&bytes).ok());
        let mut outcome = match (written, ended) {
            (Some(outcome), Ended::Overdue) if outcome.verdict == crate::Verdict::Passed => {
                Outcome::failed("end", "the component keeps its process from ending")
            }
            (Some(outcome), _) => outcome,
            (None, Ended::Overdue) => {
                let limit = self.check_timeout.as_secs_f64();
                Outcome::failed("process", format!("did not end within {limit} s: a call blocks its thread, or all of them together are too slow"))
            }
            (None, Ended::Itself(status)) => Outcome::failed("process", format!("the library ended the process: {}", shown_exit(*status))),
            (None, Ended::Killed) => Outcome::failed("kit", "the second phase asked for a kill as well"),
        };
        if outcome.verdict == crate::Verdict::Failed && outcome.log.is_empty() {
            outcome.log = tail(&folder.join("notes/stderr"));
        }
        outcome
    }

    fn describe(&self, library: &Path) -> Result<PluginDescription, Error> {
        let folder = folder().map_err(|error| io_error("a folder for the checks", &error))?;
        let never = folder.path().join("notes/never");
        let ended = self.run_child(folder.path(), &Task::Describe(library.to_owned()), &never);
        let ended = ended.map_err(|error| io_error("the child process", &error))?;
        let answer = std::fs::read(Job::outcome_file(folder.path())).ok().and_then(|bytes| serde_json::from_slice::<Described>(&bytes).ok());
        answer.unwrap_or_else(|| {
            let how = match ended {
                Ended::Itself(status) => format!("loading it ended the process: {}", shown_exit(status)),
                _ => format!("loading it did not end within {} s", self.check_timeout.as_secs_f64()),
            };
            Err(Error::fatal(format!("{}: {how}; {}", library.display(), tail(&folder.path().join("notes/stderr")).join(" "))))
        })
    }

    fn run_child(&self, folder: &Path, task: &Task, kill_file: &Path) -> std::io::Result<Ended> {
        std::fs::write(Job::task_file(folder), serde_json::to_vec(task)?)?;
        let stream = |name: &str| std::fs::File::create(folder.join("notes").join(name));
        let mut child = Command::new(&self.child.0)
            .args(&self.child.1)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(stream("stdout")?)
            .stderr(stream("stderr")?)
            .spawn()?;
        let deadline = Instant::now() + self.check_timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ended::Itself(status));
            }
            if kill_file.exists() {
                return end(&mut child).map(|()| Ended::Killed);
            }
            if Instant::now() > deadline {
                return end(&mut child).map(|()| Ended::Overdue);
            }
            std::thread::sleep(LOOK);
        }
    }
}

enum Ended {
    Itself(ExitStatus),
    /// As it asked for.
    Killed,
    Overdue,
}

fn end(child: &mut Child) -> std::io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

fn folder() -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("pipeline-check-").tempdir()?;
    std::fs::create_dir(folder.path().join("work"))?;
    std::fs::create_dir(folder.path().join("notes"))?;
    Ok(folder)
}

fn io_error(what: &str, error: &std::io::Error) -> Error {
    Error::fatal(format!("{what}: {error}"))
}

fn tail(path: &Path) -> Vec<String> {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}
