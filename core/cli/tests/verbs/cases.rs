//! `pipeline test`: the examples' own cases pass; one that fails says where and how rows differ.

use std::path::Path;

use crate::pipeline;

#[test]
fn the_cases_of_every_example_pass_without_its_variables() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines"));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(["test", "ndjson-filter.toml", "csv-to-parquet.toml", "csv-to-tdengine.toml", "mesh.toml", "--json"])
        .current_dir(folder)
        .env_remove("SITE")
        .env_remove("SHANGHAI")
        .env_remove("BERLIN")
        .env_remove("AUSTIN")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["failed"], summary["ok"].as_u64().unwrap() >= 5), (&0.into(), true), "{said}");
}

const FILE: &str = "\
[pipeline.events]
source    = { type = \"files\", path = \"${NOT_SET_ANYWHERE}\" }
transform = { type = \"select\", cast = { code = \"int\" } }
sink      = [
    { type = \"blackhole\", name = \"high\", when = \"code > 10\" },
    { type = \"blackhole\", name = \"low\", when = \"code <= 10\" },
]

[[test]]
name   = \"high goes high\"
input  = [{ code = \"11\" }, { code = \"10\" }, { code = \"12\" }]
expect = { high = [{ code = 11 }, { code = 13 }], low = [{ code = 10 }] }

[[test]]
name  = \"text stops it\"
input = [{ code = \"none\" }]
stops = \"column `code` cannot become Int64\"

[[test]]
name   = \"text does not stop it\"
input  = [{ code = \"none\" }]
expect = { high = [] }
";

#[test]
fn a_case_that_fails_says_where_and_how_rows_differ() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.toml"), FILE).unwrap();
    let output = pipeline(folder.path(), &["test", "events.toml"]);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}\n{errors}");
    for text in [
        "  FAILED  events: high goes high",
        "    events.toml:12:35: sink `high`: other rows came than expected",
        "        { code = 11 }\n      - { code = 13 }\n      + { code = 12 }",
        "  ok      events: text stops it",
        "    events.toml:20:10: the pipeline stops: ",
        "1 ok, 2 failed",
    ] {
        assert!(said.contains(text), "no {text:?} in\n{said}\n{errors}");
    }
    assert!(!said.contains("sink `low`") && errors.contains("2 cases failed") && errors.contains("hint: `-` was expected"), "{said}\n{errors}");
    assert!(!folder.path().join(".events.state").exists(), "a case stores nothing");

    let run = |arguments: &[&str]| {
        let output = pipeline(folder.path(), arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (exit, said, _) = run(&["test", "events.toml", "--only", "text stops", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((exit, &summary["ok"], &summary["cases"][0]["line"]), (Some(0), &1.into(), &15.into()), "{said}");
    assert_eq!(run(&["test", "events.toml", "--only", "nothing"]).0, Some(2));

    // What is wrong with one file is told, and keeps no other from being run.
    std::fs::write(folder.path().join("other.toml"), "[pipeline.p]\nsource = { type = \"no-such\" }\nsink = { type = \"blackhole\" }\n").unwrap();
    let (exit, said, errors) = run(&["test", "other.toml", "events.toml"]);
    assert!(exit == Some(2) && said.contains("1 ok, 2 failed") && errors.contains("other.toml:2:19"), "{said}\n{errors}");

    // `validate` checks what a case names; a run leaves the cases alone.
    let wrong = FILE.replace("high = [] }", "hihg = [] }").replace("${NOT_SET_ANYWHERE}", "none.csv");
    std::fs::write(folder.path().join("wrong.toml"), &wrong).unwrap();
    let (exit, _, errors) = run(&["validate", "wrong.toml"]);
    assert!(exit == Some(2) && errors.contains("wrong.toml:22:12") && errors.contains("did you mean `high`?"), "{errors}");
}
