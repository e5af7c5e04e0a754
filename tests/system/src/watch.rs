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
    let mut socket = logged_in(site, database)?;
    let insert = json!({ "req_id": 2, "protocol": 1, "precision": "ms", "ttl": 0, "data": line });
    ask(&mut socket, Message::text(json!({ "action": "insert", "args": insert }).to_string()), "insert").map(drop)
}

/// Writes rows of a time and any bytes as VARCHAR into a table of two such columns: what no statement can say.
pub fn insert_bytes(site: &Site, database: &str, table: &str, rows: &[(i64, &[u8])]) -> Result<()> {
    let count = rows.len() as i32;
    let mut texts = Vec::new();
    let mut offsets = Vec::new();
    for (_, bytes) in rows {
        offsets.extend_from_slice(&(texts.len() as i32).to_le_bytes());
        texts.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        texts.extend_from_slice(bytes);
    }
    // The raw block: length, rows, columns, flags, group; type and width of each column; lengths; NULL bits and data.
    let mut columns = vec![9u8, 8, 0, 0, 0, 8, 66, 0, 0, 0];
    columns.extend_from_slice(&(rows.len() as i32 * 8).to_le_bytes());
    columns.extend_from_slice(&(texts.len() as i32).to_le_bytes());
    columns.extend(vec![0u8; rows.len().div_ceil(8)]);
    columns.extend(rows.iter().flat_map(|(time, _)| time.to_le_bytes()));
    columns.extend(offsets);
    columns.extend(texts);
    // Bound to a statement: written as users write, where a raw block would be marked as a replica's.
    let mut socket = logged_in(site, database)?;
    let mut step = |action: &str, arguments: Value| ask(&mut socket, Message::text(json!({ "action": action, "args": arguments }).to_string()), action);
    let statement = step("init", json!({ "req_id": 2 }))?["stmt_id"].clone();
    let prepare = format!("insert into {database}.{table} values (?, ?)");
    step("prepare", json!({ "req_id": 3, "stmt_id": statement, "sql": prepare }))?;
    let mut request: Vec<u8> = [4, statement.as_u64().unwrap_or_default(), 2].iter().flat_map(|word| word.to_le_bytes()).collect();
    for word in [1, 28 + columns.len() as i32, count, 2, -1, 0, 0] {
        request.extend_from_slice(&word.to_le_bytes());
    }
    request.extend(columns);
    ask(&mut socket, Message::binary(request), "bind")?;
    let mut step = |action: &str, id: u64| ask(&mut socket, Message::text(json!({ "action": action, "args": { "req_id": id, "stmt_id": statement } }).to_string()), action);
    step("add_batch", 5)?;
    step("exec", 6).map(drop)
}

type Socket = tungstenite::WebSocket<std::net::TcpStream>;

fn logged_in(site: &Site, database: &str) -> Result<Socket> {
    let stream = std::net::TcpStream::connect(&site.address)?;
    let (mut socket, _) = tungstenite::client(format!("ws://{}/ws", site.address), stream)
        .context("a client cannot connect")?;
    let conn = json!({ "req_id": 1, "user": "root", "password": "taosdata", "db": database });
    ask(&mut socket, Message::text(json!({ "action": "conn", "args": conn }).to_string()), "conn")?;
    Ok(socket)
}

fn ask(socket: &mut Socket, request: Message, what: &str) -> Result<Value> {
    socket.send(request)?;
    loop {
        if let Message::Text(text) = socket.read()? {
            let reply: Value = serde_json::from_str(text.as_str())?;
            if reply["code"] != 0 {
                bail!("{what}: {reply}");
            }
            return Ok(reply);
        }
    }
}
