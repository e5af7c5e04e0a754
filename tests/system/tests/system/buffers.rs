//! A disk buffer before a sink that stays away: what is in it outlives the run, the source and a full disk.

use std::process::Command;
use std::time::Duration;

use pipeline_tests::{Api, Process, Scene, binary, free_port, start_node};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const ROWS: i64 = 20_000;

fn file(address: &str) -> String {
    format!(
        "[pipeline.meters]\ncheckpoint-interval = \"100ms\"\nretry-delay-max = \"500ms\"\n\
         source = {{ type = \"files\", path = \"meters.csv\", batch-rows = 100 }}\n\
         [pipeline.meters.sink]\ntype = \"tdengine\"\ndsn = \"ws://root:taosdata@{address}\"\ndatabase = \"power\"\n\
         template = {{ stable = \"meters\", table = \"d_{{device}}\", tags = [\"device\"] }}\nbuffer = {{ type = \"disk\", max = \"64MiB\" }}\n"
    )
}

fn csv(rows: i64) -> String {
    let row = |n: i64| format!("2026-01-01T00:{:02}:{:02}.{:03},{},{}\n", n / 60_000 % 60, n / 1_000 % 60, n % 1_000, n % 5, n);
    std::iter::once("ts,device,current\n".to_owned()).chain((0..rows).map(row)).collect()
}

/// The task into the buffer, as the API shows it.
fn feeder(tasks: &Value) -> &Value {
    tasks.as_array().unwrap().iter().find(|task| task["pipeline"] == "meters").unwrap()
}

/// From now on no file of the process may grow beyond so many bytes: a disk that is full, to it.
fn limit_files(process: &Process, bytes: &str) {
    let limited = Command::new("prlimit").args(["--pid", &process.id().to_string(), &format!("--fsize={bytes}:unlimited")]).status().unwrap();
    assert!(limited.success());
}

#[test]
fn what_is_buffered_survives_kills_a_full_disk_and_the_loss_of_its_source() {
    let scene = Scene::new();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    scene.write("meters.toml", file(&address));
    scene.write("meters.csv", csv(ROWS));
    // A full disk is an error of a write here, not a signal that ends the process.
    let start = |log: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" run meters.toml --log warn"]).arg(binary()).current_dir(scene.folder.path());
        Process::spawn(command, &scene.path(log)).unwrap()
    };
    let api = Api::new(&scene.path(".meters.state/run.sock"));
    let until = |run: &Process, what: &str, is_so: &dyn Fn(&Value) -> bool| {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let answer = api.try_ask("GET", "/api/v1/tasks", &Value::Null);
            if let Ok((200, tasks)) = &answer
                && is_so(feeder(tasks))
            {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "never: {what}\n{answer:?}\n{}", run.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // Killed in the middle of filling, again and again; once the disk is full meanwhile.
    let run = start("first.log");
    until(&run, "something is buffered", &|task| task["buffer-rows"].as_i64().unwrap() >= 500);
    run.kill().unwrap();
    let run = start("second.log");
    // All may be in the buffer already.
    until(&run, "it goes on", &|task| task["rows-read"].as_i64().unwrap() >= 500 || task["status"] == "finished");
    limit_files(&run, "1");
    until(&run, "the full disk is seen", &|task| task["status"] == "interrupted" && task["reason"].as_str().unwrap().contains("the disk is full") || task["status"] == "finished" || task["status"] == "failed");
    run.kill().unwrap();
    let run = start("third.log");
    until(&run, "the source is done", &|task| task["status"] == "finished");
    run.kill().unwrap();
    // Now all there is, is the buffer.
    std::fs::remove_file(scene.path("meters.csv")).unwrap();
    scene.write("empty.csv", "ts,device,current\n");
    scene.write("meters.toml", file(&address).replace("meters.csv", "empty.csv"));
    let (site, _node) = start_node(&scene.path("site"), Some(&address)).unwrap();
    let mut run = start("last.log");
    let status = run.wait(Duration::from_secs(120)).unwrap();
    assert!(status.success(), "{}", run.output());
    let value = |sql: &str| site.sql(sql)[0][0].as_i64().unwrap();
    assert_eq!(value("select count(*) from power.meters"), ROWS, "{}", run.output());
    assert_eq!(value("select max(current) from power.meters where device = 4"), ROWS - 1);
}
