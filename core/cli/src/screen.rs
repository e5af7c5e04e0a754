//! The live part at the bottom of a terminal: redrawn in place, while log lines go above it. What is wider than the terminal is
//! broken, and what is higher cut off, so that exactly the lines drawn are erased.

use std::io::Write;
use std::sync::Mutex;

/// Of a terminal that does not tell.
const SIZE_DEFAULT: Size = Size { columns: 80, rows: 24 };

/// Of the terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// What stands at the bottom of the terminal now.
#[derive(Debug, Default)]
pub struct Screen {
    live: Mutex<String>,
}

impl Screen {
    /// Runs `print` with the live part out of its way.
    pub fn above(&self, print: impl FnOnce()) {
        let live = self.live.lock().expect("no panic under this lock");
        erase(&live);
        print();
        draw(&live);
    }

    /// Replaces the live part.
    pub fn show(&self, text: &str) {
        let mut live = self.live.lock().expect("no panic under this lock");
        erase(&live);
        *live = fitted(text, self.size());
        draw(&live);
    }

    pub fn size(&self) -> Size {
        terminal_size::terminal_size().map_or(SIZE_DEFAULT, |(columns, rows)| Size {
            columns: usize::from(columns.0).max(1),
            rows: usize::from(rows.0).max(1),
        })
    }
}

/// The text as lines that fit the terminal; a last line says what does not.
fn fitted(text: &str, size: Size) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let characters: Vec<char> = line.chars().collect();
        match characters.is_empty() {
            true => lines.push(String::new()),
            false => lines.extend(characters.chunks(size.columns).map(|part| part.iter().collect())),
        }
    }
    // One line is the cursor's.
    let room = size.rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("… {more} lines more").chars().take(size.columns).collect());
    }
    lines.join("\n")
}

fn erase(live: &str) {
    let lines = live.lines().count();
    if lines > 0 {
        write(&format!("\x1b[{lines}A\r\x1b[J"));
    }
}

fn draw(live: &str) {
    if !live.is_empty() {
        write(&format!("{}\n", live.trim_end_matches('\n')));
    }
}

fn write(text: &str) {
    let mut stdout = anstream::stdout();
    // A terminal that is gone shows nothing: nothing to do about it.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_fits_the_terminal() {
        let size = |columns, rows| Size { columns, rows };
        for (text, size, expect) in [
            ("ab\n\ncd", size(80, 24), "ab\n\ncd"),
            ("abcde\nf", size(2, 24), "ab\ncd\ne\nf"),
            ("a\nb\nc\nd", size(80, 4), "a\nb\n… 2 lines more"),
            ("a\nb", size(80, 1), "… 2 lines more"),
        ] {
            assert_eq!(fitted(text, size), expect, "{text:?} in {size:?}");
        }
    }
}
