//! `pipeline plugin check`: the conformance kit on one library, in child processes of this same executable.

use std::path::PathBuf;
use std::time::Duration;

use pipeline_conformance::{Check, Finding, Kit, Report, Setups, Verdict, child};
use pipeline_engine::config::units::parse_duration;

use crate::commands::component::launch;
use crate::error::{CommandError, CommandResult};
use crate::output::{Output, fit, is_terminal, table, table_text};

/// The verb that a child is started with.
pub const CHILD: &str = "check-child";

/// Check that a library keeps to what the engine relies on, whatever its language
///
/// Every check runs in a child process and has a stable name (`--checks` lists them). Each component needs a configuration: from a
/// pipeline file that uses it, from a table `[KIND.TYPE]` in a file, or from the examples and defaults of its schema. Exit code 1
/// where a check failed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The library
    #[arg(value_name = "LIB", required_unless_present = "checks")]
    library: Option<PathBuf>,
    /// A pipeline file, or a table of components: `[sink.TYPE]` with its keys, `[kit.sink.TYPE]` with what the kit must know; may be repeated
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Run this check only; may be repeated
    #[arg(long, value_name = "CHECK")]
    only: Vec<Check>,
    /// Check components of this type only; may be repeated
    #[arg(long, value_name = "TYPE")]
    component: Vec<String>,
    /// How long one call of a component may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    call_timeout: Duration,
    /// How long a check may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    check_timeout: Duration,
    /// Run components as a file with this `isolation` does
    #[arg(long, value_enum, default_value_t)]
    isolation: Isolation,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List the checks and what each shows
    #[arg(long)]
    checks: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline plugin check target/debug/libpipeline_plugin_upper.so
  pipeline plugin check libpipeline_plugin_first.so --config first.toml
  pipeline plugin check libpipeline_plugin_first.so --only order
  pipeline plugin check --checks";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Isolation {
    /// In the process of the check
    #[default]
    None,
    /// In a process of their own
    Process,
}

/// One check, in a process of its own
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    folder: PathBuf,
}

impl ChildArgs {
    pub fn run(self) -> CommandResult {
        child::run(&self.folder, &launch()).map_err(|error| CommandError::failed(format!("{}: {error}", self.folder.display())))
    }
}

impl Args {
    pub fn run(self, output: &Output) -> CommandResult {
        let Some(library) = self.library.filter(|_| !self.checks) else {
            list(self.json, output);
            return Ok(());
        };
        let mut setups = Setups::default();
        for file in &self.config {
            let read = setups.read(file, &|name| std::env::var(name).ok());
            read.map_err(|error| {
                let wrong = CommandError::bad_usage(format!("{}: {}", error.file.display(), error.message));
                wrong.hint("a pipeline file, or tables `[KIND.TYPE]` and `[kit.KIND.TYPE]`: docs/plugin-guide.md")
            })?;
        }
        let executable = std::env::current_exe().map_err(|error| CommandError::failed(format!("this executable's path: {error}")))?;
        let kit = Kit {
            library,
            child: (executable, vec!["plugin".into(), CHILD.into()]),
            setups,
            only: self.only,
            components: self.component,
            call_timeout: self.call_timeout,
            check_timeout: self.check_timeout,
            is_isolated: self.isolation == Isolation::Process,
        };
        let tell = |finding: &Finding| {
            if is_terminal() {
                output.live(&format!("{} {}: {}", finding.kind, finding.component, finding.check));
            }
        };
        let report = kit.run(&tell);
        output.live_clear();
        let report = report?;
        if self.json { output.json(&report) } else { print(&report, output) }
        match report.count(Verdict::Failed) {
            0 => Ok(()),
            count => {
                let error = CommandError::failed(format!("{count} of {} checks failed", report.findings.len()));
                Err(error.hint("`pipeline plugin check --checks` says what each check is about, `--only CHECK` runs one alone"))
            }
        }
    }
}

fn list(json: bool, output: &Output) {
    if json {
        let checks = Check::ALL.iter().map(|check| serde_json::json!({ "name": check.name(), "summary": check.summary() }));
        return output.json(&checks.collect::<Vec<_>>());
    }
    let mut rows = table(["CHECK", "SHOWS"]);
    for check in Check::ALL {
        rows.add_row([check.name(), check.summary()]);
    }
    fit(&mut rows);
    output.line(&table_text(&rows));
}

fn print(report: &Report, output: &Output) {
    let mut rows = table(["COMPONENT", "CHECK", "RESULT", ""]);
    let mut last = None;
    for finding in &report.findings {
        let name = format!("{} {}", finding.kind, finding.component);
        let shown = if last.as_ref() == Some(&name) { String::new() } else { name.clone() };
        last = Some(name);
        let result = match finding.outcome.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::NotApplicable => "-",
        };
        let reason = match finding.outcome.place.as_str() {
            "" => finding.outcome.reason.clone(),
            place => format!("{place}: {}", finding.outcome.reason),
        };
        rows.add_row([shown, finding.check.to_string(), result.to_owned(), reason]);
    }
    fit(&mut rows);
    output.line(&table_text(&rows));
    let count = |verdict| report.count(verdict);
    output.line(&format!(
        "\n{} {}: {} passed, {} failed, {} not applicable",
        report.plugin,
        report.version,
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::NotApplicable)
    ));
    for finding in report.findings.iter().filter(|finding| !finding.outcome.log.is_empty()) {
        output.line(&format!("\n{} {}, {}: the last it said", finding.kind, finding.component, finding.check));
        finding.outcome.log.iter().for_each(|line| output.line(&format!("  {line}")));
    }
}
