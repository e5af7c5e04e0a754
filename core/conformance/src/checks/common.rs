//! What is the same for all kinds: description, configuration, versions of the boundary.

use pipeline_engine::config::reserved_key;
use pipeline_sdk::abi::skew;
use pipeline_sdk::{Checkpoint, Error, Kind, PluginDescription, Polled};
use serde_json::{Map, Value as Json, json};

use crate::Outcome;
use crate::bench::{Bench, Done, apply, failure, is_panic};
use crate::feed;

pub fn description(bench: &Bench, plugin: &PluginDescription) -> Done {
    let wrong = |place: &str, reason: &str| Err(Outcome::failed(place, reason));
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let component = &bench.description;
    for (place, text) in [("name", &plugin.name), ("type", &component.type_name)] {
        if !is_name(text) {
            return wrong(place, &format!("`{text}`: names are of small letters, digits and hyphens"));
        }
    }
    if !plugin.version.split('.').take(2).all(|part| part.parse::<u32>().is_ok()) || !plugin.version.contains('.') {
        return wrong("version", &format!("`{}` is no version such as 1.0.0", plugin.version));
    }
    for (place, text) in [("license", &plugin.license), ("summary of the plugin", &plugin.summary), ("summary", &component.summary)] {
        if text.trim().is_empty() {
            return wrong(place, "is empty");
        }
    }
    if component.schema.as_object().is_none() {
        return wrong("schema", "is no JSON Schema of an object");
    }
    if let Some(key) = reserved_key(&component.schema) {
        return wrong("schema", &format!("has a key `{key}`, which is the engine's"));
    }
    let keys = pipeline_engine::config::reference::keys(component);
    match keys.iter().find(|key| key.summary.is_empty()) {
        Some(key) => wrong("schema", &format!("the key `{}` has no description", key.key)),
        None => Ok(Outcome::passed(format!("{} {}, {} key{}", plugin.name, plugin.version, keys.len(), if keys.len() == 1 { "" } else { "s" }))),
    }
}

pub fn bad_config(bench: &Bench) -> Done {
    let schema = &bench.description.schema;
    let good = bench.config().ok();
    if let Some(good) = &good {
        let errors = lint(bench, good)?;
        if let Some(error) = errors.first() {
            return Err(failure("lint of the configuration that all other checks use", error));
        }
    }
    let base = good.as_ref().and_then(Json::as_object).cloned().unwrap_or_default();
    let with = |key: &str, value: Json| {
        let mut keys = base.clone();
        keys.insert(key.to_owned(), value);
        Json::Object(keys)
    };
    let mut tried = 0;
    let properties = schema.get("properties").and_then(Json::as_object).cloned().unwrap_or_default();
    for (key, rule) in &properties {
        if let Some(value) = of_another_type(rule) {
            refused(bench, &with(key, value), Some(key), &format!("`{key}` of another type"))?;
            tried += 1;
        }
    }
    for key in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
        let without: Map<String, Json> = base.iter().filter(|(name, _)| *name != key).map(|(name, value)| (name.clone(), value.clone())).collect();
        refused(bench, &Json::Object(without), Some(key), &format!("`{key}` missing"))?;
        tried += 1;
    }
    for (index, bad) in bench.job.setup.kit.bad.iter().enumerate() {
        let merged = bad.as_object().into_iter().flatten().fold(base.clone(), |mut keys, (key, value)| {
            keys.insert(key.clone(), value.clone());
            keys
        });
        refused(bench, &Json::Object(merged), None, &format!("`bad[{index}]`"))?;
        tried += 1;
    }
    // The engine refuses these before a component sees them; it may take an unknown key, but must live through all.
    for odd in [with("no-such-key", json!(1)), json!(null), json!([]), json!("text"), json!({ "": {} })] {
        lint(bench, &odd)?;
        create(bench, &odd)?;
        tried += 1;
    }
    Ok(Outcome::passed(format!("{tried} wrong configurations refused")))
}

/// A value that the rule cannot take.
fn of_another_type(rule: &Json) -> Option<Json> {
    let types: Vec<&str> = match rule.get("type")? {
        Json::String(name) => vec![name],
        Json::Array(names) => names.iter().filter_map(Json::as_str).collect(),
        _ => return None,
    };
    let candidates = [("string", json!("certainly-not")), ("integer", json!(-7)), ("boolean", json!(true)), ("array", json!([[]])), ("object", json!({ "x": 1 }))];
    let is_taken = |name: &str| types.contains(&name) || name == "integer" && types.contains(&"number");
    candidates.into_iter().rev().find(|(name, _)| !is_taken(name)).map(|(_, value)| value)
}

fn refused(bench: &Bench, config: &Json, key: Option<&str>, what: &str) -> Result<(), Outcome> {
    let errors = lint(bench, config)?;
    let error = match errors.into_iter().next() {
        Some(error) => Some(error),
        None => create(bench, config)?,
    };
    let Some(error) = error else {
        return Err(Outcome::failed(what, format!("{config} was taken; `lint` or `create` must refuse it")));
    };
    let names = |key: &str| error.to_string().contains(key);
    match key.filter(|key| !names(key)) {
        Some(key) => Err(Outcome::failed(what, format!("the error does not name the key `{key}`: {error}"))),
        None => Ok(()),
    }
}

fn lint(bench: &Bench, config: &Json) -> Result<Vec<Error>, Outcome> {
    let errors = bench.library.lint(bench.job.kind, &bench.job.component, config);
    let errors = errors.unwrap_or_else(|error| vec![error]);
    match errors.iter().find(|error| is_panic(error)) {
        Some(error) => Err(failure(format!("lint({config})"), error)),
        None => Ok(errors),
    }
}

/// Makes and destroys a component; its error, if it has one.
fn create(bench: &Bench, config: &Json) -> Result<Option<Error>, Outcome> {
    let parts = bench.host("create").parts();
    let error = match bench.job.kind {
        Kind::Source => bench.make_source(config, parts).map(|made| bench.destroy(made)),
        Kind::Transform => bench.make_transform(config, parts).map(|made| bench.destroy(made)),
        Kind::Sink => bench.make_sink(config, "a", parts).map(|made| bench.destroy(made)),
        Kind::Service => bench.make_service(config, parts).map(|made| bench.destroy(made)),
        Kind::Site => return Ok(None),
    };
    match error {
        Ok(destroyed) => destroyed.map(|()| None),
        Err(error) if is_panic(&error) => Err(failure(format!("create({config})"), &error)),
        Err(error) => Ok(Some(error)),
    }
}

/// The library as one that is older than its host.
pub fn abi_older(bench: &Bench) -> Done {
    let host = bench.host("skew");
    let fed = feed::messages("a", 0, 6, 3);
    let (kind, name) = (bench.job.kind, bench.job.component.as_str());
    let called = skew::call_as_newer_host(&bench.library, kind, name, &bench.config()?, &bench.place("a"), host.parts(), fed, bench.limit());
    called.map_err(|error| failure("a host one minor version newer", &error))?;
    Ok(Outcome::passed("longer tables, outputs and messages are used as far as they are known"))
}

/// The library as one that is newer than its host.
pub fn abi_newer(bench: &Bench) -> Done {
    let library = skew::newer(&bench.library).map_err(|error| failure("load", &error))?;
    library.describe().map_err(|error| failure("description", &error))?;
    let (config, name) = (bench.config()?, bench.job.component.as_str());
    library.lint(bench.job.kind, name, &config).map_err(|error| failure("lint", &error))?;
    let newer = Bench::new(bench.job.clone(), library, bench.description.clone());
    let newer = newer.map_err(|error| Outcome::failed("kit", error.to_string()))?;
    match bench.job.kind {
        Kind::Source => {
            let mut source = newer.source("newer")?;
            source.connect(&Checkpoint::default())?;
            let _: Polled = source.next(std::time::Duration::ZERO)?;
            source.destroy()?;
        }
        Kind::Transform => {
            let mut transform = newer.transform(&newer.host("newer"))?;
            apply(&mut *transform, feed::messages("a", 0, 6, 3)).map_err(|error| failure("apply", &error))?;
        }
        Kind::Sink => {
            let mut sink = newer.sink("a")?;
            sink.connect()?;
            sink.write(&feed::messages("a", 0, 6, 3))?;
            sink.flush()?;
            sink.destroy()?;
        }
        Kind::Service | Kind::Site => drop(create(&newer, &config)?),
    }
    Ok(Outcome::passed("its first part is all that is used"))
}
