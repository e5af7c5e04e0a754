//! `pipeline validate`: everything that can be checked without connecting.

use std::path::PathBuf;

use pipeline_engine::config::{Place, Report};
use pipeline_engine::graph::Graph;
use serde::Serialize;

use crate::error::{CommandError, CommandResult};
use crate::host::{HostArgs, load_file};
use crate::output::{Output, table, table_text};

/// Check files without connecting to anything
///
/// Every problem is shown with file, line, column and path. A file's structure is checked first, then its components against
/// their plugins, then how its pipelines fit together, with those of the other files given.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline validate events.toml
  pipeline validate pipelines/*.toml
  pipeline validate events.toml --json | jq '.[].problems'";

#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipelines: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<&'a str>>,
    problems: Vec<Place<'a>>,
}

impl Args {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let files: Vec<_> = self.files.iter().map(|path| load_file(path)).collect();
        let readable: Vec<_> = files.iter().flatten().cloned().collect();
        readable.iter().for_each(|file| output.learn(&file.redactor));
        let plugins = host.plugins(&readable, None, output);
        let mut results: Vec<Result<Graph, Report>> =
            files.into_iter().map(|file| file.and_then(|file| Graph::build(&file, &plugins))).collect();
        let graphs: Vec<Graph> = results.iter().flatten().cloned().collect();
        if let Err(report) = Graph::check_together(&graphs) {
            results.push(Err(report));
        }
        if self.json {
            output.json(&results.iter().map(checked).collect::<Vec<_>>());
        } else {
            print(&graphs, output);
        }
        let reports: Vec<Report> = results.into_iter().filter_map(Result::err).collect();
        match (reports.is_empty(), self.json) {
            (true, _) => Ok(()),
            (false, true) => Err(CommandError::bad_usage("not every file is valid").hint("see the problems above")),
            (false, false) => Err(CommandError::checked(reports)),
        }
    }
}

fn print(graphs: &[Graph], output: &Output) {
    if graphs.is_empty() {
        return;
    }
    let mut rows = table(["FILE", "", "PIPELINES", "REPLICAS", "SERVICES"]);
    for graph in graphs {
        let counts = [graph.own_pipelines().count(), graph.replicas.len(), graph.services.len()].map(|count| count.to_string());
        let [pipelines, replicas, services] = counts;
        rows.add_row([graph.file.clone(), "valid".into(), pipelines, replicas, services]);
    }
    output.line(&table_text(&rows));
}

fn checked(result: &Result<Graph, Report>) -> Checked<'_> {
    match result {
        Ok(graph) => Checked {
            file: graph.file.clone(),
            valid: true,
            pipelines: Some(graph.own_pipelines().map(|pipeline| pipeline.name.as_str()).collect()),
            services: Some(graph.services.iter().map(|service| service.name.as_str()).collect()),
            problems: Vec::new(),
        },
        Err(report) => Checked {
            file: report.source.name.clone(),
            valid: false,
            pipelines: None,
            services: None,
            problems: report.places(),
        },
    }
}
