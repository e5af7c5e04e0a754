//! Sockets and HTTP (PROTOCOL 1.1, 1.2).

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, request};
use crate::site::Site;

/// Key and accept of the example in RFC 6455.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A socket without a library: what the server sends is seen byte by byte.
async fn shake_hands(site: &Site, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(site.node.addr()).await.unwrap();
    let request = format!("GET /ws HTTP/1.1\r\nhost: n\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: {KEY}\r\nsec-websocket-version: 13\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

/// A frame of a client, masked with zeros.
fn frame(is_last: bool, opcode: u8, payload: &str) -> Vec<u8> {
    assert!(payload.len() < 126);
    let head = [u8::from(is_last) << 7 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    [&head[..], payload.as_bytes()].concat()
}

/// Lower-case names and an `Origin` as JDBC sends them, and an offer of compression that a client falls back from.
#[tokio::test]
async fn any_handshake_is_taken_and_an_offer_of_compression_ignored() {
    let site = Site::start().await;
    let offers = "origin: http://n\r\nsec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let (_stream, answer) = shake_hands(&site, offers).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(ACCEPT), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("sec-websocket-extensions"), "{answer}");
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message() {
    let site = Site::start().await;
    let (mut stream, _) = shake_hands(&site, "").await;
    let parts = [frame(false, 1, r#"{"action":"ver"#), frame(false, 0, ""), frame(true, 0, r#"sion"}"#)];
    stream.write_all(&parts.concat()).await.unwrap();
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[0], 0x81, "a whole text");
    let mut text = vec![0; reply[1].into()];
    stream.read_exact(&mut text).await.unwrap();
    let reply: Json = serde_json::from_slice(&text).unwrap();
    assert_eq!((reply["action"].clone(), reply["version"].clone()), (json!("version"), json!("3.3.6.13")));
}

#[tokio::test]
async fn a_ping_comes_back_with_its_payload() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    for payload in [&b"TAOS"[..], b"", &[0xff; 125]] {
        assert_eq!(client.ping(payload).await, payload);
    }
}

#[tokio::test]
async fn who_is_silent_is_pinged_and_then_dropped_without_a_close_frame() {
    let site = Site::with(|config| config.limits.idle_seconds = 5).await;
    let (mut stream, _) = shake_hands(&site, "").await;
    let mut sent = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut sent)).await.expect("an end").unwrap();
    assert_eq!(sent, [0x89, 0], "one ping and no more");
}

#[tokio::test]
async fn who_answers_pings_stays() {
    let site = Site::with(|config| config.limits.idle_seconds = 5).await;
    let mut client = site.connect().await;
    let until = tokio::time::Instant::now() + Duration::from_secs(6);
    while tokio::time::Instant::now() < until {
        assert!(client.silent().await, "only pings come");
    }
    assert_eq!(client.rows("select 1").await, 1);
}

#[tokio::test]
async fn every_path_of_older_clients_leads_to_the_same() {
    let site = Site::start().await;
    for path in ["/ws", "/rest/ws", "/rest/stmt", "/rest/schemaless", "/ws?token=x&bearer_token=y"] {
        let mut client = Client::open(&site.node, path).await;
        client.ok("conn", json!({ "user": "root", "password": "taosdata", "db": "" })).await;
        assert_eq!(client.rows("select 1").await, 1, "{path}");
    }
    assert_eq!(request(site.node.addr(), "GET", "/rest/other", "", "").await.0, 404);
}

/// Recording a1: no reply on `/ws` either.
#[tokio::test]
async fn what_cannot_be_read_is_counted_and_not_answered() {
    let site = Site::start().await;
    let mut sql = site.connect().await;
    sql.send_text("no json").await;
    // It is read before the ping.
    assert_eq!(sql.ping(b"x").await, b"x");
    assert!(sql.silent().await);
    let mut consumer = Client::open(&site.node, "/rest/tmq").await;
    for text in ["no json", r#"{"action":"no such","args":{"req_id":1}}"#] {
        consumer.send_text(text).await;
        assert_eq!(consumer.ping(b"x").await, b"x", "{text}");
        assert!(consumer.silent().await, "{text}");
    }
    let about = request(site.node.admin_addr().unwrap(), "GET", "/", "", "").await.1;
    assert_eq!(serde_json::from_str::<Json>(&about).unwrap()["malformed"], 3);
    assert_eq!(sql.rows("select 1").await, 1);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_connection_without_a_word() {
    let site = Site::with(|config| config.limits.message_bytes = 1_000).await;
    let mut client = site.connect().await;
    client.send("query", json!({ "sql": format!("select '{}'", "x".repeat(1_000)) })).await;
    assert!(client.lost().await);
}

/// Tokens of `/rest/login`, wherever a client gives them.
#[tokio::test]
async fn a_token_stands_for_its_user() {
    let site = Site::start().await;
    let addr = site.node.addr();
    let login = request(addr, "GET", "/rest/login/root/taosdata", "", "").await.1;
    let token = serde_json::from_str::<Json>(&login).unwrap()["desc"].as_str().unwrap().to_owned();
    for scheme in ["Taosd", "Bearer", "bearer"] {
        let header = format!("Authorization: {scheme} {token}\r\n");
        assert_eq!(request(addr, "POST", "/rest/sql", &header, "select 1").await.0, 200, "{scheme}");
        let header = format!("Authorization: {scheme} other\r\n");
        assert_eq!(request(addr, "POST", "/rest/sql", &header, "select 1").await.0, 401, "{scheme}");
    }
    let mut client = Client::open(&site.node, "/ws").await;
    let refused = client.ask("conn", json!({ "bearer_token": "other", "db": "" })).await;
    assert_eq!(refused["code"], 0x0357);
    client.ok("conn", json!({ "bearer_token": token, "db": "" })).await;
    assert_eq!(client.ok("get_connection_info", json!({ "info": 1 })).await["info"], "root");
}
