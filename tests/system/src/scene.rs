//! A folder with nodes and pipeline files, and `pipeline` run in it as a person would: what it printed, how it ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::pair::start_node_with;
use crate::process::{Process, binary};
use crate::site::Site;

/// How long a command may take that ends by itself.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

pub struct Scene {
    pub folder: tempfile::TempDir,
    /// Variables of every command.
    pub environment: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), environment: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts an embedded node; `settings` are lines of its configuration beyond address and data.
    pub fn node(&self, name: &str, settings: &str) -> (Site, Process) {
        start_node_with(&self.path(name), None, settings, &[]).unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(&path)).and_then(|()| std::fs::write(&path, text));
        written.expect("a file in a temporary folder");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs `pipeline ARGUMENTS` to its end.
    pub fn pipeline(&self, arguments: &[&str]) -> Outcome {
        self.end_of(Command::new(binary()).args(arguments)).unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
    }

    /// Runs a command in the folder to its end; one that does not end is killed and is an error.
    pub fn end_of(&self, command: &mut Command) -> Result<Outcome> {
        let (out, err) = (self.path("command.out"), self.path("command.err"));
        let mut child = command
            .current_dir(self.folder.path())
            .env_remove("PIPELINE_PLUGIN_PATH")
            .env_remove("PIPELINE_LOG")
            // Printing one takes seconds on a loaded machine, and the component that panics is waited for.
            .env_remove("RUST_BACKTRACE")
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out)?)
            .stderr(std::fs::File::create(&err)?)
            .spawn()
            .context("the command does not start")?;
        let read = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Outcome { exit: status.code(), stdout: read(&out)?, stderr: read(&err)? });
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("did not end within {COMMAND_LIMIT:?}:\n{}\n{}", read(&out)?, read(&err)?);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts `pipeline ARGUMENTS`, whose output goes to `log` in the folder.
    pub fn start(&self, arguments: &[&str], log: &str) -> Process {
        let arguments: Vec<String> = arguments.iter().map(|it| self.in_folder(it)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Process::start_with(&arguments, &self.environment, &self.path(log)).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Files of the folder by their whole path, everything else as it is.
    fn in_folder(&self, argument: &str) -> String {
        let path = self.path(argument);
        if path.is_file() { path.display().to_string() } else { argument.to_owned() }
    }
}

impl Outcome {
    /// The exit code, and what a person must have read on standard error. No message may lack what to do: a hint comes last.
    #[track_caller]
    pub fn expect(&self, exit: i32, stderr: &[&str]) -> &Self {
        assert_eq!(self.exit, Some(exit), "{}\n{}", self.stdout, self.stderr);
        for text in stderr {
            assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        }
        if exit != 0 {
            let last = self.stderr.trim_end().lines().last().unwrap_or_default();
            assert!(last.trim_start().starts_with("hint: "), "no hint last:\n{}", self.stderr);
        }
        self
    }
}
