//! A graph for people: text, Mermaid and DOT. None shows configuration, so none can show a secret.

use std::fmt::Write;

use pipeline_sdk::Kind;

use super::model::{Graph, Node, PipelineGraph, Step};

impl Graph {
    /// Indented text: one line a component, with decoders where they stand and what was negotiated.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for service in &self.services {
            let _ = writeln!(out, "service {}: {}{}", service.name, service.type_name, by_plugin(service));
        }
        for pipeline in &self.pipelines {
            let replica = pipeline.replica.as_ref().map_or(String::new(), |name| format!(" (replica {name})"));
            let _ = writeln!(out, "pipeline {}{replica}{}", pipeline.name, tasks(pipeline));
            let _ = writeln!(out, "  {}", line(&pipeline.source));
            for (depth, step) in pipeline.transforms.iter().enumerate() {
                out.push_str(&indented(step, depth + 1));
            }
            for step in &pipeline.sinks {
                out.push_str(&indented(step, pipeline.transforms.len() + 1));
            }
        }
        out
    }

    /// A Mermaid flow chart.
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        let label = |text: &str| text.replace('"', "#quot;");
        for (index, service) in self.services.iter().enumerate() {
            let _ = writeln!(out, "  service{index}([\"{}\"])", label(&title(service)));
        }
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            let _ = writeln!(out, "  subgraph pipeline{index}[\"{}\"]", label(&pipeline.name));
            for drawn in drawing(pipeline, &format!("p{index}")) {
                match drawn {
                    Drawn::Box { id, text, decoder: false } => writeln!(out, "    {id}[\"{}\"]", label(&text)),
                    Drawn::Box { id, text, decoder: true } => writeln!(out, "    {id}{{{{\"{}\"}}}}", label(&text)),
                    Drawn::Arrow { from, to, text } => writeln!(out, "    {from} -->|{text}| {to}"),
                }
                .unwrap_or_default();
            }
            out.push_str("  end\n");
        }
        out
    }

    /// A Graphviz graph.
    pub fn to_dot(&self) -> String {
        let mut out = String::from("digraph pipelines {\n  rankdir=LR;\n  node [shape=box];\n");
        let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        for (index, service) in self.services.iter().enumerate() {
            let _ = writeln!(out, "  service{index} [label=\"{}\", shape=ellipse];", label(&title(service)));
        }
        for (index, pipeline) in self.pipelines.iter().enumerate() {
            let _ = writeln!(out, "  subgraph cluster_{index} {{\n    label=\"{}\";", label(&pipeline.name));
            for drawn in drawing(pipeline, &format!("p{index}")) {
                match drawn {
                    Drawn::Box { id, text, decoder } => {
                        let shape = if decoder { ", shape=hexagon" } else { "" };
                        writeln!(out, "    {id} [label=\"{}\"{shape}];", label(&text))
                    }
                    Drawn::Arrow { from, to, text } => writeln!(out, "    {from} -> {to} [label=\"{text}\"];"),
                }
                .unwrap_or_default();
            }
            out.push_str("  }\n");
        }
        out.push_str("}\n");
        out
    }
}

fn title(node: &Node) -> String {
    if node.name == node.type_name { node.type_name.clone() } else { format!("{}: {}", node.name, node.type_name) }
}

fn by_plugin(node: &Node) -> String {
    if node.plugin == node.type_name { String::new() } else { format!(" [plugin {}]", node.plugin) }
}

fn tasks(pipeline: &PipelineGraph) -> String {
    match (pipeline.source.node.description.task_key.as_deref(), pipeline.task_values.as_slice()) {
        (Some(key), values) if !values.is_empty() => format!(", {key} {}", values.join(", ")),
        _ => String::new(),
    }
}

fn line(step: &Step) -> String {
    let negotiated: Vec<&str> = step.node.negotiated.iter().map(String::as_str).collect();
    let negotiated = if negotiated.is_empty() { String::new() } else { format!(", {}", negotiated.join(", ")) };
    format!("{} ({}{negotiated}){}", title(&step.node), step.node.kind, by_plugin(&step.node))
}

fn indented(step: &Step, depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    let decoder = match step.decodes.is_empty() {
        true => String::new(),
        false => format!("{indent}-> decode {}\n", formats(step.decodes.iter())),
    };
    let when = step.when.as_ref().map_or(String::new(), |when| format!("{indent}-> when {}\n", condition(when)));
    format!("{decoder}{when}{indent}-> {}\n", line(step))
}

fn condition(when: &Node) -> String {
    let texts = when.shown.as_object().into_iter().flat_map(|it| it.values()).filter_map(serde_json::Value::as_str);
    texts.collect::<Vec<_>>().join(" ")
}

fn formats<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

enum Drawn {
    Box { id: String, text: String, decoder: bool },
    Arrow { from: String, to: String, text: String },
}

/// Boxes and arrows of one pipeline; ids start with `prefix`.
fn drawing(pipeline: &PipelineGraph, prefix: &str) -> Vec<Drawn> {
    let mut drawn = Vec::new();
    let mut last = format!("{prefix}_source");
    drawn.push(Drawn::Box { id: last.clone(), text: title(&pipeline.source.node), decoder: false });
    let mut add = |from: &str, id: String, step: &Step| {
        let mut from = from.to_owned();
        let moves = |formats: String| if formats.is_empty() { "rows".to_owned() } else { formats };
        if !step.decodes.is_empty() {
            let decoder = format!("{id}_decode");
            drawn.push(Drawn::Box { id: decoder.clone(), text: "decode".into(), decoder: true });
            drawn.push(Drawn::Arrow { from, to: decoder.clone(), text: formats(step.decodes.iter()) });
            from = decoder;
        }
        if let Some(when) = &step.when {
            let filter = format!("{id}_when");
            drawn.push(Drawn::Box { id: filter.clone(), text: format!("when {}", condition(when)), decoder: true });
            drawn.push(Drawn::Arrow { from, to: filter.clone(), text: "rows".into() });
            from = filter;
        }
        drawn.push(Drawn::Box { id: id.clone(), text: title(&step.node), decoder: false });
        drawn.push(Drawn::Arrow { from, to: id.clone(), text: moves(formats(step.frames.iter())) });
        id
    };
    for (index, step) in pipeline.transforms.iter().enumerate() {
        last = add(&last, format!("{prefix}_{}{index}", Kind::Transform), step);
    }
    for (index, step) in pipeline.sinks.iter().enumerate() {
        add(&last, format!("{prefix}_{}{index}", Kind::Sink), step);
    }
    drawn
}
