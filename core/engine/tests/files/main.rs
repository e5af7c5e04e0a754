//! Pipeline files: every kind of error with its exact text, expansion, negotiation, decoders and renderings.
//!
//! Cases are in the text files beside this one: `=== NAME`, a pipeline file, `---`, what is printed. With
//! `UPDATE_EXPECTED=1` in the environment what is printed is written back instead; look at the difference before you commit it.

mod plugins;

use std::path::Path;

use pipeline_engine::config::{File, Report};
use pipeline_engine::graph::{Catalog, Graph, Linked, expand, to_toml};

use plugins::catalog;

fn environment(name: &str) -> Option<String> {
    match name {
        "SITE_A" => Some("tape://root:topsecret@a:6041".into()),
        "SITE_B" => Some("tape://root:topsecret@b:6041".into()),
        "COLOR" => Some("greenish".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files"))
}

fn parse(text: &str) -> Result<File, Report> {
    File::parse("case.toml", text, folder(), &environment)
}

fn build(text: &str) -> Result<Graph, Report> {
    Graph::build(&parse(text)?, &catalog())
}

/// Runs every case of a text file and compares what is printed.
fn check_cases(name: &str, print: impl Fn(&str) -> String) {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut printed = String::new();
    let mut count = 0;
    for case in text.split("=== ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (input, _) = rest.split_once("---\n").unwrap_or_else(|| panic!("{title} has no `---`"));
        let lines: Vec<String> = print(input).lines().map(|line| line.trim_end().to_owned()).collect();
        printed.push_str(&format!("=== {title}\n{input}---\n{}\n\n", lines.join("\n")));
        count += 1;
    }
    assert!(count > 0, "{name} has no cases");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        return std::fs::write(&path, printed).unwrap();
    }
    for (expected, got) in text.split("=== ").zip(printed.split("=== ")) {
        assert_eq!(got, expected, "in {name}");
    }
    assert_eq!(printed, text);
}

fn error_of<T>(result: Result<T, Report>) -> String {
    match result {
        Ok(_) => "accepted".into(),
        Err(report) => {
            for printed in [report.render(true), serde_json::to_string(&report.places()).unwrap(), format!("{report:?}")] {
                assert!(!printed.contains("topsecret") && !printed.contains("greenish"), "{printed}");
            }
            report.to_string()
        }
    }
}

#[test]
fn errors_of_syntax_and_structure() {
    check_cases("structure.txt", |text| error_of(parse(text)));
}

#[test]
fn errors_of_references() {
    check_cases("references.txt", |text| error_of(parse(text)));
}

#[test]
fn errors_of_components() {
    check_cases("components.txt", |text| error_of(build(text)));
}

#[test]
fn errors_of_graphs() {
    check_cases("graphs.txt", |text| error_of(build(text)));
}

#[test]
fn renderings() {
    check_cases("renderings.txt", |text| {
        let graph = build(text).unwrap_or_else(|report| panic!("{report}"));
        let json = serde_json::to_string_pretty(&graph.json()).unwrap();
        let all = format!("{}\n{}\n{}\n{json}", graph.to_text(), graph.to_mermaid(), graph.to_dot());
        assert!(!all.contains("topsecret"), "{all}");
        all
    });
}

/// What is written out of a replica reads back as the same graph.
#[test]
fn a_replica_is_the_text_that_a_person_would_write() {
    check_cases("replicas.txt", |text| {
        let catalog = catalog();
        let file = parse(text).unwrap_or_else(|report| panic!("{report}"));
        let expanded: Vec<String> =
            file.replicas.iter().flat_map(|replica| expand(replica, &catalog).unwrap()).map(|it| to_toml(&it)).collect();
        let written = expanded.join("\n");
        let (short, long) = (build(text).unwrap(), build(&written).unwrap_or_else(|report| panic!("{report}")));
        assert_eq!(short.pipelines.len(), long.pipelines.len());
        for (short, long) in short.pipelines.iter().zip(&long.pipelines) {
            assert_eq!((&short.name, &short.settings, &short.task_values), (&long.name, &long.settings, &long.task_values));
            for (short, long) in short.steps().zip(long.steps()) {
                assert_eq!((&short.node.name, &short.node.config), (&long.node.name, &long.node.config));
                assert_eq!((&short.node.settings, &short.node.site), (&long.node.settings, &long.node.site));
                assert_eq!((&short.node.negotiated, &short.decodes), (&long.node.negotiated, &long.decodes));
            }
        }
        assert_eq!(short.replicas.len(), 1);
        assert_eq!(short.replicas[0].sites.len(), file.replicas[0].sites.entries.len());
        written
    });
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let report = File::load(&folder().join("absent.toml"), &environment).unwrap_err().to_string();
    assert!(report.contains("absent.toml") && report.contains("cannot read the file: No such file"), "{report}");
}

#[test]
fn secrets_reach_components_and_nothing_else() {
    let graph = build(
        "[pipeline.p]\nsource = { type = \"tape\", address = \"${SITE_A}\" }\nsink = { type = \"lines\", file = \"out\" }\n",
    )
    .unwrap();
    let source = &graph.pipelines[0].source.node;
    assert_eq!(source.config["address"], "tape://root:topsecret@a:6041");
    assert_eq!(source.shown["address"], "${SITE_A}");
    assert!(!format!("{graph:?}").contains("topsecret"));
    let text = "cannot log in as root:topsecret at tape://root:topsecret@a:6041";
    assert_eq!(graph.redactor.redact(text), "cannot log in as root:*** at ${SITE_A}");
}

#[test]
fn paths_are_relative_to_the_file() {
    let graph = build(
        "[pipeline.p]\nsource = { type = \"tape\", address = \"x\" }\nsink = { type = \"lines\", file = \"out\" }\n\
         [service.n]\ntype = \"node\"\ndata = \"data/a\"\n",
    )
    .unwrap();
    assert_eq!(graph.services[0].config["data"], folder().join("data/a").to_str().unwrap());
    // `file` is a plain string in its schema: it is the component's.
    assert_eq!(graph.pipelines[0].sinks[0].node.config["file"], "out");
    assert_eq!(graph.state, folder().join(".case.state"));
}

#[test]
fn pipelines_that_are_a_replica_are_seen_as_one() {
    let graph = build(
        "[pipeline.a-to-b]\nsource = { type = \"tape\", address = \"${SITE_A}\" }\ntransform = { type = \"loop-mark\" }\n\
         sink = { type = \"table\", address = \"${SITE_B}\" }\n\
         [pipeline.b-to-a]\nsource = { type = \"tape\", address = \"${SITE_B}\" }\ntransform = { type = \"loop-mark\" }\n\
         sink = { type = \"table\", address = \"${SITE_A}\" }\n",
    )
    .unwrap();
    assert_eq!(graph.replicas.len(), 1);
    let replica = &graph.replicas[0];
    assert_eq!((replica.name.as_str(), replica.pipelines.len()), ("a and b", 2));
    assert_eq!(replica.sites[0].config["address"], "tape://root:topsecret@a:6041");
}

#[test]
fn the_schema_of_a_file_knows_the_components() {
    let schema = pipeline_engine::config::file_schema(&catalog());
    let text = schema.to_string();
    for expected in ["tape", "loop-mark", "checkpoint-interval", "How often barriers", "#/$defs/sink.table.Mode"] {
        assert!(text.contains(expected), "no {expected} in {schema:#}");
    }
    // Every reference leads somewhere.
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(schema.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}

#[test]
fn a_plugin_that_uses_a_key_of_the_engine_is_told_apart() {
    let schema = serde_json::json!({ "properties": { "buffer": {}, "rows": {} } });
    assert_eq!(pipeline_engine::config::reserved_key(&schema), Some("buffer"));
    for plugin in catalog().plugins() {
        for component in &plugin.components {
            assert_eq!(pipeline_engine::config::reserved_key(&component.schema), None);
        }
    }
}

#[test]
fn files_that_run_together_are_checked_together() {
    let pipeline = |name: &str, from: &str, to: &str| {
        let text = format!(
            "[pipeline.p]\nsource = {{ type = \"tape\", address = \"{from}\" }}\n\
             sink = {{ type = \"table\", address = \"{to}\" }}\n"
        );
        let file = File::parse(name, &text, folder(), &environment).unwrap();
        Graph::build(&file, &catalog()).unwrap()
    };
    let check = |graphs: &[Graph], expected: &str| {
        let report = Graph::check_together(graphs).unwrap_err().to_string();
        assert!(report.contains(expected), "{report}");
    };
    check(&[pipeline("a.toml", "x", "y"), pipeline("b.toml", "x", "y")], "b.toml:1:11");
    check(&[pipeline("a.toml", "x", "y"), pipeline("b.toml", "y", "x")], "go round for ever");
    check(&[pipeline("a.toml", "x", "y"), pipeline("a.toml", "y", "z")], "shares its state folder");
    Graph::check_together(&[pipeline("a.toml", "x", "y"), pipeline("b.toml", "y", "z")]).unwrap();
}

/// A catalog without plugins refuses by type, and says where plugins are listed.
#[test]
fn without_plugins_a_type_is_unknown() {
    let file = parse("[service.s]\ntype = \"node\"\ndata = \"d\"\n").unwrap();
    let report = Graph::build(&file, &Linked::new([])).unwrap_err().to_string();
    assert!(report.contains("no plugin has a service of type `node`") && report.contains("plugin list"), "{report}");
}
