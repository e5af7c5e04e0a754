//! Every file under `pipelines/` is validated, drawn and run.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pipeline_tests::{Process, Site, binary, free_port, start_node, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// Tables that are made at the first site of an example and written at the others as soon as they are there.
const CREATED_TABLES: i64 = 40;

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

/// Of plugins that are workspaces of their own: `tests/sql/run` validates, draws, tests and runs these.
const ELSEWHERE: [&str; 1] = ["csv-by-minute.toml"];

#[test]
fn every_example_is_valid_and_can_be_drawn() {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") || ELSEWHERE.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        seen += 1;
        for arguments in [vec!["validate"], vec!["graph"], vec!["graph", "--format", "mermaid"], vec!["graph", "--format", "dot"], vec!["graph", "--format", "json"]] {
            let mut command = Command::new(binary());
            for name in ["SITE", "SITE_A", "SITE_B", "SHANGHAI", "BERLIN", "AUSTIN"] {
                command.env(name, format!("ws://root:taosdata@{}.example:6041", name.to_lowercase()));
            }
            command.env("POSTGRES", "postgres://me@db.example/metering").env("PGPASSWORD", "taosdata").env("KAFKA", "kafka.example:9092");
            command.env("BROKER", "mqtt://user:taosdata@broker.example").env("TOKEN", "taosdata");
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
    let text = text.replace(":16041", ":{a}").replace(":16042", ":{b}").replace("\"20s\"", "\"5s\"");
    let text = ["{a}", "{b}"].iter().fold(text, |text, port| text.replace(port, &free_port().unwrap().to_string()));
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
    // A row may be at a third site before its table, which comes there from another one.
    for table in 0..CREATED_TABLES {
        sites[0].sql(&format!("insert into {database}.c{table} using {database}.meters tags (9) values (1780000000000, 0)"));
        for (at, site) in sites.iter().enumerate().skip(1) {
            let insert = format!("insert into {database}.c{table} values ({}, {at})", 1_780_000_000_000 + at);
            wait_for(&insert, SOON, || site.try_sql(&insert).is_ok_and(|done| done.is_ok()), || run.output());
        }
    }
    wait(&mut run, &format!("select count(*) from {database}.meters"), sites.len() as i64 * (1 + CREATED_TABLES));
    // Longer than it may take to drain.
    assert!(run.stop(Duration::from_secs(60)).unwrap().success());
}

/// An example in a folder of its own, with this content of `data/`, run to its end.
fn run_in_folder(name: &str, data: &[(&str, String)], environment: &[(&str, String)]) -> (tempfile::TempDir, String) {
    let work = tempfile::tempdir().unwrap();
    std::fs::create_dir(work.path().join("data")).unwrap();
    for (file, content) in data {
        std::fs::write(work.path().join("data").join(file), content).unwrap();
    }
    let file = work.path().join(name);
    std::fs::copy(folder().join(name), &file).unwrap();
    let mut run = Process::start_with(&["run", &file.display().to_string()], environment, &work.path().join("run.log")).unwrap();
    let status = run.wait(Duration::from_secs(120)).unwrap();
    let output = run.output();
    assert!(status.success(), "{output}");
    (work, output)
}

fn meters(rows: u32) -> String {
    let row = |n: u32| format!("2026-01-0{}T00:00:{:02}.{:03},{},site {},{}\n", n % 2 + 1, n / 1000 % 60, n % 1000, n % 7, n % 7 % 2, f64::from(n) / 8.0);
    std::iter::once("ts,device,location,current\n".to_owned()).chain((0..rows).map(row)).collect()
}

#[test]
fn the_csv_example_archives_every_row_by_day() {
    let data = [("meters-1.csv", meters(20_000)), ("meters-2.csv", meters(100) + "2026-01-03T00:00:00.000,1,site 1,\n")];
    let (work, _) = run_in_folder("csv-to-parquet.toml", &data, &[]);
    // What was written is read again by the same plugin.
    let check = work.path().join("check.toml");
    let text = "[pipeline.check]\nsource = { type = \"files\", path = \"archive/*/*.parquet\" }\nsink = { type = \"files\", name = \"check\", path = \"check.csv\" }\n";
    std::fs::write(&check, text).unwrap();
    let mut run = Process::start(&["run", &check.display().to_string()], &work.path().join("check.log")).unwrap();
    assert!(run.wait(Duration::from_secs(60)).unwrap().success(), "{}", run.output());
    let rows = std::fs::read_to_string(work.path().join("check.csv")).unwrap();
    assert_eq!(rows.lines().count(), 20_101, "a header and every row but the empty one");
    let mut days: Vec<_> = std::fs::read_dir(work.path().join("archive")).unwrap().map(|it| it.unwrap().file_name()).collect();
    days.retain(|name| !name.to_string_lossy().starts_with('.'));
    days.sort();
    assert_eq!(days, ["ts=2026-01-01", "ts=2026-01-02"]);
}

#[test]
fn the_ndjson_example_routes_filters_and_keeps_what_is_rejected() {
    let line = |id: u32, level: &str, code: &str| format!("{{\"id\":{id},\"level\":\"{level}\",\"code\":\"{code}\",\"debug\":\"x\"}}\n");
    let mut events: String = (0..1000).map(|id| line(id, if id % 10 == 0 { "error" } else { "info" }, if id % 4 == 1 { "500" } else { "200" })).collect();
    events += &line(0, "error", "200");
    events += &line(5000, "info", "none");
    let (work, output) = run_in_folder("ndjson-filter.toml", &[("events.ndjson", events)], &[]);
    let read = |name: &str| std::fs::read_to_string(work.path().join("events").join(name)).unwrap();
    let (errors, others, rejected) = (read("errors.ndjson"), read("others.csv"), read("rejected.ndjson"));
    assert_eq!(errors.lines().count(), 350, "{output}");
    assert_eq!(others.lines().count(), 1 + 650);
    assert!(!errors.contains("debug") && errors.lines().all(|line| line.contains("\"error\"") || line.contains(":500")), "{errors}");
    assert_eq!(rejected.lines().count(), 1, "{rejected}");
    assert!(rejected.contains("5000") && rejected.contains("column `code` cannot become Int64") && rejected.contains("\"_component\":\"select\""), "{rejected}");
}

#[test]
fn the_tdengine_example_makes_tables_and_fills_them() {
    let folder = tempfile::tempdir().unwrap();
    let (site, _node) = start_node(folder.path(), None).unwrap();
    run_in_folder("csv-to-tdengine.toml", &[("meters.csv", meters(5_000))], &[("SITE", site.dsn())]);
    let value = |sql: &str| site.sql(sql)[0][0].clone();
    assert_eq!(value("select count(*) from power.meters"), 5_000);
    assert_eq!(value("select count(*) from information_schema.ins_tables where db_name = 'power'"), 7);
    assert_eq!(value("select count(*) from power.d_3 where location = 'site 1'"), 714);
}
