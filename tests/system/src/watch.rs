//! A plain consumer without exclusion: what it receives while nobody writes is a loop (FACTS F59).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::site::Site;

/// Messages that a consumer of everything receives at a site within `during`, starting now.
pub fn messages_at(site: &Site, database: &str, during: Duration) -> Result<Vec<Value>> {
    let topic = format!("watch_{database}");
    site.sql(&format!("create topic if not exists `{topic}` with meta as database `{database}`"));
    let stream = std::net::TcpStream::connect(&site.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut socket, _) = tungstenite::client(format!("ws://{}/rest/tmq", site.address), stream)
        .context("a consumer cannot connect")?;
    let mut last_id = 0;
    let mut call = |action: &str, mut arguments: Value| -> Result<Value> {
        last_id += 1;
        arguments["req_id"] = json!(last_id);
        socket.send(Message::text(json!({ "action": action, "args": arguments }).to_string()))?;
        loop {
            if let Message::Text(text) = socket.read()? {
                let reply: Value = serde_json::from_str(text.as_str())?;
                if reply["code"] != 0 {
                    bail!("{action}: {reply}");
                }
                return Ok(reply);
            }
        }
    };
    let group = format!("watch_{}", std::process::id());
    call(
        "subscribe",
        json!({
            "user": "root", "password": "taosdata", "group_id": group, "client_id": "watch", "topics": [topic],
            "offset_rest": "latest", "auto_commit": "false", "snapshot_enable": "false", "with_table_name": "true"
        }),
    )?;
    let (mut received, deadline) = (Vec::new(), Instant::now() + during);
    while Instant::now() < deadline {
        let reply = call("poll", json!({ "blocking_time": 200 }))?;
        if reply["have_message"] == true {
            received.push(reply);
        }
    }
    call("unsubscribe", json!({}))?;
    drop(socket);
    // The server may still hold the member for a moment; the topic goes with the test's data otherwise.
    for _ in 0..20 {
        if site.try_sql(&format!("drop topic if exists `{topic}`"))?.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(received)
}

/// Writes one line of the line protocol, times in ms, through `/ws`.
pub fn insert_line(site: &Site, database: &str, line: &str) -> Result<()> {
    let stream = std::net::TcpStream::connect(&site.address)?;
    let (mut socket, _) = tungstenite::client(format!("ws://{}/ws", site.address), stream)
        .context("a client cannot connect")?;
    let mut call = |action: &str, arguments: Value| -> Result<()> {
        socket.send(Message::text(json!({ "action": action, "args": arguments }).to_string()))?;
        loop {
            if let Message::Text(text) = socket.read()? {
                let reply: Value = serde_json::from_str(text.as_str())?;
                if reply["code"] != 0 {
                    bail!("{action}: {reply}");
                }
                return Ok(());
            }
        }
    };
    call("conn", json!({ "req_id": 1, "user": "root", "password": "taosdata", "db": database }))?;
    call("insert", json!({ "req_id": 2, "protocol": 1, "precision": "ms", "ttl": 0, "data": line }))
}
