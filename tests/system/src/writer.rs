//! A published client as a child process that writes at a site, asked line by line (tests/clients/README.md).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
/// How long one answer may take; a client's start on a loaded machine is the longest.
const ANSWER: Duration = Duration::from_secs(90);
/// How often a statement is tried that meets another transaction on the same table (0x03D3), as a user would.
const TRIES: usize = 100;

pub struct Client {
    pub name: String,
    pub actions: Vec<String>,
    command: Vec<String>,
}

impl Client {
    /// Of `NAME ACTION,ACTION… COMMAND…`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace().map(str::to_owned);
        let (Some(name), Some(actions)) = (words.next(), words.next()) else { bail!("{text}: CLIENT ACTIONS COMMAND…") };
        let command: Vec<String> = words.collect();
        if command.is_empty() {
            bail!("{text}: no command");
        }
        Ok(Self { name, actions: actions.split(',').map(str::to_owned).collect(), command })
    }
}

pub struct Writer {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    /// What it is called in errors.
    name: String,
}

impl Writer {
    /// Starts a client at an address, or at two of which the second is for when the first is lost (`HOST:PORT,HOST:PORT`); what it says
    /// on its standard error goes to a file of `folder`.
    pub fn start(client: &Client, address: &str, database: &str, folder: &Path) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("clients.log"))?;
        let mut child = Command::new(&client.command[0])
            .args(&client.command[1..])
            .args([address, database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| client.command.join(" "))?;
        let requests = child.stdin.take().context("its standard input is a pipe")?;
        let lines = BufReader::new(child.stdout.take().context("its standard output is a pipe")?).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, requests, answers, name: format!("{} at {address}", client.name) })
    }

    pub fn wait_until_ready(&mut self) -> Result<()> {
        match self.answer()?.as_str() {
            "ready" => Ok(()),
            other => bail!("{}: says `{other}` instead of `ready`", self.name),
        }
    }

    /// Asks for one write, which must succeed.
    pub fn request(&mut self, request: &str) -> Result<()> {
        for _ in 0..TRIES {
            let answer = self.ask(request)?;
            if answer == "ok" {
                return Ok(());
            }
            if !answer.to_lowercase().contains("0x03d3") && !answer.contains("Conflict transaction") {
                bail!("{}: {request}: {answer}", self.name);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{}: {request}: still another transaction after {TRIES} tries", self.name)
    }

    /// Asks for anything: `ok`, `ok VALUE` or `error TEXT`.
    pub fn ask(&mut self, request: &str) -> Result<String> {
        writeln!(self.requests, "{request}").with_context(|| self.name.clone())?;
        self.answer().with_context(|| request.to_owned())
    }

    fn answer(&mut self) -> Result<String> {
        self.answers.recv_timeout(ANSWER).with_context(|| format!("{} does not answer within {ANSWER:?}", self.name))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nothing to do about a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
