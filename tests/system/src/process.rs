//! The built `pipeline` binary as a child process whose output goes to a file and which is ended with the value.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The binary that `cargo build` put into TARGET/PROFILE, for a test in TARGET/PROFILE/deps or an example.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its own path");
    let places: Vec<PathBuf> = own.ancestors().skip(1).take(2).map(|folder| folder.join("pipeline")).collect();
    let found = places.iter().find(|place| place.is_file());
    found.unwrap_or_else(|| panic!("none of {places:?} exists: run `cargo build` first")).clone()
}

pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    /// Starts `pipeline ARGUMENTS` with its output in `log`.
    pub fn start(arguments: &[&str], log: &Path) -> Result<Self> {
        Self::start_with(arguments, &[], log)
    }

    pub fn start_with(arguments: &[&str], environment: &[(&str, String)], log: &Path) -> Result<Self> {
        let mut command = Command::new(binary());
        command.args(arguments).envs(environment.iter().map(|(name, value)| (*name, value)));
        Self::spawn(command, log)
    }

    /// Starts any command with its output in `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{command:?} does not start"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// kill -9.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the exit status it leads to.
    pub fn stop(mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(within)
    }

    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        if !sent.success() {
            bail!("kill -s {name} failed");
        }
        Ok(())
    }

    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("did not end within {within:?}; its output:\n{}", self.output())
    }

    /// Waits until the output holds `text`.
    pub fn wait_for(&mut self, text: &str, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.output().contains(text) {
                return Ok(());
            }
            if !self.is_running() {
                bail!("ended without saying `{text}`:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("did not say `{text}` within {within:?}:\n{}", self.output())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do about a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
