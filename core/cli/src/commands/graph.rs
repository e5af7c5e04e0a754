//! `pipeline graph`: what a file comes to, without connecting.

use std::path::PathBuf;

use clap::ValueEnum;
use pipeline_engine::graph::{expand, to_toml};

use crate::error::{CommandError, CommandResult};
use crate::host::{HostArgs, build_graphs, load_files};
use crate::output::Output;

/// Show what a file comes to: replicas written out, decoders where they stand, capabilities as negotiated
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A pipeline file
    file: PathBuf,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline graph events.toml
  pipeline graph events.toml --format dot | dot -Tsvg > events.svg
  pipeline graph replica.toml --format toml";

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// Indented lines
    #[default]
    Text,
    /// A Mermaid flow chart
    Mermaid,
    /// A Graphviz graph
    Dot,
    Json,
    /// Replicas as the pipelines that a person would write
    Toml,
}

impl Args {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let files = load_files(&[self.file], output)?;
        let plugins = host.plugins(&files, None, output);
        let graphs = build_graphs(&files, &plugins)?;
        let format = if self.json { Format::Json } else { self.format };
        for (file, graph) in files.iter().zip(&graphs) {
            match format {
                Format::Text => output.line(graph.to_text().trim_end()),
                Format::Mermaid => output.line(graph.to_mermaid().trim_end()),
                Format::Dot => output.line(graph.to_dot().trim_end()),
                Format::Json => output.json(&graph.json()),
                Format::Toml => {
                    let mut written: Vec<String> = file.pipelines.iter().map(to_toml).collect();
                    for replica in &file.replicas {
                        let pipelines = expand(replica, &plugins).map_err(|problems| CommandError::from(file.report(problems)))?;
                        written.extend(pipelines.iter().map(to_toml));
                    }
                    output.line(written.join("\n").trim_end());
                }
            }
        }
        Ok(())
    }
}
