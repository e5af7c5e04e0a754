//! Every file under `pipelines/` is validated, drawn and run.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pipeline_tests::{Process, Site, binary, start_node};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines"))
}

fn sites() -> Vec<(&'static str, Site, Process, tempfile::TempDir)> {
    ["SHANGHAI", "BERLIN", "AUSTIN"]
        .into_iter()
        .map(|name| {
            let folder = tempfile::tempdir().unwrap();
            let (site, node) = start_node(folder.path(), None).unwrap();
            (name, site, node, folder)
        })
        .collect()
}

#[test]
fn every_example_is_valid_and_can_be_drawn() {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        for arguments in [vec!["validate"], vec!["graph"], vec!["graph", "--format", "mermaid"], vec!["graph", "--format", "dot"], vec!["graph", "--format", "json"]] {
            let mut command = Command::new(binary());
            for name in ["SITE_A", "SITE_B", "SHANGHAI", "BERLIN", "AUSTIN"] {
                command.env(name, format!("ws://root:taosdata@{}.example:6041", name.to_lowercase()));
            }
            let output = command.args(&arguments).arg(&path).output().unwrap();
            assert!(output.status.success(), "{arguments:?} {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            assert!(!output.stdout.is_empty(), "{arguments:?} {}", path.display());
            assert!(!String::from_utf8_lossy(&output.stdout).contains("taosdata"), "a password is printed");
        }
    }
    assert!(seen >= 3, "{seen} example files");
}

#[test]
fn the_quickstart_ends_with_equal_sites() {
    let folder_of_run = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(folder().join("quickstart.toml")).unwrap();
    // Ports of its own and a short run, so that it can run beside the other tests.
    let text = text.replace("16041", "26041").replace("16042", "26042").replace("\"20s\"", "\"5s\"");
    let file = folder_of_run.path().join("quickstart.toml");
    std::fs::write(&file, text).unwrap();
    let log = folder_of_run.path().join("run.log");
    let mut run = Process::start(&["run", &file.display().to_string()], &log).unwrap();
    let status = run.wait(Duration::from_secs(120)).unwrap();
    let output = run.output();
    assert!(status.success(), "{output}");
    assert!(output.contains("sites are equal: yes"), "{output}");
}

#[test]
fn the_replica_example_keeps_two_sites_in_step() {
    let sites = sites();
    let names = ["SITE_A", "SITE_B"];
    let environment: Vec<_> = names.iter().zip(&sites).map(|(name, site)| (*name, site.1.dsn())).collect();
    run_example("replica.toml", &environment, &[&sites[0].1, &sites[1].1], "power");
}

#[test]
fn the_mesh_example_keeps_three_sites_in_step() {
    let sites = sites();
    let environment: Vec<_> = sites.iter().map(|(name, site, ..)| (*name, site.dsn())).collect();
    let all: Vec<&Site> = sites.iter().map(|(_, site, ..)| site).collect();
    run_example("mesh.toml", &environment, &all, "power");
}

/// Runs an example, writes at every site, waits for the rows at all of them.
fn run_example(name: &str, environment: &[(&str, String)], sites: &[&Site], database: &str) {
    let work = tempfile::tempdir().unwrap();
    for site in sites {
        site.sql(&format!("create database {database} vgroups 2 wal_retention_period 3600"));
    }
    let file = folder().join(name).display().to_string();
    let state = work.path().join("state").display().to_string();
    let log = work.path().join("run.log");
    let mut run = Process::start_with(&["run", &file, "--state", &state], environment, &log).unwrap();
    sites[0].sql(&format!("create stable {database}.meters (ts timestamp, v int) tags (g int)"));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let wait = |run: &mut Process, sql: &str, wanted: i64| loop {
        let found: Vec<_> = sites
            .iter()
            .map(|site| site.try_sql(sql).ok().and_then(Result::ok).and_then(|rows| rows.first()?.first()?.as_i64()))
            .collect();
        if found.iter().all(|count| *count == Some(wanted)) {
            return;
        }
        assert!(run.is_running() && std::time::Instant::now() < deadline, "{sql}: {found:?}\n{}", run.output());
        std::thread::sleep(Duration::from_millis(100));
    };
    let stables = format!("select count(*) from information_schema.ins_stables where db_name = '{database}'");
    wait(&mut run, &stables, 1);
    for (at, site) in sites.iter().enumerate() {
        site.sql(&format!("insert into {database}.t{at} using {database}.meters tags ({at}) values (1780000000000, {at})"));
    }
    wait(&mut run, &format!("select count(*) from {database}.meters"), sites.len() as i64);
    assert!(run.stop(Duration::from_secs(30)).unwrap().success());
}
