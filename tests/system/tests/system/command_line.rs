//! The command line as a person at a terminal meets it: help, the live table, signals, the summary, exit codes.

use std::process::Command;
use std::time::{Duration, Instant};

use pipeline_tests::{Process, Scene, Site, binary, pipelines, wait_for};

const T0: i64 = 1_780_000_000_000;
const SOON: Duration = Duration::from_secs(60);

/// Two sites and `replica.toml` between them; the second one's admin address.
fn pair(scene: &Scene) -> (Site, Site, String, [Process; 2]) {
    let admin = format!("127.0.0.1:{}", pipeline_tests::free_port().unwrap());
    let (a, first) = scene.node("a", "");
    let (b, second) = scene.node("b", &format!("admin = \"{admin}\""));
    for site in [&a, &b] {
        site.sql("create database power vgroups 1 wal_retention_period 3600");
    }
    a.sql("create table power.t (ts timestamp, v int)");
    scene.write("replica.toml", pipelines(&a, &b, "power"));
    (a, b, admin, [first, second])
}

fn insert(site: &Site, from: i64, rows: i64) {
    let values: String = (from..from + rows).map(|row| format!(" ({}, {row})", T0 + row)).collect();
    site.sql(&format!("insert into power.t values{values}"));
}

fn count(site: &Site) -> i64 {
    match site.try_sql("select count(*) from power.t").unwrap() {
        Ok(rows) => rows[0][0].as_i64().unwrap(),
        Err(_) => 0,
    }
}

fn wait_for_rows(site: &Site, rows: i64, run: &Process) {
    wait_for(&format!("{rows} rows"), SOON, || count(site) >= rows, || format!("{} of them are there\n{}", count(site), run.output()));
}

#[test]
fn every_verb_has_help() {
    let scene = Scene::new();
    for verb in [&["run"][..], &["serve"], &["validate"], &["graph"], &["test"], &["tap"], &["plugin"], &["plugin", "list"], &["plugin", "describe"], &["schema"], &["node"], &["completions"], &[]] {
        let outcome = scene.pipeline(&[verb, &["--help"]].concat());
        assert_eq!(outcome.exit, Some(0), "{verb:?}");
        assert!(outcome.stdout.contains(&format!("Usage: pipeline {}", verb.join(" ")).trim_end().to_owned()), "{}", outcome.stdout);
    }
    for verb in [&["plugin", "list"][..], &["plugin", "describe", "tdengine"], &["schema"]] {
        let json = if verb == ["schema"] { verb.to_vec() } else { [verb, &["--json"]].concat() };
        let outcome = scene.pipeline(&json);
        serde_json::from_str::<serde_json::Value>(&outcome.stdout).unwrap_or_else(|error| panic!("{json:?}: {error}"));
        assert_eq!(outcome.exit, Some(0));
    }
    let described = scene.pipeline(&["plugin", "describe", "tdengine-tmq"]).stdout;
    let has = |texts: [&str; 3]| described.lines().any(|line| texts.iter().all(|text| line.contains(text)));
    assert!(has(["on-hole", "stop | continue", "\"stop\""]) && has(["new-database-interval", "string", "\"30s\""]), "{described}");
}

/// Drains, flushes, stores positions, and ends with 0: the next run finds nothing that was written before.
#[test]
fn a_signal_drains_and_ends_with_0() {
    let scene = Scene::new();
    let (a, b, _, _nodes) = pair(&scene);
    let mut rows = 0;
    for signal in ["INT", "TERM"] {
        let mut run = scene.start(&["run", "replica.toml", "--json"], &format!("{signal}.log"));
        run.wait_for("lane placed", SOON).unwrap();
        for _ in 0..20 {
            insert(&a, rows, 50);
            rows += 50;
        }
        wait_for_rows(&b, rows - 500, &run);
        run.signal(signal).unwrap();
        let status = run.wait(SOON).unwrap();
        assert_eq!(status.code(), Some(0), "{}", run.output());
        assert!(run.output().contains("\"is-drained\": true"), "{}", run.output());
        // What was read is written; what was not is for the next run, and nothing else is.
        let there = count(&b);
        let text = scene.pipeline(&["run", "--for", "1s", "--json", "replica.toml"]);
        text.expect(0, &[]);
        let summaries: serde_json::Value = serde_json::from_str(&text.stdout).unwrap();
        let written: i64 = summaries[0]["pipelines"].as_array().unwrap().iter().map(|it| it["rows-written"].as_i64().unwrap()).sum();
        assert_eq!((written, count(&b)), (rows - there, rows), "{}", text.stdout);
        assert_eq!(summaries[0]["sites-are-equal"], true);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let scene = Scene::new();
    let (a, b, admin, _nodes) = pair(&scene);
    scene.write("replica.toml", scene.read("replica.toml").replace("\"tdengine\",", "\"tdengine\", request-timeout = \"60s\","));
    let mut run = scene.start(&["run", "replica.toml"], "run.log");
    insert(&a, 0, 10);
    wait_for_rows(&b, 10, &run);
    // From now on a write is done, and answered after most of a minute: draining would take as long as it may.
    ureq::post(format!("http://{admin}/faults")).send(r#"{"fault":"delay-reply","milliseconds":50000,"action":"write_raw"}"#).unwrap();
    insert(&a, 10, 10);
    wait_for_rows(&b, 20, &run);
    run.signal("INT").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.is_running(), "it drains:\n{}", run.output());
    let begun = Instant::now();
    run.signal("TERM").unwrap();
    let status = run.wait(SOON).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(1), "{}", run.output());
    for text in ["error: ended at once, as told by a second signal", "hint: nothing is lost"] {
        assert!(run.output().contains(text), "no {text:?} in:\n{}", run.output());
    }
    ureq::delete(format!("http://{admin}/faults")).call().unwrap();
    scene.pipeline(&["run", "--for", "1s", "replica.toml"]).expect(0, &[]);
    assert_eq!(count(&b), 20);
}

#[test]
fn a_bounded_run_ends_with_a_summary() {
    let scene = Scene::new();
    let (a, _b, _, _nodes) = pair(&scene);
    insert(&a, 0, 1_234);
    let outcome = scene.pipeline(&["run", "--for", "2s", "replica.toml"]);
    outcome.expect(0, &["lane placed"]);
    let lines: Vec<String> = outcome.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expect in ["SITE DATABASE TABLES ROWS", "a power 1 1,234", "b power 1 1,234", "sites are equal: yes"] {
        assert!(lines.iter().any(|line| line == expect), "no {expect:?} in:\n{}", outcome.stdout);
    }
    let moved = lines.iter().find(|line| line.starts_with("a-to-b power stopped 1,234 "));
    // A loaded machine may leave a lag, or try again: that is told as it was.
    assert!(moved.is_some_and(|line| line.ends_with(" 0")), "rows, and no loops:\n{}", outcome.stdout);
}

/// What a terminal of so many columns shows while it runs, without the codes that move the cursor.
fn on_a_terminal(scene: &Scene, columns: u32, log: &str) -> String {
    let command = format!("stty cols {columns} rows 24; exec {} run --for 3s replica.toml", binary().display());
    let outcome = scene.end_of(Command::new("script").args(["-qec", &command, log])).unwrap();
    assert_eq!(outcome.exit, Some(0), "{}", outcome.stdout);
    outcome.stdout
}

#[test]
fn a_terminal_shows_a_live_table_that_fits() {
    let scene = Scene::new();
    let (a, _b, _, _nodes) = pair(&scene);
    insert(&a, 0, 500);
    for columns in [80, 120] {
        let shown = on_a_terminal(&scene, columns, "typescript");
        // Drawn again and again, each time over the last.
        let draws = shown.matches("PIPELINE").count();
        assert!(draws >= 4 && shown.contains("\u{1b}[3A"), "{draws} draws:\n{shown:?}");
        assert!(shown.contains("the time is over: generators stop, lanes are drained"), "{shown:?}");
        let table: Vec<&str> = shown.lines().filter(|line| line.contains("a-to-b") && line.contains("power")).collect();
        assert!(table.iter().any(|line| line.contains("running")), "{shown:?}");
        for heading in ["ROWS", "BYTES", "ROWS/S", "LAG S", "LAG", "RETRIES", "LOOPS"] {
            assert!(shown.contains(heading), "no {heading} in {shown:?}");
        }
        let width = table.iter().map(|line| line.trim_end().chars().count()).max().unwrap();
        assert!(width <= columns as usize, "{width} columns of {columns}:\n{shown}");
        assert!(!shown.contains("lane placed"), "log lines that the table makes superfluous:\n{shown}");
        assert!(shown.contains("sites are equal: yes"), "{shown}");
    }
}

/// Entries that are nobody's rows, and the second consumer's lanes, count as read once they were passed.
#[test]
fn nothing_lags_once_nobody_writes() {
    let scene = Scene::new();
    let (a, b, _admin, _nodes) = pair(&scene);
    insert(&a, 0, 10);
    let arguments = ["run", "--log-format", "json", "--status-interval", "200ms", "replica.toml"];
    let run = scene.start(&arguments, "run.log");
    wait_for_rows(&b, 10, &run);
    // Longer than the second consumer's polls: it has looked once, and must look again.
    std::thread::sleep(Duration::from_secs(5));
    insert(&a, 10, 10);
    let lag = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["message"] == "status").then(|| (line["pipeline"].clone(), line["rows"].as_i64(), line["lag_offsets"].as_i64()))
    };
    let deadline = Instant::now() + SOON;
    loop {
        let output = run.output();
        let mut last: Vec<_> = output.lines().rev().filter_map(lag).take(2).collect();
        last.sort_by_key(|(pipeline, ..)| pipeline.to_string());
        if let [(_, Some(20), Some(0)), (_, _, Some(0))] = last[..] {
            return;
        }
        assert!(Instant::now() < deadline, "{last:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// README's `cargo run --release -- run …` names no binary.
#[test]
fn the_workspace_has_one_binary() {
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = metadata["packages"].as_array().unwrap().iter().flat_map(|it| it["targets"].as_array().unwrap());
    let binaries: Vec<_> = targets.filter(|it| it["kind"][0] == "bin").map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(binaries, ["pipeline"]);
}

/// A sink that renames is compared with what it writes to, whatever else there is at its site.
#[test]
fn a_copy_under_another_name_is_what_is_compared() {
    let scene = Scene::new();
    let (a, b, _, _nodes) = pair(&scene);
    b.sql("create database power_copy vgroups 1 wal_retention_period 3600");
    let one_way = scene.read("replica.toml").split("[pipeline.b-to-a]").next().unwrap().to_owned();
    scene.write("copy.toml", one_way.replace("\"tdengine\",", "\"tdengine\", map = { power = \"power_copy\" },"));
    insert(&a, 0, 10);
    let run = |exit: i32| {
        let outcome = scene.pipeline(&["run", "--for", "2s", "copy.toml"]);
        outcome.expect(exit, &[]);
        outcome.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let lines = run(0);
    for expect in ["a power 1 10", "b power_copy 1 10", "sites are equal: yes"] {
        assert!(lines.iter().any(|line| line == expect), "no {expect:?} in:\n{}", lines.join("\n"));
    }
    // One that is equal and has nothing to do with it hides no difference.
    b.sql("create table power.t (ts timestamp, v int)");
    insert(&b, 0, 10);
    b.sql(&format!("insert into power_copy.t values ({}, 1)", T0 + 1_000));
    let lines = run(1);
    for expect in ["power.t: a has 10 rows, b has 11 rows", "sites are equal: no"] {
        assert!(lines.iter().any(|line| line == expect), "no {expect:?} in:\n{}", lines.join("\n"));
    }
}

/// What never comes is waited for as long as `drain-timeout` says, and the log says for what; a signal meanwhile is no success.
#[test]
fn a_bounded_run_that_cannot_drain_says_what_it_waits_for() {
    let scene = Scene::new();
    let (a, b, _, _nodes) = pair(&scene);
    for (name, limit) in [("short", "2s"), ("long", "60s")] {
        let text = format!("[engine]\ndrain-timeout = \"{limit}\"\n{}", pipelines(&a, &b, "absent"));
        scene.write(&format!("{name}.toml"), text);
    }
    let begun = Instant::now();
    let outcome = scene.pipeline(&["run", "--for", "1s", "short.toml"]);
    outcome.expect(1, &["the time is over", "a-to-b/absent", "lanes were not drained in time", "error: stopped before everything was written: a-to-b/absent ("]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(!outcome.stdout.contains("sites are equal"), "what is not drained is not compared:\n{}", outcome.stdout);

    let mut run = scene.start(&["run", "--for", "1s", "long.toml"], "long.log");
    run.wait_for("the time is over", SOON).unwrap();
    run.signal("TERM").unwrap();
    let status = run.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(1), "{}", run.output());
    assert!(run.output().contains("error: ended by a signal before everything was drained and compared"), "{}", run.output());
}

/// Nor does a site that is gone keep the summary back.
#[test]
fn a_site_that_is_gone_keeps_no_summary_back() {
    let scene = Scene::new();
    let (a, _b, _, [_first, second]) = pair(&scene);
    insert(&a, 0, 10);
    scene.pipeline(&["run", "--for", "1s", "replica.toml"]).expect(0, &[]);
    let one_way = scene.read("replica.toml").split("[pipeline.b-to-a]").next().unwrap().to_owned();
    scene.write("gone.toml", format!("[engine]\ndrain-timeout = \"2s\"\n{one_way}"));
    second.kill().unwrap();
    let outcome = scene.pipeline(&["run", "--for", "1s", "gone.toml"]);
    outcome.expect(1, &["error: "]);
    assert!(outcome.stdout.contains("gone.toml: ran "), "{}\n{}", outcome.stdout, outcome.stderr);
}
