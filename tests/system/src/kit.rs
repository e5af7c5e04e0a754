//! The conformance kit on a plugin that was built, and what it found.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value as Json;

use crate::process::binary;
use crate::scene::Scene;

/// Long for a loaded machine.
const LIMITS: [&str; 4] = ["--check-timeout", "180s", "--call-timeout", "60s"];

/// Whether everything is run, however long it takes.
pub fn is_full_tier() -> bool {
    std::env::var("PIPELINE_TEST_TIER").as_deref() == Ok("full")
}

/// What the kit says of each check.
pub struct Findings(Vec<Json>);

impl Findings {
    pub fn passed(&self) -> usize {
        self.of("passed").count()
    }

    pub fn failed(&self) -> Vec<&Json> {
        self.of("failed").collect()
    }

    pub fn not_applicable(&self) -> Vec<&Json> {
        self.of("not-applicable").collect()
    }

    fn of(&self, verdict: &str) -> impl Iterator<Item = &Json> {
        self.0.iter().filter(move |finding| finding["verdict"] == verdict)
    }
}

/// Runs `pipeline plugin check` on `libpipeline_plugin_NAME.so` in a scene's folder: with this configuration, of the checks `only`
/// those named (none: all), with `more` arguments. Of several at once in one scene.
#[track_caller]
pub fn check_plugin(scene: &Scene, name: &str, config: &str, only: &[&str], more: &[&str]) -> Findings {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let file = format!("kit-{}.toml", RUNS.fetch_add(1, Ordering::Relaxed));
    scene.write(&file, config);
    let library = binary().with_file_name(format!("libpipeline_plugin_{name}.so"));
    assert!(library.is_file(), "{} is missing: run `cargo build` first", library.display());
    let mut command = Command::new(binary());
    command.args(["plugin", "check", "--json", "--config", &file]).args(LIMITS).args(more).arg(&library);
    command.args(only.iter().flat_map(|check| ["--only", check]));
    command.current_dir(scene.folder.path()).env_remove("RUST_BACKTRACE");
    let output = command.envs(scene.environment.iter().map(|(name, value)| (*name, value))).output().expect("pipeline starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: no report: {error}\n{said}"));
    let findings = Findings(report["findings"].as_array().expect("a report has findings").clone());
    assert_eq!(output.status.success(), findings.failed().is_empty(), "{name}: {:?}\n{said}", output.status);
    findings
}
