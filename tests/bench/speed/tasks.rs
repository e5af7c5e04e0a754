//! A service with many tasks that have nothing to do: how soon all of them run, what they cost, how fast the service tells of them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pipeline_tests::{Api, Process, Site, start_node_with};
use serde_json::Value;

use crate::options::Options;
use crate::process::{cpu_seconds, resident_mib};
use crate::report::{Report, Wanted};

/// How long all tasks may take to run.
const START_LIMIT: Duration = Duration::from_secs(300);
/// After the last has started, before anything is measured: a task counts as idle once nothing came for a while.
const SETTLE: Duration = Duration::from_secs(60);
/// Some of the longest waits, which many tasks end together.
const IDLE: Duration = Duration::from_secs(48);
/// Requests for the status.
const REQUESTS: usize = 20;

pub fn measure(options: &Options, folder: &Path, report: &mut Report) -> Result<()> {
    let tasks = options.tasks;
    let settings = format!("topics-max = {}\nlimits = {{ connections = {} }}", 4 * tasks + 8, 8 * tasks + 64);
    let (a, _first) = start_node_with(&folder.join("many-a"), None, &settings, &[])?;
    let (b, _second) = start_node_with(&folder.join("many-b"), None, &settings, &[])?;
    let databases: Vec<String> = (0..tasks).map(|number| format!("many_{number}")).collect();
    for site in [&a, &b] {
        for database in &databases {
            site.sql(&format!("create database {database} vgroups 1"));
        }
    }
    let files = folder.join("many");
    std::fs::create_dir_all(&files)?;
    let (empty, _) = serve(&files, folder)?;
    std::thread::sleep(SETTLE);
    let bare_mib = resident_mib(empty.id())?;
    drop(empty);

    std::fs::write(files.join("many.toml"), text(&a, &b, &databases))?;
    let begun = Instant::now();
    let (service, api) = serve(&files, folder)?;
    while running(&api)? < tasks {
        if begun.elapsed() > START_LIMIT {
            bail!("{} of {tasks} tasks run after {START_LIMIT:?}\n{}", running(&api)?, service.output());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    report.add(format!("{tasks} tasks: start to all running"), "s", Wanted::Below(10.0), vec![begun.elapsed().as_secs_f64()]);
    std::thread::sleep(SETTLE);
    let (before, at) = (cpu_seconds(service.id())?, Instant::now());
    std::thread::sleep(IDLE);
    let percent = 100.0 * (cpu_seconds(service.id())? - before) / at.elapsed().as_secs_f64();
    report.add(format!("{tasks} idle tasks, freshness = \"1s\""), "% of a core", Wanted::Below(5.0), vec![percent]);
    let each = (resident_mib(service.id())? - bare_mib) * 1024.0 / tasks as f64;
    report.add(format!("memory of one of {tasks} idle tasks"), "KiB", Wanted::Below(200.0), vec![each]);
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        api.get("/api/v1/tasks");
        times.push(asked.elapsed().as_secs_f64() * 1_000.0);
    }
    report.add(format!("status of {tasks} tasks"), "ms", Wanted::Below(50.0), times);
    Ok(())
}

fn serve(files: &Path, folder: &Path) -> Result<(Process, Api)> {
    let (files, socket) = (files.display().to_string(), folder.join("many.sock"));
    let arguments = ["serve", "--dir", &files, "--socket", &socket.display().to_string(), "--log", "warn"];
    let service = Process::start(&arguments, &folder.join("serve.log"))?;
    let api = Api::new(&socket);
    api.wait_until_ready()?;
    Ok((service, api))
}

fn running(api: &Api) -> Result<usize> {
    let (_, tasks) = api.try_ask("GET", "/api/v1/tasks", &Value::Null)?;
    Ok(tasks.as_array().map_or(0, |tasks| tasks.iter().filter(|task| task["status"] == "running").count()))
}

fn text(a: &Site, b: &Site, databases: &[String]) -> String {
    let databases: Vec<String> = databases.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "[pipeline.many]\nsource = {{ type = \"tdengine-tmq\", freshness = \"1s\", dsn = \"{}\", databases = [{}] }}\n\
         transform = {{ type = \"loop-mark\" }}\nsink = {{ type = \"tdengine\", dsn = \"{}\" }}\n",
        a.dsn(),
        databases.join(", "),
        b.dsn()
    )
}
