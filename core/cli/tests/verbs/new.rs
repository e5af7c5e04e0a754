//! `plugin new`: what it writes builds and passes the kit. In C always, in Rust, where dependencies are built, in the full tier; the
//! Rust templates are checked in every tier as one plugin of the workspace (`tests/templates`).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::check::{built, failures, kit};
use crate::pipeline;

pub fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

fn new(folder: &Path, name: &str, kind: &str, lang: &str) -> PathBuf {
    let made = pipeline(folder, &["plugin", "new", name, "--kind", kind, "--lang", lang]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder.join(name)
}

fn passes(library: &Path) {
    let (exit, report, _) = kit(library, &[]);
    assert_eq!((exit, failures(&report)), (Some(0), Vec::new()), "{}", library.display());
}

#[test]
fn what_it_writes_in_c_passes_the_kit() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["source", "transform", "sink", "service"] {
        let made = new(folder.path(), &format!("my-{kind}"), kind, "c");
        let text = run(&made, "make", &["-s"]);
        assert!(text.is_empty(), "warnings: {text}");
        passes(&made.join(format!("libpipeline_plugin_my_{kind}.so")));
    }
    // One that clears what it takes for its own: `abi-older` sees it.
    let source = folder.path().join("my-source/my_source.c");
    let text = std::fs::read_to_string(&source).unwrap();
    let wrong = text.replace("  out->status = done->status;", "  memset(out, 0, out->size);\n  out->status = done->status;");
    assert_ne!(wrong, text);
    std::fs::write(&source, wrong).unwrap();
    run(source.parent().unwrap(), "make", &["-s"]);
    let (exit, report, _) = kit(&source.with_file_name("libpipeline_plugin_my_source.so"), &["--only", "abi-older"]);
    assert_eq!(exit, Some(1));
    assert!(failures(&report)[0].contains("wrote behind the end of `pl_output`"), "{report}");
}

#[test]
fn what_cannot_be_made_is_said() {
    crate::check(&["plugin", "new", "Über", "--kind", "sink"], 2, &[], &["`Über` is no name of a plugin", "small letters"]);
    let folder = tempfile::tempdir().unwrap();
    new(folder.path(), "twice", "sink", "rust");
    let again = pipeline(folder.path(), &["plugin", "new", "twice", "--kind", "sink"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists"));
    // Nothing is left to be filled in.
    for name in ["Cargo.toml", "src/lib.rs", "dylib/src/lib.rs", "tests/component.rs", "pipeline.toml"] {
        let text = std::fs::read_to_string(folder.path().join("twice").join(name)).unwrap();
        assert!(!text.contains("{{"), "{name}: {text}");
    }
}

/// From an empty folder to a checked library with Cargo, all kinds; minutes, as all dependencies are built.
#[test]
fn what_it_writes_in_rust_passes_the_kit() {
    if std::env::var("PIPELINE_TEST_TIER").as_deref() != Ok("full") {
        return;
    }
    let target = built("pipeline").parent().unwrap().join("authors");
    let folder = tempfile::tempdir().unwrap();
    for kind in ["source", "transform", "sink", "service"] {
        let made = new(folder.path(), &format!("my-{kind}"), kind, "rust");
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"), made.join("Cargo.lock")).unwrap();
        let target = target.to_str().unwrap();
        run(&made, env!("CARGO"), &["test", "-q", "--target-dir", target]);
        run(&made, env!("CARGO"), &["build", "-q", "--workspace", "--target-dir", target]);
        passes(&Path::new(target).join(format!("debug/libpipeline_plugin_my_{kind}.so")));
    }
}
