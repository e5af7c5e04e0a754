//! What these tests share: programs that must be there, files of pipelines that run until something holds, the conformance kit.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pipeline_tests::{Process, Scene, is_full_tier};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value as Json;

/// Long for a loaded machine; nothing here takes so long on an idle one.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A program's path: in one of these folders, where `tests/brokers/prepare` put it, or where the system has programs.
///
/// # Panics
/// It is not installed: says what to do.
pub fn program(name: &str, folders: &[PathBuf], install: &str) -> PathBuf {
    let own = std::env::var_os("PIPELINE_TEST_BROKERS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut places = folders.iter().cloned().chain(own).chain(system).map(|folder| folder.join(name));
    places.find(|place| place.is_file()).unwrap_or_else(|| panic!("`{name}` is needed: {install} (`tests/run` does it)"))
}

/// Runs a command to its end; its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn wait_for(what: &str, is_so: impl FnMut() -> bool, shown: impl FnOnce() -> String) {
    pipeline_tests::wait_for(what, LIMIT, is_so, shown);
}

/// Waits until somebody listens.
#[track_caller]
pub fn wait_for_port(port: u16, process: &mut Process) {
    let log = process.log.clone();
    let shown = || std::fs::read_to_string(&log).unwrap_or_default();
    let is_there = || {
        assert!(process.is_running(), "port {port}: it ended\n{}", shown());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    };
    wait_for(&format!("port {port}"), is_there, shown);
}

/// `NAME-ca.pem` of an authority, and `NAME.crt` with `NAME.key` for 127.0.0.1, for a server or a client.
pub fn certificates(scene: &Scene, name: &str) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for self-signed that is called as its authority is.
    authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    scene.write(&format!("{name}-ca.pem"), authority.pem());
    scene.write(&format!("{name}.crt"), certificate.pem());
    scene.write(&format!("{name}.key"), key.serialize_pem());
}

/// What is in NDJSON files below a folder, parts of files that are not whole yet among them.
pub fn rows_in(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &rows_in(&path);
        } else if path.extension().is_some_and(|it| it == "ndjson" || it == "part") {
            // One that is renamed at this moment is read the next time.
            text += &std::fs::read_to_string(&path).unwrap_or_default();
        }
    }
    text
}

/// How often each `id` is among [`rows_in`] a folder.
pub fn ids(folder: &Path) -> BTreeMap<i64, usize> {
    let mut found = BTreeMap::new();
    for id in rows_in(folder).lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()?["id"].as_i64()) {
        *found.entry(id).or_default() += 1;
    }
    found
}

/// Waits until every id of `0..end` is there.
#[track_caller]
pub fn wait_for_ids(folder: &Path, end: i64, run: &Process) -> BTreeMap<i64, usize> {
    wait_for(&format!("ids to {end}"), || ids(folder).len() as i64 >= end, || format!("{} ids\n{}", ids(folder).len(), run.output()));
    let found = ids(folder);
    assert!((0..end).all(|id| found.contains_key(&id)), "other ids than those that were sent");
    found
}

/// Starts `pipeline run` on a file of this text.
pub fn start(scene: &Scene, name: &str, text: &str, more: &[&str]) -> Process {
    scene.write(name, text);
    scene.start(&[&["run", name], more].concat(), &format!("{name}.log"))
}

/// Runs a file of this text to its end; the exit code and what it said.
pub fn run_file(scene: &Scene, name: &str, text: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut process = start(scene, name, text, more);
    let status = process.wait(LIMIT).unwrap_or_else(|error| panic!("{error:#}"));
    (status.code(), process.output())
}

/// Waits for a run's own end, which must be a good one.
#[track_caller]
pub fn ends_well(run: &mut Process) {
    let status = run.wait(LIMIT).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(status.success(), "{}", run.output());
}

/// Stops a run, which must end well.
#[track_caller]
pub fn stop(run: Process) {
    let log = run.log.clone();
    let status = run.stop(LIMIT).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(status.success(), "{}", std::fs::read_to_string(log).unwrap_or_default());
}

/// An example of `pipelines/`.
pub fn example(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What every change runs of the conformance kit: what brokers are about. The full tier runs all of it.
const CI_CHECKS: [&str; 6] = ["bad-config", "order", "commit-after-durable", "duplicates-after-kill", "panic", "arrow-types"];

pub fn ci_checks() -> &'static [&'static str] {
    if is_full_tier() { &[] } else { &CI_CHECKS }
}

/// Runs the conformance kit on a plugin, of its checks `only` those named (none: all); how many passed. None may fail.
#[track_caller]
pub fn check_plugin(scene: &Scene, name: &str, kit: &str, only: &[&str]) -> usize {
    let findings = pipeline_tests::check_plugin(scene, name, kit, only, &[]);
    assert!(findings.failed().is_empty(), "{:#?}", findings.failed());
    for it in findings.not_applicable() {
        println!("{} {} not applicable: {}", it["kind"], it["check"], it["reason"]);
    }
    findings.passed()
}
