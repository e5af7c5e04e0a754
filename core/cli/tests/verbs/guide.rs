//! The plugin guide: every snippet is what `plugin new` writes, or is run here as it stands. What builds with Cargo is run in the full
//! tier; in every tier the same code is built as `tests/templates`.

use std::path::Path;
use std::process::Command;

use crate::check::{built, kit};

const GUIDE: &str = include_str!("../../../../docs/plugin-guide.md");

/// Fenced blocks in their order: language and text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let mut parts = GUIDE.split("\n```");
    parts.next();
    while let Some(block) = parts.next() {
        let (language, text) = block.split_once('\n').unwrap_or((block, ""));
        found.push((language, text));
        assert!(parts.next().is_some(), "a block without an end: {block}");
    }
    found
}

/// Runs the commands as a reader types them, with `pipeline` and the plugins beside it at hand.
fn type_in(folder: &Path, commands: &str) -> String {
    let binary = built("pipeline");
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").args(["-ec", commands]).current_dir(folder).env("PATH", path).env_remove("PIPELINE_PLUGIN_PATH").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{text}");
    text
}

#[test]
fn every_snippet_is_what_is_written_or_runs() {
    let folder = tempfile::tempdir().unwrap();
    let is_full = std::env::var("PIPELINE_TEST_TIER").as_deref() == Ok("full");
    let shell: Vec<&str> = blocks().into_iter().filter(|(language, _)| *language == "sh").map(|(_, text)| text).collect();
    let [rust, c, checks] = shell[..] else { panic!("{} blocks of commands", shell.len()) };
    // The first line makes the project.
    let whole = if is_full { rust } else { rust.lines().next().unwrap() };
    let said = type_in(folder.path(), whole);
    assert!(!is_full || said.contains("0 failed"), "{said}");
    let said = type_in(folder.path(), c);
    assert!(said.contains("0 failed"), "{said}");
    type_in(&folder.path().join("first"), checks);

    for (language, text) in blocks() {
        let (first, body) = text.split_once('\n').unwrap();
        match (language, first.trim_start_matches(['#', '/', ' '])) {
            ("sh", _) => {}
            ("toml", "kit.toml") => {
                let file = folder.path().join("kit.toml");
                std::fs::write(&file, text).unwrap();
                let arguments = ["--config", file.to_str().unwrap(), "--only", "description"];
                assert_eq!(kit(&folder.path().join("first/libpipeline_plugin_first.so"), &arguments).0, Some(0));
            }
            ("toml", "isolated.toml") => {
                std::fs::write(folder.path().join("first/isolated.toml"), text).unwrap();
                type_in(&folder.path().join("first"), "pipeline run --plugin-path . isolated.toml");
            }
            ("c", _) => {
                let file = std::fs::read_to_string(folder.path().join("first/first.c")).unwrap();
                assert!(file.contains(text.trim_end()), "this is not in what `plugin new` writes:\n{text}");
            }
            (_, name) => {
                let file = std::fs::read_to_string(folder.path().join("upper").join(name)).unwrap_or_else(|_| panic!("no file {name}"));
                // Here the SDK is a folder; for a reader it is a version.
                let line = |line: &str| match line.strip_prefix("pipeline-sdk = ") {
                    Some(_) => format!("pipeline-sdk = {{ version = \"{}\" }}", env!("CARGO_PKG_VERSION")),
                    None => line.to_owned(),
                };
                let file: Vec<String> = file.lines().map(line).collect();
                assert_eq!(body.lines().collect::<Vec<_>>(), file, "{name} is not what `plugin new` writes");
            }
        }
    }
}
