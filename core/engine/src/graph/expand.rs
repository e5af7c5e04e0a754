//! `[replica.NAME]` as the pipelines that it stands for: N·(N−1) for N sites, and as the text a person would write for them.
//!
//! Every place in an expanded pipeline is that of the replica's own keys, so that errors point to what was written.

use pipeline_sdk::{ComponentDescription, Kind, ReplicaDescription};

use super::catalog::Catalog;
use crate::config::problem::Problem;
use crate::config::settings::COMPONENT_KEYS;
use crate::config::value::{Data, Entry, Span, Table, Text, Value, join, quoted, quoted_key};
use crate::config::{Component, Pipeline, Replica};

/// The pipelines of a replica, in the order of its sites.
///
/// # Errors
/// An unknown type, or keys that neither its source nor its sink has.
pub fn expand(replica: &Replica, catalog: &dyn Catalog) -> Result<Vec<Pipeline>, Vec<Problem>> {
    let path = join("replica", &replica.name);
    let kinds = catalog.replica(&replica.type_name.value).ok_or_else(|| vec![unknown_type(replica, &path, catalog)])?;
    let find = |kind, type_name: &str| {
        catalog.component(kind, type_name).map(|(_, component)| component).ok_or_else(|| {
            let message = format!("a `{}` replica needs the {kind} `{type_name}`, which no plugin has", kinds.type_name);
            let problem = Problem::new(&replica.type_span, join(&path, "type"), message);
            vec![problem.hint("`pipeline plugin list` shows what was found")]
        })
    };
    let source = find(Kind::Source, &kinds.source)?;
    let transform = find(Kind::Transform, &kinds.transform)?;
    let sink = find(Kind::Sink, &kinds.sink)?;
    let problems = unknown_keys(replica, kinds, source, sink, &path);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut pipelines = Vec::new();
    for from in &replica.sites.entries {
        for to in replica.sites.entries.iter().filter(|to| to.key != from.key) {
            let make = |site, description| site_component(replica, kinds, site, description, &path);
            let mut to_site = make(to, sink);
            if replica.sites.entries.len() > 2 {
                add_for_mesh(&mut to_site, kinds, &replica.type_span);
            }
            pipelines.push(Pipeline {
                name: format!("{}-{}-to-{}", replica.name, from.key, to.key),
                span: replica.span.clone(),
                settings: replica.settings.clone(),
                given: replica.given.clone(),
                source: make(from, source),
                transforms: vec![bare_component(transform, &replica.type_span, &path)],
                sinks: vec![to_site],
                dead_letter: None,
                replica: Some(replica.name.clone()),
            });
        }
    }
    Ok(pipelines)
}

fn unknown_type(replica: &Replica, path: &str, catalog: &dyn Catalog) -> Problem {
    let name = replica.type_name.shown();
    let known: Vec<&str> =
        catalog.plugins().into_iter().filter_map(|plugin| plugin.replica.as_ref()).map(|it| it.type_name.as_str()).collect();
    let problem =
        Problem::new(&replica.type_span, join(path, "type"), format!("no plugin has a replica of type `{name}`"));
    match known.is_empty() {
        true => problem.hint("`pipeline plugin list` shows what was found"),
        false => problem.suggest(name, known),
    }
}

/// Whether a component takes a key: its own, or the engine's.
fn takes(description: &ComponentDescription, key: &str) -> bool {
    let own = description.schema.get("properties").is_some_and(|properties| properties.get(key).is_some());
    let engine = key != "type" && key != "name";
    own || engine && COMPONENT_KEYS.iter().any(|(known, kinds)| *known == key && kinds.contains(&description.kind))
}

fn unknown_keys(
    replica: &Replica,
    kinds: &ReplicaDescription,
    source: &ComponentDescription,
    sink: &ComponentDescription,
    path: &str,
) -> Vec<Problem> {
    let wrong = |entry: &&Entry| {
        entry.key == kinds.address_key || !(takes(source, &entry.key) || takes(sink, &entry.key))
    };
    let problem = |entry: &Entry| {
        let path = join(path, &entry.key);
        if entry.key == kinds.address_key {
            let problem = Problem::new(&entry.key_span, path, format!("a replica takes no `{}`", entry.key));
            return problem.hint("each address stands under its site's name in `sites`");
        }
        let message = format!("unknown key `{}` of a `{}` replica", entry.key, kinds.type_name);
        let own = [source, sink].into_iter().filter_map(|it| it.schema.get("properties")?.as_object());
        let own = own.flat_map(|properties| properties.keys()).map(String::as_str);
        let given = ["sites", "on-error", "checkpoint-interval", "freshness", "buffer"];
        let known: std::collections::BTreeSet<&str> = own.chain(given).filter(|key| *key != kinds.address_key).collect();
        Problem::new(&entry.key_span, path, message).suggest(&entry.key, known)
    };
    replica.config.entries.iter().filter(wrong).map(problem).collect()
}

/// Source or sink at one site: named after it, with its address and those of the replica's keys that it takes.
fn site_component(
    replica: &Replica,
    kinds: &ReplicaDescription,
    site: &Entry,
    description: &ComponentDescription,
    path: &str,
) -> Component {
    let mut component = bare_component(description, &replica.type_span, path);
    component.name.clone_from(&site.key);
    component.named = true;
    let address = Entry {
        key: kinds.address_key.clone(),
        key_span: site.key_span.clone(),
        value: site.value.clone(),
    };
    component.config.entries.push(address);
    for entry in replica.config.entries.iter().filter(|entry| takes(description, &entry.key)) {
        let is_engine = COMPONENT_KEYS.iter().any(|(key, _)| *key == entry.key);
        let table = if is_engine { &mut component.given } else { &mut component.config };
        table.entries.push(entry.clone());
    }
    component
}

/// What the sink of three sites and more needs, unless the file says otherwise.
fn add_for_mesh(sink: &mut Component, kinds: &ReplicaDescription, span: &Span) {
    let Some((key, value)) = kinds.in_mesh.as_ref().filter(|(key, _)| sink.config.get(key).is_none()) else { return };
    let data = Data::Text(Text { value: value.clone(), template: None });
    sink.config.entries.push(Entry { key: key.clone(), key_span: span.clone(), value: Value { span: span.clone(), data } });
}

fn bare_component(description: &ComponentDescription, span: &Span, path: &str) -> Component {
    Component {
        kind: description.kind,
        type_name: Text { value: description.type_name.clone(), template: None },
        type_span: span.clone(),
        name: description.type_name.clone(),
        named: false,
        path: path.into(),
        span: span.clone(),
        settings: Default::default(),
        given: Table::default(),
        config: Table::default(),
    }
}

/// A pipeline as TOML, the way a person would write it. References stay references.
pub fn to_toml(pipeline: &Pipeline) -> String {
    let mut lines = vec![format!("[pipeline.{}]", quoted_key(&pipeline.name))];
    lines.extend(pipeline.given.entries.iter().map(|entry| format!("{} = {}", quoted_key(&entry.key), toml_value(&entry.value))));
    lines.push(format!("source = {}", toml_component(&pipeline.source)));
    for (key, components) in [("transform", &pipeline.transforms), ("sink", &pipeline.sinks)] {
        match components.as_slice() {
            [] => {}
            [one] => lines.push(format!("{key} = {}", toml_component(one))),
            many => {
                let items: Vec<String> = many.iter().map(|one| format!("  {},\n", toml_component(one))).collect();
                lines.push(format!("{key} = [\n{}]", items.concat()));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn toml_component(component: &Component) -> String {
    let mut fields = vec![format!("type = {}", quoted(component.type_name.shown()))];
    if component.named {
        fields.push(format!("name = {}", quoted(&component.name)));
    }
    let entries = component.config.entries.iter().chain(&component.given.entries);
    fields.extend(entries.map(|entry| format!("{} = {}", quoted_key(&entry.key), toml_value(&entry.value))));
    format!("{{ {} }}", fields.join(", "))
}

pub(crate) fn toml_value(value: &Value) -> String {
    match &value.data {
        Data::Text(text) => quoted(text.shown()),
        Data::Integer(number) => number.to_string(),
        Data::Float(number) => toml::Value::Float(*number).to_string(),
        Data::Boolean(value) => value.to_string(),
        Data::Datetime(text) => text.clone(),
        Data::Array(items) => {
            let items: Vec<String> = items.iter().map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        Data::Table(table) => {
            let entries = table.entries.iter().map(|entry| format!("{} = {}", quoted_key(&entry.key), toml_value(&entry.value)));
            let entries: Vec<String> = entries.collect();
            if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
        }
    }
}
