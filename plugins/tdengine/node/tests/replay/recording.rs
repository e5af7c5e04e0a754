//! Recordings of a real server, as `tests/recordings/INDEX.md` describes them.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// A frame's content.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Text(String),
    Binary(Vec<u8>),
    /// An upgrade, a plain request, or a remark.
    Http(String),
    /// A statement that ran on another connection, and the code that it got.
    Sql(String, u32),
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub from_client: bool,
    pub connection: u32,
    pub content: Content,
}

#[derive(Deserialize)]
struct Line {
    dir: Option<String>,
    #[serde(default)]
    conn: u32,
    kind: Option<String>,
    text: Option<String>,
    base64: Option<String>,
}

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../tests/recordings").join(name)
}

/// Names of all recordings.
pub fn names() -> Vec<String> {
    let folder = path("");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned)).collect();
    names.sort();
    names
}

pub fn read(name: &str) -> Vec<Frame> {
    let text = std::fs::read_to_string(path(&format!("{name}.jsonl"))).unwrap();
    text.lines().skip(1).filter_map(|line| frame(serde_json::from_str(line).unwrap())).collect()
}

fn frame(line: Line) -> Option<Frame> {
    let text = line.text.unwrap_or_default();
    let content = match line.kind?.as_str() {
        "text" => Content::Text(text),
        "binary" => Content::Binary(BASE64_STANDARD.decode(line.base64?).ok()?),
        "sql" => {
            let (sql, code) = text.rsplit_once("\n-> code 0x")?;
            Content::Sql(sql.to_owned(), u32::from_str_radix(code.get(..4)?, 16).ok()?)
        }
        _ => Content::Http(text),
    };
    Some(Frame { from_client: line.dir? == "c2s", connection: line.conn, content })
}
