//! What these tests share: programs that must be there, files of pipelines that run until something holds, the conformance kit.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pipeline_tests::{Process, Scene, binary};
use serde_json::Value as Json;

/// Long for a loaded machine; nothing here takes so long on an idle one.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A program's path.
///
/// # Panics
/// It is not installed: says what to do.
pub fn program(name: &str, install: &str) -> PathBuf {
    let own = std::env::var_os("PIPELINE_TEST_BROKERS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own.into_iter().chain(std::env::split_paths(&path)).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut places = folders.map(|folder| folder.join(name));
    places.find(|place| place.is_file()).unwrap_or_else(|| panic!("`{name}` is needed: {install} (`tests/run` does it)"))
}

pub fn wait_for(what: &str, mut is_true: impl FnMut() -> bool, shown: impl Fn() -> String) {
    let deadline = Instant::now() + LIMIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}\n{}", shown());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until somebody listens.
pub fn wait_for_port(port: u16, process: &Process) {
    wait_for(&format!("port {port}"), || TcpStream::connect(("127.0.0.1", port)).is_ok(), || process.output());
}

/// How often each `id` stands in NDJSON files below a folder, parts of files that are not whole yet among them.
pub fn ids(folder: &Path) -> BTreeMap<i64, usize> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            for (id, count) in ids(&path) {
                *found.entry(id).or_default() += count;
            }
        } else if path.extension().is_some_and(|it| it == "ndjson" || it == "part") {
            for line in std::fs::read_to_string(&path).unwrap_or_default().lines() {
                if let Some(id) = serde_json::from_str::<Json>(line).ok().and_then(|row| row["id"].as_i64()) {
                    *found.entry(id).or_default() += 1;
                }
            }
        }
    }
    found
}

/// Waits until every id of `0..end` is there.
pub fn wait_for_ids(folder: &Path, end: i64, run: &Process) -> BTreeMap<i64, usize> {
    wait_for(&format!("ids to {end}"), || ids(folder).len() as i64 >= end, || format!("{} ids\n{}", ids(folder).len(), run.output()));
    let found = ids(folder);
    assert!((0..end).all(|id| found.contains_key(&id)), "other ids than those that were sent");
    found
}

/// Stops a run, which must end well.
pub fn stop(run: Process) {
    let log = run.log.clone();
    let status = run.stop(LIMIT).unwrap();
    assert!(status.success(), "{}", std::fs::read_to_string(log).unwrap_or_default());
}

/// What every change runs of the conformance kit: what brokers are about. The full tier runs all of it.
const CI_CHECKS: [&str; 6] = ["bad-config", "order", "commit-after-durable", "duplicates-after-kill", "panic", "arrow-types"];

/// Runs the conformance kit on a plugin; how many checks passed.
///
/// # Panics
/// One failed.
pub fn check_plugin(scene: &Scene, name: &str, kit: &str) -> usize {
    let config = scene.path("kit.toml");
    scene.write("kit.toml", kit);
    let library = binary().with_file_name(format!("libpipeline_plugin_{name}.so"));
    let mut command = Command::new(binary());
    command.args(["plugin", "check"]).arg(&library).args(["--json", "--call-timeout", "30s", "--check-timeout", "90s", "--config"]).arg(&config);
    if std::env::var("PIPELINE_TEST_TIER").as_deref() != Ok("full") {
        command.args(CI_CHECKS.iter().flat_map(|check| ["--only", check]));
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {text}"));
    let findings = report["findings"].as_array().unwrap();
    let of = |verdict: &str| findings.iter().filter(|it| it["verdict"] == verdict).collect::<Vec<_>>();
    assert!(of("failed").is_empty() && output.status.success(), "{:#?}", of("failed"));
    for it in of("not-applicable") {
        println!("{} {} not applicable: {}", it["kind"], it["check"], it["reason"]);
    }
    of("passed").len()
}
