//! Files that are wrong: found before anything is connected to, exit code 2, with place and hint.

use pipeline_tests::Scene;

use super::replica;

const A: &str = "ws://root:secretword@a.example:6041";
const B: &str = "ws://root:secretword@b.example:6041";

/// Both verbs say the same.
#[track_caller]
fn refused(text: &str, stderr: &[&str]) {
    let scene = Scene::new();
    scene.write("bad.toml", text);
    for verb in ["validate", "run"] {
        let outcome = scene.pipeline(&[verb, "bad.toml"]);
        outcome.expect(2, stderr);
        assert!(outcome.stdout.is_empty() && !outcome.stderr.contains("secretword"), "{outcome:?}");
    }
    assert!(!scene.path(".bad.state/state.redb").exists(), "a file that is refused leaves no state");
}

#[test]
fn malformed_toml() {
    refused("[pipeline.a\n", &["error: not TOML: unclosed table", "bad.toml:1:12"]);
    let text = replica("a", A, B, "", "", "").replace("databases = [", "databases = [\"x\" ");
    refused(&text, &["error: not TOML", "bad.toml:6:"]);
}

#[test]
fn unknown_keys_types_and_values() {
    let good = replica("a", A, B, "", "", "");
    let check = |from: &str, to: &str, stderr: &[&str]| {
        assert!(good.contains(from));
        refused(&good.replace(from, to), stderr);
    };
    check("databases", "databses", &["unknown key `databses` of a `tdengine-tmq` source", "bad.toml:6:", "did you mean `databases`?"]);
    check("checkpoint-interval", "checkpoint-intervall", &["did you mean `checkpoint-interval`?", "at pipeline.a.checkpoint-intervall"]);
    check("\"loop-mark\"", "\"loopmark\"", &["no plugin has a transform of type `loopmark`", "did you mean `loop-mark`?"]);
    check("\"100ms\"", "\"soon\"", &["bad.toml:2:23", "at pipeline.a.checkpoint-interval"]);
    check("[\"power\"]", "[7]", &["at pipeline.a.source.databases", "expected a string"]);
    check("[\"power\"]", "[\"power\"], on-hole = \"jump\"", &["at pipeline.a.source.on-hole", "`continue`"]);
}

#[test]
fn wrong_dsn() {
    let check = |dsn: &str, why: &str| {
        let text = replica("a", dsn, B, "", "", "");
        refused(&text, &["this is no TDengine address", why, "write host, host:6041", "at pipeline.a.source.dsn"]);
    };
    check("postgres://a.example", "unknown scheme `postgres`");
    check("", "it is empty");
    check("ws://root:secretword@", "empty host");
    check("ws://a.example:99999", "invalid port");
    check("ws://a.example?tokn=x", "unknown parameter `tokn`");
}

#[test]
fn two_tasks_with_the_same_source_sink_and_database() {
    let twice = replica("one", A, B, "", "", "") + &replica("two", A, B, "", "", "");
    refused(&twice, &["`two` has the same source and sink as `one` for `power`", "bad.toml:9:11", "divide the databases"]);

    // The same over two files that run together.
    let scene = Scene::new();
    scene.write("one.toml", replica("one", A, B, "", "", ""));
    scene.write("two.toml", replica("two", A, B, "", "", ""));
    for verb in ["validate", "run"] {
        scene.pipeline(&[verb, "one.toml", "two.toml"]).expect(2, &["`two` has the same source and sink as `one`", "two.toml:1"]);
    }
}

#[test]
fn the_same_site_at_both_ends() {
    refused(&replica("a", A, A, "", "", ""), &["source and sink of `a` are one and the same site", "a replica needs two sites"]);
}
