//! Sends what the client sent, waits for what the server answered.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use tdengine_node::Node;
use tdengine_store::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::compare::{Names, same};
use crate::recording::{Content, Frame, read};
use crate::setup;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long no answer has to come where the real server gave none.
const SILENCE: Duration = Duration::from_millis(30);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a recording came to.
#[derive(Default)]
pub struct Outcome {
    pub equal: u32,
    pub compared: u32,
    pub differences: Vec<Difference>,
}

/// An answer that is not that of the recording.
pub struct Difference {
    /// What it answers.
    pub request: String,
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}] {}", self.request, self.what)
    }
}

impl Outcome {
    fn add(&mut self, request: &str, result: Result<(), String>) {
        self.compared += 1;
        match result {
            Ok(()) => self.equal += 1,
            Err(what) => self.differences.push(Difference { request: request.to_owned(), what }),
        }
    }
}

pub async fn replay(node: &Node, name: &str) -> Outcome {
    let mut session = Session::new("root");
    let mut outcome = Outcome::default();
    for sql in setup::statements(name) {
        if let Err(error) = node.store().execute(&mut session, &sql) {
            outcome.add(&sql, Err(format!("the setup failed: {error}")));
            return outcome;
        }
    }
    if name.starts_with("errors") {
        return errors(node, name).await;
    }
    let mut player =
        Player { node, sockets: HashMap::new(), names: Names::default(), session, early: None, outcome };
    let frames = read(name);
    for (at, frame) in frames.iter().enumerate().filter(|(_, frame)| frame.from_client) {
        player.play(frame, &answers_to(&frames, at)).await;
    }
    player.outcome
}

/// What follows a request up to the next one on its connection. A client that sends several before it listens has their
/// answers behind the last one: they are told apart by their ids.
fn answers_to(frames: &[Frame], at: usize) -> Vec<&Frame> {
    let connection = frames[at].connection;
    let of_run = |frame: &&Frame| frame.from_client && frame.connection == connection;
    let ids: Vec<Option<u64>> = frames[at + 1..].iter().take_while(of_run).map(|frame| id_of(&frame.content)).collect();
    let before = frames[..at].iter().rev().take_while(of_run).map(|frame| id_of(&frame.content));
    let others: Vec<u64> = ids.iter().copied().chain(before).flatten().collect();
    // Another connection that comes or goes meanwhile changes nothing.
    let is_aside = |frame: &Frame| frame.connection != connection && matches!(frame.content, Content::Http(_));
    let replies = frames[at + 1 + ids.len()..].iter().take_while(|frame| !frame.from_client || is_aside(frame));
    let replies = replies.filter(|frame| !frame.from_client);
    let is_ours = |reply: &&Frame| match (id_of(&frames[at].content), id_of(&reply.content)) {
        (own, Some(id)) if others.contains(&id) => own == Some(id),
        (own, id) => ids.is_empty() || (id.is_some() && own == id),
    };
    replies.filter(|reply| reply.connection == connection).filter(is_ours).collect()
}

/// The id of a request or a reply in JSON.
fn id_of(content: &Content) -> Option<u64> {
    let json = parse(content)?;
    json["args"]["req_id"].as_u64().or_else(|| json["req_id"].as_u64())
}

struct Player<'a> {
    node: &'a Node,
    sockets: HashMap<u32, Socket>,
    names: Names,
    session: Session,
    /// A message that came in answer to a poll whose recorded answer was empty; it answers the next one.
    early: Option<Json>,
    outcome: Outcome,
}

impl Player<'_> {
    async fn play(&mut self, frame: &Frame, answers: &[&Frame]) {
        match &frame.content {
            Content::Http(text) if text.contains("WebSocket upgrade") => {
                let path = text.split(' ').nth(1).unwrap();
                let (socket, _) = connect_async(format!("ws://{}{path}", self.node.addr())).await.unwrap();
                self.sockets.insert(frame.connection, socket);
            }
            Content::Http(text) if text.starts_with("close") => {
                self.sockets.remove(&frame.connection);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Content::Http(text) => self.http(text, answers).await,
            Content::Sql(sql, code) => {
                let got = self.node.store().execute(&mut self.session, sql).err().map_or(0, |error| u32::from(error.code));
                let result = if got == *code { Ok(()) } else { Err(format!("code {got:#06x}, recorded {code:#06x}")) };
                self.outcome.add(sql, result);
            }
            Content::Text(_) | Content::Binary(_) => self.request(frame, answers).await,
        }
    }

    async fn request(&mut self, frame: &Frame, answers: &[&Frame]) {
        let label = label(&frame.content);
        let Some(socket) = self.sockets.get_mut(&frame.connection) else {
            return self.outcome.add(&label, Err("the recording has no connection for it".into()));
        };
        let expected: Vec<&Content> = answers
            .iter()
            .map(|answer| &answer.content)
            .filter(|content| matches!(content, Content::Text(_) | Content::Binary(_)))
            .collect();
        let is_poll = label.starts_with("poll");
        let early = if is_poll && expected.first().is_some_and(|content| has_message(content)) { self.early.take() } else { None };
        if let (Some(early), Some(expected)) = (early, expected.first()) {
            let early = with_request_id(early, expected);
            let result = same(expected, &Content::Text(early.to_string()), &mut self.names);
            return self.outcome.add(&label, result);
        }
        if is_poll && self.early.is_some() {
            return self.outcome.add(&label, Ok(()));
        }
        let message = match &frame.content {
            Content::Text(text) => Message::text(self.names.request(text)),
            Content::Binary(bytes) => Message::binary(bytes.clone()),
            Content::Http(_) | Content::Sql(..) => return,
        };
        socket.send(message).await.unwrap();
        if expected.is_empty() {
            let got = tokio::time::timeout(SILENCE, next(socket)).await;
            let result = got.map_or(Ok(()), |got| Err(format!("no answer was recorded, got {got:?}")));
            return self.outcome.add(&label, result);
        }
        for expected in expected {
            let got = match tokio::time::timeout(PATIENCE, next(socket)).await {
                Ok(Some(got)) => got,
                Ok(None) => return self.outcome.add(&label, Err("the connection was lost".into())),
                Err(_) => return self.outcome.add(&label, Err("no answer".into())),
            };
            if is_poll && !has_message(expected) && has_message(&got) {
                // When a message arrives is a matter of time (FACTS F43): it is compared with the next that was recorded.
                self.early = parse(&got);
                self.outcome.add(&label, Ok(()));
                continue;
            }
            let result = same(expected, &got, &mut self.names);
            self.outcome.add(&label, result);
        }
    }

    /// A plain request: `METHOD path [Authorization: …]`, a blank line, the body.
    async fn http(&mut self, text: &str, answers: &[&Frame]) {
        let Some(Content::Http(expected)) = answers.first().map(|answer| &answer.content) else {
            return;
        };
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let (target, authorization) = match head.split_once(" Authorization: ") {
            Some((target, value)) => (target, format!("Authorization: {value}\r\n")),
            None => (head, String::new()),
        };
        let request = format!(
            "{target} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.node.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let status = reply.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let (expected_status, expected_body) = expected.split_once("\n\n").unwrap_or((expected, ""));
        let mut result = if status == expected_status { Ok(()) } else { Err(format!("{status}, recorded {expected_status}")) };
        if result.is_ok() && !expected_body.is_empty() {
            let contents = [expected_body, body].map(|text| Content::Text(text.to_owned()));
            result = same(&contents[0], &contents[1], &mut self.names);
        }
        self.outcome.add(head, result);
    }
}

/// `errors.jsonl` and the like: one statement a line, each with the code and the text of its reply.
async fn errors(node: &Node, name: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let text = std::fs::read_to_string(crate::recording::path(&format!("{name}.jsonl"))).unwrap();
    let (mut socket, _) = connect_async(format!("ws://{}/ws", node.addr())).await.unwrap();
    let mut current = None;
    for (at, line) in text.lines().skip(1).enumerate() {
        let line: Json = serde_json::from_str(line).unwrap();
        let database = line["current_db"].as_str().unwrap_or_default().to_owned();
        if current.as_ref() != Some(&database) {
            (socket, _) = connect_async(format!("ws://{}/ws", node.addr())).await.unwrap();
            let args = json!({ "req_id": 1, "user": "root", "password": "taosdata", "db": database });
            socket.send(Message::text(json!({ "action": "conn", "args": args }).to_string())).await.unwrap();
            next(&mut socket).await;
            current = Some(database);
        }
        let sql = line["sql"].as_str().unwrap_or_default();
        let mut request = Vec::new();
        for word in [at as u64, 0, 6] {
            request.extend(word.to_le_bytes());
        }
        request.extend(1u16.to_le_bytes());
        request.extend((sql.len() as u32).to_le_bytes());
        request.extend(sql.as_bytes());
        socket.send(Message::binary(request)).await.unwrap();
        let Some(Content::Text(reply)) = next(&mut socket).await else {
            outcome.add(sql, Err("no answer".into()));
            continue;
        };
        let reply: Json = serde_json::from_str(&reply).unwrap();
        let of = |json: &Json| (json["code"].clone(), json["message"].clone());
        let result = if of(&reply) == of(&line) { Ok(()) } else { Err(format!("{:?}, recorded {:?}", of(&reply), of(&line))) };
        outcome.add(sql, result);
    }
    outcome
}

async fn next(socket: &mut Socket) -> Option<Content> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(Content::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => return Some(Content::Binary(bytes.to_vec())),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

fn has_message(content: &Content) -> bool {
    matches!(content, Content::Text(text) if text.contains("\"have_message\":true"))
}

fn parse(content: &Content) -> Option<Json> {
    if let Content::Text(text) = content { serde_json::from_str(text).ok() } else { None }
}

/// The reply as it would be to the poll that `expected` answers.
fn with_request_id(mut got: Json, expected: &Content) -> Json {
    got["req_id"] = parse(expected).unwrap_or_default()["req_id"].clone();
    got
}

/// What a request is about, for people.
fn label(content: &Content) -> String {
    match content {
        Content::Text(text) => match serde_json::from_str::<Json>(text) {
            Ok(json) => {
                let sql = json["args"]["sql"].as_str().unwrap_or_default();
                format!("{} {} {sql}", json["action"].as_str().unwrap_or("?"), json["args"]["req_id"])
            }
            Err(_) => text.clone(),
        },
        Content::Binary(bytes) => {
            let word = |at: usize| bytes.get(at..at + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap()));
            let sql = if word(16) == 6 { String::from_utf8_lossy(bytes.get(30..).unwrap_or_default()) } else { "".into() };
            format!("binary {} {} {sql}", word(16), word(0))
        }
        Content::Http(text) | Content::Sql(text, _) => text.clone(),
    }
}
