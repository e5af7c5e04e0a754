//! Components in processes of their own (`isolation = "process"`): whatever they do there costs a restart of that component and
//! nothing else (invariant `contained`).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use pipeline_tests::{Outcome, Pair, Scene, Site, binary, free_port, wait_for};
use serde_json::Value;

/// How long anything may take that must happen.
const SOON: Duration = Duration::from_secs(90);
const ROWS: usize = 3_000;
const TERMINATE: u32 = 15;
/// Keys that let a test end soon where a person would rather wait. A call may take long enough that only one which never ends is overdue.
const IMPATIENT: &str = "checkpoint-interval = \"50ms\"\nretry-delay-min = \"20ms\"\nretry-delay-max = \"200ms\"\ncall-timeout = \"20s\"\n";

/// A folder with rows to read and the plugin that misbehaves.
fn scene() -> Scene {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("plugins")).unwrap();
    let library = binary().with_file_name("libfaulty_plugin.so");
    assert!(library.exists(), "{} is missing: run `cargo build` first", library.display());
    std::os::unix::fs::symlink(library, scene.path("plugins/libpipeline_plugin_faulty.so")).unwrap();
    let rows: String = (0..ROWS).map(|row| format!("{row},{}\n", row * 7)).collect();
    scene.write("in.csv", format!("id,value\n{rows}"));
    scene
}

fn run(scene: &Scene, file: &str) -> Outcome {
    scene.pipeline(&["run", "--plugin-path", "plugins", "--json", file])
}

/// Values of the first column of what was written under a name: a sink that is made anew begins another file.
fn ids(scene: &Scene, name: &str) -> BTreeSet<usize> {
    let names = std::iter::once(format!("{name}.csv")).chain((2..).map(|number| format!("{name}-{number}.csv")));
    let texts: Vec<String> = names.map_while(|name| std::fs::read_to_string(scene.path(&name)).ok()).collect();
    texts.iter().flat_map(|text| text.lines().skip(1)).filter_map(|line| line.split(',').next()?.parse().ok()).collect()
}

/// Processes that this one started, with how they were called.
fn children(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = behind_name.split(' ');
        if fields.next() != Some("Z") && fields.next() == Some(&parent.to_string()) {
            let called = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((id, String::from_utf8_lossy(&called).replace('\0', " ")));
        }
    }
    found
}

/// Whether the process has begun to handle what would end it otherwise: before that, it has just been started.
fn handles_termination(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default().trim();
    u64::from_str_radix(caught, 16).is_ok_and(|caught| caught & 1 << (TERMINATE - 1) != 0)
}

fn until(what: &str, is_so: impl Fn() -> bool, log: impl Fn() -> String) {
    wait_for(what, SOON, is_so, log);
}

fn kill(id: u32, signal: &str) {
    // It may have ended meanwhile.
    let _ = Command::new("kill").args([signal, &id.to_string()]).status();
}

/// One run with a pipeline for everything that a component can do to its process, each once, and one beside them that is well.
#[test]
fn what_ends_a_component_costs_its_restart() {
    let faults = [
        ("transform", "abort", "signal 6 (abort)"),
        ("transform", "crash", "signal 11 (memory fault)"),
        ("transform", "spin", "a call in it did not return within 20s, and it was killed"),
        ("transform", "panic", "panicked: as told"),
        ("sink", "abort", "signal 6 (abort)"),
        ("sink", "spin", "did not return within 20s"),
        ("sink", "hang", "did not return within 20s"),
        ("sink", "panic", "panicked: as told"),
        ("all", "nothing", ""),
    ];
    let scene = scene();
    let mut text = String::new();
    for (kind, does, _) in faults {
        let name = format!("{kind}-{does}");
        text += &format!("[pipeline.{name}]\n{IMPATIENT}source = {{ type = \"files\", path = \"in.csv\", batch-rows = 500 }}\n");
        let faulty = format!("type = \"faulty\", name = \"bad\", isolation = \"process\", does = \"{does}\", once = \"{}\"", scene.path(&name).display());
        text += &match kind {
            "transform" => format!("transform = {{ {faulty} }}\nsink = {{ type = \"files\", name = \"out\", path = \"{name}.csv\" }}\n\n"),
            "sink" => format!("sink = [{{ {faulty} }}, {{ type = \"files\", name = \"good\", path = \"{name}.csv\" }}]\n\n"),
            _ => format!(
                "transform = {{ {faulty} }}\nsink = {{ type = \"files\", name = \"out\", path = \"{name}.csv\", isolation = \"process\" }}\n\n"
            )
            .replace("batch-rows = 500", "batch-rows = 500, isolation = \"process\""),
        };
    }
    scene.write("all.toml", &text);
    let outcome = run(&scene, "all.toml");
    outcome.expect(0, &[]);
    let summary: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout));
    let pipelines = summary[0]["pipelines"].as_array().unwrap();
    for (kind, does, words) in faults {
        let name = format!("{kind}-{does}");
        let of = pipelines.iter().find(|it| it["pipeline"] == *name).unwrap();
        assert_eq!(ids(&scene, &name).len(), ROWS, "{name}: {of:#}\n{}", outcome.stderr);
        let said = outcome.stderr.lines().any(|line| line.contains(&name) && line.contains(words));
        assert!(said || words.is_empty(), "{name}: no {words:?} in:\n{}", outcome.stderr);
        let restarts = of["process-restarts"].as_u64().unwrap();
        let wanted = u64::from(does != "nothing" && does != "panic");
        assert_eq!(restarts, wanted, "{name}: {of:#}\n{}", outcome.stderr);
        assert!(of["rows-written"].as_u64().unwrap() >= ROWS as u64, "{name}: {of:#}");
    }
}

#[test]
fn a_component_that_cannot_be_made_is_an_error_at_its_place() {
    let scene = scene();
    let text = "[pipeline.p]\nsource = { type = \"files\", path = \"in.csv\" }\n\
                transform = { type = \"faulty\", isolation = \"process\", does = \"refuse\" }\nsink = { type = \"files\", name = \"out\", path = \"out.csv\" }\n";
    scene.write("p.toml", text);
    let outcome = scene.pipeline(&["run", "--plugin-path", "plugins", "p.toml"]);
    outcome.expect(1, &["pipeline.p.transform", "refused as told", "let it do something else"]);
}

/// A host that is killed takes its components' processes along, also one that is in an endless loop.
#[test]
fn processes_end_with_their_host() {
    let scene = scene();
    let text = format!(
        "[pipeline.p]\n{}source = {{ type = \"files\", path = \"in.csv\", isolation = \"process\" }}\n\
         transform = {{ type = \"faulty\", isolation = \"process\", does = \"spin\" }}\nsink = {{ type = \"files\", name = \"out\", path = \"out.csv\" }}\n",
        IMPATIENT.replace("\"20s\"", "\"100s\"")
    );
    scene.write("p.toml", &text);
    let run = scene.start(&["run", "--plugin-path", &scene.path("plugins").display().to_string(), "p.toml"], "p.log");
    let id = run.id();
    // One that was just forked is still called as its host is.
    let is_one = |(child, called): &(u32, String)| called.starts_with("pipeline component ") && handles_termination(*child);
    until("two processes", || children(id).iter().filter(|it| is_one(it)).count() == 2, || scene.read("p.log"));
    let children = children(id);
    assert!(children.iter().all(is_one), "{children:?}");
    // What ends the host as it should does not end them: they are its to end.
    children.iter().for_each(|(child, _)| kill(*child, "-TERM"));
    std::thread::sleep(Duration::from_millis(200));
    assert!(children.iter().all(|(child, _)| Path::new(&format!("/proc/{child}")).exists()), "{}", scene.read("p.log"));
    run.kill().unwrap();
    until("their end", || children.iter().all(|(child, _)| !Path::new(&format!("/proc/{child}")).exists()), String::new);
}

/// Source, filter and sink of one direction in processes of their own, of the other all but the filter; killed while rows come at
/// both sites.
#[test]
fn a_replica_whose_processes_are_killed_stays_equal() {
    let mut pair = Pair::new("isolated", "vgroups 2").unwrap();
    pair.stop().unwrap();
    pair.edit(|text| {
        let isolated = |part: &str| part.replace("type = ", "isolation = \"process\", type = ");
        let (first, second) = text.split_at(text.find("[pipeline.b-to-a]").unwrap());
        isolated(first) + &isolated(second).replace("isolation = \"process\", type = \"loop-mark\"", "type = \"loop-mark\"")
    });
    pair.start().unwrap();
    pair.a.sql("create stable isolated.meters (ts timestamp, v int) tags (place varchar(24))");
    pair.settle(SOON).unwrap();
    let (stop, written) = (AtomicBool::new(false), [AtomicI64::new(0), AtomicI64::new(0)]);
    let host = pair.run().id();
    std::thread::scope(|scope| {
        for (site, name, written) in [(pair.a.clone(), "a", &written[0]), (pair.b.clone(), "b", &written[1])] {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let row = written.fetch_add(1, Ordering::Relaxed);
                    let at = 1_780_000_000_000 + row;
                    site.sql(&format!("insert into isolated.{name}{} using isolated.meters tags ('{name}') values ({at}, {row})", row % 4));
                    std::thread::sleep(Duration::from_millis(4));
                }
            });
        }
        for round in 0..5 {
            std::thread::sleep(Duration::from_millis(300));
            let all = children(host);
            // Five: three of the one direction, two of the other.
            until("all processes", || children(host).len() == 5, || format!("{all:?}\n{}", pair.log()));
            let mut all = children(host);
            all.sort_unstable();
            kill(all[round * 3 % all.len()].0, "-KILL");
        }
        stop.store(true, Ordering::Relaxed);
    });
    pair.settle(SOON).unwrap();
    let wanted: i64 = written.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let found = pair.a.sql("select count(*) from isolated.meters")[0][0].as_i64().unwrap();
    assert_eq!(found, wanted, "{}", pair.log());
    let log = pair.log();
    // A call under way may see the connection go before the process is known to have ended.
    assert!(log.contains("signal 9") && log.contains("the component's process was started again"), "{log}");
    assert_eq!(pair.run().id(), host);
    pair.stop().unwrap();
    until("their end", || children(host).is_empty(), String::new);
}

/// A service is started again as well; what it keeps is on its disk.
#[test]
fn a_service_is_started_again() {
    let scene = Scene::new();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let text = format!("[service.node]\ntype = \"tdengine-node\"\nisolation = \"process\"\nlisten = \"{address}\"\ndata = \"data\"\n");
    scene.write("node.toml", &text);
    let site = Site::new(address);
    let mut run = scene.start(&["run", "node.toml"], "node.log");
    until("the node", || site.answers(), || scene.read("node.log"));
    site.sql("create database d");
    site.sql("create table d.t (ts timestamp, v int)");
    for round in 0..2 {
        site.sql(&format!("insert into d.t values ({}, 1)", 1_780_000_000_000_i64 + round));
        let child = children(run.id())[0].0;
        kill(child, "-KILL");
        until("another process", || children(run.id()).iter().any(|(id, _)| *id != child), || scene.read("node.log"));
        until("the node", || site.answers(), || scene.read("node.log"));
        assert_eq!(site.sql("select count(*) from d.t")[0][0].as_i64(), Some(round + 1));
    }
    run.signal("TERM").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", scene.read("node.log"));
    let log = scene.read("node.log");
    assert!(log.contains("starting the service again") && log.contains("signal 9"), "{log}");
}
