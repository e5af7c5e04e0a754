//! What surrounds a run: the state store, the disk, the clock.

use std::path::Path;
use std::process::Command;

use pipeline_tests::{Process, binary};

use super::{SOON, Two, wait_for_rows};

#[test]
fn half_written_state_store() {
    let two = Two::new();
    two.fill("t", 0, 10);
    two.replicates("t", 10);
    two.fill("t", 10, 10);
    let store = two.scene.path(".a-to-b.state/state.redb");
    let whole = std::fs::read(&store).unwrap();
    for length in [100, 5_000, whole.len() / 2] {
        std::fs::write(&store, &whole[..length]).unwrap();
        let told = [".a-to-b.state/state.redb is damaged", "put a copy of it back, or move it away"];
        two.scene.pipeline(&["run", "a-to-b.toml"]).expect(1, &told);
        assert_eq!(std::fs::read(&store).unwrap().len(), length, "what is damaged is left as it is");
    }
    // Both things that a person is told to do lose nothing: a copy, and none.
    std::fs::write(&store, &whole).unwrap();
    two.replicates("t", 20);
    two.fill("t", 20, 10);
    std::fs::remove_dir_all(two.scene.path(".a-to-b.state")).unwrap();
    two.replicates("t", 30);
}

#[test]
fn state_folder_that_another_run_uses() {
    let two = Two::new();
    let mut run = two.scene.start(&["run", "a-to-b.toml"], "first.log");
    run.wait_for("lane placed", SOON).unwrap();
    let told = ["another run (process ", ".a-to-b.state", "stop it first, or give this run a state folder of its own with --state"];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(1, &told);
    // With a state of its own it still cannot take the lanes of the first.
    two.replicate("reconnect-attempts-max = 1", ", assignment-timeout = \"500ms\"", "");
    let told = ["lanes of topic", "another process consumes with the same group"];
    two.scene.pipeline(&["run", "--state", "other", "a-to-b.toml"]).expect(1, &told);
    assert!(run.is_running(), "{}", run.output());
}

/// Starts the binary so that a full disk is an error of a write, not a signal that ends the process.
fn start_limited(arguments: &[&str], folder: &Path, log: &Path) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(binary()).args(arguments).current_dir(folder);
    Process::spawn(command, log).unwrap()
}

/// From now on no file of the process may be written beyond so many bytes: what a disk that fills up looks like to it.
fn limit_files(process: &Process, bytes: &str) {
    let pid = process.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:unlimited")]).status().unwrap();
    assert!(limited.success());
}

#[test]
fn full_disk_under_the_state() {
    let two = Two::new();
    two.fill("t", 0, 10);
    let log = two.scene.path("run.log");
    let mut run = start_limited(&["run", "--log", "error", "a-to-b.toml"], two.scene.folder.path(), &log);
    wait_for_rows(&two.b, "power.t", 10, || run.output());
    // Enough for what it prints, too little for what the store has already.
    let store = std::fs::metadata(two.scene.path(".a-to-b.state/state.redb")).unwrap().len();
    assert!(store > 50_000, "{store}");
    limit_files(&run, "20000");
    two.fill("t", 10, 10);
    let status = run.wait(SOON).unwrap();
    let told = run.output();
    assert_eq!(status.code(), Some(1), "{told}");
    for text in ["error: a-to-b/power: ", "state.redb cannot be used", "make room on the disk; nothing was lost"] {
        assert!(told.contains(text), "no {text:?} in:\n{told}");
    }
    two.replicates("t", 20);
    two.fill("t", 20, 10);
    two.replicates("t", 30);
}

#[test]
fn full_disk_of_a_site() {
    let mut two = Two::new();
    let address = two.b.address.clone();
    two.nodes.remove(1).kill().unwrap();
    let data = two.scene.path("b/data").display().to_string();
    let start = || start_limited(&["node", "--listen", &address, "--data", &data], two.scene.folder.path(), &two.scene.path("full.log"));
    let (_, node) = pipeline_tests::wait_for_node(two.b.clone(), start()).unwrap();
    two.fill("t", 0, 10);
    let mut run = two.scene.start(&["run", "a-to-b.toml"], "run.log");
    wait_for_rows(&two.b, "power.t", 10, || run.output());
    limit_files(&node, "1");
    two.fill("t", 10, 10);
    run.wait_for("make room on the disk of that server", SOON).unwrap();
    assert!(run.output().contains("(0x012B)"), "{}", run.output());
    // Room is made: what waited arrives, and what was written before is still there after the node dies.
    limit_files(&node, "unlimited");
    wait_for_rows(&two.b, "power.t", 20, || run.output());
    node.kill().unwrap();
    let (_, _node) = pipeline_tests::wait_for_node(two.b.clone(), start()).unwrap();
    wait_for_rows(&two.b, "power.t", 20, || run.output());
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
}

/// libfaketime, which `tests/run` installs: reads the time to show from a file, for the wall clock alone.
const FAKETIME: &str = "/usr/lib/*-linux-gnu/faketime/libfaketime.so.1";

fn library() -> String {
    let found = Command::new("sh").args(["-c", &format!("ls {FAKETIME}")]).output().unwrap();
    let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    assert!(!path.is_empty(), "{FAKETIME} is missing: install the package faketime, as tests/run does");
    path
}

/// The clocks of the pipeline and of both sites jump, each its own way: nothing that must happen depends on them.
#[test]
fn clock_jumps() {
    let mut two = Two::new();
    let fake = |name: &str| {
        let file = two.scene.path(name).display().to_string();
        vec![
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    };
    for name in ["clock-a", "clock-b", "clock-run"] {
        two.scene.write(name, "+0");
    }
    two.nodes.clear();
    let mut nodes = Vec::new();
    for (name, site) in [("a", &two.a), ("b", &two.b)] {
        let environment = fake(&format!("clock-{name}"));
        nodes.push(pipeline_tests::start_node_with(&two.scene.path(name), Some(&site.address), "", &environment).unwrap().1);
    }
    two.scene.environment = fake("clock-run");
    let mut run = two.scene.start(&["run", "a-to-b.toml"], "run.log");
    let mut rows = 0;
    for (a, b, own) in [("+0", "+0", "+0"), ("+0", "+0", "+10y"), ("+2y", "-2y", "-56y"), ("-2y", "+2y", "+0")] {
        for (name, offset) in [("clock-a", a), ("clock-b", b), ("clock-run", own)] {
            two.scene.write(name, offset);
        }
        two.fill("t", rows, 10);
        rows += 10;
        wait_for_rows(&two.b, "power.t", rows, || run.output());
    }
    assert!(!run.output().contains("trying again"), "{}", run.output());
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
    // A start under a clock that stands decades back.
    two.scene.write("clock-run", "-56y");
    two.fill("t", rows, 10);
    two.replicates("t", rows + 10);
}
