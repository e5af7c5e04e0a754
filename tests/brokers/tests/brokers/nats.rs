//! NATS: `nats-server` with JetStream, and its protocol by hand as the other client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pipeline_tests::{Process, Scene, free_port};
use serde_json::{Value as Json, json};

use crate::rig::{LIMIT, check_plugin, ci_checks, ends_well, ids, program, rows_in, stop, wait_for, wait_for_ids, wait_for_port};

const INSTALL: &str = "go install github.com/nats-io/nats-server/v2@v2.15.2";

struct Server {
    process: Option<Process>,
    scene: PathBuf,
    port: u16,
    more: Vec<String>,
}

impl Server {
    fn start(scene: &Scene, more: &[&str]) -> Self {
        let more = more.iter().map(|it| (*it).to_owned()).collect();
        let mut server = Self { process: None, scene: scene.path(""), port: free_port().unwrap(), more };
        server.begin();
        server
    }

    fn begin(&mut self) {
        let mut command = Command::new(program("nats-server", &[], INSTALL));
        command.args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"]).arg(self.scene.join("jetstream")).args(&self.more);
        let mut process = Process::spawn(command, &self.scene.join("nats.log")).unwrap();
        wait_for_port(self.port, &mut process);
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = Client { reader: BufReader::new(stream.try_clone().unwrap()), stream };
        client.line();
        client.send("CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\nSUB _INBOX.test 1\r\n");
        client
    }
}

/// The client protocol, as far as these tests need it.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.reader.read_line(&mut line).unwrap() > 0, "the server closed the connection");
        line
    }

    /// Sends a request and reads its answer.
    fn request(&mut self, subject: &str, body: &str) -> Json {
        self.send(&format!("PUB {subject} _INBOX.test {}\r\n{body}\r\n", body.len()));
        loop {
            let line = self.line();
            if line.starts_with("PING") {
                self.send("PONG\r\n");
            } else if line.starts_with("MSG") {
                let length: usize = line.split_whitespace().last().unwrap().parse().unwrap();
                let mut body = vec![0; length + 2];
                self.reader.read_exact(&mut body).unwrap();
                return serde_json::from_slice(&body[..length]).unwrap();
            }
        }
    }

    fn api(&mut self, call: &str, body: &Json) -> Json {
        let answer = self.request(&format!("$JS.API.{call}"), &body.to_string());
        assert!(answer["error"].is_null(), "{call}: {answer}");
        answer
    }

    fn make_stream(&mut self, name: &str, subjects: &str) {
        self.api(&format!("STREAM.CREATE.{name}"), &json!({ "name": name, "subjects": [subjects], "storage": "file", "retention": "limits" }));
    }

    /// Publishes payloads; each is acknowledged by the stream.
    fn publish(&mut self, subject: &str, payloads: impl Iterator<Item = String>) {
        let mut count = 0;
        for payload in payloads {
            self.send(&format!("PUB {subject} {}\r\n{payload}\r\n", payload.len()));
            count += 1;
        }
        if count > 0 {
            self.send("PING\r\n");
            while !self.line().starts_with("PONG") {}
        }
    }

    fn messages(&mut self, stream: &str) -> i64 {
        self.api(&format!("STREAM.INFO.{stream}"), &json!({}))["state"]["messages"].as_i64().unwrap()
    }
}

fn rows(from: i64, to: i64) -> impl Iterator<Item = String> {
    (from..to).map(|id| format!("{{\"id\":{id},\"value\":{}}}", id as f64 / 2.0))
}

#[test]
fn nats_a_source_loses_nothing_whatever_is_killed() {
    let scene = Scene::new();
    let mut server = Server::start(&scene, &[]);
    let mut client = server.client();
    client.make_stream("METERS", "meters.>");
    let file = format!(
        "[pipeline.p]\nretry-delay-max = \"1s\"\ncheckpoint-interval = \"200ms\"\n\
         source = {{ type = \"nats\", url = \"{}\", stream = \"METERS\", subjects = [\"meters.{{device}}\"], consumer = \"test\" }}\n\
         sink = {{ type = \"files\", path = \"out/rows.ndjson\" }}\n",
        server.url()
    );
    scene.write("p.toml", &file);
    let out = scene.path("out");
    client.publish("meters.a", rows(0, 2_000));
    let run = scene.start(&["run", "p.toml"], "run.log");
    wait_for("some rows", || !ids(&out).is_empty(), || run.output());
    run.kill().unwrap();
    client.publish("meters.b", rows(2_000, 4_000));
    let run = scene.start(&["run", "p.toml"], "run.log");
    wait_for("more rows", || ids(&out).len() > 2_000, || run.output());
    server.kill();
    wait_for("the loss", || run.output().contains("connection lost"), || run.output());
    server.begin();
    let mut client = server.client();
    client.publish("meters.c", rows(4_000, 5_000));
    let found = wait_for_ids(&out, 5_000, &run);
    // Acknowledged is what is durable.
    wait_for(
        "acknowledgements",
        || client.api("CONSUMER.INFO.METERS.test", &json!({}))["ack_floor"]["stream_seq"] == 5_000,
        || run.output(),
    );
    stop(run);
    let twice = found.values().filter(|count| **count > 1).count();
    println!("5,000 messages, {twice} of them twice");
    assert!(rows_in(&out).contains("\"device\":\"c\""), "levels of subjects become columns");
}

#[test]
fn nats_a_sink_writes_each_row_once_within_the_window() {
    let mut scene = Scene::new();
    let mut server = Server::start(&scene, &["--user", "u", "--pass", "p"]);
    let mut client = server.client();
    client.make_stream("OUT", "out.>");
    scene.write("rows.ndjson", &(0..20_000).map(|id| format!("{{\"id\":{id},\"device\":\"d{}\"}}\n", id % 7)).collect::<String>());
    scene.environment.push(("NATS_PASSWORD", "wrong one".into()));
    let file = format!(
        "[pipeline.p]\nretry-delay-max = \"1s\"\ncheckpoint-interval = \"100ms\"\nsource = {{ type = \"files\", path = \"rows.ndjson\", batch-rows = 100 }}\n\
         transform = {{ type = \"throttle\", rows = 10_000 }}\n\
         [pipeline.p.sink]\ntype = \"nats\"\nurl = \"{}\"\nsubject = \"out.{{device}}\"\nlogin = {{ username = \"u\", password = \"${{NATS_PASSWORD}}\" }}\n",
        server.url()
    );
    scene.write("p.toml", &file);
    let outcome = scene.pipeline(&["run", "p.toml"]);
    outcome.expect(1, &["the server refuses the login"]);
    assert!(!outcome.stderr.contains("wrong one"));
    scene.environment[0].1 = "p".into();
    let run = scene.start(&["run", "p.toml"], "run.log");
    wait_for("messages", || client.messages("OUT") > 2_000, || run.output());
    run.kill().unwrap();
    let mut run = scene.start(&["run", "p.toml"], "run.log");
    wait_for("messages", || client.messages("OUT") > 8_000, || run.output());
    server.kill();
    std::thread::sleep(Duration::from_millis(200));
    server.begin();
    ends_well(&mut run);
    let mut client = server.client();
    assert_eq!(client.messages("OUT"), 20_000, "each row once: what came again was known by its id");
    // A row that makes no subject is rejected alone; no stream is an error that says so.
    scene.write("few.ndjson", "{\"id\":1,\"device\":\"a.b\"}\n{\"id\":2,\"device\":\"c\"}\n");
    scene.write("few.toml", &file.replace("rows.ndjson", "few.ndjson").replace("[pipeline.p]\n", "[pipeline.few]\non-error = \"dead-letter\"\n").replace("pipeline.p.sink", "pipeline.few.sink"));
    scene.pipeline(&["run", "few.toml"]).expect(0, &["kept as a dead letter"]);
    assert_eq!(client.messages("OUT"), 20_001);
    scene.write("none.toml", &file.replace("out.{device}", "nowhere"));
    scene.pipeline(&["run", "none.toml", "--state", "none.state"]).expect(1, &["no stream takes the subject `nowhere`"]);
}

#[test]
fn nats_passes_the_conformance_kit() {
    let scene = Scene::new();
    let server = Server::start(&scene, &[]);
    let mut client = server.client();
    client.make_stream("KIT", "kit.>");
    client.make_stream("OUT", "out.>");
    client.publish("kit.a", rows(0, 60));
    let kit = format!(
        "[source.nats]\nurl = \"{url}\"\nstream = \"KIT\"\nbatch-payloads = 5\n\
         [kit.source.nats]\nunreachable = {{ url = \"nats://127.0.0.1:9\" }}\nbad = [{{ url = \"h\" }}, {{ subjects = [\"a..{{}}\"] }}, {{ stream = \"a b\" }}]\n\
         [sink.nats]\nurl = \"{url}\"\nsubject = \"out.{{name}}\"\n\
         [kit.sink.nats]\nunreachable = {{ url = \"nats://127.0.0.1:9\" }}\nbad = [{{ subject = \"a b\" }}]\n\
         observe = {{ source = {{ type = \"nats\", url = \"{url}\", stream = \"OUT\", subjects = [\"out.{{name}}\"] }} }}\n\
         skip = {{ batches = \"every row is a message: more of them than the kit's look takes\" }}\n",
        url = server.url()
    );
    assert!(check_plugin(&scene, "nats", &kit, ci_checks()) >= 12);
}
