//! Keys of the sink.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Sink, SinkConfig, units};
use schemars::JsonSchema;
use serde::Deserialize;

use super::partition::Key;
use crate::format::{Format, is_standard};

/// Writes files: CSV, NDJSON, Parquet, Arrow IPC. A file appears under its name when it is whole.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilesSinkConfig {
    /// The file, `out/rows.parquet`; further ones are `rows-2.parquet`, … Nothing is overwritten. `-` is standard output.
    #[schemars(extend("format" = "path"))]
    pub path: String,
    /// Told by the name where absent.
    #[serde(default)]
    pub(crate) format: Option<Format>,
    /// A folder for each value (`device=a/`) of a column, `"device"`, or each `:year`, `:month`, `:day`, `:hour` of a time, `"ts:day"`.
    #[serde(default)]
    pub partition: Vec<Key>,
    /// A file that is so large is closed, and another one begun.
    #[serde(default, with = "units::optional_bytes")]
    #[schemars(with = "Option<String>", extend("format" = "bytes"))]
    pub roll_bytes: Option<u64>,
    /// A file that was begun so long ago is closed; while nothing comes, within ten seconds of that.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<String>", extend("format" = "duration"))]
    pub roll_age: Option<Duration>,
    /// Files that are written at a time; of more, the one begun first is closed.
    #[serde(default = "open_files_max")]
    #[schemars(range(min = 1))]
    pub open_files_max: u32,
    /// Of Parquet: rows that wait in memory to become a row group, all files together.
    #[serde(default = "row_group_bytes", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub row_group_bytes: u64,
    /// Of Parquet.
    #[serde(default)]
    pub(crate) compression: Compression,
    /// Of CSV: between fields.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// Of CSV: the first line names the columns.
    #[serde(default = "yes")]
    pub header: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compression {
    None,
    #[default]
    Snappy,
    Lz4,
    Zstd,
}

fn open_files_max() -> u32 {
    64
}

fn row_group_bytes() -> u64 {
    32 << 20
}

fn yes() -> bool {
    true
}

impl SinkConfig for FilesSinkConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("files", Kind::Sink, "Writes CSV, NDJSON, Parquet and Arrow files").merged_lanes().blocking()
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems: Vec<Error> = self.format().err().into_iter().collect();
        if self.is_standard() && (!self.partition.is_empty() || self.roll_bytes.is_some() || self.roll_age.is_some()) {
            problems.push(Error::fatal("standard output is one stream: nothing to partition or roll").path("path"));
        }
        if self.is_standard() && self.format.is_some_and(|format| !format.is_text()) {
            problems.push(Error::fatal("only csv and ndjson go to standard output").path("format"));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        Ok(match self.is_standard() {
            true => Box::new(super::Standard::new(self)?),
            false => Box::new(super::Files::new(self, context)?),
        })
    }
}

impl FilesSinkConfig {
    /// # Errors
    /// Neither the name nor `format` tells.
    pub(crate) fn format(&self) -> Result<Format> {
        Format::of(Path::new(&self.path), self.format)
    }

    pub fn is_standard(&self) -> bool {
        is_standard(Path::new(&self.path))
    }

    pub fn folder(&self) -> PathBuf {
        let parent = Path::new(&self.path).parent().filter(|it| !it.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).to_owned()
    }

    /// Name without and with what tells the format.
    pub fn name(&self) -> (String, String) {
        let path = Path::new(&self.path);
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().map_or_else(String::new, |it| format!(".{}", it.to_string_lossy()));
        (text(path.file_stem()), extension)
    }

    /// Where files are until they are whole, and the journal is.
    pub fn workshop(&self) -> PathBuf {
        let (stem, extension) = self.name();
        self.folder().join(format!(".{stem}{extension}.parts"))
    }
}
