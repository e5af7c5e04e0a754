//! All printing: through anstream, so that colours go where a terminal shows them, and through the redactor, so that no secret
//! goes anywhere (invariant `secret`).

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};

use comfy_table::{ContentArrangement, Table, presets};
use pipeline_engine::config::Redactor;
use serde::Serialize;

use crate::screen::Screen;

/// Where everything is printed. Cheap to clone.
#[derive(Clone)]
pub struct Output {
    redactor: Arc<Mutex<Redactor>>,
    screen: Arc<Screen>,
}

impl Output {
    pub fn new() -> Self {
        Self { redactor: Arc::default(), screen: Arc::default() }
    }

    /// Secrets of one more file.
    pub fn learn(&self, redactor: &Redactor) {
        self.redactor.lock().expect("no panic under this lock").merge(redactor);
    }

    pub fn redact(&self, text: &str) -> String {
        self.redactor.lock().expect("no panic under this lock").redact(text)
    }

    /// A result: standard output.
    pub fn line(&self, text: &str) {
        let text = self.redact(text);
        self.screen.above(|| write_all(&mut anstream::stdout(), &format!("{text}\n")));
    }

    /// A log line or an error: standard error.
    pub fn to_stderr(&self, text: &str) {
        let text = self.redact(text);
        self.screen.above(|| write_all(&mut anstream::stderr(), &text));
    }

    /// `LABEL: TEXT` on standard error.
    pub fn error(&self, label: &str, text: &str) {
        let color = match label {
            "error" => "\x1b[1;31m",
            "warning" => "\x1b[1;33m",
            _ => "\x1b[1;36m",
        };
        self.to_stderr(&format!("{color}{label}:\x1b[0m {text}\n"));
    }

    /// A result that may be long: on a person's terminal in a pager where it does not fit.
    pub fn pages(&self, text: &str) {
        let text = self.redact(text);
        if !(is_terminal() && crate::pager::show(&text, self.screen.size().rows)) {
            self.line(&text);
        }
    }

    pub fn json(&self, value: &impl Serialize) {
        self.line(&serde_json::to_string_pretty(value).expect("what is printed is plain data"));
    }

    /// Replaces the live part of the terminal.
    pub fn live(&self, text: &str) {
        self.screen.show(&self.redact(text));
    }

    /// Columns of the terminal.
    pub fn columns(&self) -> usize {
        self.screen.size().columns
    }

    /// Takes the live part away.
    pub fn live_clear(&self) {
        self.screen.show("");
    }
}

/// Whether a person looks at standard output.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A table without lines; the first row is the header.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    table_of(&header)
}

/// The same of any number of columns.
pub fn table_of(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Lets the last column wrap where a person's terminal is narrower than the table.
pub fn fit(table: &mut Table) {
    if is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
}

/// The table's text without the blanks that pad the last column.
pub fn table_text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn write_all(stream: &mut impl Write, text: &str) {
    // A reader that went away (`pipeline schema | head`) is no reason to fail.
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}
