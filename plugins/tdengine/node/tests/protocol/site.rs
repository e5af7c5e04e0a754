//! A node with a folder of its own, and what tests do with it again and again.

use serde_json::{Value as Json, json};
use tdengine_node::{Config, Node};
use tempfile::TempDir;

use crate::client::{Client, request};

pub struct Site {
    pub node: Node,
    pub data: TempDir,
}

impl Site {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// As the recorded server: 3.3.0.1 behind adapter 3.3.2.3.
    pub async fn recorded() -> Self {
        Self::with(|config| config.version = "3.3.0.1".into()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::local(data.path());
        config.admin = Some("127.0.0.1:0".into());
        change(&mut config);
        Self { node: Node::start(config).await.unwrap(), data }
    }

    pub async fn connect(&self) -> Client {
        let mut client = Client::open(&self.node, "/ws").await;
        client.ok("conn", json!({ "user": "root", "password": "taosdata", "db": "" })).await;
        client
    }

    /// A connection to a fresh database `d` of one vgroup, after these statements in it.
    pub async fn database(&self, statements: &[&str]) -> Client {
        let mut client = self.connect().await;
        client.sql("create database d vgroups 1").await;
        client.sql("use d").await;
        for statement in statements {
            client.sql(statement).await;
        }
        client
    }

    /// A database `d` with a super table, a topic with meta, and a consumer of it.
    pub async fn consumer(&self, more: Json) -> (Client, Client) {
        let made = ["create topic t with meta as database d", "create stable st (ts timestamp, v int, s varchar(10)) tags (g int)"];
        let sql = self.database(&made).await;
        (sql, self.subscribe("g", more).await)
    }

    pub async fn subscribe(&self, group: &str, more: Json) -> Client {
        let mut consumer = Client::open(&self.node, "/rest/tmq").await;
        consumer.ok("subscribe", subscription(group, more)).await;
        consumer
    }

    pub async fn fault(&self, fault: Json) -> u64 {
        let admin = self.node.admin_addr().unwrap();
        let reply = request(admin, "POST", "/faults", "", &fault.to_string()).await.1;
        serde_json::from_str::<Json>(&reply).unwrap()["id"].as_u64().unwrap_or_else(|| panic!("{reply}"))
    }

    pub async fn without_faults(&self) {
        assert_eq!(request(self.node.admin_addr().unwrap(), "DELETE", "/faults", "", "").await.0, 204);
    }
}

pub fn subscription(group: &str, more: Json) -> Json {
    let mut args = json!({
        "user": "root", "password": "taosdata", "db": "", "group_id": group, "client_id": "c", "offset_rest": "earliest",
        "topics": ["t"], "auto_commit": "false", "with_table_name": "true",
    });
    args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    args
}

pub fn poll(blocking_time: u64, message_id: u64) -> Json {
    json!({ "blocking_time": blocking_time, "message_id": message_id })
}
