//! At the edge: what went wrong becomes a message, a hint and an exit code.

use std::process::ExitCode;

use pipeline_engine::config::{Place, Report};

use crate::output::Output;

/// How the process ends when it does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that the same command may do later.
    Failed = 1,
    /// The command or a file is wrong.
    BadUsage = 2,
    /// The file's own policy stopped it.
    Stopped = 3,
}

/// An error on its way to the terminal.
#[derive(Debug)]
pub struct CommandError {
    pub exit: Exit,
    /// Printed as it is where it is rendered already (with `error:` in front of every problem).
    message: Message,
    hint: Option<String>,
}

#[derive(Debug)]
enum Message {
    Plain(String),
    Reports(Vec<Report>),
}

pub type CommandResult = Result<(), CommandError>;

impl CommandError {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: Message::Plain(message.into()), hint: None }
    }

    pub fn bad_usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::BadUsage, ..Self::failed(message) }
    }

    pub fn stopped(message: impl Into<String>) -> Self {
        Self { exit: Exit::Stopped, ..Self::failed(message) }
    }

    /// Files that are wrong.
    pub fn reports(reports: Vec<Report>) -> Self {
        Self::reports_or(reports, "`pipeline validate FILE` checks a file without running it")
    }

    /// The same of `pipeline validate`, which is not told of itself.
    pub fn checked(reports: Vec<Report>) -> Self {
        Self::reports_or(reports, "`pipeline schema` prints what a file may hold")
    }

    fn reports_or(reports: Vec<Report>, otherwise: &str) -> Self {
        let hint = hint_on(&reports).unwrap_or(otherwise).to_owned();
        Self { exit: Exit::BadUsage, message: Message::Reports(reports), hint: Some(hint) }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What was given on the command line is to blame.
    pub fn usage(self) -> Self {
        Self { exit: Exit::BadUsage, ..self }
    }

    /// The message alone.
    pub fn text(&self) -> String {
        match &self.message {
            Message::Plain(text) => text.clone(),
            Message::Reports(reports) => reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    /// Prints the error, the hint last, and says how to exit.
    pub fn print(self, output: &Output) -> ExitCode {
        match &self.message {
            Message::Plain(text) => output.error("error", text),
            Message::Reports(reports) => {
                for report in reports {
                    output.to_stderr(&format!("{}\n", report.render(true)));
                }
            }
        }
        if let Some(hint) = &self.hint {
            output.error("hint", hint);
        }
        ExitCode::from(self.exit as u8)
    }
}

/// What helps with one of the problems.
fn hint_on(reports: &[Report]) -> Option<&'static str> {
    let has = |what: &dyn Fn(&Place<'_>) -> bool| reports.iter().any(|report| report.places().iter().any(what));
    if has(&|place| place.line.is_some() && is_of_component(place.path)) {
        return Some("`pipeline plugin describe TYPE` lists the keys of a component");
    }
    has(&|place| place.message.starts_with("cannot read the file")).then_some("paths are relative to where the command runs")
}

/// Whether a path leads into the table of a component.
fn is_of_component(path: &str) -> bool {
    let mut steps = path.split('.');
    match (steps.next(), steps.next(), steps.next()) {
        (Some("service" | "replica"), Some(_), Some(_)) => true,
        (Some("pipeline"), Some(_), Some(step)) => ["source", "transform", "sink", "dead-letter"].iter().any(|kind| step.starts_with(kind)),
        _ => false,
    }
}

impl From<Report> for CommandError {
    fn from(report: Report) -> Self {
        Self::reports(vec![report])
    }
}

impl From<pipeline_sdk::Error> for CommandError {
    fn from(error: pipeline_sdk::Error) -> Self {
        let hint = error.hint.clone();
        let error = Self::failed(pipeline_sdk::Error { hint: None, ..error }.to_string());
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
