//! The live part at the bottom of a terminal: redrawn in place, while log lines go above it.

use std::io::Write;
use std::sync::Mutex;

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
        text.clone_into(&mut live);
        draw(&live);
    }
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
