//! Sites that cannot be used, go away and come back, or are not what they were.

use super::{SOON, T0, Two, replica, wait_for_rows};
use pipeline_tests::{Scene, Site, drop_topics, start_node, wait_for};

/// Runs the file to its end: exit code and messages as given, nothing written at the second site, and everything there once the
/// file is right.
fn refused_then_replicated(two: &Two, text: &str, exit: i32, stderr: &[&str]) {
    two.fill("t", 0, 20);
    two.scene.write("wrong.toml", text);
    let outcome = two.scene.pipeline(&["run", "wrong.toml"]);
    outcome.expect(exit, stderr);
    assert!(!outcome.stderr.contains("secretword"), "{}", outcome.stderr);
    assert!(two.b.try_sql("select * from power.t").unwrap().is_err(), "the table was made though nothing may be written");
    std::fs::rename(two.scene.path(".wrong.state"), two.scene.path(".a-to-b.state")).unwrap();
    two.replicates("t", 20);
}

#[test]
fn wrong_password() {
    for wrong_end in ["source", "sink"] {
        let two = Two::new();
        let wrong = |site: &Site| site.dsn().replace("taosdata", "secretword");
        let (from, to) = match wrong_end {
            "source" => (wrong(&two.a), two.b.dsn()),
            _ => (two.a.dsn(), wrong(&two.b)),
        };
        let place = format!("a-to-b/power: pipeline.a-to-b.{wrong_end}: ws://127.0.0.1:");
        let text = replica("a-to-b", &from, &to, "", "", "");
        refused_then_replicated(&two, &text, 1, &[&place, "Authentication failure", "check user and password of the address"]);
    }
}

#[test]
fn unknown_database() {
    let two = Two::new();
    let text = replica("a-to-b", &two.a.dsn(), &two.b.dsn(), "", "", "").replace("[\"power\"]", "[\"pwoer\"]");
    let missing = format!("pipeline.a-to-b.source: {} has no database `pwoer`", two.a.dsn().replace("root:taosdata@", ""));
    let hint = "create it, or name another one in `databases`";
    two.scene.write("wrong.toml", text.replace("transform = { type = \"loop-mark\" }\n", ""));
    two.scene.pipeline(&["run", "wrong.toml"]).expect(1, &[&missing, hint]);

    // The other direction of a replica may be about to make it: it is waited for.
    two.scene.write("wrong.toml", &text);
    let mut run = two.scene.start(&["run", "wrong.toml"], "wrong.log");
    run.wait_for(&missing, SOON).unwrap();
    run.wait_for(hint, SOON).unwrap();
    two.a.sql("create database pwoer vgroups 1");
    two.a.sql("create table pwoer.t (ts timestamp, v int)");
    two.a.sql(&format!("insert into pwoer.t values ({T0}, 1)"));
    wait_for_rows(&two.b, "pwoer.t", 1, || run.output());
    assert!(run.stop(SOON).unwrap().success());

    // At the sink it is made, unless that is switched off.
    two.b.sql("drop database power");
    two.fill("u", 0, 5);
    two.replicate("", "", ", create-database = false");
    let text = ["pipeline.a-to-b.sink", "has no database `power`", "create it, or let the sink (create-database = true)"];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(1, &text);
    two.replicate("", "", "");
    two.replicates("u", 5);
}

/// By address they are two: only the cluster's id tells.
#[test]
fn source_and_sink_are_the_same_cluster() {
    let two = Two::new();
    let same = two.a.dsn().replace("127.0.0.1", "localhost");
    let text = replica("a-to-b", &two.a.dsn(), &same, "", "", "");
    refused_then_replicated(&two, &text, 1, &["source and sink of `a-to-b` are one and the same site (`", "could loop", "check the addresses"]);
}

#[test]
fn adapter_too_old_for_exclusion() {
    let two = Two::new();
    let (old, _node) = two.scene.node("old", "version = \"3.3.0.0\"");
    old.sql("create database power vgroups 1 wal_retention_period 3600");
    let text = replica("a-to-b", &old.dsn(), &two.b.dsn(), "", "", "");
    let why = "gives a consumer that asks to leave them out rows that a replica wrote";
    refused_then_replicated(&two, &text, 1, &["pipeline.a-to-b.source", why, "a replica needs taosadapter 3.3.2.3 or newer"]);
}

#[test]
fn server_gone_and_back() {
    let mut two = Two::new();
    two.fill("t", 0, 10);
    let mut run = two.scene.start(&["run", "a-to-b.toml", "--status-interval", "100ms"], "run.log");
    wait_for_rows(&two.b, "power.t", 10, || run.output());
    for (index, name) in [(1, "b"), (0, "a")] {
        let address = if name == "a" { two.a.address.clone() } else { two.b.address.clone() };
        two.nodes.remove(index).kill().unwrap();
        if name == "b" {
            two.fill("t", 10, 10);
        }
        let gone = format!("ws://{address}/");
        run.wait_for(&gone, SOON).unwrap();
        run.wait_for("state=\"reconnecting\"", SOON).unwrap();
        let (_, node) = start_node(&two.scene.path(name), Some(&address)).unwrap();
        two.nodes.insert(index, node);
    }
    two.fill("t", 20, 10);
    wait_for_rows(&two.b, "power.t", 30, || run.output());
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
}

#[test]
fn what_was_not_written_in_time_is_said() {
    let scene = Scene::new();
    scene.write("rows.csv", "id,text\n1,one\n2,two\n");
    let sink = "{ type = \"tdengine\", dsn = \"ws://root:taosdata@127.0.0.1:1\", database = \"d\", template = { stable = \"s\", table = \"t_{text}\", tags = [\"text\"] } }";
    scene.write("late.toml", format!("[engine]\ndrain-timeout = \"1s\"\n[pipeline.p]\nsource = {{ type = \"files\", path = \"rows.csv\" }}\nsink = {sink}\n"));
    let outcome = scene.pipeline(&["run", "--for", "1s", "--json", "late.toml"]);
    outcome.expect(1, &["lanes were not drained in time", "stopped before everything was written"]);
    assert!(outcome.stdout.contains("\"is-drained\": false"), "{}", outcome.stdout);
}

#[test]
fn server_that_stays_away() {
    let two = Two::new();
    let nowhere = "ws://root:secretword@127.0.0.1:1";
    for (from, to, end) in [(nowhere, two.b.dsn(), "source"), (&two.a.dsn(), nowhere.to_owned(), "sink")] {
        two.scene.write("gone.toml", replica("a-to-b", from, &to, "reconnect-attempts-max = 3", "", ""));
        let place = format!("pipeline.a-to-b.{end}: ");
        let told = [&place, "gave up after 3 attempts", "ws://127.0.0.1:1/ws cannot be reached", "check the address"];
        two.scene.pipeline(&["run", "gone.toml"]).expect(1, &told);
    }
}

/// Retention took what was not read yet: an incident by policy, never a silent step.
#[test]
fn stored_offset_older_than_the_oldest_kept() {
    let scene = Scene::new();
    let admin = format!("127.0.0.1:{}", pipeline_tests::free_port().unwrap());
    let (a, node_a) = scene.node("a", &format!("admin = \"{admin}\""));
    let (b, node_b) = scene.node("b", "");
    for site in [&a, &b] {
        site.sql("create database power vgroups 1 wal_retention_period 3600");
    }
    let two = Two { scene, a, b, nodes: vec![node_a, node_b] };
    two.replicate("", "", "");
    two.fill("t", 0, 10);
    two.replicates("t", 10);
    for row in 10..20 {
        two.fill("t", row, 1);
    }
    let vgroup = two.a.sql("select vgroup_id from information_schema.ins_vgroups where db_name = 'power'")[0][0].as_i64().unwrap();
    let truncate = format!(r#"{{"fault":"truncate-wal","vgroup":{vgroup},"below":{}}}"#, 1i64 << 40);
    ureq::post(format!("http://{admin}/faults")).send(&truncate).unwrap();

    let told = ["pipeline.a-to-b.source: ", "but its log begins at", "entries are gone", "compare and repair the sites", "on-hole"];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(3, &told);
    // Nothing was stepped over meanwhile.
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(3, &told);
    two.replicate("", ", on-hole = \"continue\"", "");
    let mut run = two.scene.start(&["run", "a-to-b.toml", "--json"], "continue.log");
    two.fill("t", 20, 1);
    wait_for_last(&two, 20, || run.output());
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
    assert!(run.output().contains("\"kind\": \"hole\""), "the incident is counted and shown:\n{}", run.output());
}

fn wait_for_last(two: &Two, row: i64, log: impl Fn() -> String) {
    let sql = format!("select v from power.t where ts = {}", T0 + row);
    wait_for(&format!("row {row}"), SOON, || two.b.try_sql(&sql).unwrap().is_ok_and(|rows| !rows.is_empty()), log);
}

/// A database made anew has another log: positions of the old one mean nothing in it.
#[test]
fn database_that_was_made_anew() {
    let two = Two::new();
    two.fill("t", 0, 10);
    two.replicates("t", 10);
    drop_topics(&two.a, "power");
    two.a.sql("drop database power");
    two.a.sql("create database power vgroups 1 wal_retention_period 3600");
    two.fill("u", 0, 5);
    let told = ["database `power` is not the one that positions are stored for", "--accept-new-sources"];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(1, &told);
    let mut run = two.scene.start(&["run", "a-to-b.toml", "--accept-new-sources"], "accepted.log");
    wait_for_rows(&two.b, "power.u", 5, || run.output());
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
    assert!(run.output().contains("positions of another source are forgotten"), "{}", run.output());
}

#[test]
fn file_that_is_another_one() {
    let scene = Scene::new();
    scene.write("in.csv", "a\n1\n2\n");
    scene.write("f.toml", "[pipeline.f]\nsource = { type = \"files\", path = \"in.csv\" }\nsink = { type = \"files\", name = \"out\", path = \"out.csv\" }\n");
    scene.pipeline(&["run", "f.toml"]).expect(0, &[]);
    scene.write("in.csv", "a\n7\n8\n9\n");
    scene.pipeline(&["run", "f.toml"]).expect(1, &["in.csv", "it is not the file any more that was read to 6 before", "--accept-new-sources"]);
    scene.pipeline(&["run", "f.toml", "--accept-new-sources"]).expect(0, &[]);
    assert_eq!(scene.read("out-2.csv"), "a\n7\n8\n9\n");
}
