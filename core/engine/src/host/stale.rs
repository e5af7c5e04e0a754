//! Whether a library is older than what it is built from.
//!
//! `cargo build -p` and `--bin` leave the plugins' libraries as they were, and an old one would fail in ways that are hard to read.
//! Cargo writes beside each library it builds which sources went into it; a library without that file is taken as it is.

use std::path::Path;
use std::time::SystemTime;

use pipeline_sdk::{Error, Result};

/// # Errors
/// A source is newer than the library.
pub(super) fn check(library: &Path) -> Result<()> {
    let (Some(built), Ok(rules)) = (changed(library), std::fs::read_to_string(library.with_extension("d"))) else {
        return Ok(());
    };
    let newer = sources(&rules).into_iter().find(|source| changed(Path::new(source)).is_some_and(|at| at > built));
    newer.map_or(Ok(()), |source| {
        Err(Error::fatal(format!("the library is stale: {source} changed after it was built"))
            .code("plugin.stale")
            .hint("build the plugins as well: `cargo build` without `-p` and `--bin`"))
    })
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|it| it.modified()).ok()
}

/// What stands behind the colon of the first rule of a make file; blanks in names are escaped.
fn sources(rules: &str) -> Vec<String> {
    let line = rules.lines().next().unwrap_or_default();
    let Some((_, list)) = line.split_once(": ") else { return Vec::new() };
    let mut sources: Vec<String> = Vec::new();
    let mut joined = false;
    for part in list.split(' ').filter(|part| !part.is_empty()) {
        let (text, escaped) = part.strip_suffix('\\').map_or((part, false), |text| (text, true));
        match sources.last_mut().filter(|_| joined) {
            Some(last) => last.push_str(text),
            None => sources.push(text.to_owned()),
        }
        if escaped {
            sources.last_mut().expect("just pushed").push(' ');
        }
        joined = escaped;
    }
    sources
}
