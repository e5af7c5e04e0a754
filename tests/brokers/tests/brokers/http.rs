//! HTTP: plain clients at the webhook server, and a server that answers as told behind the sink.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pipeline_tests::{Process, Scene, free_port};

use crate::rig::{certificates, check_plugin, ci_checks, ends_well, example, ids, program, stop, wait_for, wait_for_ids, wait_for_port};

/// Status and text; `None` where there was no answer.
fn request(method: &str, url: &str, token: Option<&str>, body: &str) -> Option<(u16, String)> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).build();
    let agent = ureq::Agent::new_with_config(config);
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut response = agent.run(request.body(body.to_owned()).unwrap()).ok()?;
    let text = response.body_mut().read_to_string().ok()?;
    Some((response.status().as_u16(), text))
}

#[test]
fn http_what_was_answered_is_durable() {
    let scene = Scene::new();
    let port = free_port().unwrap();
    let file = format!(
        "[pipeline.p]\ncheckpoint-interval = \"100ms\"\nsource = {{ type = \"http\", listen = \"127.0.0.1:{port}\" }}\n\
         sink = {{ type = \"files\", path = \"out/rows.ndjson\" }}\n"
    );
    scene.write("p.toml", &file);
    let url = format!("http://127.0.0.1:{port}/");
    let start = || {
        let mut run = scene.start(&["run", "p.toml"], "run.log");
        wait_for_port(port, &mut run);
        run
    };
    let mut run = Some(start());
    let (next, is_done, answered) = (AtomicI64::new(0), AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    // Clients that send again what was not answered; twice the pipeline is killed under them.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let body = format!("{{\"id\":{id}}}");
                    while !matches!(request("POST", &url, None, &body), Some((200, _))) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    answered.lock().unwrap().insert(id);
                }
            });
        }
        for wanted in [60, 120] {
            wait_for("answers", || answered.lock().unwrap().len() >= wanted, || run.as_ref().unwrap().output());
            run.take().unwrap().kill().unwrap();
            run = Some(start());
        }
        wait_for("answers", || answered.lock().unwrap().len() >= 180, || run.as_ref().unwrap().output());
        is_done.store(true, Ordering::Relaxed);
    });
    stop(run.unwrap());
    let (found, answered) = (ids(&scene.path("out")), answered.into_inner().unwrap());
    let lost: Vec<_> = answered.iter().filter(|id| !found.contains_key(id)).collect();
    assert!(lost.is_empty(), "answered with 200 and not there: {lost:?}");
    println!("{} requests, {} rows twice", answered.len(), found.values().filter(|count| **count > 1).count());
}

#[test]
fn http_refuses_what_is_wrong_or_too_much() {
    let scene = Scene::new();
    let port = free_port().unwrap();
    let file = format!(
        "[pipeline.p]\ncheckpoint-interval = \"100ms\"\nsink = {{ type = \"files\", path = \"out/rows.ndjson\" }}\n\
         [pipeline.p.source]\ntype = \"http\"\nlisten = \"127.0.0.1:{port}\"\npath = \"/in\"\ntoken = \"top secret\"\nbody-bytes-max = \"1KiB\"\n"
    );
    scene.write("p.toml", &file);
    let mut run = scene.start(&["run", "p.toml"], "run.log");
    wait_for_port(port, &mut run);
    let check = |method: &str, path: &str, token: Option<&str>, body: &str, status: u16, words: &str| {
        let (found, text) = request(method, &format!("http://127.0.0.1:{port}{path}"), token, body).unwrap();
        assert!(found == status && text.contains(words), "{method} {path}: {found} {text}, expected {status} {words}");
    };
    let token = Some("top secret");
    check("GET", "/healthz", None, "", 200, "ok");
    check("POST", "/in", None, "{}", 401, "Authorization");
    check("POST", "/in", Some("top secrets"), "{}", 401, "Authorization");
    check("POST", "/elsewhere", token, "{}", 404, "");
    check("DELETE", "/in", token, "", 405, "POST");
    check("POST", "/in", token, &"x".repeat(1_025), 413, "1024 bytes");
    check("POST", "/in", token, "{\"id\":", 422, "it is no JSON");
    check("POST", "/in", token, "[{\"id\":0},{\"id\":1}]", 200, "written");
    check("PUT", "/in", token, "{\"id\":2}\n{\"id\":3}\n", 200, "written");
    check("POST", "/in", token, "{\"id\":\"four\"}", 422, "column `id` is Utf8 here");
    wait_for_ids(&scene.path("out"), 4, &run);
    stop(run);
    assert!(!scene.read("run.log").contains("top secret"));
}

/// A server that appends bodies to a file, and answers as told before that.
struct Server {
    port: u16,
    bodies: PathBuf,
    seen: Arc<Mutex<Vec<(Instant, u16)>>>,
}

impl Server {
    /// `answer` says status and further headers for a body, by the number of the request; a body that is answered with 200 is kept.
    fn start(scene: &Scene, answer: impl Fn(usize, &str) -> (u16, &'static str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), bodies: scene.path("bodies"), seen: Arc::default() };
        let (seen, bodies, answer) = (server.seen.clone(), server.bodies.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, bodies, answer) = (seen.clone(), bodies.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &seen, &bodies, &*answer));
            }
        });
        server
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<(Instant, u16)>>, bodies: &PathBuf, answer: &dyn Fn(usize, &str) -> (u16, &'static str)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if line.is_empty() || reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = String::from_utf8(body).unwrap();
        let mut seen = seen.lock().unwrap();
        let (status, headers) = answer(seen.len(), &body);
        seen.push((Instant::now(), status));
        if status == 200 {
            let mut file = std::fs::File::options().create(true).append(true).open(bodies).unwrap();
            file.write_all(format!("{}\n", body.trim_end()).as_bytes()).unwrap();
        }
        if stream.write_all(format!("HTTP/1.1 {status} told\r\n{headers}Content-Length: 3\r\n\r\nbad").as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn http_a_sink_tries_again_and_sorts_out_what_is_refused() {
    let scene = Scene::new();
    let server = Server::start(&scene, |number, body| match number {
        1 => (503, "Retry-After: 1\r\n"),
        2 => (429, ""),
        3 => (500, ""),
        _ if body.contains("\"id\":77,") || body.contains("\"id\":500,") => (400, ""),
        _ => (200, ""),
    });
    let rows: String = (0..1_000).map(|id| format!("{{\"id\":{id},\"text\":\"row {id}\"}}\n")).collect();
    scene.write("rows.ndjson", &rows);
    let file = format!(
        "[pipeline.p]\non-error = \"dead-letter\"\nsource = {{ type = \"files\", path = \"rows.ndjson\", batch-rows = 100 }}\n\
         dead-letter = {{ type = \"files\", name = \"bad\", path = \"bad/rows.ndjson\" }}\n\
         sink = {{ type = \"http\", url = \"http://127.0.0.1:{}/in\", body-bytes-max = \"2KiB\" }}\n",
        server.port
    );
    scene.write("p.toml", &file);
    scene.pipeline(&["run", "p.toml"]).expect(0, &[]);
    let seen = server.seen.lock().unwrap().clone();
    let wait = seen[2].0 - seen[1].0;
    assert!(wait >= Duration::from_secs(1), "Retry-After was not heeded: {wait:?}");
    let mut found: Vec<i64> = scene.read("bodies").lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap()).collect();
    assert_eq!(found.len(), 998, "each row once, but for the two that are refused");
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 998);
    let bad = scene.read("bad/rows.ndjson");
    assert!(bad.lines().count() == 2 && bad.contains("\"id\":77,") && bad.contains("\"id\":500,") && bad.contains("answers 400"), "{bad}");
    assert!(seen.len() < 120, "{} requests: only what is refused is taken apart", seen.len());

    // A login that is refused is no matter of the rows.
    let server = Server::start(&scene, |_, _| (401, ""));
    scene.write("p2.toml", file.replace(&file[file.find("127.0.0.1").unwrap()..file.find("/in").unwrap()], &format!("127.0.0.1:{}", server.port)));
    scene.pipeline(&["run", "p2.toml"]).expect(1, &["the server answers 401"]);
}

#[test]
fn http_a_server_that_vanishes_is_waited_for() {
    let scene = Scene::new();
    // Five answers, then nobody is there until a second server takes the port.
    let port = free_port().unwrap();
    scene.write("rows.ndjson", (0..200).map(|id| format!("{{\"id\":{id}}}\n")).collect::<String>());
    let file = format!(
        "[pipeline.p]\nretry-delay-max = \"500ms\"\nsource = {{ type = \"files\", path = \"rows.ndjson\", batch-rows = 10 }}\n\
         sink = {{ type = \"http\", url = \"http://127.0.0.1:{port}/in\", array = true }}\n"
    );
    scene.write("p.toml", &file);
    let mut run: Process = scene.start(&["run", "p.toml"], "run.log");
    wait_for("trouble", || run.output().contains("trying again"), || run.output());
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (bodies, seen) = (scene.path("bodies"), Arc::new(Mutex::new(Vec::new())));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &seen, &bodies, &|_, _| (200, ""));
        }
    });
    ends_well(&mut run);
    let rows: usize = scene.read("bodies").lines().map(|line| serde_json::from_str::<Vec<serde_json::Value>>(line).unwrap().len()).sum();
    assert_eq!(rows, 200);
}

/// curl's exit code and the status that it was answered.
fn curl(scene: &Scene, url: &str, ca: &str, login: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program("curl", &[], "install curl"));
    command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]).arg(scene.path(ca)).args(["-u", login, "-d", "{\"id\":0}", url]);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn http_a_source_with_tls() {
    let mut scene = Scene::new();
    for name in ["site", "other"] {
        certificates(&scene, name);
    }
    let port = free_port().unwrap();
    let file = format!(
        "[pipeline.p]\ncheckpoint-interval = \"100ms\"\nsink = {{ type = \"files\", path = \"out/rows.ndjson\" }}\n\
         [pipeline.p.source]\ntype = \"http\"\nlisten = \"127.0.0.1:{port}\"\nusername = \"u\"\npassword = \"${{PASSWORD}}\"\n\
         tls = {{ certificate = \"site.crt\", key = \"site.key\" }}\n"
    );
    scene.write("p.toml", &file);
    scene.environment.push(("PASSWORD", "top secret".into()));
    let mut run = scene.start(&["run", "p.toml"], "run.log");
    wait_for_port(port, &mut run);
    let url = format!("https://127.0.0.1:{port}/");
    assert_eq!(curl(&scene, &url, "site-ca.pem", "u:top secret"), (Some(0), "200".into()));
    assert_eq!(curl(&scene, &url, "site-ca.pem", "u:wrong one"), (Some(0), "401".into()));
    // 60: the certificate is not trusted; 52: an answer without TLS there is none.
    assert_eq!(curl(&scene, &url, "other-ca.pem", "u:top secret").0, Some(60));
    assert_ne!(curl(&scene, &url.replace("https", "http"), "site-ca.pem", "u:top secret").0, Some(0));
    // A renewed certificate is taken as it is, without a restart.
    for name in ["crt", "key"] {
        std::fs::copy(scene.path(&format!("other.{name}")), scene.path(&format!("site.{name}"))).unwrap();
    }
    assert_eq!(curl(&scene, &url, "other-ca.pem", "u:top secret"), (Some(0), "200".into()));
    stop(run);
    assert_eq!(ids(&scene.path("out")), [(0, 2)].into());
    let log = scene.read("run.log");
    assert!(!log.contains("top secret") && !log.contains("wrong one"), "{log}");
    // What cannot be used says which file.
    for (from, to, said) in [("site.key", "nowhere.key", "nowhere.key cannot be used for TLS"), ("\"site.crt", "\"p.toml", "p.toml cannot be used for TLS")] {
        scene.write("wrong.toml", file.replace(from, to));
        scene.pipeline(&["run", "wrong.toml", "--state", "wrong.state"]).expect(1, &[said, "hint: "]);
    }
}

/// A server that lets in whose certificate its authority has signed and who shows the token; it appends bodies to a file.
const TLS_SERVER: &str = r#"
import http.server, ssl, sys
port, folder = int(sys.argv[1]), sys.argv[2]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_known = self.headers["Authorization"] == "Bearer top secret"
        if is_known:
            with open(folder + "/bodies", "ab") as file:
                file.write(body)
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder + "/site-ca.pem")
context.load_cert_chain(folder + "/site.crt", folder + "/site.key")
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

#[test]
fn http_a_sink_with_tls() {
    let mut scene = Scene::new();
    for name in ["site", "other"] {
        certificates(&scene, name);
    }
    let port = free_port().unwrap();
    let mut command = Command::new(program("python3", &[], "install python3"));
    command.args(["-c", TLS_SERVER, &port.to_string()]).arg(scene.path(""));
    let mut server = Process::spawn(command, &scene.path("server.log")).unwrap();
    wait_for_port(port, &mut server);
    scene.write("rows.ndjson", "{\"id\":1}\n{\"id\":2}\n");
    let file = format!(
        "[pipeline.p]\nretry-delay-min = \"10ms\"\nreconnect-attempts-max = 2\nsource = {{ type = \"files\", path = \"rows.ndjson\" }}\n\
         [pipeline.p.sink]\ntype = \"http\"\nurl = \"https://127.0.0.1:{port}/in\"\ntoken = \"${{TOKEN}}\"\n\
         tls = {{ ca = \"site-ca.pem\", certificate = \"site.crt\", key = \"site.key\" }}\n"
    );
    scene.environment.extend([("TOKEN", "top secret".into()), ("WRONG", "wrong one".into())]);
    let own = ", certificate = \"site.crt\", key = \"site.key\"";
    for (name, from, to, said) in [
        ("authority", "site-ca", "other-ca", ["http.tls", "with `ca`"]),
        ("nobody", own, "", ["http.tls", "`tls.certificate`"]),
        ("stranger", "site.crt\", key = \"site", "other.crt\", key = \"other", ["http.tls", "`tls.certificate`"]),
        ("file", "site-ca", "nowhere", ["nowhere.pem cannot be used for TLS", "hint: "]),
        ("token", "${TOKEN}", "${WRONG}", ["the server answers 401", "hint: "]),
    ] {
        scene.write(&format!("{name}.toml"), file.replace(from, to));
        let outcome = scene.pipeline(&["run", &format!("{name}.toml")]);
        outcome.expect(1, &said);
        assert!(!outcome.stderr.contains("top secret") && !outcome.stderr.contains("wrong one"), "{name}: {}", outcome.stderr);
    }
    assert!(!scene.path("bodies").exists());
    scene.write("p.toml", &file);
    scene.pipeline(&["run", "p.toml"]).expect(0, &[]);
    assert_eq!(scene.read("bodies"), "{\"id\":1}\n{\"id\":2}\n");
}

#[test]
fn http_the_example_writes_what_is_posted() {
    let mut scene = Scene::new();
    let port = free_port().unwrap();
    scene.write("p.toml", example("webhook-to-files.toml").replace("8080", &port.to_string()));
    scene.environment.push(("TOKEN", "secret".into()));
    let mut run = scene.start(&["run", "p.toml"], "run.log");
    wait_for_port(port, &mut run);
    let url = format!("http://127.0.0.1:{port}/events");
    assert_eq!(request("POST", &url, Some("secret"), "{\"id\":0,\"kind\":\"start\"}").unwrap().0, 200);
    stop(run);
    assert_eq!(ids(&scene.path("events")).len(), 1);
}

#[test]
fn http_passes_the_conformance_kit() {
    let scene = Scene::new();
    let server = Server::start(&scene, |_, _| (200, ""));
    let kit = format!(
        "[source.http]\nlisten = \"127.0.0.1:0\"\n[kit.source.http]\nbad = [{{ listen = \"8080\" }}, {{ path = \"/healthz\" }}]\n\
         [sink.http]\nurl = \"http://127.0.0.1:{}/\"\n\
         [kit.sink.http]\nobserve = {{ files = \"{}\" }}\nunreachable = {{ url = \"http://127.0.0.1:9/\" }}\nbad = [{{ url = \"ftp://h\" }}]\n\
         skip = {{ order = \"the file holds what other checks wrote\", end-of-stream = \"as order\" }}\n",
        server.port,
        server.bodies.display()
    );
    assert!(check_plugin(&scene, "http", &kit, ci_checks()) >= 7);
}
