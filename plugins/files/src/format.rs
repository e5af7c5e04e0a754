//! The formats, and how a file's name tells its format.

use std::path::Path;

use pipeline_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// Comma-separated values (RFC 4180), with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
    Parquet,
    /// Arrow IPC: files and streams are read, files written.
    Arrow,
}

const EXTENSIONS: [(&str, Format); 9] = [
    ("csv", Format::Csv),
    ("tsv", Format::Csv),
    ("ndjson", Format::Ndjson),
    ("jsonl", Format::Ndjson),
    ("json", Format::Ndjson),
    ("parquet", Format::Parquet),
    ("arrow", Format::Arrow),
    ("arrows", Format::Arrow),
    ("feather", Format::Arrow),
];

impl Format {
    /// # Errors
    /// The name tells nothing.
    pub fn of(path: &Path, given: Option<Self>) -> Result<Self> {
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_ascii_lowercase();
        let by_name = EXTENSIONS.iter().find(|(name, _)| *name == extension).map(|(_, format)| *format);
        given.or(by_name).ok_or_else(|| {
            Error::fatal(format!("the name of `{}` does not tell its format", path.display()))
                .code("files.format")
                .path("format")
                .hint("set `format` to csv, ndjson, parquet or arrow")
        })
    }

    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Ndjson)
    }
}

/// Whether a path stands for standard input or output: `-`, which the host may have put under the file's folder.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "-")
}
