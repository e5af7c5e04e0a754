//! Plugins that are missing, stale, of another boundary, or that misbehave (invariant `contained`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pipeline_tests::{Api, Outcome, Scene, binary};

use super::{SOON, Two, replica, wait_for_rows};

/// Where `cargo build` puts libraries.
fn built() -> PathBuf {
    binary().parent().expect("it is in a folder").to_owned()
}

fn place(from: &Path, to: &Path) {
    assert!(from.exists(), "{} is missing: run `cargo build` first", from.display());
    // A link where the file system allows it: libraries are large.
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop)).unwrap();
}

/// A folder with the executable and these plugins, and nothing else.
fn installed(scene: &Scene, plugins: &[&str]) -> PathBuf {
    let folder = scene.path("installed");
    std::fs::create_dir_all(&folder).unwrap();
    place(&binary(), &folder.join("pipeline"));
    for plugin in plugins {
        let name = format!("libpipeline_plugin_{plugin}.so");
        place(&built().join(&name), &folder.join(&name));
    }
    folder
}

fn validate(scene: &Scene, installed: &Path) -> Outcome {
    scene.write("a.toml", replica("a", "ws://a.example", "ws://b.example", "", "", ""));
    scene.end_of(Command::new(installed.join("pipeline")).args(["validate", "a.toml"])).unwrap()
}

#[test]
fn missing_plugin() {
    let scene = Scene::new();
    let folder = installed(&scene, &["loop_mark"]);
    let outcome = validate(&scene, &folder);
    let hint = "`pipeline plugin list` shows where they are looked for, `--plugin-path` adds a folder";
    outcome.expect(2, &["no plugin has a source of type `tdengine-tmq`", "a.toml:6:19", hint]);
    place(&built().join("libpipeline_plugin_tdengine.so"), &folder.join("libpipeline_plugin_tdengine.so"));
    validate(&scene, &folder).expect(0, &[]);
}

#[test]
fn stale_or_damaged_library() {
    let scene = Scene::new();
    let folder = installed(&scene, &["loop_mark"]);
    let library = folder.join("libpipeline_plugin_tdengine.so");
    std::fs::copy(built().join("libpipeline_plugin_tdengine.so"), &library).unwrap();
    let source = scene.path("newer.rs");
    std::fs::write(&source, "").unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    std::fs::File::options().write(true).open(&source).unwrap().set_modified(later).unwrap();
    std::fs::write(library.with_extension("d"), format!("{}: {}\n", library.display(), source.display())).unwrap();
    let stale = ["the library is stale", "newer.rs changed after it was built", "`cargo build` without `-p`"];
    validate(&scene, &folder).expect(2, &stale).expect(2, &["no plugin has a source of type `tdengine-tmq`"]);
    let accepted = scene.end_of(Command::new(folder.join("pipeline")).args(["validate", "--accept-stale", "a.toml"])).unwrap();
    accepted.expect(0, &[]);

    std::fs::remove_file(library.with_extension("d")).unwrap();
    let whole = std::fs::read(&library).unwrap();
    std::fs::write(&library, &whole[..whole.len() / 3]).unwrap();
    validate(&scene, &folder).expect(2, &["libpipeline_plugin_tdengine.so was not loaded", "cut off", "build it anew"]);
}

/// A plugin in C for another version of the boundary: says so and is not called.
#[test]
fn wrong_abi() {
    let scene = Scene::new();
    let folder = installed(&scene, &["loop_mark", "tdengine"]);
    scene.write(
        "old.c",
        "#include \"pipeline_plugin.h\"\n#include <stdlib.h>\n\
         static pl_slice description(void) { abort(); }\n\
         static const pl_root root = { .size = sizeof(pl_root), .abi_major = 77, .description = description };\n\
         const pl_root *pipeline_plugin_root(void) { return &root; }\n",
    );
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../../core/sdk/include");
    let library = folder.join("libpipeline_plugin_old.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-I", header, "-o"]).arg(&library).arg(scene.path("old.c")).status();
    assert!(compiled.unwrap().success());
    let text = ["libpipeline_plugin_old.so was not loaded", "version 77.0 of the plugin boundary", "build the plugin against"];
    let outcome = validate(&scene, &folder);
    assert_eq!(outcome.exit, Some(0), "nothing needs it: {}", outcome.stderr);
    assert!(text.iter().all(|text| outcome.stderr.contains(text)), "{}", outcome.stderr);
    // Where it is needed, it is an error.
    scene.write("needs.toml", "[service.s]\ntype = \"old\"\n");
    let needs = scene.end_of(Command::new(folder.join("pipeline")).args(["run", "needs.toml"])).unwrap();
    needs.expect(2, &text).expect(2, &["no plugin has a service of type `old`", "needs.toml:2:8"]);
}

/// Runs a pipeline with a component that misbehaves beside one that does not: the other goes on, what a person reads of the one is
/// `stderr`, and all its rows arrive once the component behaves.
fn misbehaves(transform: &str, does_sink: Option<&str>, stderr: &[&str]) {
    let two = Two::new();
    let folder = two.scene.path("plugins");
    std::fs::create_dir_all(&folder).unwrap();
    place(&built().join("libfaulty_plugin.so"), &folder.join("libpipeline_plugin_faulty.so"));
    two.a.sql("create database other vgroups 1 wal_retention_period 3600");
    two.a.sql("create table other.t (ts timestamp, v int)");
    two.a.sql("insert into other.t values (1780000000000, 1)");
    let good = replica("a-to-b", &two.a.dsn(), &two.b.dsn(), "", "", "");
    let other = good.replace("pipeline.a-to-b]", "pipeline.other]").replace("[\"power\"]", "[\"other\"]");
    let faulty = |does: &str| other.replace("\"loop-mark\"", &format!("\"faulty\", does = \"{does}\""));
    // Only what misbehaves is given up: on a loaded machine a source may take long to connect.
    let limited = |text: &str| text.replace("pipeline.other]", "pipeline.other]\nretry-attempts-max = 2\ncall-timeout = \"5s\"");
    let bad = match does_sink {
        Some(does) => {
            let bad = faulty(transform);
            format!("{}sink = {{ type = \"faulty\", name = \"sink\", does = \"{does}\" }}\n", &bad[..bad.find("sink = ").unwrap()])
        }
        None => faulty(transform),
    };
    two.scene.write("both.toml", &(good.clone() + &limited(&bad)));
    two.fill("good", 0, 10);
    let arguments = ["run", "--plugin-path", &folder.display().to_string(), "both.toml"];
    let mut run = two.scene.start(&arguments, "both.log");
    run.wait_for("task ended", SOON).unwrap();
    two.fill("good", 10, 10);
    wait_for_rows(&two.b, "power.good", 20, || run.output());
    run.signal("TERM").unwrap();
    let exit = run.wait(SOON).unwrap().code();
    Outcome { exit, stdout: String::new(), stderr: run.output() }.expect(1, stderr).expect(1, &["error: other/other: "]);

    two.scene.write("both.toml", &(good + &faulty("nothing")));
    let mut run = two.scene.start(&arguments, "mended.log");
    wait_for_rows(&two.b, "other.t", 1, || run.output());
    run.signal("TERM").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
}

#[test]
fn plugin_that_panics() {
    misbehaves("panic", None, &["pipeline.other.transform", "panicked: as told", "gave up after 2 attempts"]);
}

#[test]
fn plugin_that_hangs() {
    misbehaves("nothing", Some("hang"), &["did not return within 5s", "`call-timeout`", "gave up after 2 attempts"]);
}

/// It keeps its thread: nothing in the process can end it, and yet the process ends when told to.
#[test]
fn plugin_that_blocks_its_thread() {
    misbehaves("block", None, &["has blocked its thread for", "only a restart of the process ends it"]);
}

/// However many they are: what an operator asks is answered, and the process ends when told to.
#[test]
fn plugins_that_block_all_threads_leave_the_api_and_signals_alone() {
    const PIPELINES: usize = 40;
    let scene = Scene::new();
    let folder = scene.path("plugins");
    std::fs::create_dir_all(&folder).unwrap();
    place(&built().join("libfaulty_plugin.so"), &folder.join("libpipeline_plugin_faulty.so"));
    let one = |number: usize| {
        format!(
            "[pipeline.p{number}]\ncall-timeout = \"1s\"\nsource = {{ type = \"generate\", rate = 10, seed = {number} }}\n\
             transform = {{ type = \"faulty\", does = \"block\" }}\nsink = {{ type = \"blackhole\" }}\n"
        )
    };
    scene.write("all.toml", (0..PIPELINES).map(one).collect::<String>());
    let (plugins, socket) = (folder.display().to_string(), scene.path("p.sock"));
    let arguments = ["run", "--plugin-path", &plugins, "--socket", &socket.display().to_string(), "all.toml"];
    let mut run = scene.start(&arguments, "run.log");
    run.wait_for("has blocked its thread for", SOON).unwrap();
    // The others have blocked theirs by then, too.
    std::thread::sleep(Duration::from_secs(2));
    let begun = std::time::Instant::now();
    let tasks = Api::new(&socket).get("/api/v1/tasks");
    assert!(begun.elapsed() < Duration::from_secs(30) && tasks.to_string().contains("has blocked its thread"), "{tasks:#}");
    run.signal("TERM").unwrap();
    // What is blocked does not drain.
    std::thread::sleep(Duration::from_secs(1));
    run.signal("TERM").unwrap();
    assert_eq!(run.wait(SOON).unwrap().code(), Some(1), "{}", run.output());
}
