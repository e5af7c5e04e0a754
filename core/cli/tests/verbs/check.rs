//! The conformance kit can fail: for every check a component whose one defect it must see. And it passes what is good.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pipeline;

/// A library that `cargo build --workspace` made.
pub fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pipeline")).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// Runs the kit; exit code and report.
pub fn kit(library: &Path, arguments: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec!["plugin", "check", library.to_str().unwrap(), "--json"];
    all.extend(arguments);
    let output = pipeline(folder.path(), &all);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {text}"));
    (output.status.code(), report, text)
}

/// What failed, as `CHECK at PLACE: REASON`.
pub fn failures(report: &serde_json::Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let failed = findings.filter(|finding| finding["verdict"] == "failed");
    failed.map(|it| format!("{} at {}: {} {}", it["check"], it["place"], it["reason"], it["log"])).collect()
}

/// Component, defect and the words by which the check says what it saw. The check is called as the defect is, unless it is named.
const DEFECTS: &[(&str, &str, &str, &str)] = &[
    ("source.undocumented", "", "description", "has no description"),
    ("source.counts", "bad-config", "", "was taken"),
    ("source.counts", "order", "", "comes behind position 6"),
    ("source.counts", "end-of-stream", "", "gave Messages"),
    ("source.counts", "cancel", "", "did not return within"),
    ("source.counts", "reconnect", "", "position 11: was left out"),
    ("source.counts", "commit-after-durable", "", "nothing was committed"),
    ("source.counts", "duplicates-after-kill", "", "came again though the checkpoint is behind it"),
    ("source.counts", "back-pressure", "", "nobody took messages: memory grew by"),
    ("source.counts", "bad-position", "", "that the source never made: was taken"),
    ("source.counts", "batches", "", "the first run does not begin at row 0"),
    ("source.counts", "arrow-types", "", "NULLs though its schema says that it has none"),
    ("source.counts", "abort", "abi-newer", "the library ended the process: signal 6 (abort)"),
    ("sink.lines", "order", "", "stands behind row 6"),
    ("sink.lines", "reconnect", "", "row 0 of 60 is not in"),
    ("sink.lines", "commit-after-durable", "", "after a flush and kill -9; 0 are"),
    ("sink.lines", "duplicates-after-kill", "", "after kill -9 and a replay"),
    ("sink.lines", "back-pressure", "", "write: memory grew by"),
    ("sink.lines", "panic", "", "rows without runs: the component panicked: as told"),
    ("sink.lines", "hang", "", "did not "),
    ("sink.lines", "leak", "", "kept messages"),
    ("sink.lines", "schema-change", "", "a column is gone"),
    ("sink.lines", "two-instances", "", "after two instances wrote side by side"),
    ("transform.passes", "order", "", "came out behind row"),
    ("transform.passes", "marks", "order", "what a replica wrote came out as if a user had"),
    ("transform.passes", "end-of-stream", "", "a second barrier: brought out 60 rows"),
    ("transform.passes", "hang", "", "did not "),
    ("transform.passes", "arrow-types", "", "type Union"),
    ("transform.passes", "two-instances", "", "beside another one"),
    ("service.serves", "end-of-stream", "", "ended by itself"),
    ("service.serves", "hang", "", "did not "),
    ("service.serves", "leak", "", "made, used and destroyed again and again"),
];

#[test]
fn every_check_sees_its_defect() {
    let library = built("libfaulty_plugin.so");
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((component, defect, check, words)) = DEFECTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("kit.toml");
            std::fs::write(&config, if defect.is_empty() { String::new() } else { format!("[{component}]\ndefect = \"{defect}\"\n") }).unwrap();
            let (check, name) = (if check.is_empty() { defect } else { check }, component.split_once('.').unwrap().1);
            // What waits for ever is not waited for; everything else has time, on a loaded machine as well.
            let waits = ["hang", "cancel"].contains(defect);
            let timeouts = ["--call-timeout", if waits { "1s" } else { "20s" }, "--check-timeout", if *defect == "hang" { "3s" } else { "60s" }];
            let arguments = [&["--config", config.to_str().unwrap(), "--component", name, "--only", check], &timeouts[..]].concat();
            let (exit, report, stderr) = kit(&library, &arguments);
            let finding = &report["findings"][0];
            let said = format!("{}: {}", finding["place"].as_str().unwrap_or_default(), finding["reason"].as_str().unwrap());
            if exit != Some(1) || finding["verdict"] != "failed" || finding["check"] != *check || !said.contains(words) || !stderr.contains("1 of 1 checks failed") {
                wrong.lock().unwrap().push(format!("{component} {defect}: {exit:?} {} {said}", finding["verdict"]));
            }
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    assert!(wrong.lock().unwrap().is_empty(), "{:#?}", wrong.lock().unwrap());
    // None is forgotten; `abi-older` has a library in C, see `new`.
    let checks = pipeline(Path::new("."), &["plugin", "check", "--checks", "--json"]);
    let checks: serde_json::Value = serde_json::from_slice(&checks.stdout).unwrap();
    for check in checks.as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).filter(|name| *name != "abi-older") {
        assert!(DEFECTS.iter().any(|(_, defect, name, _)| *defect == check || *name == check), "no defect for {check}");
    }
}

#[test]
fn what_is_good_passes() {
    let check = |name: &str, arguments: &[&str], passed: usize| {
        let (exit, report, _) = kit(&built(name), arguments);
        assert_eq!((exit, failures(&report)), (Some(0), Vec::new()), "{name}");
        let count = report["findings"].as_array().unwrap().iter().filter(|finding| finding["verdict"] == "passed").count();
        assert_eq!(count, passed, "{name}: {report:#}");
    };
    check("libpipeline_plugin_loop_mark.so", &[], 15);
    // The templates of `plugin new`: their names are not filled in, which the description shows.
    let others: Vec<&str> = ["bad-config", "order", "reconnect", "commit-after-durable", "duplicates-after-kill", "panic", "bad-position", "batches", "arrow-types", "two-instances", "abi-older"]
        .iter().flat_map(|name| ["--only", name]).collect();
    check("libtemplates_plugin.so", &others, 33);
}

#[test]
fn what_is_no_plugin_and_what_is_no_check_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libpipeline_plugin_x.so");
    std::fs::write(&path, "text").unwrap();
    let output = pipeline(folder.path(), &["plugin", "check", "libpipeline_plugin_x.so"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a shared library"));
    crate::check(&["plugin", "check", "x.so", "--only", "nothing"], 2, &[], &["no check is called `nothing`", "order"]);
    crate::check(&["plugin", "check", "x.so", "--config", "absent.toml"], 2, &[], &["absent.toml: cannot read the file"]);
}

/// Each reason for which a library is not used, in one folder.
#[test]
fn the_doctor_says_why_something_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("libpipeline_plugin_{name}.so"));
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/include");
    let compile = |name: &str, text: &str| {
        let source = folder.path().join("x.c");
        std::fs::write(&source, text).unwrap();
        crate::new::run(folder.path(), "cc", &["-shared", "-fPIC", "-I", header, "-o", path(name).to_str().unwrap(), "x.c"]);
    };
    compile("nothing", "int nothing;\n");
    compile(
        "older",
        "#include \"pipeline_plugin.h\"\nstatic const pl_root root = { .size = sizeof(pl_root), .abi_major = 77 };\n\
         const pl_root *pipeline_plugin_root(void) { return &root; }\n",
    );
    std::fs::write(path("text"), "text").unwrap();
    std::os::unix::fs::symlink("nowhere", path("unreadable")).unwrap();
    let mut header = vec![0; 64];
    header[..4].copy_from_slice(b"\x7fELF");
    header[18] = 40;
    std::fs::write(path("machine"), &header).unwrap();
    for name in ["good", "once_more"] {
        std::fs::copy(built("libpipeline_plugin_loop_mark.so"), path(name)).unwrap();
    }
    let doctor = |arguments: &[&str]| {
        let all = [&["plugin", "doctor", "--json", "--plugin-path", "."], arguments].concat();
        let output = pipeline(folder.path(), &all);
        assert_eq!(output.status.code(), Some(1));
        let folders: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let libraries = folders[0]["libraries"].as_array().unwrap().clone();
        let shown = |it: &serde_json::Value| format!("{} {}", it["state"].as_str().unwrap(), it["code"].as_str().unwrap_or("-"));
        libraries.iter().map(|it| (it["file"].as_str().unwrap()[19..].trim_end_matches(".so").to_owned(), shown(it))).collect::<Vec<_>>()
    };
    let expected = |good: &str, more: &str| {
        [
            ("good", good),
            ("machine", "not-loaded plugin.machine"),
            ("nothing", "not-loaded plugin.symbol"),
            ("older", "not-loaded boundary.version"),
            ("once_more", more),
            ("text", "not-loaded plugin.machine"),
            ("unreadable", "not-loaded plugin.unreadable"),
        ]
        .map(|(name, state)| (name.to_owned(), state.to_owned()))
    };
    assert_eq!(doctor(&[]), expected("loaded -", "not-loaded plugin.twice"));
    std::fs::write(folder.path().join("pinned.toml"), format!("[service.s]\ntype = \"s\"\n[plugin.loop-mark]\nsha256 = \"{}\"\n", "0".repeat(64))).unwrap();
    assert_eq!(doctor(&["pinned.toml"]), expected("not-loaded plugin.pin", "not-loaded plugin.pin"));
    let text = pipeline(folder.path(), &["plugin", "doctor", "--plugin-path", "."]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("NOT LOADED") && text.contains("transform loop-mark") && text.contains("hint: "), "{text}");
}
