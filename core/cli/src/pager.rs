//! Long results on a person's terminal go through a pager, as those of git do; what fits, and what goes elsewhere, does not.

use std::io::Write;
use std::process::{Command, Stdio};

/// Of `less`: colours stay, what fits is just printed, the text stays on the screen.
const LESS_OPTIONS: &str = "FRX";

/// Shows a text of more lines than `rows` in `$PAGER` (`less` where it is not set). Whether a pager took it.
pub fn show(text: &str, rows: usize) -> bool {
    if text.lines().count() < rows {
        return false;
    }
    let pager = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty()).unwrap_or_else(|| "less".into());
    let mut words = pager.split_whitespace();
    let Some(program) = words.next() else { return false };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS_OPTIONS);
    }
    let Ok(mut child) = command.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // Somebody who has seen enough closes the pager.
        let _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
    }
    let _ = child.wait();
    true
}
