//! `pipeline plugin`: what there is (`list`, `describe`, `doctor`), and the author's path (`new`, `check`).

mod check;
mod doctor;
mod new;
mod reference;

use clap::Subcommand;
use pipeline_engine::config::reference::{KeyDescription, keys};
use pipeline_engine::host::{LoadedPlugin, Plugins};
use pipeline_sdk::{ComponentDescription, PluginDescription};
use serde::Serialize;

use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::{Output, fit, table, table_text};

/// Show plugins and what they provide
#[derive(Debug, Subcommand)]
pub enum Plugin {
    List(ListArgs),
    Describe(DescribeArgs),
    New(new::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    #[command(name = check::CHILD, hide = true)]
    CheckChild(check::ChildArgs),
}

/// List the plugins that were found, and what could not be loaded
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const LIST_EXAMPLES: &str = "\
Examples:
  pipeline plugin list
  pipeline plugin list --plugin-path target/debug --json";

/// Describe a plugin or the components of a type: keys, defaults, capabilities
#[derive(Debug, clap::Args)]
#[command(after_help = DESCRIBE_EXAMPLES)]
pub struct DescribeArgs {
    /// Name of a plugin, or type of a component
    name: String,
    /// Print JSON, with the JSON Schema of every component
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// `markdown` prints the reference page
    #[arg(long, default_value = "text")]
    format: Format,
}

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  pipeline plugin describe tdengine-tmq
  pipeline plugin describe files --json
  pipeline plugin describe files --format markdown > files.md";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Markdown,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    version: &'a str,
    license: &'a str,
    summary: &'a str,
    path: String,
    sha256: &'a str,
    components: Vec<String>,
}

#[derive(Serialize)]
struct Broken {
    path: String,
    error: String,
}

#[derive(Serialize)]
struct List<'a> {
    plugins: Vec<Listed<'a>>,
    not_loaded: Vec<Broken>,
    searched: Vec<String>,
}

impl Plugin {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        match self {
            Self::List(args) => {
                list(&host.all_plugins(&[]), args.json, output);
                Ok(())
            }
            Self::Describe(args) => args.run(&host.plugins(&[], None, output), output),
            Self::New(args) => args.run(output),
            Self::Check(args) => args.run(output),
            Self::Doctor(args) => {
                let files = crate::host::load_files(&args.files, output)?;
                args.run(&host.all_plugins(&files), output)
            }
            Self::CheckChild(args) => args.run(),
        }
    }
}

fn list(plugins: &Plugins, json: bool, output: &Output) {
    let list = List {
        plugins: plugins.loaded().iter().map(listed).collect(),
        not_loaded: plugins
            .problems()
            .iter()
            .map(|problem| Broken { path: problem.path.display().to_string(), error: problem.error.to_string() })
            .collect(),
        searched: plugins.folders().iter().map(|folder| folder.display().to_string()).collect(),
    };
    if json {
        return output.json(&list);
    }
    if list.plugins.is_empty() {
        output.line(&format!("no plugin was found in {}", list.searched.join(", ")));
    } else {
        let mut rows = table(["PLUGIN", "VERSION", "PROVIDES", "LIBRARY"]);
        for plugin in &list.plugins {
            rows.add_row([plugin.name, plugin.version, &plugin.components.join("\n"), &plugin.path]);
        }
        fit(&mut rows);
        output.line(&table_text(&rows));
    }
    for broken in &list.not_loaded {
        output.error("warning", &format!("{} was not loaded: {}", broken.path, broken.error));
    }
    if list.plugins.is_empty() {
        output.error("hint", "build them with `cargo build`, or give their folder with --plugin-path");
    }
}

fn listed(plugin: &LoadedPlugin) -> Listed<'_> {
    let PluginDescription { name, version, license, summary, components, .. } = &plugin.description;
    Listed {
        name,
        version,
        license,
        summary,
        path: plugin.path.as_ref().map_or_else(|| "linked in".into(), |path| path.display().to_string()),
        sha256: &plugin.sha256,
        components: components.iter().map(|it| format!("{} {}", it.kind, it.type_name)).collect(),
    }
}

impl DescribeArgs {
    fn run(self, plugins: &Plugins, output: &Output) -> CommandResult {
        let mut found = Vec::new();
        for plugin in plugins.loaded().iter().map(|plugin| &plugin.description) {
            let whole = plugin.name == self.name;
            let components = plugin.components.iter().filter(|component| whole || component.type_name == self.name);
            found.extend(components.map(|component| (plugin, component)));
        }
        if found.is_empty() {
            let error = CommandError::failed(format!("no plugin and no component is called `{}`", self.name));
            return Err(error.hint("`pipeline plugin list` shows what there is"));
        }
        if self.json {
            output.json(&found.iter().map(|(_, component)| *component).collect::<Vec<_>>());
            return Ok(());
        }
        let texts: Vec<String> = match self.format {
            Format::Text => found.iter().map(|(plugin, component)| describe(plugin, component)).collect(),
            Format::Markdown => {
                let (plugin, _) = found[0];
                vec![reference::page(plugin, found.iter().map(|(_, component)| *component))]
            }
        };
        output.line(texts.join("\n\n").trim_end());
        Ok(())
    }
}

fn describe(plugin: &PluginDescription, component: &ComponentDescription) -> String {
    let mut lines = vec![
        format!("{} {}: {}", component.kind, component.type_name, component.summary),
        format!("  plugin {} {}, {}", plugin.name, plugin.version, plugin.license),
    ];
    let mut fact = |label: &str, texts: Vec<&str>| {
        if !texts.is_empty() {
            lines.push(format!("  {label} {}", texts.join(", ")));
        }
    };
    fact("provides", component.provides.iter().map(String::as_str).collect());
    let required: Vec<String> = component.requires.iter().map(|it| format!("{} of the {}", it.capability, it.of)).collect();
    fact("requires", required.iter().map(String::as_str).collect());
    fact("frames", component.frames.iter().map(String::as_str).collect());
    fact("divided into tasks by", component.task_key.iter().map(String::as_str).collect());
    let keys = keys(component);
    if !keys.is_empty() {
        lines.push(String::new());
        let mut rows = table(["KEY", "TYPE", "DEFAULT", ""]);
        for KeyDescription { key, kind, default, summary } in &keys {
            rows.add_row([key, kind, default, summary]);
        }
        fit(&mut rows);
        lines.push(table_text(&rows));
    }
    lines.join("\n")
}
