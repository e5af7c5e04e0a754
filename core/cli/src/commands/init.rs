//! `pipeline init`: a file to begin with, from what the plugins that were found say of themselves.

use std::io::Write;
use std::path::PathBuf;

use pipeline_engine::config::reference::{KeyDescription, keys, pipeline_keys};
use pipeline_engine::host::Plugins;
use pipeline_sdk::{ComponentDescription, Kind};

use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::Output;

const HEAD: &str = include_str!("../../templates/init.toml.txt");

/// Write a commented pipeline file to begin with
///
/// It asks nothing. Every key that source, transforms, sink and the pipeline itself take stands in it, with its default and what it is
/// for. Without options it is one direction of a replica, where a plugin has what that takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file; an existing one is left alone
    #[arg(default_value = "pipeline.toml", value_name = "FILE")]
    file: PathBuf,
    /// Type of the source
    #[arg(long, value_name = "TYPE")]
    source: Option<String>,
    /// Type of a transform; may be repeated
    #[arg(long, value_name = "TYPE")]
    transform: Vec<String>,
    /// Type of the sink
    #[arg(long, value_name = "TYPE")]
    sink: Option<String>,
}

const EXAMPLES: &str = "Examples:
  pipeline init
  pipeline init plant.toml --source tdengine-tmq --sink tdengine";

impl Args {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let text = self.text(&host.plugins(&[], None, output))?;
        let shown = self.file.display();
        let written = std::fs::File::create_new(&self.file).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                CommandError::bad_usage(format!("{shown} is there already")).hint("name another file: `pipeline init FILE`")
            }
            _ => CommandError::failed(format!("cannot write {shown}: {error}")).hint("name a file in a folder that can be written"),
        })?;
        output.line(&format!("{shown} is there. Next: fill in what stands without `#`, then `pipeline validate {shown}`"));
        Ok(())
    }

    fn text(&self, plugins: &Plugins) -> Result<String, CommandError> {
        let is_bare = self.source.is_none() && self.sink.is_none() && self.transform.is_empty();
        let replica = plugins.loaded().iter().find_map(|plugin| plugin.description.replica.clone()).filter(|_| is_bare);
        let (source, transforms, sink) = match replica {
            Some(replica) => (Some(replica.source), vec![replica.transform], Some(replica.sink)),
            None => (self.source.clone(), self.transform.clone(), self.sink.clone()),
        };
        let source = find(plugins, Kind::Source, source.as_deref())?;
        let sink = find(plugins, Kind::Sink, sink.as_deref())?;
        let transforms: Vec<_> =
            transforms.iter().map(|name| find(plugins, Kind::Transform, Some(name))).collect::<Result<_, _>>()?;
        let mut text = format!("{HEAD}\n[pipeline.main]\n");
        pipeline_keys().iter().for_each(|key| text += &line(key, ""));
        text += &component("[pipeline.main.source]", source);
        transforms.into_iter().for_each(|it| text += &component("[[pipeline.main.transform]]", it));
        text += &component("[pipeline.main.sink]", sink);
        Ok(text)
    }
}

/// The component of this type, or the first of its kind.
fn find<'a>(plugins: &'a Plugins, kind: Kind, type_name: Option<&str>) -> Result<&'a ComponentDescription, CommandError> {
    let mut all = plugins.loaded().iter().flat_map(|plugin| &plugin.description.components).filter(|it| it.kind == kind);
    let found = all.find(|it| type_name.is_none_or(|name| it.type_name == name));
    found.ok_or_else(|| {
        let what = type_name.map_or_else(|| format!("no plugin has a {kind}"), |name| format!("no plugin has a {kind} of type `{name}`"));
        CommandError::failed(what).hint("`pipeline plugin list` shows what there is and where it was looked for")
    })
}

fn component(header: &str, description: &ComponentDescription) -> String {
    let mut text = format!("\n# {}.\n{header}\ntype = \"{}\"\n", description.summary.trim_end_matches('.'), description.type_name);
    let keys = keys(description);
    let must_be_given = |name: &str| keys.iter().any(|it| it.key == name && it.default == "required");
    for key in &keys {
        let line = line(key, &description.kind.to_string());
        // What must be given within a table must be only where that table is.
        let is_optional = key.key.rsplit_once('.').is_some_and(|(table, _)| !must_be_given(table));
        text += &if is_optional { indented(&line) } else { line };
    }
    text
}

/// Lines as a comment that is no default to spell out.
fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("#   {}\n", line.trim_start_matches("# "))).collect()
}

/// What a key is for, and the key: behind `#` unless it must be given; then from a variable named after it.
fn line(key: &KeyDescription, kind: &str) -> String {
    let KeyDescription { key, kind: value, default, summary } = key;
    let example = match value.split([' ', '|']).next().unwrap_or_default() {
        "integer" | "number" => "0",
        "boolean" => "false",
        "array" => "[]",
        "table" | "object" => "{}",
        _ => "\"\"",
    };
    let choices = if value.contains('|') { format!(" ({value})") } else { String::new() };
    let summary = format!("{}{choices}", summary.trim_end());
    match default.as_str() {
        "required" if example == "\"\"" => {
            let variable = format!("{kind}_{key}").to_uppercase().replace(['-', '.'], "_");
            format!("# {summary} Must be given.\n{key} = \"${{{variable}}}\"\n")
        }
        "required" => format!("# {summary} Must be given.\n{key} = {example}\n"),
        "" => format!("# {summary}\n# {key} = {example}\n"),
        default => format!("# {summary}\n# {key} = {default}\n"),
    }
}
