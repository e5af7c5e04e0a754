//! `pipeline tap`: what passes a component of a run, of its file alone or through a service, for persons and scripts.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::pipeline;

const FILE: &str = "\
[pipeline.events]
on-error  = \"dead-letter\"
source    = { type = \"generate\", throttle = { rows = 2000 }, batch-rows = 50, columns = [{ name = \"id\", type = \"sequence\" }, { name = \"device\", type = \"text\", values = 3 }] }
transform = { type = \"select\", rename = { id = \"number\" } }
sink      = [
    { type = \"blackhole\", name = \"even\", when = \"number % 2 = 0\" },
    { type = \"fault\", name = \"broken\", rejected = 1.0 },
]
";

/// Ended with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tap_shows_what_passes_a_component_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.toml");
    // The values start with what is a secret of the run.
    std::fs::write(&file, FILE.replace("name = \"device\"", "name = \"${NAME}\"")).unwrap();
    let none = pipeline(folder.path(), &["tap", "events.toml", "events.select"]);
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(none.status.code() == Some(1) && said.contains("nobody runs `events.toml`") && said.contains("hint: start it"), "{said}");

    let mut run = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    run.args(["run", "events.toml", "--log", "error"]).current_dir(folder.path()).env("NAME", "device").stdout(Stdio::null()).stderr(Stdio::piped());
    let _running = Running(run.spawn().unwrap());
    let socket = folder.path().join(".events.state/run.sock");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !socket.exists() {
        assert!(Instant::now() < deadline, "the run does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let tap = |arguments: &[&str], exit: i32| {
        let output = pipeline(folder.path(), &[&["tap", "events.toml"], arguments].concat());
        let (said, errors) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}\n{errors}");
        (said, errors)
    };
    let (said, errors) = tap(&["events.select", "--limit", "25"], 0);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("# lane ") && lines[0].contains(": 50 rows, 40 more not shown"), "{said}");
    assert!(lines[1].split_whitespace().eq(["number", "device"]) && lines[2].contains(" ${NAME}-") && !said.contains("device-"), "{said}");
    assert_eq!((lines.iter().filter(|line| line.starts_with('#')).count(), lines.len()), (3, 3 + 1 + 25), "one header for all: {said}");
    assert!(errors.contains("note: 25 rows of 3 messages shown"), "{errors}");

    let (said, _) = tap(&["events.even", "--json", "--rows", "2", "--sample", "2", "--limit", "3"], 0);
    let seen: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(seen.len() == 2 && seen[0]["row-count"] == 25 && seen[0]["rows"].as_array().unwrap().len() == 2, "{said}");
    assert_eq!(seen[1]["rows"].as_array().unwrap().len(), 1);
    assert_eq!(seen[0]["columns"][0], serde_json::json!({ "name": "number", "type": "Int64" }));
    assert!(seen.iter().all(|it| it["rows"][0]["number"].as_i64().unwrap() % 2 == 0), "{said}");

    let (said, _) = tap(&["events.dead-letter", "--json", "--limit", "1"], 0);
    assert!(said.contains("\"_component\":\"broken\""), "{said}");
    let (_, errors) = tap(&["events.generate", "--for", "200ms"], 0);
    assert!(errors.contains(" messages shown"), "{errors}");
    for (component, message) in [("events.selct", "did you mean `select`?"), ("event.select", "did you mean `events`?"), ("events", "does not name a component")] {
        let (_, errors) = tap(&[component], if component == "events" { 2 } else { 1 });
        assert!(errors.contains(message), "{component}: {errors}");
    }
}
