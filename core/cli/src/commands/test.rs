//! `pipeline test`: the cases that pipeline files hold of their own pipelines.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pipeline_engine::cases::{Case, Difference, Line, run};
use pipeline_engine::config::{File, Report};
use pipeline_engine::graph::Graph;
use pipeline_engine::host::Plugins;
use pipeline_engine::runtime::RunOptions;
use serde::Serialize;

use super::run::{block_on, run_options};
use crate::error::{CommandError, CommandResult};
use crate::host::{HostArgs, load_unset};
use crate::output::Output;

/// Run the `[[test]]` cases of files
///
/// A case is rows in and rows out: its `input` enters the pipeline in the place of the source, through the pipeline's transforms and
/// the `when` of its sinks, and what each sink would get is compared with `expect`, what becomes a dead letter with `rejected`.
/// Nothing is connected to, nothing is written, no service is started; variables of sources and sinks need not be set.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only cases whose name or pipeline holds this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline test pipelines/*.toml
  pipeline test events.toml --only rejected --json

A case in a file:
  [[test]]
  name     = \"errors go one way, the rest the other\"
  pipeline = \"events\"
  input    = [{ id = 1, level = \"error\" }, { id = 2, level = \"info\" }]
  [test.expect]
  errors = [{ id = 1, level = \"error\" }]
  others = [{ id = 2, level = \"info\" }]

  [[test]]
  name     = \"what is no number is rejected\"
  pipeline = \"events\"
  from     = \"select\"  # transforms before it are left out
  types    = { at = \"timestamp[ms]\", code = \"text\" }
  input    = [{ id = 3, at = \"2026-01-01T00:00:00.000\", code = \"none\" }]
  expect   = { errors = [], others = [] }
  rejected = [
      { id = 3, at = 2026-01-01T00:00:00.000, code = \"none\", _error = \"Int64\" },
  ]

A column that a row lacks is NULL, in the input and in what is expected. Dates and times are written as TOML has them, or as text \
with a type in `types`; `stops = \"TEXT\"` expects the pipeline to stop with an error.

Exit codes: 0 all cases are ok, 1 one failed, 2 a file is wrong (the cases of others are run) or there is no case.";

/// A case that was run.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ran<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    pipeline: &'a str,
    name: &'a str,
    ok: bool,
    milliseconds: u64,
    differences: Vec<Shown>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    line: usize,
    column: usize,
    message: String,
    rows: Vec<Line>,
}

#[derive(Serialize)]
struct Summary<'a> {
    ok: usize,
    failed: usize,
    cases: Vec<Ran<'a>>,
}

impl Args {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let files: Vec<Result<File, Report>> = self.files.iter().map(|path| load_unset(path)).collect();
        let readable: Vec<File> = files.iter().flatten().cloned().collect();
        readable.iter().for_each(|file| output.learn(&file.redactor));
        let plugins = Arc::new(host.plugins(&readable, None, output));
        let (mut graphs, mut reports) = (Vec::new(), Vec::new());
        for file in files {
            match file.and_then(|file| Graph::build_for_cases(&file, &*plugins)) {
                Ok(graph) => graphs.push(graph),
                Err(report) => reports.push(report),
            }
        }
        let is_meant = |case: &Case| self.only.as_ref().is_none_or(|text| case.name.contains(text) || case.pipeline.contains(text));
        let chosen: Vec<(&Graph, &Case)> =
            graphs.iter().flat_map(|graph| graph.cases.iter().map(move |case| (graph, case))).filter(|(_, case)| is_meant(case)).collect();
        let outcome = match (chosen.is_empty(), reports.is_empty()) {
            (false, _) => block_on(all(&chosen, &plugins, self.json, output)),
            (true, true) => Err(no_case(self.only.as_deref())),
            (true, false) => Ok(()),
        };
        // A file that is wrong keeps no other one's cases from being run.
        if reports.is_empty() { outcome } else { Err(CommandError::reports(reports)) }
    }
}

fn no_case(only: Option<&str>) -> CommandError {
    match only {
        Some(text) => CommandError::bad_usage(format!("no case is named like `{text}`")).hint("without `--only` all are run"),
        None => CommandError::bad_usage("no file has a `[[test]]`").hint("`pipeline test --help` shows what one looks like"),
    }
}

async fn all(chosen: &[(&Graph, &Case)], plugins: &Arc<Plugins>, json: bool, output: &Output) -> CommandResult {
    let mut ran = Vec::new();
    let mut file = "";
    for (graph, case) in chosen {
        if !json && graph.file != file {
            file = &graph.file;
            output.line(file);
        }
        let one = one(graph, case, plugins).await?;
        if !json {
            print(&one, output);
        }
        ran.push(one);
    }
    let failed = ran.iter().filter(|it| !it.ok).count();
    let ok = ran.len() - failed;
    match json {
        true => output.json(&Summary { ok, failed, cases: ran }),
        false => output.line(&format!("\n{ok} ok, {failed} failed")),
    }
    match failed {
        0 => Ok(()),
        1 => Err(CommandError::failed("a case failed").hint("`-` was expected and did not come, `+` came and was not expected")),
        _ => Err(CommandError::failed(format!("{failed} cases failed")).hint("`-` was expected and did not come, `+` came and was not expected")),
    }
}

async fn one<'a>(graph: &'a Graph, case: &'a Case, plugins: &Arc<Plugins>) -> Result<Ran<'a>, CommandError> {
    let begun = Instant::now();
    let outcome = run(graph, case, plugins.clone(), RunOptions { seed: 0, ..run_options() }).await?;
    let shown = |difference: Difference| {
        let (line, column) = graph.line_and_column(&difference.span);
        Shown { line, column, message: difference.message, rows: difference.lines }
    };
    let (line, column) = graph.line_and_column(&case.span);
    Ok(Ran {
        file: &graph.file,
        line,
        column,
        pipeline: &case.pipeline,
        name: &case.name,
        ok: outcome.differences.is_empty(),
        milliseconds: begun.elapsed().as_millis() as u64,
        differences: outcome.differences.into_iter().map(shown).collect(),
    })
}

fn print(ran: &Ran<'_>, output: &Output) {
    const GREEN: &str = "\x1b[32m";
    const RED: &str = "\x1b[31m";
    const PLAIN: &str = "\x1b[0m";
    let verdict = if ran.ok { format!("{GREEN}ok{PLAIN}    ") } else { format!("{RED}FAILED{PLAIN}") };
    output.line(&format!("  {verdict}  {}: {} ({} ms)", ran.pipeline, ran.name, ran.milliseconds));
    for difference in &ran.differences {
        output.line(&format!("    {}:{}:{}: {}", ran.file, difference.line, difference.column, difference.message));
        for line in &difference.rows {
            output.line(&match line {
                Line::Same(row) => format!("        {row}"),
                Line::Missing(row) => format!("      {RED}- {row}{PLAIN}"),
                Line::Unexpected(row) => format!("      {GREEN}+ {row}{PLAIN}"),
            });
        }
    }
}
