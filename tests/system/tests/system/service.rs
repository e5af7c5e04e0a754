//! `pipeline serve` as an operator sees it: the folder, the admin API, kills, and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipeline_tests::{Api, Process, Scene, Site, ask_over_tcp, free_port, messages_at, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);

/// A folder that is served, and two nodes.
struct Served {
    scene: Scene,
    a: Site,
    b: Site,
    api: Api,
    service: Option<Process>,
    _nodes: [Process; 2],
}

/// One direction for these databases; the name of the pipeline is that of the file's.
fn file(name: &str, from: &Site, to: &Site, databases: &[&str], settings: &str) -> String {
    let databases: Vec<String> = databases.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "[pipeline.{name}]\ncheckpoint-interval = \"200ms\"\n{settings}\n\
         source = {{ type = \"tdengine-tmq\", freshness = \"50ms\", dsn = \"{}\", databases = [{}] }}\n\
         transform = {{ type = \"loop-mark\" }}\nsink = {{ type = \"tdengine\", dsn = \"{}\" }}\n",
        from.dsn(),
        databases.join(", "),
        to.dsn()
    )
}

impl Served {
    fn new(databases: &[&str]) -> Self {
        let scene = Scene::new();
        let ((a, first), (b, second)) = (scene.node("a", ""), scene.node("b", ""));
        std::fs::create_dir(scene.path("files")).unwrap();
        for database in databases {
            a.sql(&format!("create database {database} vgroups 1"));
            a.sql(&format!("create table {database}.t (ts timestamp, v int)"));
        }
        let api = Api::new(&scene.path("run/p.sock"));
        Self { scene, a, b, api, service: None, _nodes: [first, second] }
    }

    fn write(&self, id: &str, text: &str) {
        self.scene.write(&format!("files/{id}.toml"), text);
    }

    fn start(&mut self, more: &[&str]) {
        let (folder, socket) = (self.scene.path("files").display().to_string(), self.api.socket.display().to_string());
        let mut arguments = vec!["serve", "--dir", &folder, "--socket", &socket, "--watch-interval", "100ms"];
        arguments.extend(more);
        self.service = Some(self.scene.start(&arguments, "serve.log"));
        self.api.wait_until_ready().unwrap_or_else(|error| panic!("{error:#}\n{}", self.scene.read("serve.log")));
    }

    fn stop(&mut self) {
        let status = self.service.take().unwrap().stop(LIMIT).unwrap();
        assert!(status.success(), "{}", self.scene.read("serve.log"));
    }

    fn kill(&mut self) {
        self.service.take().unwrap().kill().unwrap();
    }

    fn insert(&self, database: &str, first: i64, count: i64) {
        let values: Vec<String> = (first..first + count).map(|row| format!("({}, {row})", 1_780_000_000_000 + row)).collect();
        self.a.sql(&format!("insert into {database}.t values {}", values.join(" ")));
    }

    /// Waits until the other site has as many rows.
    #[track_caller]
    fn arrived(&self, database: &str, count: i64) {
        let found = || {
            let rows = self.b.try_sql(&format!("select count(*) from {database}.t")).unwrap();
            rows.ok().and_then(|rows| rows[0][0].as_i64())
        };
        let shown = || format!("{:?} of them\n{}", found(), self.scene.read("serve.log"));
        wait_for(&format!("{count} rows in {database}"), LIMIT, || found() == Some(count), shown);
    }

    /// Status of each task: `FILE/PIPELINE/VALUE STATUS`.
    fn tasks(&self) -> Vec<String> {
        let text = |task: &Value, key: &str| task[key].as_str().unwrap().to_owned();
        let tasks = self.api.get("/api/v1/tasks");
        let of = |task: &Value| format!("{}/{} {}", text(task, "file"), text(task, "value"), text(task, "status"));
        tasks.as_array().unwrap().iter().map(of).collect()
    }

    #[track_caller]
    fn until_tasks(&self, expected: &[&str]) {
        wait_for(&format!("{expected:?}"), LIMIT, || self.tasks() == expected, || format!("{:?}\n{}", self.tasks(), self.scene.read("serve.log")));
    }

    fn file_is(&self, id: &str, status: &str) -> Value {
        self.api.until(&format!("/api/v1/files/{id}"), status, |file| file["status"] == status)
    }

    /// Ten rows into each database at the first site, and to the second.
    fn first_rows(&self, databases: &[&str]) {
        databases.iter().for_each(|database| self.insert(database, 0, 10));
        databases.iter().for_each(|database| self.arrived(database, 10));
    }

    /// How often a source has connected to read a database.
    fn placed(&self, database: &str) -> usize {
        let log = self.scene.read("serve.log");
        log.lines().filter(|line| line.contains("lane placed") && line.contains(&format!("task=\"{database}\""))).count()
    }
}

#[test]
fn a_changed_file_restarts_only_what_differs_and_a_broken_one_changes_nothing() {
    let mut served = Served::new(&["one", "two", "three"]);
    served.write("first", &file("p", &served.a, &served.b, &["one", "two"], ""));
    served.start(&[]);
    served.first_rows(&["one", "two"]);
    let mode = std::fs::metadata(&served.api.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = served.placed("one");
    assert!(before > 0, "{}", served.scene.read("serve.log"));

    // Another database: the others go on over their connections.
    served.write("first", &file("p", &served.a, &served.b, &["one", "three"], ""));
    served.until_tasks(&["first/one running", "first/three running"]);
    served.insert("three", 0, 10);
    served.insert("one", 10, 10);
    served.arrived("three", 10);
    served.arrived("one", 20);
    assert_eq!(served.placed("one"), before, "it was not to be touched");

    // Broken: shown as such, and what runs goes on.
    let wrong = file("p", &served.a, &served.b, &["one"], "").replace("dsn =", "dns =");
    served.write("first", &wrong);
    let broken = served.file_is("first", "broken");
    assert!(broken["problem"].as_str().unwrap().contains("dns"), "{broken}");
    assert_eq!(broken["toml"].as_str(), Some(&*wrong));
    served.insert("one", 20, 10);
    served.arrived("one", 30);

    // Right again, with another setting: everything restarts where it was.
    served.write("first", &file("p", &served.a, &served.b, &["one", "two", "three"], "lanes-max = 7"));
    served.file_is("first", "running");
    served.insert("two", 10, 10);
    served.insert("one", 30, 10);
    served.arrived("one", 40);
    served.arrived("two", 20);
    assert!(served.placed("one") > before);

    // Gone by hand: its tasks stop.
    std::fs::remove_file(served.scene.path("files/first.toml")).unwrap();
    served.until_tasks(&[]);
    served.stop();
}

#[test]
fn what_was_stopped_stays_stopped_over_kills_and_everything_is_where_it_was() {
    let mut served = Served::new(&["one", "two"]);
    served.write("first", &file("p", &served.a, &served.b, &["one", "two"], ""));
    served.start(&[]);
    served.first_rows(&["one", "two"]);
    let (status, stopped) = served.api.ask("POST", "/api/v1/tasks/stop", json!({ "file": "first", "values": ["two"] }));
    assert_eq!((status, stopped.as_array().unwrap().len()), (200, 1), "{stopped}");
    assert_eq!((stopped[0]["value"].as_str(), stopped[0]["status"].as_str()), (Some("two"), Some("stopped")));
    served.kill();
    served.insert("one", 10, 10);
    served.insert("two", 10, 10);
    served.start(&[]);
    served.arrived("one", 20);
    served.until_tasks(&["first/one running", "first/two stopped"]);
    assert_eq!(served.b.sql("select count(*) from two.t")[0][0], 10);

    let (status, error) = served.api.ask("POST", "/api/v1/tasks/start", json!({ "file": "first", "values": ["tow"] }));
    assert_eq!((status, error["error"]["hint"].as_str()), (404, Some("did you mean `two`?")), "{error}");
    let (status, started) = served.api.ask("POST", "/api/v1/tasks/start", json!({ "file": "first" }));
    assert_eq!((status, started.as_array().unwrap().len()), (200, 1), "{started}");
    served.arrived("two", 20);
    let task = served.api.until("/api/v1/tasks?file=first", "lanes are known", |tasks| {
        tasks[1]["lanes"][0]["slack-seconds"].is_number() && tasks[1]["last-applied"].is_string()
    });
    assert!(task[1]["source"].as_str().unwrap().starts_with("ws://127.0.0.1:"), "{task}");
    assert!(!task.to_string().contains("taosdata"), "{task}");
    served.stop();
}

#[test]
fn a_file_is_put_and_deleted_through_the_api() {
    let mut served = Served::new(&["one"]);
    served.start(&[]);
    let text = file("p", &served.a, &served.b, &["one"], "");
    let put = |text: &str, create: bool| served.api.ask("PUT", "/api/v1/files/r-1", json!({ "toml": text, "create": create }));
    let (status, error) = put(&text.replace("tdengine-tmq", "tdengine-tqm"), true);
    assert_eq!(status, 422, "{error}");
    assert!(!served.scene.path("files/r-1.toml").exists());
    let (status, made) = put(&text, true);
    assert_eq!((status, made["status"].as_str(), made["toml"].as_str()), (201, Some("running"), Some(&*text)), "{made}");
    let mode = std::fs::metadata(served.scene.path("files/r-1.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(put(&text, true).0, 409);
    assert_eq!(put(&text, false).0, 200);
    served.insert("one", 0, 10);
    served.arrived("one", 10);
    // Another file that does the same is refused.
    let (status, error) = served.api.ask("PUT", "/api/v1/files/r-2", json!({ "toml": text.replace("pipeline.p", "pipeline.q") }));
    assert_eq!(status, 422, "{error}");
    assert_eq!(served.api.ask("PUT", "/api/v1/files/..%2Fx", json!({ "toml": text })).0, 400);

    assert_eq!(served.api.ask("DELETE", "/api/v1/files/r-1", Value::Null).0, 409, "it runs");
    served.api.ask("POST", "/api/v1/tasks/stop", json!({ "file": "r-1" }));
    served.file_is("r-1", "stopped");
    assert_eq!(served.api.ask("DELETE", "/api/v1/files/r-1", Value::Null).0, 204);
    assert_eq!(served.api.ask("GET", "/api/v1/files/r-1", Value::Null).0, 404);
    let left: Vec<_> = std::fs::read_dir(served.scene.path("files")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, [".service"]);
    served.stop();
}

#[test]
fn metrics_and_the_document_are_there_and_tcp_needs_the_token() {
    let mut served = Served::new(&["one"]);
    served.write("first", &file("p", &served.a, &served.b, &["one"], ""));
    served.scene.write("token", "s3cret\n");
    let (address, token) = (format!("127.0.0.1:{}", free_port().unwrap()), served.scene.path("token").display().to_string());
    served.start(&["--listen", &address, "--token-file", &token]);
    served.insert("one", 0, 10);
    served.arrived("one", 10);
    let page = served.api.until("/metrics", "lag is known", |page| page.as_str().unwrap().contains("pipeline_slack_seconds{"));
    let page = page.as_str().unwrap();
    for name in [
        "rows_read_total", "rows_written_total", "bytes_written_total", "batches_written_total", "retries_total", "errors_total",
        "dead_letters_total", "lag_offsets", "lag_seconds", "slack_seconds", "queue_messages",
    ] {
        let line = page.lines().find(|line| line.starts_with(&format!("pipeline_{name}{{")));
        assert!(line.is_some_and(|line| line.contains("pipeline=\"p\"") && line.contains("database=\"one\"")), "{name}\n{page}");
    }
    assert_eq!(served.api.get("/openapi.json")["openapi"], "3.1.0");
    assert_eq!(served.api.get("/api/v1/service")["files"], 1);

    assert_eq!(ask_over_tcp(&address, "/api/v1/files", Some("s3cret")).unwrap().0, 200);
    for (path, token, expected) in [
        ("/api/v1/files", None, 401), ("/api/v1/files", Some("wrong"), 401), ("/metrics", None, 401), ("/healthz", None, 200),
    ] {
        let (status, body) = ask_over_tcp(&address, path, token).unwrap();
        assert_eq!(status, expected, "{path} {token:?}: {body}");
    }
    served.stop();
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let mut served = Served::new(&["one"]);
    served.write("first", &file("p", &served.a, &served.b, &["one"], ""));
    served.start(&[]);
    let folder = served.scene.path("files").display().to_string();
    let other = served.scene.path("other.sock").display().to_string();
    let pid = served.service.as_ref().unwrap().id().to_string();
    served.scene.pipeline(&["serve", "--dir", &folder, "--socket", &other]).expect(1, &["another service", &pid, &folder]);
    // Another folder at the same socket.
    std::fs::create_dir(served.scene.path("empty")).unwrap();
    let (empty, socket) = (served.scene.path("empty").display().to_string(), served.api.socket.display().to_string());
    served.scene.pipeline(&["serve", "--dir", &empty, "--socket", &socket]).expect(1, &["cannot listen on", &socket]);
    served.scene.pipeline(&["serve", "--dir", "nowhere"]).expect(2, &["nowhere", "no folder"]);
    let missing = ["serve", "--dir", &empty, "--socket", &other, "--listen", "127.0.0.1:0", "--token-file", "nowhere"];
    served.scene.pipeline(&missing).expect(2, &["token", "nowhere"]);
    served.until_tasks(&["first/one running"]);

    // State that this program does not know, of one file: the others run.
    served.stop();
    served.write("second", &file("q", &served.b, &served.a, &["one"], ""));
    std::fs::create_dir(served.scene.path("files/.second.state")).unwrap();
    std::fs::write(served.scene.path("files/.second.state/state.redb"), "not a store at all").unwrap();
    served.start(&[]);
    let failed = served.file_is("second", "failed");
    assert!(failed["problem"].as_str().unwrap().contains(".second.state"), "{failed}");
    served.until_tasks(&["first/one running"]);
    served.stop();
}

#[test]
fn a_run_of_files_offers_the_same_api() {
    let mut served = Served::new(&["one"]);
    served.write("first", &file("p", &served.a, &served.b, &["one"], ""));
    let (path, socket) = (served.scene.path("files/first.toml").display().to_string(), served.api.socket.display().to_string());
    served.service = Some(served.scene.start(&["run", &path, "--socket", &socket], "serve.log"));
    served.api.wait_until_ready().unwrap();
    served.insert("one", 0, 10);
    served.arrived("one", 10);
    served.api.ask("POST", "/api/v1/tasks/stop", json!({}));
    assert_eq!(served.tasks(), ["first/one stopped"]);
    assert!(served.service.as_mut().unwrap().is_running(), "it may be started again");
    served.insert("one", 10, 10);
    assert_eq!(served.api.ask("POST", "/api/v1/tasks/start", json!({ "file": "first" })).0, 200);
    served.arrived("one", 20);
    assert_eq!(served.api.ask("DELETE", "/api/v1/files/first?force=true", Value::Null).0, 409);
    served.stop();
    assert!(!served.api.socket.exists());
}

#[test]
fn a_file_that_changes_again_and_again_under_writes_loses_nothing_and_loops_nothing() {
    let mut served = Served::new(&["one"]);
    let text = |round: usize| {
        let settings = format!("lanes-max = {}", 10 + round);
        file("p", &served.a, &served.b, &["one"], &settings) + &file("q", &served.b, &served.a, &["one"], &settings)
    };
    let versions: Vec<String> = (0..6).map(text).collect();
    served.write("both", &versions[0]);
    served.start(&[]);
    served.arrived("one", 0);
    let stop = AtomicBool::new(false);
    let written: i64 = std::thread::scope(|scope| {
        let write = |site: Site, first: i64| {
            let stop = &stop;
            move || {
                let mut row = 0;
                while !stop.load(Ordering::Relaxed) {
                    site.sql(&format!("insert into one.t values ({}, {row})", first + row));
                    row += 1;
                    std::thread::sleep(Duration::from_millis(3));
                }
                row
            }
        };
        let writers = [(served.a.clone(), 1_780_000_000_000), (served.b.clone(), 1_790_000_000_000)].map(|(site, first)| scope.spawn(write(site, first)));
        for version in &versions[1..] {
            served.write("both", version);
            let (status, files) = served.api.ask("POST", "/api/v1/reload", Value::Null);
            assert_eq!((status, files[0]["status"].as_str()), (200, Some("running")), "{files}");
            served.until_tasks(&["both/one running", "both/one running"]);
            std::thread::sleep(Duration::from_millis(300));
        }
        stop.store(true, Ordering::Relaxed);
        writers.map(|writer| writer.join().unwrap()).iter().sum()
    });
    served.arrived("one", written);
    let is_there = || served.a.sql("select count(*) from one.t")[0][0].as_i64() == Some(written);
    wait_for("all rows at the first site", LIMIT, is_there, || served.scene.read("serve.log"));
    for site in [&served.a, &served.b] {
        let looped = messages_at(site, "one", Duration::from_secs(2)).unwrap();
        assert!(looped.is_empty(), "{looped:?}");
    }
    served.stop();
}

#[test]
fn systemd_is_told_when_it_serves_and_when_it_stops() {
    let mut served = Served::new(&[]);
    let path = served.scene.path("notify.sock");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(LIMIT)).unwrap();
    served.scene.environment.push(("NOTIFY_SOCKET", path.display().to_string()));
    let next = || {
        let mut bytes = [0; 256];
        let count = told.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    served.start(&[]);
    assert!(next().contains("READY=1"));
    served.stop();
    assert!(next().contains("STOPPING=1"));
}
