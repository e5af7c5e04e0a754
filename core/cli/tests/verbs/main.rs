//! The binary as a person or a script meets it: exit codes, where things are printed, hints, secrets; and an author's path, for which
//! `cargo build --workspace` must have been run.

mod cases;
mod check;
mod guide;
mod init;
mod new;
mod reference;
mod tap;

use std::path::Path;
use std::process::{Command, Output};

fn pipeline(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("PIPELINE_PLUGIN_PATH")
        .env_remove("PIPELINE_LOG")
        .env("SITE", "ws://root:topsecret@host:6041")
        .output()
        .unwrap()
}

fn check(arguments: &[&str], exit: i32, stdout: &[&str], stderr: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("unknown.toml", "[pipeline.p]\nsource = { type = \"no-such\", dsn = \"${SITE}\" }\nsink = { type = \"none\" }\n");
    write("routes.toml", "[pipeline.p]\nsource = { type = \"files\", path = \"a.csv\" }\nsink = { type = \"files\", name = \"b\", path = \"b.csv\", when = \"v > 1\" }\n");
    write("broken.toml", "[pipeline.p]\nsorce = 1\n");
    write("kind.toml", "[pipeline.p]\nsource = { type = \"blackhole\" }\nsink = { type = \"blackhole\", name = \"end\" }\n");
    write("unset.toml", "[service.s]\ntype = \"no-such\"\nvalue = \"${NOT_SET_ANYWHERE}\"\n");
    let output = pipeline(folder.path(), arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}\n{out}\n{err}");
    for text in stdout {
        assert!(out.contains(text), "{arguments:?}: no {text:?} in\n{out}\n{err}");
    }
    for text in stderr {
        assert!(err.contains(text), "{arguments:?}: no {text:?} in\n{err}");
    }
    assert!(!out.contains("topsecret") && !err.contains("topsecret"), "{out}\n{err}");
    assert!(!err.contains('\x1b'), "colours where no terminal is: {err:?}");
    // clap's own errors end with where its help is.
    if exit != 0 && !err.contains("try '--help'") {
        assert!(err.trim_end().lines().last().unwrap().starts_with("hint: "), "no hint last: {err}");
    }
}

#[test]
fn wrong_usage_is_2() {
    check(&["frobnicate"], 2, &[], &["unrecognized subcommand"]);
    check(&["run"], 2, &[], &["<FILE>"]);
    check(&["run", "--for", "soon", "unknown.toml"], 2, &[], &["`soon` is no duration"]);
    check(&["run", "--state", "s", "unset.toml", "absent.toml"], 2, &[], &["NOT_SET_ANYWHERE", "absent.toml"]);
    check(&["replica", "start", "-i", ""], 2, &[], &["`` cannot be an id"]);
    check(&["replica", "start", "-f", "a", "-t", "b", "--dry-run", "power", "power"], 2, &[], &["`power` is given twice"]);
}

#[test]
fn usage_names_no_option_that_the_environment_gave() {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeline")).args(["replica", "update"]).env("PIPELINE_SOCKET", "/s").output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("Usage: pipeline replica update [OPTIONS] --new") && !err.contains("--socket"), "{err}");
}

#[test]
fn a_wrong_file_is_2_with_its_place() {
    check(&["validate", "broken.toml"], 2, &[], &["broken.toml:2:1", "did you mean `source`?"]);
    check(&["validate", "absent.toml"], 2, &[], &["absent.toml", "cannot read the file"]);
    check(&["run", "unset.toml"], 2, &[], &["unset.toml:3:10", "`NOT_SET_ANYWHERE` is not set"]);
    check(&["graph", "unknown.toml"], 2, &[], &["unknown.toml:2:19", "no plugin has a source of type `no-such`"]);
    // Files are all checked before anything is said.
    check(&["validate", "broken.toml", "unset.toml"], 2, &[], &["broken.toml:2:1", "unset.toml:3:10"]);
}

#[test]
fn a_hint_fits_what_is_wrong() {
    let said = |arguments: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("broken.toml", "[pipeline.p]\nsorce = 1\n"), ("empty.toml", "")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let twice = "[pipeline.p]\nsource = { type = \"generate\" }\nsink = { type = \"blackhole\" }\n";
        std::fs::write(folder.path().join("twice.toml"), twice).unwrap();
        String::from_utf8_lossy(&pipeline(folder.path(), arguments).stderr).into_owned()
    };
    for (arguments, paths, validate) in [
        (["validate", "broken.toml", "broken.toml"], false, false),
        (["validate", "empty.toml", "empty.toml"], false, false),
        (["validate", "twice.toml", "twice.toml"], false, false),
        (["validate", "absent.toml", "absent.toml"], true, false),
        (["run", "broken.toml", "broken.toml"], false, true),
        (["run", "empty.toml", "empty.toml"], false, true),
        (["run", "absent.toml", "absent.toml"], true, false),
    ] {
        let err = said(&arguments);
        assert!(err.contains("error"), "{arguments:?}: {err}");
        assert_eq!(err.contains("paths are relative"), paths, "{arguments:?}: {err}");
        assert_eq!(err.contains("`pipeline validate FILE`"), validate, "{arguments:?}: {err}");
    }
}

/// What there is instead is looked for in all plugins, not in those that the file happens to need.
#[test]
fn a_component_of_the_wrong_kind_is_told_from_all_that_there_are() {
    check(&["validate", "kind.toml"], 2, &[], &["`blackhole` is a sink, not a source", "`generate`", "`files`", "`tdengine-tmq`"]);
}

#[test]
fn the_keys_of_a_replica_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[replica.r]\ntype = \"tdengine\"\nsites = { a = \"ws://a\", b = \"ws://b\" }\nzzzzzzzzzz = 1\n";
    std::fs::write(folder.path().join("key.toml"), text).unwrap();
    let output = pipeline(folder.path(), &["validate", "key.toml"]);
    let err = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
    assert_eq!(err.matches("`request-timeout`").count(), 1, "{err}");
}

/// The transform behind `when` is of another library than all that the file names.
#[test]
fn a_route_needs_no_other_component_of_its_library() {
    check(&["validate", "routes.toml"], 0, &["routes.toml"], &[]);
}

#[test]
fn validate_prints_places_for_scripts() {
    check(
        &["validate", "--json", "broken.toml"],
        2,
        &["\"valid\": false", "\"line\": 2", "\"column\": 1", "\"path\": \"pipeline.p.sorce\""],
        &["not every file is valid"],
    );
}

#[test]
fn an_unknown_plugin_is_1() {
    check(&["plugin", "describe", "no-such"], 1, &[], &["`no-such`", "hint: `pipeline plugin list`"]);
}

#[test]
fn schema_and_completions_print_to_standard_output() {
    check(&["schema"], 0, &["\"$schema\"", "checkpoint-interval", "\"replica\""], &[]);
    check(&["completions", "bash"], 0, &["_pipeline()", "--plugin-path"], &[]);
    check(&["plugin", "list", "--json"], 0, &["\"plugins\"", "\"searched\""], &[]);
    check(&["--help"], 0, &["Exit codes: 0 done, 1 failed", "validate", "node"], &[]);
}

/// What is no library is told, and keeps nothing else from loading.
#[test]
fn a_broken_library_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("libpipeline_plugin_broken{}", std::env::consts::DLL_SUFFIX);
    std::fs::write(folder.path().join(name), "no library").unwrap();
    let path = folder.path().to_str().unwrap();
    check(&["plugin", "list", "--plugin-path", path], 0, &[], &["libpipeline_plugin_broken", "was not loaded"]);
}
