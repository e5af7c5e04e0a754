//! `pipeline replica` as an operator uses it: two embedded nodes, one service, every verb from `start` to `remove`, and what goes wrong.

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use pipeline_tests::{Outcome, Process, Scene, Site, binary, start_node, wait_for};
use serde_json::Value;

/// Until something that takes a moment is so, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const STATUS_COLUMNS: [&str; 7] = ["replica", "task", "source", "sink", "database", "status", "note"];
const DIFF_COLUMNS: [&str; 10] =
    ["replica", "database", "source", "sink", "vgroup_id", "current", "latest", "diff", "oldest", "slack"];

/// Two sites and a service over an empty folder.
struct Stage {
    scene: Scene,
    a: Site,
    b: Site,
    nodes: Vec<Process>,
    service: Option<Process>,
    starts: usize,
}

impl Stage {
    fn new() -> Self {
        let mut scene = Scene::new();
        let socket = scene.path("pipeline.sock").display().to_string();
        scene.environment.push(("PIPELINE_SOCKET", socket));
        std::fs::create_dir(scene.path("files")).unwrap();
        let (a, first) = scene.node("a", "");
        let (b, second) = scene.node("b", "");
        for name in ["power", "water"] {
            a.sql(&format!("create database {name} vgroups 2 wal_retention_period 3600"));
            a.sql(&format!("create table {name}.one (ts timestamp, v int)"));
        }
        let mut stage = Self { scene, a, b, nodes: vec![first, second], service: None, starts: 0 };
        stage.serve();
        stage
    }

    fn serve(&mut self) {
        let folder = self.scene.path("files").display().to_string();
        self.starts += 1;
        // A log of its own: the last one's says that it serves.
        let mut service = self.scene.start(&["serve", "--dir", &folder], &format!("serve-{}.log", self.starts));
        service.wait_for("serving", PATIENCE).unwrap();
        self.service = Some(service);
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.scene.pipeline(&[&["replica"], arguments].concat())
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments);
        assert_eq!(outcome.exit, Some(0), "{arguments:?}\n{}\n{}", outcome.stdout, outcome.stderr);
        outcome
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let outcome = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout))
    }

    fn ends(&self) -> [&str; 4] {
        ["-f", &self.a.address, "-t", &self.b.address]
    }

    fn back(&self) -> [&str; 4] {
        ["-f", &self.b.address, "-t", &self.a.address]
    }

    /// `database: status` of a replica's tasks.
    fn statuses(&self, id: &str) -> Vec<String> {
        let rows = self.json(&["status", id]);
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        rows.as_array().unwrap().iter().map(|row| format!("{}: {}", text(row, "database"), text(row, "status"))).collect()
    }

    #[track_caller]
    fn wait_for(&self, id: &str, expect: &[&str]) {
        wait_for(&format!("{id} is {expect:?}"), PATIENCE, || self.statuses(id) == expect, || self.ok(&["status", id]).stdout);
    }

    fn topics(&self, site: &Site) -> usize {
        site.sql("select topic_name from information_schema.ins_topics").len()
    }
}

#[track_caller]
fn wait(what: &str, is_so: impl Fn() -> bool) {
    wait_for(what, PATIENCE, is_so, String::new);
}

fn count(site: &Site, table: &str) -> Option<u64> {
    site.try_sql(&format!("select count(*) from {table}")).ok()?.ok()?.first()?.first()?.as_u64()
}

/// Keys of the first object as they were printed, and the table's first line: both are the columns.
#[track_caller]
fn check_columns(stage: &Stage, verb: &[&str], expect: &[&str]) {
    let table = stage.ok(verb).stdout;
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), expect);
    let json = stage.ok(&[verb, &["--json"]].concat()).stdout;
    let first = json.split('}').next().unwrap();
    let keys: Vec<&str> = first.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\":")).map(|it| it.0).collect();
    assert_eq!(keys, expect, "{json}");
}

/// A person's terminal gets colours, and a pager for what does not fit; nobody else does.
fn on_a_terminal(stage: &Stage) {
    const GREEN: &str = "\u{1b}[38;5;10m";
    let paged = stage.scene.path("paged").display().to_string();
    let shown = |rows: u32| {
        let command = format!("stty cols 200 rows {rows}; PAGER='tee {paged}' exec {} replica status", binary().display());
        let outcome = stage.scene.end_of(Command::new("script").args(["-qec", &command, "typescript"])).unwrap();
        assert_eq!(outcome.exit, Some(0), "{}", outcome.stdout);
        outcome.stdout
    };
    let all = shown(40);
    assert!(all.contains(GREEN) && all.contains("running") && stage.scene.read("paged").is_empty(), "{all:?}");
    assert!(shown(3).contains("running"));
    let through = stage.scene.read("paged");
    assert_eq!(through.lines().count(), 4, "the head and a row a task: {through:?}");
    assert!(through.contains(GREEN), "{through:?}");
    assert!(!stage.ok(&["status"]).stdout.contains('\u{1b}'));
}

/// Once a task is stopped nobody knows how far its log is: what it was then is no lag.
fn what_is_not_looked_at_is_not_told(stage: &Stage, id: &str) {
    let ready: Value = serde_json::from_str(&stage.run(&["ready", id, "--json"]).stdout).unwrap();
    assert_eq!((ready[1]["database"].as_str(), &ready[1]["lag_seconds"]), (Some("water"), &Value::Null), "{ready}");
    let status = stage.json(&["status", id, "-v"]);
    assert_eq!((status[1]["status"].as_str(), &status[1]["lag_seconds"]), (Some("stopped"), &Value::Null), "{status}");
    let lanes = stage.json(&["diff", id, "water"]);
    for lane in lanes.as_array().unwrap() {
        assert!(lane["current"].is_i64() && lane["latest"].is_null() && lane["diff"].is_null(), "{lanes}");
    }
}

#[test]
fn an_operator_goes_from_start_to_remove() {
    let mut stage = Stage::new();
    let planned = stage.json(&[&["plan"], &stage.ends()[..], &["power"]].concat());
    assert!(planned.as_array().unwrap().iter().any(|row| row["check"] == "database" && row["verdict"] == "create"), "{planned}");
    assert_eq!(stage.topics(&stage.a), 0, "a plan writes nothing");

    // B has no `power` yet: the way back waits until the other direction has made it.
    stage.ok(&[&["start"], &stage.back()[..], &["power", "-i", "back"]].concat());
    let made = stage.json(&[&["start"], &stage.ends()[..], &["power"]].concat());
    let id = made["replica"].as_str().unwrap().to_owned();
    assert!(stage.scene.read(&format!("files/{id}.toml")).starts_with(&format!("# Replica {id}: ws://")));
    stage.wait_for(&id, &["power: running"]);
    stage.wait_for("back", &["power: running"]);
    stage.a.sql("insert into power.one values (now, 1)");
    wait("a row at b", || count(&stage.b, "power.one") == Some(1));
    stage.b.sql("insert into power.one values (now, 2)");
    wait("a row at a", || count(&stage.a, "power.one") == Some(2));

    check_columns(&stage, &["status"], &STATUS_COLUMNS);
    check_columns(&stage, &["status", "-v"], &[&STATUS_COLUMNS[..], &["rows", "rate", "lag_seconds", "last_applied"]].concat());
    check_columns(&stage, &["diff", &id], &DIFF_COLUMNS);
    wait("readiness", || stage.run(&["ready"]).exit == Some(0));
    let is_read = |rows: &Value| rows.as_array().unwrap().iter().all(|row| row["diff"] == 0);
    wait("everything to be read", || is_read(&stage.json(&["diff", &id, "power"])));
    let rows = stage.json(&["diff", &id, "power"]);
    assert_eq!(rows.as_array().unwrap().len(), 2, "one row a vgroup: {rows}");
    assert!(rows[0]["vgroup_id"].is_i64() && rows[0]["slack"].as_f64().unwrap() > 3_000.0, "{rows}");

    let added = stage.json(&["start", "-i", &id, "water", "power"]);
    assert_eq!((added["added"][0].as_str(), added["skipped"][0].as_str()), (Some("water"), Some("power")), "{added}");
    wait("readiness of both", || stage.run(&["ready", &id]).exit == Some(0));
    stage.ok(&["stop", &id, "water"]);
    stage.wait_for(&id, &["power: running", "water: stopped"]);
    stage.run(&["ready", &id]).expect(1, &["1 of 2 tasks"]);
    what_is_not_looked_at_is_not_told(&stage, &id);
    on_a_terminal(&stage);

    // What was stopped stays so, and what was read is where it was.
    stage.service.take().unwrap().kill().unwrap();
    stage.serve();
    stage.wait_for(&id, &["power: running", "water: stopped"]);
    stage.ok(&["restart", &id]);
    stage.wait_for(&id, &["power: running", "water: running"]);
    stage.ok(&["stop", &id, "water"]);
    stage.ok(&["remove", &id]);
    assert_eq!(stage.statuses(&id), ["power: running"]);
    assert_eq!(stage.topics(&stage.a), 3, "power's two and the canary's");

    stage.ok(&["update", &id, "--new-database-checking-interval", "1"]);
    let text = stage.scene.read(&format!("files/{id}.toml"));
    assert!(text.contains("exclude = [\"water\"]") && text.contains("new-database-interval = \"1s\""), "{text}");
    stage.a.sql("create database gas wal_retention_period 3600");
    stage.wait_for(&id, &["gas: running", "power: running"]);
    // Looked for no more, those that are there are named, and one that is made later is replicated once it is, too.
    stage.ok(&["update", &id, "--new-database-checking-interval", "0"]);
    let text = stage.scene.read(&format!("files/{id}.toml"));
    assert!(text.contains("databases = [\"gas\", \"power\"]") && !text.contains("exclude"), "{text}");
    stage.a.sql("create database oil wal_retention_period 3600");
    let added = stage.json(&["start", "-i", &id, "oil", "gas"]);
    assert_eq!((added["added"][0].as_str(), added["skipped"][0].as_str()), (Some("oil"), Some("gas")), "{added}");
    stage.wait_for(&id, &["gas: running", "oil: running", "power: running"]);

    stage.ok(&["stop", "back"]);
    stage.ok(&["remove", "back"]);
    stage.ok(&["remove", "--force"]);
    assert_eq!(stage.json(&["status"]).as_array().unwrap().len(), 0);
    assert_eq!((stage.topics(&stage.a), stage.topics(&stage.b)), (0, 0));
    stage.service.take().unwrap().kill().unwrap();
    stage.serve();
    assert_eq!(stage.json(&["status"]).as_array().unwrap().len(), 0, "a removed replica does not come back");
    assert_eq!(stage.nodes.len(), 2);
}

#[test]
fn both_directions_in_one_file() {
    let mut stage = Stage::new();
    let made = stage.json(&[&["start", "--both"], &stage.ends()[..]].concat());
    let id = &made["replica"].as_str().unwrap().to_owned();
    // The other side's databases are found once the first direction has made them there.
    stage.ok(&["update", id, "--new-database-checking-interval", "1"]);
    stage.wait_for(id, &["power: running", "power: running", "water: running", "water: running"]);
    stage.a.sql("insert into water.one values (now, 1)");
    wait("a row at b", || count(&stage.b, "water.one") == Some(1));
    stage.b.sql("insert into water.one values (now, 2)");
    wait("a row at a", || count(&stage.a, "water.one") == Some(2));
    stage.ok(&["stop", id, "water"]);
    stage.ok(&["remove", id]);
    assert!(stage.scene.read(&format!("files/{id}.toml")).contains("exclude = [\"water\"]"));

    // What is stopped as a whole looks for nothing and, after a restart of the service, is what it was.
    stage.ok(&["stop", id]);
    stage.a.sql("create database gas wal_retention_period 3600");
    stage.a.sql("create table gas.one (ts timestamp, v int)");
    stage.service.take().unwrap().kill().unwrap();
    stage.serve();
    stage.wait_for(id, &["power: stopped", "power: stopped"]);
    stage.ok(&["restart", id, "power"]);
    stage.service.take().unwrap().kill().unwrap();
    stage.serve();
    stage.wait_for(id, &["power: running", "power: running"]);
    // What is restarted as a whole looks for new ones again.
    stage.ok(&["stop", id]);
    stage.ok(&["restart", id]);
    stage.wait_for(id, &["gas: running", "gas: running", "power: running", "power: running"]);
    // And so does one to which all are added, or whose interval is set.
    stage.ok(&["stop", id]);
    stage.a.sql("create database oil wal_retention_period 3600");
    stage.a.sql("create table oil.one (ts timestamp, v int)");
    stage.ok(&["restart", id, "gas", "power"]);
    let added = stage.json(&["start", "-i", id]);
    assert_eq!(added["added"][0], "water", "what was excluded: {added}");
    let all = ["gas", "oil", "power", "water"].map(|name| format!("{name}: running"));
    let all: Vec<&str> = all.iter().flat_map(|name| [name.as_str(); 2]).collect();
    stage.wait_for(id, &all);
}

#[test]
fn an_idle_replica_is_not_ready_while_its_sink_is_gone() {
    let mut stage = Stage::new();
    stage.ok(&[&["start"], &stage.ends()[..], &["power", "-i", "plant"]].concat());
    stage.wait_for("plant", &["power: running"]);
    wait("the table at b", || count(&stage.b, "power.one") == Some(0));
    wait("readiness", || stage.run(&["ready"]).exit == Some(0));
    stage.nodes.remove(1).kill().unwrap();
    stage.wait_for("plant", &["power: interrupted"]);
    stage.run(&["ready"]).expect(1, &[]);
    let (_, node) = start_node(&stage.scene.path("b"), Some(&stage.b.address)).unwrap();
    stage.nodes.push(node);
    // Nothing is written all the while.
    stage.wait_for("plant", &["power: running"]);
    wait("readiness", || stage.run(&["ready"]).exit == Some(0));
}

/// A port at which another protocol is spoken: as a taosd does, it ends the connection at the first bytes (seen on 3.3.0.1).
fn native_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.and_then(|mut connection| connection.read(&mut [0; 1024]));
        }
    });
    address
}

#[test]
fn bad_input_changes_nothing() {
    let stage = Stage::new();
    let start = |more: &[&str]| stage.run(&[&["start"], more].concat());
    let (a, b) = (stage.a.address.as_str(), stage.b.address.as_str());
    let alias = a.replace("127.0.0.1", "localhost");
    stage.ok(&["start", "-f", a, "-t", b, "-i", "plant", "power"]);
    stage.wait_for("plant", &["power: running"]);
    let before = stage.scene.read("files/plant.toml");

    start(&["-f", a, "-t", &alias]).expect(1, &["are one site", "a replica needs two"]);
    start(&["-f", &alias, "-t", b, "power"]).expect(1, &["replica `plant` replicates `power`", "already"]);
    start(&["-f", a, "-t", b, "powr"]).expect(1, &["neither site has a database `powr`", "did you mean `power`?"]);
    start(&["-f", a, "-t", b, "water", "water"]).expect(2, &["`water` is given twice"]);
    start(&["-f", a, "-t", b, "-i", "plant", "water"]).expect(1, &["there is a replica `plant` already"]);
    start(&["-i", "plnt", "water"]).expect(1, &["no replica `plnt`", "did you mean `plant`?"]);
    stage.run(&["update", "plnt", "--new-database-checking-interval", "5"]).expect(1, &["no replica `plnt`", "did you mean `plant`?"]);
    start(&["-i", "plant", "gas"]).expect(1, &["no database `gas`"]);
    start(&["-f", &native_port(), "-t", b]).expect(1, &["of the source", "does not answer as WebSocket", "`taos://HOST:PORT`"]);
    start(&["-f", &format!("wss://{a}"), "-t", b]).expect(1, &["of the source", "does not answer as WebSocket", "`ws://`"]);
    start(&["-f", "kafka://x", "-t", b]).expect(2, &["unknown scheme `kafka`"]);
    start(&["-f", &format!("ws://root:hush@{a}"), "-t", b, "--source-password-env", "A"]).expect(2, &["a password already"]);
    let wrong = start(&["-f", &format!("ws://root:not-this@{a}"), "-t", b, "water"]);
    wrong.expect(1, &["of the source"]);
    assert!(!wrong.stderr.contains("not-this"), "{}", wrong.stderr);
    stage.run(&["status", "plnt"]).expect(1, &["no replica `plnt`", "did you mean `plant`?"]);
    stage.run(&["status", "plant", "plant"]).expect(2, &["`plant` is given twice"]);
    stage.run(&["stop", "plant", "powr"]).expect(1, &["no task for `powr`", "did you mean `power`?"]);
    for verb in ["stop", "restart", "diff"] {
        stage.run(&[verb, "plant", "plant"]).expect(1, &["no task for `plant`", "`plant` is a replica"]);
        stage.run(&[verb, "plant", "power", "power"]).expect(2, &["`power` is given twice"]);
    }
    stage.run(&["diff", "plant", "powr"]).expect(1, &["no task for `powr`"]);
    stage.run(&["remove", "plant"]).expect(1, &["nothing of replica `plant` is stopped"]);
    stage.run(&["plan", "-f", a, "-t", &alias]).expect(1, &["are one site"]);
    stage.run(&["status", "--socket", "/nowhere.sock"]).expect(1, &["no service answers at /nowhere.sock", "pipeline serve"]);
    assert_eq!(stage.scene.read("files/plant.toml"), before);
    assert_eq!(stage.statuses("plant"), ["power: running"]);
}

#[test]
fn a_dry_run_needs_no_service_and_prints_no_password() {
    let scene = Scene::new();
    scene.write("secret", "hush");
    let secret = scene.path("secret").display().to_string();
    let dry = |more: &[&str]| {
        let outcome = scene.pipeline(&[&["replica", "start", "--dry-run", "-i", "abc"], more].concat());
        outcome.expect(0, &[]);
        outcome.stdout
    };
    let text = dry(&["-f", "a.example:6030", "--source-password-env", "A", "-t", "wss://me@b.example", "--sink-password-file", &secret]);
    assert!(text.contains("dsn = \":${A}@a.example:6030\"") && text.contains(&format!("dsn = \"wss://me:${{file:{secret}}}@b.example\"")), "{text}");
    assert!(text.contains("taos://a.example:6030 → wss://b.example:6041") && text.contains("databases = [\"*\"]"), "{text}");
    let text = dry(&["-f", "root:hush@a.example", "-t", "b.example", "power", "--both"]);
    assert!(!text.contains("hush") && text.contains("[replica.abc]") && text.contains("databases = [\"power\"]"), "{text}");
    let text = dry(&["-f", "a.example", "-t", "b.example", "power", "--both", "--from-now"]);
    assert!(text.contains("\nfrom = \"latest\"\n") && text.contains("power --from-now -i abc --both`"), "{text}");
    let all = scene.pipeline(&["replica", "start", "--dry-run", "-f", "a.example", "-t", "b.example", "--from-now"]);
    all.expect(2, &["would begin without its first rows", "name the databases"]);
}
