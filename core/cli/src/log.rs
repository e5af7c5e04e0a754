//! The tracing subscriber: structured log lines on standard error, as text or JSON, redacted. Set here and nowhere else.

use std::io::Write;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::output::Output;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t, env = "PIPELINE_LOG_FORMAT")]
    log_format: Format,
    /// What is logged: a level, or `target=level` with commas between; `info`, but `warn` above a live table, where absent
    #[arg(long, global = true, value_name = "FILTER", env = "PIPELINE_LOG")]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging, and sends panics the same way. `default` is what is logged where the user does not say.
pub fn start(args: &LogArgs, default: &str, output: &Output) {
    let wanted = args.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|error| {
        output.error("warning", &format!("--log {wanted}: {error}; logging at `{default}`"));
        EnvFilter::new(default)
    });
    let writer = Redacted(output.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match args.log_format {
        Format::Text => builder.init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    let output = output.clone();
    std::panic::set_hook(Box::new(move |panic| {
        output.error("error", &format!("internal error: {panic}"));
        output.error("hint", "this is a bug; report it with the lines above");
    }));
}

/// Writes whole lines through the redactor.
struct Redacted(Output);

impl<'a> MakeWriter<'a> for Redacted {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { output: &self.0, text: Vec::new() }
    }
}

/// One event: printed when it is complete, so that a secret is never split.
struct Line<'a> {
    output: &'a Output,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.output.to_stderr(&String::from_utf8_lossy(&self.text));
        }
    }
}
