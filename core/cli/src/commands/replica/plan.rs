//! `pipeline replica plan`: whether a replica would run, before anything is made.

use comfy_table::{Cell, Color};
use pipeline_replica::plan;
use pipeline_sdk::site::{Check, Verdict};

use super::ends::{SiteArgs, environment};
use super::rows::{Row, colored, print, text};
use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::Output;
use crate::progress;

/// Look at two sites and tell whether a replica would run; writes nothing
///
/// Versions, clocks, permissions and topics of the sites, then of each database precision, KEEP, how long its log is kept, and
/// definitions that differ. A verdict is `ok`, `create` (is missing and will be made), `warning` (works, and should be known) or
/// `error` (would not run: the exit code is 1). Whether a site can tell a replica's writes apart is tried when a replica starts, as that takes a write.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The site to read: HOST, HOST:6041, ws:// or wss:// (WebSocket), HOST:6030 or taos:// (native), or a whole DSN
    #[arg(short = 'f', long = "from", value_name = "SOURCE")]
    from: String,
    /// The site to write, likewise
    #[arg(short = 't', long = "to", value_name = "SINK")]
    to: String,
    /// Databases; all but the system's own where none is named
    #[arg(value_name = "DATABASE")]
    databases: Vec<String>,
    #[command(flatten)]
    sites: SiteArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica plan -f a.example -t b.example
  pipeline replica plan -f wss://ops@a.example:6041 --source-password-env A \\
      -t b.example:6030 power
  pipeline replica plan -f '${SITE_A}' -t '${SITE_B}' --json";

impl Args {
    pub async fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let named = self.sites.named(&self.from, &self.to, &environment, host, output)?;
        let ends = named.ends()?;
        let plan = progress::during("looking at both sites", 0, async |_| plan(ends, &self.databases).await).await?;
        print(&plan.checks.iter().map(Line).collect::<Vec<_>>(), self.json, output);
        if plan.worst() != Verdict::Error {
            return Ok(());
        }
        let error = CommandError::failed(format!("a replica from {} to {} would not run", plan.source.address, plan.sink.address));
        Err(error.hint("the notes of the lines with `error` say what to do first"))
    }
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Line<'a>(&'a Check);

impl Row for Line<'_> {
    fn columns() -> Vec<&'static str> {
        vec!["check", "database", "source", "sink", "verdict", "note"]
    }

    fn cells(&self) -> Vec<Cell> {
        let Check { check, database, source, sink, verdict, note } = self.0;
        let verdict = match verdict {
            Verdict::Ok => colored("ok", Color::Green),
            Verdict::Create => colored("create", Color::Cyan),
            Verdict::Warning => colored("warning", Color::Yellow),
            Verdict::Error => colored("error", Color::Red),
        };
        vec![text(check), text(database), text(source), text(sink), verdict, Cell::new(note)]
    }
}
