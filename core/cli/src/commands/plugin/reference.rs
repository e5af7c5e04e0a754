//! A plugin's reference page, from what its library says of itself.

use pipeline_engine::config::reference::{KeyDescription, keys};
use pipeline_sdk::{ComponentDescription, PluginDescription};

/// Markdown; `docs/reference/NAME.md` is this text.
pub fn page<'a>(plugin: &PluginDescription, components: impl Iterator<Item = &'a ComponentDescription>) -> String {
    let mut text = format!(
        "# {}\n\n{}.\n\n<!-- Made by `pipeline plugin describe {} --format markdown`: change the plugin, not this page. -->\n",
        plugin.name,
        plugin.summary.trim_end_matches('.'),
        plugin.name
    );
    components.for_each(|component| text += &section(component));
    text
}

fn section(component: &ComponentDescription) -> String {
    let mut text = format!("\n## {} `{}`\n\n{}.\n", component.kind, component.type_name, component.summary.trim_end_matches('.'));
    let description = component.schema.get("description").and_then(|it| it.as_str()).unwrap_or_default();
    if !description.is_empty() && description.trim_end_matches('.') != component.summary.trim_end_matches('.') {
        text += &format!("\n{description}\n");
    }
    let mut fact = |label: &str, values: Vec<String>| {
        if !values.is_empty() {
            text += &format!("\n{label}: {}.\n", values.join(", "));
        }
    };
    let code = |value: &String| format!("`{value}`");
    fact("Provides", component.provides.iter().map(code).collect());
    fact("Requires", component.requires.iter().map(|it| format!("`{}` of the {}", it.capability, it.of)).collect());
    fact("Frames", component.frames.iter().map(code).collect());
    fact("Divided into tasks by", component.task_key.iter().map(code).collect());
    let keys = keys(component);
    if keys.is_empty() {
        return text + "\nIt has no keys.\n";
    }
    text += "\n| key | type | default | |\n|---|---|---|---|\n";
    for KeyDescription { key, kind, default, summary } in keys {
        let cell = |value: &str| value.replace('|', "\\|");
        let default = match default.as_str() {
            "" | "required" => default,
            value => format!("`{value}`"),
        };
        text += &format!("| `{key}` | {} | {} | {} |\n", cell(&kind), cell(&default), cell(&summary));
    }
    text
}
