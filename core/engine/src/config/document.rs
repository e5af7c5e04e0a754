//! The JSON Schema of a pipeline file: of the engine's keys alone, which files are checked against, or with the keys of all
//! known components, which editors use.

use std::sync::LazyLock;

use pipeline_sdk::{ComponentDescription, Kind};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::settings::{
    COMPONENT_KEYS, ComponentSettings, EngineSettings, PipelineSettings, PluginPin, StateSettings,
};
use crate::graph::Catalog;

/// The schema of a file as far as it is the engine's: components take any further keys. The same for every file.
pub fn engine_schema() -> &'static Json {
    static SCHEMA: LazyLock<Json> = LazyLock::new(|| document(&|kind| component(kind, None)));
    &SCHEMA
}

/// The schema of a file with the components that `catalog` knows.
pub fn file_schema(catalog: &dyn Catalog) -> Json {
    let mut definitions = Map::new();
    for plugin in catalog.plugins() {
        for description in &plugin.components {
            let prefix = format!("{}.{}.", description.kind, description.type_name);
            for (name, definition) in description.schema.get("$defs").and_then(Json::as_object).into_iter().flatten() {
                definitions.insert(format!("{prefix}{name}"), rebased(definition, &prefix));
            }
        }
    }
    let mut schema = document(&|kind| {
        let known = catalog.plugins().into_iter().flat_map(|plugin| &plugin.components);
        let branches: Vec<Json> = known
            .filter(|description| description.kind == kind)
            .map(|description| component(kind, Some(description)))
            .collect();
        if branches.is_empty() { component(kind, None) } else { json!({ "oneOf": branches }) }
    });
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Pipeline file".into();
    schema["$defs"] = Json::Object(definitions);
    schema
}

/// The schema of a settings struct, without references.
pub(super) fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn document(component: &dyn Fn(Kind) -> Json) -> Json {
    let named = |schema: Json| json!({ "type": "object", "additionalProperties": schema });
    let described = |mut schema: Json, text: &str| {
        schema["description"] = text.into();
        schema
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "pipeline": described(named(pipeline(component)), "Moves messages from a source through transforms to sinks."),
            "replica": described(named(replica()), "Sites kept in step: stands for two pipelines between any two of them."),
            "service": described(named(component(Kind::Service)), "Runs beside the pipelines; they start when it is ready."),
            "plugin": described(named(schema_of::<PluginPin>()), "What must be true of a plugin."),
            "engine": schema_of::<EngineSettings>(),
            "state": schema_of::<StateSettings>(),
            "test": crate::cases::schema(),
        },
    })
}

fn pipeline(component: &dyn Fn(Kind) -> Json) -> Json {
    let mut properties = properties_of::<PipelineSettings>();
    let several = |kind, text: &str| {
        let one = component(kind);
        json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }], "description": text })
    };
    let mut source = component(Kind::Source);
    source["description"] = "Where messages come from.".into();
    properties.insert("source".into(), source);
    properties.insert("transform".into(), several(Kind::Transform, "What is done to messages, in this order."));
    properties.insert("sink".into(), several(Kind::Sink, "Where messages go; each sink gets all of them."));
    let mut letters = component(Kind::Sink);
    letters["description"] = "Where rows go that a component rejects, with the reason in further columns; without, they are kept in \
        the state folder."
        .into();
    properties.insert("dead-letter".into(), letters);
    json!({
        "type": "object",
        "properties": properties,
        "required": ["source", "sink"],
        "additionalProperties": false,
    })
}

fn replica() -> Json {
    let mut properties = properties_of::<PipelineSettings>();
    properties.insert("type".into(), json!({ "type": "string", "description": "The plugin's name for its replicas." }));
    properties.insert("sites".into(), json!({
        "type": "object",
        "description": "Name and address of each site, two at least: sites = { a = \"…\", b = \"…\" }.",
        "additionalProperties": { "type": "string" },
    }));
    // Further keys go to the source or the sink, whichever knows them.
    json!({
        "type": "object",
        "properties": properties,
        "required": ["type", "sites"],
        "additionalProperties": true,
    })
}

fn properties_of<T: JsonSchema>() -> Map<String, Json> {
    match schema_of::<T>() {
        Json::Object(mut schema) => match schema.remove("properties") {
            Some(Json::Object(properties)) => properties,
            _ => Map::new(),
        },
        _ => Map::new(),
    }
}

/// A component's table: the engine's keys for its kind, and those of its type where that is known.
fn component(kind: Kind, description: Option<&ComponentDescription>) -> Json {
    let documented = properties_of::<ComponentSettings>();
    let mut properties = Map::new();
    for (key, _) in COMPONENT_KEYS.iter().filter(|(_, kinds)| kinds.contains(&kind)) {
        let schema = match *key {
            "type" => json!({ "type": "string", "description": format!("Which {kind} it is.") }),
            "name" => json!({
                "type": "string",
                "description": "The component's name within its pipeline; its type where absent.",
            }),
            key => documented.get(key).cloned().unwrap_or(Json::Bool(true)),
        };
        properties.insert((*key).into(), schema);
    }
    let mut required = vec![Json::from("type")];
    if let Some(description) = description {
        properties["type"] = json!({ "const": description.type_name, "description": description.summary });
        let prefix = format!("{kind}.{}.", description.type_name);
        let own = rebased(&description.schema, &prefix);
        properties.extend(own.get("properties").and_then(Json::as_object).cloned().unwrap_or_default());
        required.extend(own.get("required").and_then(Json::as_array).cloned().unwrap_or_default());
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": description.is_none(),
    })
}

/// The schema with its references pointing to definitions that start with `prefix`.
fn rebased(schema: &Json, prefix: &str) -> Json {
    match schema {
        Json::Object(object) => object
            .iter()
            .map(|(key, value)| match (key.as_str(), value.as_str().and_then(|text| text.strip_prefix("#/$defs/"))) {
                ("$ref", Some(name)) => (key.clone(), format!("#/$defs/{prefix}{name}").into()),
                _ => (key.clone(), rebased(value, prefix)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Json::Array(items) => items.iter().map(|item| rebased(item, prefix)).collect(),
        other => other.clone(),
    }
}
