//! Keys of the source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Source, SourceConfig, units};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::format::{Format, is_standard};

const BLOCK_BYTES_MIN: u64 = 4 << 10;
/// Of one source.
const THREADS_MAX: u16 = 256;

/// Reads files: CSV, NDJSON, Parquet, Arrow IPC.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilesSourceConfig {
    /// Files and patterns (`logs/**/*.csv`), read in the order of their names; `-` is standard input.
    pub path: Paths,
    /// Of all of them; told by each name where absent.
    #[serde(default)]
    pub(crate) format: Option<Format>,
    /// Goes on when everything was read: with what is appended to text files, with what a rotation puts in their place, and with
    /// new files.
    #[serde(default)]
    pub follow: bool,
    /// Types of columns that differ from what the start of a text file tells: `price = "double"`. Types as `select` takes them.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Rows of a message at most.
    #[serde(default = "batch_rows")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_rows: u32,
    /// Of CSV: between fields.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// Of CSV: the first line names the columns; without, they are `column_1`, `column_2`, …
    #[serde(default = "yes")]
    pub header: bool,
    /// Of NDJSON: a key that the start of the file did not show and `columns` does not name is left out, instead of an error.
    #[serde(default)]
    pub ignore_unknown_keys: bool,
    /// The longest line of a text file.
    #[serde(default = "line_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub line_bytes_max: u64,
    /// Of text files: what one thread makes rows of at a time; a message holds no more than that.
    #[serde(default = "block_bytes", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub block_bytes: u64,
    /// Of text files: what is read ahead while rows are made of it, in all files together.
    #[serde(default = "ahead_bytes_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub ahead_bytes_max: u64,
    /// Of text files: how many threads make rows. Where absent, as many as there are processors.
    #[serde(default)]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u16>,
    /// Files at most; more are an error.
    #[serde(default = "files_max")]
    #[schemars(range(min = 1))]
    pub files_max: u32,
}

/// One path or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    One(String),
    Many(Vec<String>),
}

impl JsonSchema for Paths {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Paths".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "type": "string", "format": "path" },
            { "type": "array", "items": { "type": "string", "format": "path" }, "minItems": 1 },
        ] })
    }
}

fn batch_rows() -> u32 {
    16_384
}

fn yes() -> bool {
    true
}

fn line_bytes_max() -> u64 {
    16 << 20
}

fn block_bytes() -> u64 {
    1 << 20
}

fn ahead_bytes_max() -> u64 {
    16 << 20
}

fn files_max() -> u32 {
    10_000
}

impl SourceConfig for FilesSourceConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("files", Kind::Source, "Reads CSV, NDJSON, Parquet and Arrow files").blocking()
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        if self.patterns().is_empty() {
            problems.push(Error::fatal("name a file at least").path("path"));
        }
        if self.reads_standard_input() && (self.patterns().len() > 1 || self.format.is_none()) {
            let error = Error::fatal("standard input is read alone, and its format must be said");
            problems.push(error.path("path").hint("add `format = \"csv\"` or `\"ndjson\"`"));
        }
        for pattern in self.patterns() {
            if let Err(error) = glob::Pattern::new(pattern) {
                problems.push(Error::fatal(format!("`{pattern}` is no pattern: {error}")).path("path"));
            }
        }
        if self.block_bytes < BLOCK_BYTES_MIN {
            problems.push(Error::fatal("a block of less than 4KiB costs more than it holds").path("block-bytes"));
        }
        if self.threads.is_some_and(|threads| !(1..=THREADS_MAX).contains(&threads)) {
            problems.push(Error::fatal(format!("from 1 to {THREADS_MAX}")).path("threads"));
        }
        for (name, text) in &self.columns {
            if let Err(error) = units::parse_data_type(text) {
                problems.push(Error::fatal(error).path(format!("columns.{name}")));
            }
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(super::Files::new(self, context)))
    }
}

impl FilesSourceConfig {
    pub fn patterns(&self) -> Vec<&str> {
        match &self.path {
            Paths::One(one) => vec![one],
            Paths::Many(many) => many.iter().map(String::as_str).collect(),
        }
    }

    /// How many threads make rows.
    pub fn threads(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from).min(usize::from(THREADS_MAX));
        self.threads.map_or_else(processors, usize::from)
    }

    pub fn reads_standard_input(&self) -> bool {
        self.patterns().iter().any(|pattern| is_standard(Path::new(pattern)))
    }

    /// Files that are there now, by name.
    ///
    /// # Errors
    /// A folder that cannot be read; too many files.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for pattern in self.patterns() {
            let paths = glob::glob(pattern).map_err(|error| Error::fatal(format!("`{pattern}`: {error}")).path("path"))?;
            for path in paths {
                let path = path.map_err(|error| Error::fatal(format!("cannot look for `{pattern}`: {error}")).code("files.look"))?;
                if path.is_file() {
                    found.push(path);
                }
            }
        }
        found.sort();
        found.dedup();
        if found.len() > self.files_max as usize {
            let text = format!("{} files match, more than {}", found.len(), self.files_max);
            return Err(Error::fatal(text).code("files.many").path("path").hint("raise `files-max`, or match fewer"));
        }
        Ok(found)
    }
}
