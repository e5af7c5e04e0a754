//! What a child process does: one check of one component, whose outcome it leaves in a file.
//!
//! The component works in a folder of its own. A check that needs a kill -9 leaves a file and waits for it.

use std::path::Path;
use std::time::Duration;

use pipeline_engine::host::process::Launch;
use pipeline_engine::host::{LoadOptions, LoadedPlugin};
use pipeline_sdk::Error;

use crate::bench::Bench;
use crate::job::{Described, Job, Task};
use crate::{Outcome, checks};

/// Longer than a parent waits for anything.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// Runs the job in this folder; `launch` is for components that are to run in processes of their own.
///
/// # Errors
/// The folder is not one that a parent made, or cannot be written.
pub fn run(folder: &Path, launch: &Launch) -> std::io::Result<()> {
    match serde_json::from_slice(&std::fs::read(Job::task_file(folder))?)? {
        Task::Describe(library) => {
            let described: Described = open(&library).map(|plugin| plugin.description);
            std::fs::write(Job::outcome_file(folder), serde_json::to_vec(&described)?)
        }
        Task::Check(job) => {
            std::env::set_current_dir(job.work())?;
            let outcome = outcome(&job, launch);
            job.write_outcome(&outcome)
        }
    }
}

fn open(library: &Path) -> Result<LoadedPlugin, Error> {
    LoadedPlugin::open(library, &LoadOptions { accept_stale: true, ..LoadOptions::default() })
}

fn outcome(job: &Job, launch: &Launch) -> Outcome {
    let plugin = match open(&job.library) {
        Ok(plugin) => plugin,
        Err(error) => return Outcome::failed("load", error.to_string()),
    };
    let is_it = |it: &&pipeline_sdk::ComponentDescription| it.kind == job.kind && it.type_name == job.component;
    let Some(description) = plugin.description.components.iter().find(is_it).cloned() else {
        return Outcome::failed("load", "the library describes itself otherwise than a moment ago");
    };
    let bench = match Bench::new(job.clone(), plugin.library(), description) {
        Ok(bench) => bench,
        Err(error) => return Outcome::failed("start", error.to_string()),
    };
    let bench = match job.is_isolated {
        false => bench,
        true => match plugin.file().and_then(|file| bench.isolated(launch, file)) {
            Ok(bench) => bench,
            Err(error) => return Outcome::failed("start of the component's process", error.to_string()),
        },
    };
    if job.setup.kit.plain {
        crate::feed::plain();
    }
    let mut outcome = checks::run(&bench, &plugin.description).unwrap_or_else(|early| early);
    if outcome.verdict == crate::Verdict::Failed {
        outcome.log = bench.log.lock().expect("no panic under this lock").clone();
    }
    // What a failed check left behind may hang when it is dropped: the process ends without.
    let _ = job.write_outcome(&outcome);
    std::mem::forget(bench);
    outcome
}

/// Asks for kill -9 and waits for it.
pub fn ask_for_kill(bench: &Bench) -> Outcome {
    if let Err(error) = std::fs::write(bench.job.kill_file(), "") {
        return Outcome::failed("kit", format!("cannot ask for the kill: {error}"));
    }
    std::thread::sleep(FOR_EVER);
    Outcome::failed("kit", "was not killed")
}
