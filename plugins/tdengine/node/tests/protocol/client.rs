//! A client of a few lines: requests by name, replies as JSON.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use tdengine_node::Node;
use tdengine_wire::block::{BlockBuilder, VERSION_TMQ};
use tdengine_wire::envelope::{BinaryReply, BinaryRequest, RawReply, WriteField};
use tdengine_wire::{ColumnType, DataType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(100);

pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    req_id: u64,
    last_message: Json,
    /// Table and rows of each block of the message that `drain` read last.
    pub last_rows: Vec<(String, i64)>,
}

impl Client {
    pub async fn open(node: &Node, path: &str) -> Self {
        let (socket, _) = connect_async(format!("ws://{}{path}", node.addr())).await.unwrap();
        Self { socket, req_id: 0, last_message: json!(0), last_rows: Vec::new() }
    }

    pub async fn send(&mut self, action: &str, mut args: Json) {
        self.req_id += 1;
        args["req_id"] = self.req_id.into();
        self.socket.send(Message::text(json!({ "action": action, "args": args }).to_string())).await.unwrap();
    }

    pub async fn ask(&mut self, action: &str, args: Json) -> Json {
        self.send(action, args).await;
        let reply = self.json().await;
        assert_eq!((reply["action"].as_str(), reply["req_id"].as_u64()), (Some(action), Some(self.req_id)), "{reply}");
        reply
    }

    /// A reply that has to be a success.
    pub async fn ok(&mut self, action: &str, args: Json) -> Json {
        let reply = self.ask(action, args).await;
        assert_eq!(reply["code"], 0, "{reply}");
        reply
    }

    pub async fn sql(&mut self, sql: &str) -> Json {
        let reply = self.ask("query", json!({ "sql": sql })).await;
        assert_eq!(reply["code"], 0, "{sql}: {reply}");
        reply
    }

    /// Code and text of a statement.
    pub async fn code(&mut self, sql: &str) -> (u64, String) {
        let reply = self.ask("query", json!({ "sql": sql })).await;
        code_of(&reply)
    }

    /// Sends a request as it stands; its reply is to be read with [`Client::json`].
    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Answers to a binary request, JSON or the block behind it.
    pub async fn send_binary(&mut self, request: BinaryRequest<'_>, id: u64) {
        self.req_id += 1;
        self.socket.send(Message::binary(request.encode(self.req_id, id).unwrap())).await.unwrap();
    }

    /// Rows of each block of a result, by binary request 7; `None` for the answer that ends it.
    pub async fn next_block(&mut self, id: u64) -> Option<Vec<u8>> {
        self.send_binary(BinaryRequest::FetchBlock, id).await;
        let bytes = self.bytes().await;
        let Ok(BinaryReply::ResultBlock(reply)) = BinaryReply::decode(&bytes) else { panic!("no block") };
        assert_eq!((reply.code, reply.req_id, reply.result_id), (0, self.req_id, id), "{}", reply.message);
        reply.block.map(<[u8]>::to_vec)
    }

    /// Code and text of the error that binary request 7 is answered with.
    pub async fn block_error(&mut self, id: u64) -> (u64, String) {
        self.send_binary(BinaryRequest::FetchBlock, id).await;
        let bytes = self.bytes().await;
        let Ok(BinaryReply::ResultBlock(reply)) = BinaryReply::decode(&bytes) else { panic!("no error") };
        assert!(reply.block.is_none());
        (reply.code.into(), reply.message.to_owned())
    }

    /// Body and raw type of a message, as `fetch_raw` gives them.
    pub async fn raw(&mut self, message_id: &Json) -> (u16, Vec<u8>) {
        self.send("fetch_raw", json!({ "message_id": message_id })).await;
        let bytes = self.bytes().await;
        let reply = RawReply::decode(&bytes).unwrap();
        (reply.raw_type, reply.data.to_vec())
    }

    /// What a ping comes back as, before anything else.
    pub async fn ping(&mut self, payload: &[u8]) -> Vec<u8> {
        self.socket.send(Message::Ping(payload.to_vec().into())).await.unwrap();
        let pong = async {
            loop {
                match self.socket.next().await.unwrap().unwrap() {
                    Message::Pong(payload) => return payload.to_vec(),
                    Message::Ping(_) => {}
                    other => panic!("before a pong: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, pong).await.expect("a pong")
    }

    /// The number of rows of a query.
    pub async fn rows(&mut self, sql: &str) -> i64 {
        let id = self.sql(sql).await["id"].clone();
        let mut rows = 0;
        loop {
            let fetched = self.ok("fetch", json!({ "id": id })).await;
            if fetched["completed"] == true {
                return rows;
            }
            rows += fetched["rows"].as_i64().unwrap();
        }
    }

    /// Rows `(ts, v)` by a marked write (action 5).
    pub async fn write_block(&mut self, table: &str, rows: &[(i64, i64)]) {
        let types = [ColumnType::of(DataType::Timestamp), ColumnType::of(DataType::Int)];
        let mut builder = BlockBuilder::new(types);
        for (ts, v) in rows {
            builder.column(0).push_i64(*ts).unwrap();
            builder.column(1).push_i64(*v).unwrap();
        }
        let block = builder.encode(VERSION_TMQ).unwrap();
        let fields = vec![WriteField::new("ts", types[0]), WriteField::new("v", types[1])];
        let request = BinaryRequest::WriteBlockWithFields { rows: rows.len() as i32, table, block: &block, fields };
        self.binary(request, 0).await;
    }

    /// The same by position (action 4).
    pub async fn write_block_by_position(&mut self, table: &str, (ts, v): (i64, i64)) {
        let types = [ColumnType::of(DataType::Timestamp), ColumnType::of(DataType::Int)];
        let mut builder = BlockBuilder::new(types);
        builder.column(0).push_i64(ts).unwrap();
        builder.column(1).push_i64(v).unwrap();
        let block = builder.encode(VERSION_TMQ).unwrap();
        self.binary(BinaryRequest::WriteBlock { rows: 1, table, block: &block }, 0).await;
    }

    /// A raw message (action 3): code and text.
    pub async fn write_raw(&mut self, raw_type: u16, data: &[u8]) -> (u64, String) {
        self.send_binary(BinaryRequest::WriteRaw { raw_type, data }, 0).await;
        code_of(&self.json().await)
    }

    /// One table, one tag, two columns (PROTOCOL 4.2).
    pub async fn bind2(&mut self, id: u64, table: &str, tag: i32, times: &[i64], values: &[Option<i32>]) {
        let field = |code: i32, nulls: &[u8], buffer: &[u8]| {
            let mut field = Vec::new();
            field.extend(code.to_le_bytes());
            field.extend((nulls.len() as i32).to_le_bytes());
            field.extend(nulls);
            field.push(0);
            field.extend((buffer.len() as i32).to_le_bytes());
            field.extend(buffer);
            let mut sized = ((field.len() + 4) as u32).to_le_bytes().to_vec();
            sized.extend(field);
            sized
        };
        let group = |fields: &[u8]| [&(fields.len() as u32).to_le_bytes(), fields].concat();
        let names = [&((table.len() + 1) as u16).to_le_bytes()[..], table.as_bytes(), &[0]].concat();
        let tags = group(&field(4, &[0], &tag.to_le_bytes()));
        let nulls: Vec<u8> = values.iter().map(|value| u8::from(value.is_none())).collect();
        let ints: Vec<u8> = values.iter().flat_map(|value| value.unwrap_or(0).to_le_bytes()).collect();
        let longs: Vec<u8> = times.iter().flat_map(|time| time.to_le_bytes()).collect();
        let columns = group(&[field(9, &vec![0; times.len()], &longs), field(4, &nulls, &ints)].concat());
        let (at_tags, at_columns) = (28 + names.len(), 28 + names.len() + tags.len());
        let total = at_columns + columns.len();
        let mut data = Vec::new();
        for word in [total, 1, 1, 2, 28, at_tags, at_columns] {
            data.extend((word as u32).to_le_bytes());
        }
        data.extend([names, tags, columns].concat());
        self.binary(BinaryRequest::Stmt2Bind { column: -1, data: &data }, id).await;
    }

    pub async fn binary(&mut self, request: BinaryRequest<'_>, id: u64) {
        self.send_binary(request, id).await;
        let reply = self.json().await;
        assert_eq!((reply["code"].clone(), reply["req_id"].as_u64()), (json!(0), Some(self.req_id)), "{reply}");
    }

    /// Polls until nothing comes; the blocks of the last message of rows are in `last_rows`.
    pub async fn drain(&mut self) -> Vec<Json> {
        let mut messages: Vec<Json> = Vec::new();
        loop {
            let last = self.last_message.clone();
            let message = self.ok("poll", json!({ "blocking_time": 0, "message_id": last })).await;
            if message["have_message"] == false {
                return messages;
            }
            self.last_message = message["message_id"].clone();
            if message["message_type"] != 2 {
                self.last_rows = self.blocks(&message["message_id"]).await;
            }
            messages.push(message);
        }
    }

    /// Table and rows of each block of a message.
    pub async fn blocks(&mut self, message_id: &Json) -> Vec<(String, i64)> {
        let mut blocks = Vec::new();
        loop {
            let block = self.ok("fetch", json!({ "message_id": message_id })).await;
            if block["completed"] == true {
                return blocks;
            }
            blocks.push((block["table_name"].as_str().unwrap().to_owned(), block["rows"].as_i64().unwrap()));
        }
    }

    /// Vgroup, first and next version of each lane.
    pub async fn lanes(&mut self, topic: &str) -> Vec<(i64, i64, i64)> {
        let reply = self.ok("assignment", json!({ "topic": topic })).await;
        let number = |json: &Json| json.as_i64().unwrap();
        let lane = |lane: &Json| (number(&lane["vgroup_id"]), number(&lane["begin"]), number(&lane["end"]));
        reply["assignment"].as_array().unwrap().iter().map(lane).collect()
    }

    /// First and next version of the only lane.
    pub async fn range(&mut self, topic: &str) -> (i64, i64) {
        let lanes = self.lanes(topic).await;
        (lanes[0].1, lanes[0].2)
    }

    /// Position in the only lane.
    pub async fn position(&mut self, topic: &str) -> i64 {
        let vgroup = self.lanes(topic).await[0].0;
        let lanes = json!({ "topic_vgroup_ids": [{ "topic": topic, "vgroup_id": vgroup }] });
        self.ok("position", lanes).await["position"][0].as_i64().unwrap()
    }

    pub async fn bytes(&mut self) -> Vec<u8> {
        let next = tokio::time::timeout(PATIENCE, self.next()).await;
        match next.expect("a reply within ten seconds").expect("a connection") {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn json(&mut self) -> Json {
        let next = tokio::time::timeout(PATIENCE, self.next()).await;
        match next.expect("a reply within ten seconds").expect("a connection") {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            Message::Binary(bytes) => panic!("a binary reply: {:?}", BinaryReply::decode(&bytes)),
            other => panic!("{other:?}"),
        }
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return Some(message),
                Err(_) => return None,
            }
        }
    }

    /// Whether nothing comes for a while.
    pub async fn silent(&mut self) -> bool {
        tokio::time::timeout(SILENCE, self.next()).await.is_err()
    }

    /// Whether the connection ends without another frame, a close frame included.
    pub async fn lost(&mut self) -> bool {
        tokio::time::timeout(PATIENCE, self.next()).await.is_ok_and(|next| next.is_none())
    }
}

/// A plain HTTP request: status and body.
pub async fn request(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    (status, reply.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

/// Code and text of a reply.
pub fn code_of(reply: &Json) -> (u64, String) {
    (reply["code"].as_u64().unwrap(), reply["message"].as_str().unwrap().to_owned())
}
