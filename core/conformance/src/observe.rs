//! Looks where a sink put its rows.

use std::path::{Path, PathBuf};
use std::process::Command;

use pipeline_sdk::Checkpoint;

use crate::Outcome;
use crate::bench::{Bench, texts};
use crate::settings::{Observe, in_folder, text_in_folder};

/// What a sink left, part by part: within a part the order counts.
pub struct Seen {
    parts: Vec<Vec<u8>>,
    /// Where it was looked, for messages.
    pub place: String,
}

impl Seen {
    /// Whether there is anything of the kit's, of whatever lane.
    pub fn has_tokens(&self) -> bool {
        self.parts.iter().any(|part| crate::feed::has_tokens(part))
    }

    /// Numbers of a lane's tokens, part by part.
    pub fn tokens(&self, lane: &str) -> Vec<Vec<u64>> {
        self.parts.iter().map(|part| crate::feed::tokens(part, lane)).filter(|found| !found.is_empty()).collect()
    }
}

/// Reads what the sink under check wrote.
///
/// # Errors
/// The place that the configuration names is not readable.
pub fn look(bench: &Bench) -> Result<Seen, Outcome> {
    let work = bench.job.work();
    let shown = |text: &str| text_in_folder(text, &work);
    match &bench.job.setup.kit.observe {
        None => Ok(Seen { parts: files(&work), place: "the check's folder".into() }),
        Some(Observe::Files(path)) => {
            let path = work.join(shown(path));
            Ok(Seen { parts: files(&path), place: path.display().to_string() })
        }
        Some(Observe::Command(words)) => {
            let words: Vec<String> = words.iter().map(|word| shown(word)).collect();
            let (program, arguments) = words.split_first().ok_or_else(|| Outcome::failed("observe", "the command is empty"))?;
            let output = Command::new(program).args(arguments).current_dir(&work).output();
            let output = output.map_err(|error| Outcome::failed("observe", format!("{program}: {error}")))?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Outcome::failed("observe", format!("{program} failed: {}", text.trim())));
            }
            Ok(Seen { parts: vec![output.stdout], place: words.join(" ") })
        }
        Some(Observe::Source(config)) => {
            let mut config = in_folder(config, &work);
            let name = config.as_object_mut().and_then(|keys| keys.remove("type"));
            let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or(&bench.job.component).to_owned();
            let mut source = bench.source_of(&name, &config, "observer")?;
            source.connect(&Checkpoint::default())?;
            let read = source.read_all()?;
            let text = read.messages.iter().flat_map(|message| texts(&bench.library, &name, message)).collect();
            Ok(Seen { parts: vec![text], place: format!("source `{name}`") })
        }
    }
}

/// The contents of a file, or of all files below a folder in the order of their names.
fn files(path: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => return std::fs::read(path).into_iter().collect(),
    };
    paths.sort();
    paths.iter().for_each(|path| found.extend(files(path)));
    found
}
