//! The keys of a component as a list for people: from its JSON Schema, which is the only place where they are documented.

use pipeline_sdk::ComponentDescription;
use serde::Serialize;
use serde_json::Value as Json;

use super::settings::PipelineSettings;
use super::value::join;

/// One key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyDescription {
    /// Dotted where it is within a table.
    pub key: String,
    pub kind: String,
    /// Empty where there is none; `required` where the key must be given.
    pub default: String,
    /// The first paragraph of its documentation.
    pub summary: String,
}

/// The component's own keys, required ones first; keys of tables follow their table.
pub fn keys(component: &ComponentDescription) -> Vec<KeyDescription> {
    keys_of(&component.schema)
}

/// The engine's keys of `[pipeline.NAME]`.
pub fn pipeline_keys() -> Vec<KeyDescription> {
    keys_of(schemars::schema_for!(PipelineSettings).as_value())
}

fn keys_of(schema: &Json) -> Vec<KeyDescription> {
    let mut found = Vec::new();
    collect(schema, schema, "", &mut found);
    found
}

fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    let reference = |schema: &'a Json| schema.get("$ref").and_then(Json::as_str);
    // An optional value is `anyOf` a reference and null.
    let schema = match schema.get("anyOf").and_then(Json::as_array) {
        Some(branches) => branches.iter().find(|it| reference(it).is_some()).unwrap_or(schema),
        None => schema,
    };
    reference(schema).and_then(|to| root.pointer(to.trim_start_matches('#'))).unwrap_or(schema)
}

fn collect(root: &Json, schema: &Json, path: &str, found: &mut Vec<KeyDescription>) {
    let required: Vec<&str> =
        schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let properties = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
    let (first, rest): (Vec<_>, Vec<_>) = properties.partition(|(key, _)| required.contains(&key.as_str()));
    for (key, property) in first.into_iter().chain(rest) {
        let target = resolve(root, property);
        let text = |name| property.get(name).or(target.get(name));
        let key_path = join(path, key);
        let is_table = target.get("properties").is_some();
        found.push(KeyDescription {
            key: key_path.clone(),
            kind: kind(root, target),
            default: match (required.contains(&key.as_str()), property.get("default")) {
                (true, _) => "required".into(),
                (false, Some(default)) if !default.is_null() && !is_table => default.to_string(),
                (false, _) => String::new(),
            },
            summary: text("description").and_then(Json::as_str).map(first_paragraph).unwrap_or_default(),
        });
        if is_table {
            collect(root, target, &key_path, found);
        }
    }
}

fn first_paragraph(text: &str) -> String {
    text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
}

fn constants(branch: &Json) -> Option<&[Json]> {
    let all = branch.get("enum").and_then(Json::as_array).map(Vec::as_slice);
    all.or_else(|| branch.get("const").map(std::slice::from_ref))
}

/// The type in a word or two.
fn kind(root: &Json, schema: &Json) -> String {
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        return choices(values.iter());
    }
    if let Some(branches) = schema.get("oneOf").and_then(Json::as_array) {
        // A variant with documentation of its own is a branch; those without are one `enum` together.
        let constants: Option<Vec<&[Json]>> = branches.iter().map(constants).collect();
        return constants.map_or_else(|| "table".into(), |values| choices(values.concat().iter()));
    }
    let name = match schema.get("type") {
        Some(Json::String(name)) => name.as_str(),
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).find(|it| *it != "null").unwrap_or_default(),
        _ => "",
    };
    match (name, schema.get("format").and_then(Json::as_str)) {
        ("string", Some(format @ ("duration" | "bytes" | "path"))) => match format {
            "bytes" => "size".into(),
            other => other.into(),
        },
        ("array", _) => match schema.get("items").map(|items| kind(root, resolve(root, items))) {
            Some(item) => format!("array of {item}"),
            None => "array".into(),
        },
        ("object", _) => "table".into(),
        (name, _) => name.into(),
    }
}

fn choices<'a>(values: impl Iterator<Item = &'a Json>) -> String {
    values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect::<Vec<_>>().join(" | ")
}
