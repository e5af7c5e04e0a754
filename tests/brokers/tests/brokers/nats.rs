//! NATS: `nats-server` with JetStream, and its protocol by hand as the other client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use nkeys::KeyPair;
use pipeline_tests::{Process, Scene, free_port};
use serde_json::{Value as Json, json};

use crate::rig::{LIMIT, certificates, check_plugin, ci_checks, ends_well, ids, program, rows_in, stop, wait_for, wait_for_ids, wait_for_port};

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
        self.client_as(|_| json!({ "user": "u", "pass": "p", "auth_token": "top secret" }))
    }

    /// With the login that is made for what the server says first.
    fn client_as(&self, login: impl Fn(&Json) -> Json) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = Client { reader: BufReader::new(stream.try_clone().unwrap()), stream };
        let info = client.line();
        let mut login = login(&serde_json::from_str(info.trim_start_matches("INFO ")).unwrap());
        login["verbose"] = false.into();
        client.send(&format!("CONNECT {login}\r\nSUB _INBOX.test 1\r\n"));
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
    wait_for("the loss", || run.output().contains("trying again"), || run.output());
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
    scene.write("rows.ndjson", (0..20_000).map(|id| format!("{{\"id\":{id},\"device\":\"d{}\"}}\n", id % 7)).collect::<String>());
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
    scene.write("few.toml", file.replace("rows.ndjson", "few.ndjson").replace("[pipeline.p]\n", "[pipeline.few]\non-error = \"dead-letter\"\n").replace("pipeline.p.sink", "pipeline.few.sink"));
    scene.pipeline(&["run", "few.toml"]).expect(0, &["kept as a dead letter"]);
    assert_eq!(client.messages("OUT"), 20_001);
    scene.write("none.toml", file.replace("out.{device}", "nowhere"));
    scene.pipeline(&["run", "none.toml", "--state", "none.state"]).expect(1, &["no stream takes the subject `nowhere`"]);
}

/// A pipeline of three rows to `out.x` of a server, which gives up soon.
fn three_rows(url: &str, more: &str) -> String {
    format!(
        "[pipeline.p]\nretry-delay-min = \"10ms\"\nreconnect-attempts-max = 2\nsource = {{ type = \"generate\", rows = 3 }}\n\
         [pipeline.p.sink]\ntype = \"nats\"\nurl = \"{url}\"\nsubject = \"out.x\"\n{more}\n"
    )
}

/// Runs what [`three_rows`] makes; no variable's value may be printed.
#[track_caller]
fn attempt(scene: &Scene, url: &str, more: &str, exit: i32, said: &[&str]) {
    scene.write("attempt.toml", three_rows(url, more));
    let state = scene.path(".attempt.state");
    if state.exists() {
        std::fs::remove_dir_all(state).unwrap();
    }
    let outcome = scene.pipeline(&["run", "attempt.toml"]);
    outcome.expect(exit, said);
    for (name, value) in &scene.environment {
        assert!(!outcome.stderr.contains(value) && !outcome.stdout.contains(value), "{name} is printed: {}", outcome.stderr);
    }
}

const MUTUAL: &str = "tls = { ca = \"site-ca.pem\", certificate = \"site.crt\", key = \"site.key\" }";

#[test]
fn nats_with_tls_and_a_user_or_an_nkey() {
    let mut scene = Scene::new();
    for name in ["site", "other"] {
        certificates(&scene, name);
    }
    let [user, stranger] = [KeyPair::new_user(), KeyPair::new_user()];
    let file = |name: &str| scene.path(name).display().to_string();
    // The client of these tests speaks without TLS.
    let config = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\nallow_non_tls: true\n\
         authorization {{ users = [{{ user: u, password: p }}, {{ nkey: {} }}] }}\n",
        file("site.crt"),
        file("site.key"),
        file("site-ca.pem"),
        user.public_key()
    );
    scene.write("nats.conf", config);
    let server = Server::start(&scene, &["-c", &file("nats.conf")]);
    let mut client = server.client();
    client.make_stream("OUT", "out.>");
    let url = server.url().replace("nats://", "tls://");
    scene.environment.extend([("WRONG", "wrong one".into()), ("SEED", user.seed().unwrap()), ("STRANGER", stranger.seed().unwrap())]);
    let password = "login = { username = \"u\", password = \"p\" }\n";
    let seed = "login = { nkey = \"${SEED}\" }\n";
    attempt(&scene, &url, &format!("{password}{MUTUAL}"), 0, &[]);
    attempt(&scene, &url, &format!("{seed}{MUTUAL}"), 0, &[]);
    // With keys of TLS a connection is encrypted whatever the address says.
    attempt(&scene, &server.url(), &format!("{seed}{MUTUAL}"), 0, &[]);
    assert_eq!(client.messages("OUT"), 9);
    let refused = ["the server refuses the login", "check `login`"];
    attempt(&scene, &url, &format!("login = {{ username = \"u\", password = \"${{WRONG}}\" }}\n{MUTUAL}"), 1, &refused);
    attempt(&scene, &url, &format!("login = {{ nkey = \"${{STRANGER}}\" }}\n{MUTUAL}"), 1, &refused);
    attempt(&scene, &url, &format!("login = {{ nkey = \"${{WRONG}}\" }}\n{MUTUAL}"), 2, &["login.nkey", "this is no seed"]);
    attempt(&scene, &url, MUTUAL, 1, &refused);
    for (from, to, said) in [
        ("site-ca.pem", "other-ca.pem", ["nats.tls", "with `ca`"]),
        (", certificate = \"site.crt\", key = \"site.key\"", "", ["nats.tls", "`tls.certificate`"]),
        ("site.crt\", key = \"site", "other.crt\", key = \"other", ["nats.tls", "`tls.certificate`"]),
        ("site-ca.pem", "nowhere.pem", ["nowhere.pem cannot be used for TLS", "hint: "]),
    ] {
        attempt(&scene, &url, &format!("{seed}{}", MUTUAL.replace(from, to)), 1, &said);
    }
    assert_eq!(client.messages("OUT"), 9);
    // The source connects in the same way.
    let source = format!(
        "[pipeline.p]\ncheckpoint-interval = \"100ms\"\nsink = {{ type = \"files\", path = \"out/rows.ndjson\" }}\n\
         [pipeline.p.source]\ntype = \"nats\"\nurl = \"{url}\"\nstream = \"OUT\"\n{seed}{MUTUAL}\n"
    );
    scene.write("source.toml", &source);
    let run = scene.start(&["run", "source.toml"], "run.log");
    wait_for("rows", || rows_in(&scene.path("out")).lines().count() == 9, || run.output());
    stop(run);
    scene.write("source.toml", source.replace("site-ca", "other-ca").replace("[pipeline.p]\n", "[pipeline.p]\nretry-delay-min = \"10ms\"\nreconnect-attempts-max = 2\n"));
    scene.pipeline(&["run", "source.toml"]).expect(1, &["nats.tls", "with `ca`"]);
}

#[test]
fn nats_with_a_token() {
    let mut scene = Scene::new();
    let server = Server::start(&scene, &["--auth", "top secret"]);
    let mut client = server.client();
    client.make_stream("OUT", "out.>");
    scene.environment.extend([("TOKEN", "top secret".into()), ("WRONG", "wrong one".into())]);
    attempt(&scene, &server.url(), "login = { token = \"${TOKEN}\" }", 0, &[]);
    attempt(&scene, &server.url(), "login = { token = \"${WRONG}\" }", 1, &["the server refuses the login"]);
    assert_eq!(client.messages("OUT"), 3);
}

/// A claim as NATS signs it: of whoever has the key `issuer`, about `subject`.
fn claim(issuer: &KeyPair, subject: &KeyPair, about: Json) -> String {
    let claims = json!({ "jti": subject.public_key(), "iat": 1, "iss": issuer.public_key(), "name": "test", "sub": subject.public_key(), "nats": about });
    let text = [json!({ "typ": "JWT", "alg": "ed25519-nkey" }), claims].map(|part| BASE64.encode(part.to_string())).join(".");
    format!("{text}.{}", BASE64.encode(issuer.sign(text.as_bytes()).unwrap()))
}

#[test]
fn nats_with_a_file_of_credentials() {
    let scene = Scene::new();
    let (operator, system, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 });
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}: {}, {}: {} }}\n",
        claim(&operator, &operator, json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        system.public_key(),
        claim(&operator, &system, json!({ "type": "account", "version": 2 })),
        account.public_key(),
        claim(&operator, &account, json!({ "type": "account", "version": 2, "limits": limits }))
    );
    scene.write("nats.conf", config);
    let server = Server::start(&scene, &["-c", &scene.path("nats.conf").display().to_string()]);
    let about = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let token = claim(&account, &user, about.clone());
    let mut client = server.client_as(|info| {
        let signature = user.sign(info["nonce"].as_str().unwrap().as_bytes()).unwrap();
        json!({ "jwt": token, "sig": BASE64.encode(signature) })
    });
    client.make_stream("OUT", "out.>");
    let credentials = |token: &str, seed: &str| {
        format!("-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n")
    };
    scene.write("user.creds", credentials(&token, &user.seed().unwrap()));
    // Of an account that the operator does not know.
    scene.write("stranger.creds", credentials(&claim(&KeyPair::new_account(), &user, about), &user.seed().unwrap()));
    scene.write("broken.creds", "no credentials");
    attempt(&scene, &server.url(), "login = { credentials = \"user.creds\" }", 0, &[]);
    attempt(&scene, &server.url(), "login = { credentials = \"stranger.creds\" }", 1, &["the server refuses the login"]);
    for name in ["broken.creds", "nowhere.creds"] {
        attempt(&scene, &server.url(), &format!("login = {{ credentials = \"{name}\" }}"), 1, &[name, "hint: "]);
    }
    assert_eq!(client.messages("OUT"), 3);
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
