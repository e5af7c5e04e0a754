//! What a parent asks of a child: one check of one component, as a file in the check's folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_sdk::{Error, Kind, PluginDescription};
use serde::{Deserialize, Serialize};

use crate::settings::Setup;
use crate::{Check, Outcome};

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Only to say what is in a library.
    Describe(PathBuf),
    Check(Box<Job>),
}

/// What a library is, or why it cannot be used.
pub type Described = Result<PluginDescription, Error>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub library: PathBuf,
    pub kind: Kind,
    pub component: String,
    pub check: Check,
    pub setup: Setup,
    /// Fresh for this check, kept between its phases; the child works in it.
    pub folder: PathBuf,
    /// The second phase of a check whose first one asked to be killed.
    pub is_after_kill: bool,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// Whether the component is in a process of its own, beside the check's.
    pub is_isolated: bool,
}

impl Job {
    /// Where what the component makes is.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Where the child leaves what the kit needs, out of the component's sight.
    pub fn notes(&self) -> PathBuf {
        self.folder.join("notes")
    }

    pub fn task_file(folder: &Path) -> PathBuf {
        folder.join("notes/task.json")
    }

    pub fn outcome_file(folder: &Path) -> PathBuf {
        folder.join("notes/outcome.json")
    }

    /// There once the child wants to be killed.
    pub fn kill_file(&self) -> PathBuf {
        self.notes().join("kill-me")
    }

    pub fn write_outcome(&self, outcome: &Outcome) -> std::io::Result<()> {
        std::fs::write(Self::outcome_file(&self.folder), serde_json::to_vec(outcome)?)
    }
}
