//! The file to begin with is valid as it is written, and with every default spelt out.

use super::pipeline;

#[test]
fn init_writes_a_file_that_is_valid_and_keeps_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(arguments).current_dir(folder.path()).env_remove("PIPELINE_LOG");
        command.env("SOURCE_DSN", "ws://root:taosdata@a:6041").env("SINK_DSN", "ws://root:taosdata@b:6041").output().unwrap()
    };
    let written = run(&["init"]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let path = folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("dsn = \"${SOURCE_DSN}\"") && text.contains("# checkpoint-interval = \"1s\""), "{text}");
    let validated = run(&["validate", "pipeline.toml"]);
    assert!(validated.status.success(), "{}\n{text}", String::from_utf8_lossy(&validated.stderr));

    // A default that is written out is none other.
    let is_default = |line: &str| {
        let Some((key, value)) = line.strip_prefix("# ").and_then(|it| it.split_once(" = ")) else { return false };
        !key.contains(' ') && !["\"\"", "[]", "0", "false", "{}"].contains(&value)
    };
    let spelt = text.lines().map(|line| if is_default(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n");
    assert_ne!(spelt, text.trim_end());
    std::fs::write(folder.path().join("spelt.toml"), &spelt).unwrap();
    let validated = run(&["validate", "spelt.toml"]);
    assert!(validated.status.success(), "{}\n{spelt}", String::from_utf8_lossy(&validated.stderr));

    let again = pipeline(folder.path(), &["init"]);
    assert_eq!(again.status.code(), Some(2), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(pipeline(folder.path(), &["init", "other.toml", "--sink", "no-such"]).status.code(), Some(1));
    assert!(!folder.path().join("other.toml").exists());
}
