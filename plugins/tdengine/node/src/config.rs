//! What a node can be told. The struct is the `tdengine-node` service's configuration as well as the argument of
//! [`crate::Node::start`]; unknown keys are refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tdengine_store::{FsyncPolicy, ServerVersion, StoreConfig};

use crate::error::NodeError;

/// Configuration of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Address of the WebSocket and REST port, such as `127.0.0.1:6041`; port 0 takes a free one.
    #[serde(default = "listen_default")]
    pub listen: String,
    /// Folder that holds the node's logs and tables; made if missing, locked by one process.
    #[schemars(extend("format" = "path"))]
    pub data: PathBuf,
    /// Address where faults are injected and the node's insides are shown; no such listener when absent.
    #[serde(default)]
    pub admin: Option<String>,
    /// The version to advertise, four numbers with dots. It decides what the node knows: `3.3.0.1` behaves as that
    /// server behind taosadapter 3.3.2.3 (no stmt2, no batches of metas, no redelivery), and what is older has an
    /// adapter that takes a consumer's request to exclude marked rows and ignores it, and knows statements in JSON only.
    #[serde(default = "version_default")]
    pub version: String,
    /// `faithful` does what the real server was seen to do, unsafe writes included; `strict` refuses what is unsafe.
    #[serde(default)]
    pub mode: Mode,
    /// Vgroups of a database whose CREATE does not say.
    #[serde(default = "vgroups_default")]
    #[schemars(range(min = 1, max = 64))]
    pub vgroups: u32,
    /// When written entries reach the disk.
    #[serde(default)]
    pub fsync: Fsync,
    /// Topics of the node; the next CREATE TOPIC fails with 0x4004 (FACTS F46).
    #[serde(default = "topics_max_default")]
    pub topics_max: usize,
    /// Whether a waiting poll returns as soon as rows arrive. The real server does not (FACTS F43): it looks again only
    /// after the shorter of the poll's blocking time and one second.
    #[serde(default)]
    pub poll_wakes: bool,
    /// Milliseconds until the lanes of a consumer whose socket was lost go to the others of its group.
    #[serde(default)]
    pub member_lost_ms: u64,
    /// Bounds of what clients can make the node hold.
    #[serde(default)]
    pub limits: Limits,
}

/// See [`Config::mode`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As the real server, unsafe writes included.
    #[default]
    Faithful,
    /// Refuses unsafe writes and hides marked drops from excluding consumers.
    Strict,
}

/// See [`Config::fsync`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fsync {
    /// Before a write is answered: survives a loss of power.
    Always,
    /// At most 200 ms after it: survives the death of the process, and loses that much when the power fails.
    #[default]
    Interval,
    /// By the operating system: survives the death of the process.
    Never,
}

/// Named bounds; what passes one is refused with an error that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one WebSocket message or REST body.
    pub message_bytes: usize,
    /// Open WebSocket connections.
    pub connections: usize,
    /// Requests of one connection being worked on; further ones wait in the socket.
    pub requests_per_connection: usize,
    /// Replies of one connection waiting to be sent.
    pub replies_per_connection: usize,
    /// Results of one connection that were neither read to their end nor freed.
    pub results_per_connection: usize,
    /// Open statements of one connection.
    pub statements_per_connection: usize,
    /// Rows bound to one statement and not executed yet.
    pub statement_rows: usize,
    /// Blocks of rows, or changes of a batch, in one TMQ message. Some clients read but the first block
    /// (PROTOCOL 18, T20, T21): 1 suits them.
    pub message_parts: usize,
    /// Rows after which a TMQ message ends (`min.poll.rows`).
    pub message_rows: usize,
    /// Bytes of log read at once for a TMQ message.
    pub read_bytes: usize,
    /// Seconds without a message or a pong after which a connection is dropped.
    pub idle_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 256 << 20,
            connections: 1_024,
            requests_per_connection: 256,
            replies_per_connection: 64,
            results_per_connection: 1_024,
            statements_per_connection: 1_024,
            statement_rows: 1_000_000,
            message_parts: 4_096,
            message_rows: 4_096,
            read_bytes: 8 << 20,
            idle_seconds: 60,
        }
    }
}

impl Config {
    /// A node with defaults that keeps its data in `data` and listens on a free port of this machine.
    pub fn local(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: "127.0.0.1:0".into(),
            data: data.into(),
            admin: None,
            version: version_default(),
            mode: Mode::default(),
            vgroups: vgroups_default(),
            fsync: Fsync::default(),
            topics_max: topics_max_default(),
            poll_wakes: false,
            member_lost_ms: 0,
            limits: Limits::default(),
        }
    }

    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    /// When an address, the version or a bound is impossible, with the key that is wrong.
    pub fn check(&self) -> Result<(), NodeError> {
        self.listen_address()?;
        self.admin_address()?;
        self.version()?;
        if self.data.as_os_str().is_empty() {
            return Err(NodeError::config("data", "is empty; give the folder that shall hold the node's data"));
        }
        if !(1..=64).contains(&self.vgroups) {
            return Err(NodeError::config("vgroups", format!("{} is not within 1 to 64", self.vgroups)));
        }
        let limits = &self.limits;
        let bounds = [
            ("limits.message-bytes", limits.message_bytes),
            ("limits.connections", limits.connections),
            ("limits.requests-per-connection", limits.requests_per_connection),
            ("limits.replies-per-connection", limits.replies_per_connection),
            ("limits.results-per-connection", limits.results_per_connection),
            ("limits.statements-per-connection", limits.statements_per_connection),
            ("limits.statement-rows", limits.statement_rows),
            ("limits.message-parts", limits.message_parts),
            ("limits.message-rows", limits.message_rows),
            ("limits.read-bytes", limits.read_bytes),
            ("limits.idle-seconds", limits.idle_seconds as usize),
        ];
        match bounds.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(NodeError::config(*key, "is 0, which would let nothing through")),
            None => Ok(()),
        }
    }

    pub(crate) fn listen_address(&self) -> Result<SocketAddr, NodeError> {
        address("listen", &self.listen)
    }

    pub(crate) fn admin_address(&self) -> Result<Option<SocketAddr>, NodeError> {
        self.admin.as_deref().map(|text| address("admin", text)).transpose()
    }

    pub(crate) fn version(&self) -> Result<ServerVersion, NodeError> {
        ServerVersion::parse(&self.version).ok_or_else(|| {
            NodeError::config("version", format!("{:?} is not four numbers with dots, such as 3.3.6.13", self.version))
        })
    }

    pub(crate) fn store(&self) -> Result<StoreConfig, NodeError> {
        let fsync = match self.fsync {
            Fsync::Always => FsyncPolicy::Always,
            Fsync::Interval => FsyncPolicy::Interval(Duration::from_millis(200)),
            Fsync::Never => FsyncPolicy::Never,
        };
        let mode = match self.mode {
            Mode::Faithful => tdengine_store::Mode::Faithful,
            Mode::Strict => tdengine_store::Mode::Strict,
        };
        let (version, vgroups, topics_max) = (self.version()?, self.vgroups, self.topics_max);
        Ok(StoreConfig { fsync, mode, version, vgroups, topics_max, ..StoreConfig::new(&self.data) })
    }

    pub(crate) fn member_lost(&self) -> Duration {
        Duration::from_millis(self.member_lost_ms)
    }
}

fn address(key: &'static str, text: &str) -> Result<SocketAddr, NodeError> {
    let resolved = std::net::ToSocketAddrs::to_socket_addrs(text).map(|mut addresses| addresses.next());
    match resolved {
        Ok(Some(address)) => Ok(address),
        Ok(None) | Err(_) => {
            Err(NodeError::config(key, format!("{text:?} is no address; write it as 127.0.0.1:6041")))
        }
    }
}

fn listen_default() -> String {
    "127.0.0.1:6041".into()
}

fn version_default() -> String {
    "3.3.6.13".into()
}

fn vgroups_default() -> u32 {
    2
}

fn topics_max_default() -> usize {
    20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kebab_case_and_unknown_ones_are_refused() {
        let config: Config = serde_json::from_str(
            r#"{"listen":"127.0.0.1:1","data":"d","poll-wakes":true,"mode":"strict","limits":{"message-rows":10}}"#,
        )
        .unwrap();
        assert!(config.poll_wakes && config.mode == Mode::Strict);
        assert_eq!((config.limits.message_rows, config.limits.connections), (10, 1_024));
        assert_eq!(config.version, "3.3.6.13");
        let error = serde_json::from_str::<Config>(r#"{"data":"d","lisen":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("lisen"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named() {
        let check = |change: fn(&mut Config), key: &str| {
            let mut config = Config::local("d");
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        };
        check(|config| config.listen = "nowhere".into(), "listen");
        check(|config| config.admin = Some("nowhere".into()), "admin");
        check(|config| config.version = "3.3.x".into(), "version");
        check(|config| config.vgroups = 0, "vgroups");
        check(|config| config.limits.message_rows = 0, "limits.message-rows");
        Config::local("d").check().unwrap();
    }
}
