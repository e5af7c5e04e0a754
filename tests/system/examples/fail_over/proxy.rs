//! HAProxy with the file of docs/deploy, as it is.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pipeline_tests::{Pair, Process, Site, free_port};

pub struct Proxy {
    pub address: String,
    process: Process,
    socket: PathBuf,
}

impl Proxy {
    pub fn start(configuration: &Path, pair: &Pair) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let socket = pair.folder.path().join("haproxy.sock");
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(configuration).arg("-db");
        command.envs([("SITE_A", &pair.a.address), ("SITE_B", &pair.b.address), ("HAPROXY_LISTEN", &address)]);
        // A loaded machine answers a check late, and A is not to be down before it is killed: then it refuses connections.
        command.env("HAPROXY_SOCKET", &socket).env("CHECK_TIMEOUT", "10s");
        let mut process = Process::spawn(command, &pair.folder.path().join("haproxy.log"))?;
        let (site, deadline) = (Site::new(address.clone()), Instant::now() + Duration::from_secs(20));
        while !site.answers() {
            if Instant::now() > deadline || !process.is_running() {
                bail!("haproxy does not answer:\n{}", process.output());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { address, process, socket })
    }

    /// What the file says for the way back.
    pub fn fail_back(&self) -> Result<()> {
        let mut socket = UnixStream::connect(&self.socket).context("the socket of haproxy")?;
        socket.write_all(b"clear table sites; shutdown sessions server sites/b\n")?;
        let mut reply = String::new();
        socket.read_to_string(&mut reply)?;
        if !reply.trim().is_empty() {
            bail!("haproxy: {reply}");
        }
        Ok(())
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let output = self.process.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
