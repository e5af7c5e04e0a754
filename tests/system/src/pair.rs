//! Two sites and the pipelines between them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::port::free_port;
use crate::process::{Process, binary};
use crate::site::Site;

/// The sites' names: of a node's folder, and to the commands that kill and start a real site.
const NAMES: [&str; 2] = ["a", "b"];

pub struct Pair {
    pub a: Site,
    pub b: Site,
    pub database: String,
    pub folder: tempfile::TempDir,
    /// Of its own nodes; empty on a real pair.
    nodes: Vec<Option<Process>>,
    run: Option<Process>,
    /// The pipelines' text.
    text: String,
    runner: Runner,
}

/// What runs the pipelines.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Runner {
    /// `pipeline run FILE`.
    Run,
    /// `pipeline serve --dir FOLDER`.
    Serve,
}

/// Two symmetric pipelines between two sites, for one database.
pub fn pipelines(a: &Site, b: &Site, database: &str) -> String {
    let one = |name: &str, from: &Site, to: &Site| {
        format!(
            "[pipeline.{name}]\ncheckpoint-interval = \"200ms\"\n\
             source = {{ type = \"tdengine-tmq\", freshness = \"20ms\", dsn = \"{}\", databases = [\"{database}\"] }}\n\
             transform = {{ type = \"loop-mark\" }}\n\
             sink = {{ type = \"tdengine\", dsn = \"{}\" }}\n\n",
            from.dsn(),
            to.dsn()
        )
    };
    one("a-to-b", a, b) + &one("b-to-a", b, a)
}

impl Pair {
    /// Two embedded nodes of its own, or the real pair that `PIPELINE_TEST_SITES` names; a database that exists at both.
    pub fn new(name: &str, options: &str) -> Result<Self> {
        Self::run_by(Runner::Run, name, options)
    }

    /// The same, with the pipelines run by a service.
    pub fn served(name: &str, options: &str) -> Result<Self> {
        Self::run_by(Runner::Serve, name, options)
    }

    fn run_by(runner: Runner, name: &str, options: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut pair = match std::env::var("PIPELINE_TEST_SITES") {
            Ok(sites) => {
                let (a, b) = sites.split_once(',').context("PIPELINE_TEST_SITES is HOST:PORT,HOST:PORT")?;
                Self::of(Site::new(a), Site::new(b), Vec::new(), folder, name)
            }
            Err(_) => {
                let (a, first) = start_node(&folder.path().join("a"), None)?;
                let (b, second) = start_node(&folder.path().join("b"), None)?;
                Self::of(a, b, vec![Some(first), Some(second)], folder, name)
            }
        };
        pair.runner = runner;
        for site in [&pair.a, &pair.b] {
            drop_topics(site, name);
            site.sql(&format!("drop database if exists `{name}`"));
            site.sql(&format!("create database `{name}` wal_retention_period 3600 {options}"));
        }
        pair.start()?;
        Ok(pair)
    }

    fn of(a: Site, b: Site, nodes: Vec<Option<Process>>, folder: tempfile::TempDir, name: &str) -> Self {
        let text = pipelines(&a, &b, name);
        Self { a, b, database: name.to_owned(), folder, nodes, run: None, text, runner: Runner::Run }
    }

    pub fn file(&self) -> PathBuf {
        self.files().join("replica.toml")
    }

    /// The folder of the pipelines' file, and nothing else.
    fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    fn socket(&self) -> String {
        self.folder.path().join("serve.sock").display().to_string()
    }

    /// Whether `pipeline replica ready` says that a fail-over would lose nothing, and what it says. Of a service.
    pub fn is_ready(&self) -> Result<(bool, String)> {
        let ready = ["replica", "ready", "replica", "--socket", &self.socket()];
        let output = std::process::Command::new(binary()).args(ready).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("run.log")).unwrap_or_default()
    }

    /// Changes the pipelines before they are started again.
    pub fn edit(&mut self, edit: impl Fn(&str) -> String) {
        self.text = edit(&self.text);
    }

    /// Starts the pipelines.
    pub fn start(&mut self) -> Result<()> {
        std::fs::create_dir_all(self.files())?;
        std::fs::write(self.file(), &self.text)?;
        let (files, file, socket) = (self.files().display().to_string(), self.file().display().to_string(), self.socket());
        let before = self.log().len();
        let arguments = match self.runner {
            Runner::Run => vec!["run", &file],
            Runner::Serve => vec!["serve", "--dir", &files, "--socket", &socket],
        };
        self.run = Some(Process::start(&arguments, &self.folder.path().join("run.log"))?);
        self.wait_until_reading(before)
    }

    /// Waits until both pipelines placed their lanes, which they log behind byte `before`.
    fn wait_until_reading(&mut self, before: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let log = self.log();
            let placed = |name: &str| {
                log[before..].lines().any(|line| line.contains("lane placed") && line.contains(name))
            };
            if placed("a-to-b") && placed("b-to-a") {
                return Ok(());
            }
            if Instant::now() > deadline || !self.run().is_running() {
                bail!("the pipelines do not read:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn run(&mut self) -> &mut Process {
        self.run.as_mut().expect("the pipelines were started")
    }

    /// Stops the pipelines as a person would, so that they can be started again.
    pub fn stop(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        // Longer than the pipelines may take to drain: that they did not is their own error.
        let status = run.stop(Duration::from_secs(60))?;
        if !status.success() {
            bail!("the pipelines ended with {status}:\n{}", self.log());
        }
        Ok(())
    }

    pub fn kill(&mut self) -> Result<()> {
        self.run.take().map_or(Ok(()), Process::kill)
    }

    /// Kills the node of site 0 or 1 with -9 and starts it again on its data and address.
    pub fn crash_node(&mut self, which: usize) -> Result<()> {
        self.kill_node(which)?;
        self.start_node(which)
    }

    /// Whether sites can be killed: embedded nodes always, a real pair's servers where there is a command for it.
    pub fn can_kill_nodes(&self) -> bool {
        !self.nodes.is_empty() || std::env::var_os("PIPELINE_TEST_KILL").is_some()
    }

    /// kill -9. On a real pair the command `PIPELINE_TEST_KILL` does it, given `a` or `b`.
    pub fn kill_node(&mut self, which: usize) -> Result<()> {
        match self.nodes.get_mut(which) {
            Some(node) => node.take().map_or(Ok(()), Process::kill),
            None => command_of("PIPELINE_TEST_KILL", NAMES[which]),
        }
    }

    /// Starts a node that was killed on its data and address. On a real pair the command `PIPELINE_TEST_START` does it, given `a` or
    /// `b`; it ends when the site answers.
    pub fn start_node(&mut self, which: usize) -> Result<()> {
        let Some(node) = self.nodes.get_mut(which) else { return command_of("PIPELINE_TEST_START", NAMES[which]) };
        let site = [&self.a, &self.b][which];
        *node = Some(start_node(&self.folder.path().join(NAMES[which]), Some(&site.address))?.1);
        Ok(())
    }

    pub fn on_both(&self, sql: &str) {
        for site in [&self.a, &self.b] {
            site.sql(sql);
        }
    }

    /// Waits until both sites are equal and stay so for a while, which may end behind the limit; the differences where they do not.
    pub fn settle(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut equal_since = None;
        loop {
            let started = Instant::now();
            let difference = match (self.a.dump(&self.database), self.b.dump(&self.database)) {
                (Ok(a), Ok(b)) => a.differences(&b),
                (a, b) => vec![format!("{:?} {:?}", a.err(), b.err())],
            };
            if difference.is_empty() {
                let since = *equal_since.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_millis(1500) {
                    return Ok(());
                }
            } else {
                equal_since = None;
                if Instant::now() > deadline {
                    bail!("sites differ after {within:?}:\n{}\nlog:\n{}", difference.join("\n"), self.log());
                }
            }
            if !self.run().is_running() {
                bail!("the pipelines ended:\n{}", self.log());
            }
            // Looking at many tables costs the sites more than a little: most of the time is theirs.
            std::thread::sleep((started.elapsed() * 3).clamp(Duration::from_millis(150), Duration::from_secs(1)));
        }
    }
}

/// A real pair is used again, and takes few topics (FACTS F46): what a case made goes with it.
impl Drop for Pair {
    fn drop(&mut self) {
        if !self.nodes.is_empty() {
            return;
        }
        drop(self.run.take());
        for site in [&self.a, &self.b] {
            drop_topics(site, &self.database);
        }
    }
}

/// Runs the command of a shell that a variable holds, with the site's name behind it.
fn command_of(variable: &str, site: &str) -> Result<()> {
    let command = std::env::var(variable).with_context(|| format!("a real pair needs {variable}"))?;
    let command = format!("{command} {site}");
    let status = std::process::Command::new("sh").args(["-c", &command]).status()?;
    if !status.success() {
        bail!("{variable}: `{command}` ended with {status}");
    }
    Ok(())
}

/// Drops the topics on a database; one is held for seconds by a consumer that was lost.
pub fn drop_topics(site: &Site, database: &str) {
    let find = format!("select topic_name from information_schema.ins_topics where db_name = '{database}'");
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let Ok(Ok(topics)) = site.try_sql(&find) else { return };
        if topics.is_empty() || Instant::now() > deadline {
            return;
        }
        for topic in topics {
            // Still held: once more.
            let _ = site.try_sql(&format!("drop topic if exists `{}`", topic[0].as_str().unwrap_or_default()));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Starts an embedded node and waits until it answers.
pub fn start_node(folder: &Path, address: Option<&str>) -> Result<(Site, Process)> {
    start_node_with(folder, address, "", &[])
}

/// As [`start_node`], with further lines of its configuration and variables of its environment.
pub fn start_node_with(
    folder: &Path,
    address: Option<&str>,
    settings: &str,
    environment: &[(&str, String)],
) -> Result<(Site, Process)> {
    std::fs::create_dir_all(folder)?;
    let address = match address {
        Some(address) => address.to_owned(),
        None => format!("127.0.0.1:{}", free_port()?),
    };
    let (file, log) = (folder.join("node.toml").display().to_string(), folder.join("node.log"));
    let data = folder.join("data").display().to_string();
    let process = if settings.is_empty() {
        Process::start_with(&["node", "--listen", &address, "--data", &data], environment, &log)?
    } else {
        let service = format!("[service.node]\ntype = \"tdengine-node\"\nlisten = \"{address}\"\ndata = \"data\"\n{settings}\n");
        std::fs::write(&file, service)?;
        Process::start_with(&["run", &file], environment, &log)?
    };
    wait_for_node(Site::new(address), process)
}

/// Waits until a node answers.
pub fn wait_for_node(site: Site, mut process: Process) -> Result<(Site, Process)> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !site.answers() {
        if Instant::now() > deadline || !process.is_running() {
            bail!("the node does not answer:\n{}", process.output());
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok((site, process))
}
