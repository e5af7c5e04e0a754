//! How each component is configured for its checks: from a pipeline file, from a table of components, or from the schema.
//!
//! A table of components has `[source.TYPE]`, `[transform.TYPE]`, `[sink.TYPE]`, `[service.TYPE]` with the component's own keys, and
//! beside them `[kit.KIND.TYPE]` with what the kit has to know. `{folder}` in a string stands for the folder of the check, which is
//! also where relative paths lead, `{name}` for a name that no other check has (of a topic, say), and `{here}` for the folder of the
//! file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_engine::config::{Environment, File};
use pipeline_sdk::{ComponentDescription, Kind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// What the kit knows of one component.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    /// Absent where keys are needed that nobody gave.
    pub config: Option<Json>,
    #[serde(default)]
    pub kit: KitKeys,
    /// Keys that are missing, for messages.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// `[kit.KIND.TYPE]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KitKeys {
    /// Of a sink: where what it wrote is found again. Without it, the files in the check's folder.
    pub observe: Option<Observe>,
    /// Rows are of no table in particular, as those of files and brokers are.
    #[serde(default)]
    pub plain: bool,
    /// Keys that lead to another end that does not answer.
    pub unreachable: Option<Json>,
    /// Further configurations that must be refused.
    #[serde(default)]
    pub bad: Vec<Json>,
    /// Checks that make no sense for this component, with the reason.
    #[serde(default)]
    pub skip: BTreeMap<String, String>,
}

/// Where a sink's rows are found again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observe {
    /// A file, or a folder with all that is in it.
    Files(String),
    /// What a command prints.
    Command(Vec<String>),
    /// What a source of the same library reads: its configuration with its `type`.
    Source(Json),
}

/// Setups by kind and type.
#[derive(Clone, Debug, Default)]
pub struct Setups {
    given: BTreeMap<(Kind, String), (Json, KitKeys)>,
}

#[derive(Debug)]
pub struct SetupError {
    pub file: PathBuf,
    pub message: String,
}

const KINDS: [(&str, Kind); 4] =
    [("source", Kind::Source), ("transform", Kind::Transform), ("sink", Kind::Sink), ("service", Kind::Service)];

impl Setups {
    /// Reads one more file; what it gives replaces what an earlier one gave.
    ///
    /// # Errors
    /// The file is not readable, or neither a pipeline file nor a table of components.
    pub fn read(&mut self, path: &Path, environment: &Environment<'_>) -> Result<(), SetupError> {
        let failed = |message: String| SetupError { file: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|error| failed(format!("cannot read the file: {error}")))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
        let here = std::path::absolute(path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))).map_err(|error| failed(error.to_string()))?;
        let is_typed = |table: &toml::Value| table.as_table().is_some_and(|all| all.values().any(|one| one.get("type").is_some()));
        if table.contains_key("pipeline") || table.contains_key("replica") || table.get("service").is_some_and(is_typed) {
            return self.take_pipelines(&File::load(path, environment).map_err(|report| failed(report.to_string()))?);
        }
        let json = serde_json::to_value(&table).map_err(|error| failed(error.to_string()))?;
        let json = replaced(&json, &|text| text.replace("{here}", &here.to_string_lossy()));
        self.take_components(&json).map_err(failed)
    }

    fn take_pipelines(&mut self, file: &File) -> Result<(), SetupError> {
        let components = file.pipelines.iter().flat_map(|pipeline| pipeline.components()).chain(&file.services);
        for component in components {
            let key = (component.kind, component.type_name.value.clone());
            self.given.entry(key).or_insert_with(|| {
                let config = beside_file(component.kind, &component.config.to_json(), &file.folder);
                (config, KitKeys::default())
            });
        }
        Ok(())
    }

    fn take_components(&mut self, json: &Json) -> Result<(), String> {
        for (name, table) in json.as_object().into_iter().flatten() {
            match KINDS.iter().find(|(known, _)| known == name) {
                Some((_, kind)) => {
                    for (type_name, config) in table.as_object().into_iter().flatten() {
                        self.given.entry((*kind, type_name.clone())).or_default().0 = config.clone();
                    }
                }
                None if name == "kit" => self.take_kit(table)?,
                None => return Err(format!("unknown table `{name}`: expected `source`, `transform`, `sink`, `service` or `kit`")),
            }
        }
        Ok(())
    }

    fn take_kit(&mut self, table: &Json) -> Result<(), String> {
        for (name, types) in table.as_object().into_iter().flatten() {
            let (_, kind) = KINDS.iter().find(|(known, _)| known == name).ok_or(format!("kit.{name}: no kind of component is called so"))?;
            for (type_name, keys) in types.as_object().into_iter().flatten() {
                let keys = serde_json::from_value(keys.clone()).map_err(|error| format!("kit.{name}.{type_name}: {error}"))?;
                self.given.entry((*kind, type_name.clone())).or_insert((Json::Null, KitKeys::default())).1 = keys;
            }
        }
        Ok(())
    }

    /// How a component is set up: as a file says, or from its schema's examples and defaults.
    pub fn of(&self, component: &ComponentDescription) -> Setup {
        let (given, kit) = self.given.get(&(component.kind, component.type_name.clone())).cloned().unwrap_or_default();
        if !given.is_null() {
            return Setup { config: Some(given), kit, missing: Vec::new() };
        }
        match from_schema(&component.schema) {
            Ok(config) => Setup { config: Some(config), kit, missing: Vec::new() },
            Err(missing) => Setup { config: None, kit, missing },
        }
    }
}

impl Setup {
    /// The configuration for a check in this folder.
    pub fn config_in(&self, folder: &Path) -> Option<Json> {
        self.config.as_ref().map(|config| in_folder(config, folder))
    }
}

/// With `{folder}` and `{name}` replaced.
pub fn in_folder(config: &Json, folder: &Path) -> Json {
    replaced(config, &|text| text_in_folder(text, folder))
}

pub fn text_in_folder(text: &str, folder: &Path) -> String {
    let folder = folder.to_string_lossy();
    // The folder's own name is random: its letters and digits are one as well.
    let name = || folder.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let text = text.replace("{folder}", &folder);
    if text.contains("{name}") { text.replace("{name}", &name()) } else { text }
}

fn replaced(json: &Json, with: &dyn Fn(&str) -> String) -> Json {
    match json {
        Json::String(text) => Json::String(with(text)),
        Json::Array(items) => items.iter().map(|item| replaced(item, with)).collect(),
        Json::Object(entries) => Json::Object(entries.iter().map(|(key, value)| (key.clone(), replaced(value, with))).collect()),
        other => other.clone(),
    }
}

/// What a pipeline's source reads lies beside its file; what a sink writes goes into the check's folder.
fn beside_file(kind: Kind, config: &Json, folder: &Path) -> Json {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    replaced(config, &|text| match folder.join(text) {
        path if kind == Kind::Source && !text.is_empty() && path.exists() => path.to_string_lossy().into_owned(),
        _ => text.to_owned(),
    })
}

/// The first example of the whole, or what the examples and defaults of its keys make; else the required keys without either.
fn from_schema(schema: &Json) -> Result<Json, Vec<String>> {
    if let Some(example) = first_example(schema) {
        return Ok(example.clone());
    }
    let mut config = Map::new();
    let mut missing = Vec::new();
    for key in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
        let property = &schema["properties"][key];
        match first_example(property).or(property.get("default")) {
            Some(value) => drop(config.insert(key.to_owned(), value.clone())),
            None => missing.push(key.to_owned()),
        }
    }
    if missing.is_empty() { Ok(Json::Object(config)) } else { Err(missing) }
}

fn first_example(schema: &Json) -> Option<&Json> {
    schema.get("examples")?.as_array()?.first()
}

#[cfg(test)]
mod tests {
    use pipeline_sdk::ComponentDescription;
    use serde_json::json;

    use super::*;

    fn setups(text: &str) -> Result<Setups, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rows.csv"), "").unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let mut setups = Setups::default();
        let read = setups.read(&path, &|name| (name == "TOKEN").then(|| "secret".to_owned()));
        read.map(|()| setups).map_err(|error| error.message.replace(&*folder.path().to_string_lossy(), "HERE"))
    }

    fn config(text: &str, kind: Kind, schema: Json) -> Setup {
        let component = ComponentDescription { schema, ..ComponentDescription::new("it", kind, "") };
        setups(text).unwrap().of(&component)
    }

    #[test]
    fn a_configuration_comes_from_a_pipeline_a_table_or_the_schema() {
        let pipeline = "[pipeline.p]\nsource = { type = \"it\", path = \"rows.csv\", token = \"${TOKEN}\" }\nsink = { type = \"it\", name = \"out\", path = \"rows.csv\" }\n";
        let source = config(pipeline, Kind::Source, Json::Null).config.unwrap();
        assert!(source["path"].as_str().unwrap().ends_with("/rows.csv") && source["token"] == "secret", "{source}");
        // What a sink writes goes into the check's folder, not beside the file.
        assert_eq!(config(pipeline, Kind::Sink, Json::Null).config, Some(json!({ "path": "rows.csv" })));

        let table = "[sink.it]\npath = \"{folder}/{here}\"\ntopic = \"x-{name}\"\n[kit.sink.it]\nobserve = { files = \"out\" }\nskip = { order = \"why\" }\n";
        let setup = config(table, Kind::Sink, Json::Null);
        assert!(setup.config_in(Path::new("/check")).unwrap()["path"].as_str().unwrap().starts_with("/check//"));
        assert_eq!(setup.config_in(Path::new("/a/.tmpB1")).unwrap()["topic"], "x-atmpB1");
        assert!(matches!(setup.kit.observe, Some(Observe::Files(_))) && setup.kit.skip["order"] == "why");

        let schema = |rule: Json| json!({ "required": ["key"], "properties": { "key": rule, "other": { "default": 1 } } });
        for (rule, expected) in [(json!({ "default": 7 }), Some(json!({ "key": 7 }))), (json!({ "examples": [8, 9] }), Some(json!({ "key": 8 }))), (json!({}), None)] {
            let setup = config("", Kind::Sink, schema(rule));
            assert_eq!((setup.config.is_none(), setup.missing.len()), (expected.is_none(), usize::from(expected.is_none())));
            assert_eq!(setup.config, expected);
        }
        assert_eq!(config("", Kind::Sink, json!({ "examples": [{ "whole": 1 }] })).config, Some(json!({ "whole": 1 })));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        for (text, expected) in [
            ("[sinks.it]\n", "unknown table `sinks`"),
            ("[kit.sink.it]\nlook = 1\n", "kit.sink.it: unknown field `look`"),
            ("[kit.tap.it]\n", "kit.tap: no kind"),
            ("[pipeline.p]\nsorce = 1\n", "did you mean `source`?"),
            ("[sink.it\n", "unclosed table"),
        ] {
            let error = setups(text).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }
}
