//! `pipeline tap`: messages of a running pipeline, as they pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_service::api::{Seen, SeenKind, TapQuery};
use pipeline_service::client::{Address, Client, ClientError};
use serde_json::Value as Json;

use super::replica::service::ServiceArgs;
use super::run::{Signals, block_on, duration};
use crate::error::{CommandError, CommandResult};
use crate::host::load_unset;
use crate::output::{Output, table_of, table_text};
use crate::socket::{run_socket, socket_path};

/// Until the answer begins: the rest comes as long as it comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Rows of one message in a table.
const TABLE_ROWS: u64 = 10;

/// Show messages that leave a source or transform, or reach a sink, of a running pipeline
///
/// It looks into the process that runs FILE (`pipeline run` or `pipeline serve`) and never holds it up: what does not fit the tap's
/// buffer of 256 messages or 32 MiB is left out and counted. Frames are shown as rows where their plugin decodes them. `dead-letter`
/// as COMPONENT shows what is rejected, with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The pipeline file, or its name in a service
    #[arg(value_name = "FILE")]
    file: String,
    /// What to look at
    #[arg(value_name = "PIPELINE.COMPONENT")]
    component: String,
    /// End after so many rows
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// End after this long (`10s`)
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    look_for: Option<Duration>,
    /// Show one of so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// Rows shown of one message: 10 in a table, 100 in JSON where absent
    #[arg(long, value_name = "ROWS")]
    rows: Option<u64>,
    /// The run's folder for positions, where it was started with `--state`
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Print a line of JSON for each message
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

const EXAMPLES: &str = "\
Examples:
  pipeline tap events.toml events.select
  pipeline tap events.toml events.errors --limit 20
  pipeline tap events.toml events.dead-letter --json --for 1m \\
      | jq '.rows[]._error'
  pipeline tap replica.toml a-to-b.tdengine-tmq --sample 100";

impl Args {
    pub fn run(self, output: &Output) -> CommandResult {
        block_on(self.look(output))
    }

    async fn look(self, output: &Output) -> CommandResult {
        let Some((pipeline, component)) = self.component.split_once('.').filter(|(one, other)| !one.is_empty() && !other.is_empty()) else {
            let error = CommandError::bad_usage(format!("`{}` does not name a component", self.component));
            return Err(error.hint("write PIPELINE.COMPONENT, such as `events.select`; `pipeline graph FILE` shows the names"));
        };
        let (client, file) = self.find(output).await?;
        let rows = self.rows.or((!self.json).then_some(TABLE_ROWS));
        let query = TapQuery { file, pipeline: pipeline.into(), component: component.into(), sample: self.sample, rows };
        let mut signals = Signals::new()?;
        let mut shown = Shown { output, json: self.json, left: self.limit, rows: 0, messages: 0, dropped: 0, columns: Vec::new() };
        let is_over = async {
            match self.look_for {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = client.tap(&query, |seen| shown.show(seen)) => ended,
            () = is_over => Ok(()),
            () = signals.next() => Ok(()),
        };
        ended.map_err(refused)?;
        shown.finish();
        Ok(())
    }

    /// Who runs the file, and its name there.
    async fn find(&self, output: &Output) -> Result<(Client, Option<String>), CommandError> {
        let path = Path::new(&self.file);
        let id = path.file_stem().map_or_else(|| self.file.clone(), |stem| stem.to_string_lossy().into_owned());
        if self.service.is_given() {
            return Ok((self.service.client(ANSWER_LIMIT)?, Some(id)));
        }
        let mut tried = Vec::new();
        if path.is_file() || self.state.is_some() {
            let socket = run_socket(&self.state_folder(path, output));
            let client = Client::new(Address::Unix(socket.clone()), ANSWER_LIMIT);
            match client.service().await {
                Ok(_) => return Ok((client, None)),
                Err(ClientError::NotRunning { .. }) => tried.push(socket.display().to_string()),
                Err(error) => return Err(refused(error)),
            }
        }
        let client = self.service.client(ANSWER_LIMIT)?;
        match client.file(&id).await {
            Ok(_) => Ok((client, Some(id))),
            Err(ClientError::NotRunning { .. }) => {
                tried.push(socket_path(None).display().to_string());
                let error = CommandError::failed(format!("nobody runs `{}`: no process answers at {}", self.file, tried.join(" or ")));
                Err(error.hint("start it with `pipeline run FILE`, or say with `--state` or `--socket` where it runs"))
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// Of a run of this file. The file may need variables that only the run has.
    fn state_folder(&self, path: &Path, output: &Output) -> PathBuf {
        if let Some(state) = &self.state {
            return state.clone();
        }
        match load_unset(path) {
            Ok(file) => {
                output.learn(&file.redactor);
                file.state
            }
            // Another version of it may run.
            Err(_) => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!(".{stem}.state"))
            }
        }
    }
}

fn refused(error: ClientError) -> CommandError {
    let hint = error.hint().unwrap_or_else(|| "`pipeline graph FILE` shows pipelines and components".into());
    CommandError::failed(error.to_string()).hint(hint)
}

/// What was shown, and what may still be.
struct Shown<'a> {
    output: &'a Output,
    json: bool,
    left: Option<u64>,
    rows: u64,
    messages: u64,
    dropped: u64,
    /// Of the table that stands above.
    columns: Vec<String>,
}

impl Shown<'_> {
    /// Whether more is wanted.
    fn show(&mut self, mut seen: Seen) -> bool {
        if let Some(left) = self.left {
            seen.rows.truncate(left as usize);
        }
        self.messages += 1;
        self.dropped = seen.dropped;
        // A change, or a frame that stays one, counts as a row.
        let count = (seen.rows.len() as u64).max(1);
        self.rows += count;
        match self.json {
            true => self.output.line(&serde_json::to_string(&seen).unwrap_or_default()),
            false => self.output.line(&self.text(&seen)),
        }
        self.left = self.left.map(|left| left.saturating_sub(count));
        self.left != Some(0)
    }

    fn text(&mut self, seen: &Seen) -> String {
        let task = if seen.task.is_empty() { String::new() } else { format!("{} ", seen.task) };
        let replicated = if seen.replicated { ", replicated" } else { "" };
        let head = format!("# {task}lane {} position {}{replicated}", seen.lane, seen.position);
        match seen.kind {
            SeenKind::Rows => {
                let left_out = seen.row_count.saturating_sub(seen.rows.len() as u64);
                let more = if left_out > 0 { format!(", {left_out} more not shown") } else { String::new() };
                format!("{head}: {} row{}{more}\n{}", seen.row_count, if seen.row_count == 1 { "" } else { "s" }, self.table(seen))
            }
            SeenKind::Change => format!("{head}: change {}", seen.detail),
            SeenKind::Frame => format!("{head}: frame of {} bytes and {} rows that cannot be decoded {}", seen.bytes, seen.row_count, seen.detail),
        }
    }

    /// With a header where it differs from the one above.
    fn table(&mut self, seen: &Seen) -> String {
        let columns: Vec<String> = seen.columns.iter().map(|column| column.name.clone()).collect();
        let header: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut rows = table_of(&header);
        for row in &seen.rows {
            rows.add_row(columns.iter().map(|name| row.get(name).map_or_else(String::new, cell)));
        }
        let text = table_text(&rows);
        let is_known = std::mem::replace(&mut self.columns, columns) == self.columns;
        match text.split_once('\n') {
            Some((_, body)) if is_known => body.to_owned(),
            _ => text,
        }
    }

    fn finish(&self) {
        let counted = |count: u64, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
        let mut text = format!("{} of {} shown", counted(self.rows, "row"), counted(self.messages, "message"));
        if self.dropped > 0 {
            text.push_str(&format!("; {} not shown: the tap's buffer was full", counted(self.dropped, "message")));
        }
        self.output.error("note", &text);
    }
}

fn cell(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Object(object) => {
            let sorted: BTreeMap<_, _> = object.iter().collect();
            serde_json::to_string(&sorted).unwrap_or_default()
        }
        other => other.to_string(),
    }
}
