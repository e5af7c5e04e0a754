//! CSV and NDJSON: text to batches, with the exact offset behind each batch.
//!
//! The reader cuts whole lines off, a batch each, and has rows made of several blocks at a time; they are handed out in the order of
//! the text. What grows is cut to its last whole line only, so that a line that is being written is never taken for a short one.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use memchr::memchr_iter;
use pipeline_sdk::{Error, Result, units};

use super::Read as Batch;
use super::config::FilesSourceConfig;
use super::cut::{Block, Cutter, Input, Limits, Syntax};
use super::rows::{Shape, Wrong};
use super::threads::{Threads, Ticket};
use crate::format::Format;

/// Read of standard input at once, for its start.
const CHUNK_BYTES: usize = 256 << 10;
/// The start of a file, which tells its columns and their types.
const HEAD_BYTES: u64 = 1 << 20;

pub(super) struct TextReader {
    cutter: Cutter,
    shape: Arc<Shape>,
    threads: Arc<Threads>,
    /// Blocks that were cut and whose rows were not handed out.
    ahead: VecDeque<Ticket>,
    name: String,
    /// Behind the last row that was handed out.
    at: u64,
    /// Where reading began.
    begun: u64,
    /// Nothing comes behind this.
    failed: Option<Error>,
    /// More may be appended.
    grows: bool,
}

impl TextReader {
    /// Opens behind byte `at`; `None` where the file has no whole line yet that would tell its columns.
    ///
    /// # Errors
    /// Rejected where the start of the file makes no table.
    pub fn open(mut file: File, name: &str, format: Format, at: u64, config: &FilesSourceConfig, threads: &Arc<Threads>) -> Result<Option<Self>> {
        let failed = |error: std::io::Error| Error::disconnected(format!("{name}: {error}")).code("files.read");
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Read::by_ref(&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(failed)?;
        let is_cut = config.follow || head.len() as u64 == HEAD_BYTES;
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let Some(shape) = shape(name, format, config, head, is_cut)? else { return Ok(None) };
        let cutter = Cutter::new(Input::File(file), name, shape.syntax, limits(config), config.follow, at, Vec::new());
        Self::new(cutter, shape, name, format, at, config, threads).map(Some)
    }

    /// Opens standard input.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn standard(format: Format, config: &FilesSourceConfig, threads: &Arc<Threads>) -> Result<Option<Self>> {
        let name = "standard input";
        let failed = |error: std::io::Error| Error::fatal(format!("{name}: {error}")).code("files.read");
        let (mut input, mut head) = (Input::standard().map_err(failed)?, Vec::new());
        let mut is_ended = false;
        // A header and a row tell the columns; more is taken where it is there.
        while !is_ended && (head.len() as u64) < HEAD_BYTES && (memchr_iter(b'\n', &head).count() < 2 || input.is_ready()) {
            let before = head.len();
            head.resize(before + CHUNK_BYTES, 0);
            let read = input.read(&mut head[before..]).map_err(failed)?;
            head.truncate(before + read);
            is_ended = read == 0;
        }
        let Some(shape) = shape(name, format, config, head.clone(), !is_ended)? else { return Ok(None) };
        let cutter = Cutter::new(input, name, shape.syntax, limits(config), false, 0, head);
        Self::new(cutter, shape, name, format, 0, config, threads).map(Some)
    }

    fn new(
        mut cutter: Cutter,
        shape: Shape,
        name: &str,
        format: Format,
        at: u64,
        config: &FilesSourceConfig,
        threads: &Arc<Threads>,
    ) -> Result<Self> {
        if at == 0 {
            cutter.skip_start(format == Format::Csv && config.header)?;
        }
        let (shape, threads, ahead, name) = (Arc::new(shape), threads.clone(), VecDeque::new(), name.to_owned());
        Ok(Self { cutter, shape, threads, ahead, name, at, begun: at, failed: None, grows: config.follow })
    }

    /// The next batch; `Wait` where more may come.
    ///
    /// # Errors
    /// Rejected: lines that are no rows of the table. Nothing is handed out behind them.
    pub fn next(&mut self) -> Result<Batch> {
        loop {
            self.cut_ahead();
            let Some(ticket) = self.ahead.pop_front() else {
                return match &self.failed {
                    Some(error) => Err(error.clone()),
                    None if self.grows => Ok(Batch::Wait),
                    None => Ok(Batch::End),
                };
            };
            let block = ticket.block();
            match ticket.rows() {
                Ok(batch) => {
                    self.at = block.at + block.bytes.len() as u64;
                    if batch.num_rows() > 0 {
                        return Ok(Batch::Rows(batch));
                    }
                }
                Err(wrong) => {
                    let error = self.rejected(block, wrong);
                    self.ahead.clear();
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Behind the last row that was handed out.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The file, where it is one: its length, and whether it is still the one of its name.
    pub fn file(&mut self) -> Option<&mut File> {
        self.cutter.file()
    }

    /// Cuts one block, and more where there is room and something to do for other threads.
    fn cut_ahead(&mut self) {
        while self.failed.is_none() && (self.ahead.is_empty() || self.threads.has_room(self.ahead.len())) {
            let cut = if self.ahead.is_empty() { self.cutter.cut() } else { self.cutter.cut_ready() };
            match cut {
                Ok(Some(block)) => self.ahead.push_back(self.threads.order(block, &self.shape)),
                Ok(None) => return,
                // What was cut before comes first.
                Err(error) => self.failed = Some(error),
            }
        }
    }

    fn rejected(&mut self, block: &Block, wrong: Wrong) -> Error {
        let line = self.lines_before(block.lines_before) + wrong.lines_before + 1;
        let error = Error::rejected(format!("{}: line {line}: {}", self.name, wrong.text)).code("files.content");
        error.hint(if block.is_torn && wrong.is_last {
            "the last line is cut off: it is still being written (`follow = true` waits for its end), or lost"
        } else if wrong.text.contains("number of fields") {
            "correct the line, or see whether `delimiter` fits and texts that hold it stand in quotes"
        } else {
            "correct the line, or give a column another type: columns = { name = \"text\" }"
        })
    }

    /// Ends of lines in all of the file before; where it was read on, those before that are counted now.
    fn lines_before(&mut self, since: u64) -> u64 {
        let begun = self.begun;
        let Some(file) = self.cutter.file() else { return since };
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut lines, mut at) = (since, 0);
        while at < begun {
            let wanted = chunk.len().min(usize::try_from(begun - at).unwrap_or(usize::MAX));
            match file.read_at(&mut chunk[..wanted], at) {
                Ok(read) if read > 0 => {
                    lines += memchr_iter(b'\n', &chunk[..read]).count() as u64;
                    at += read as u64;
                }
                _ => break,
            }
        }
        lines
    }
}

fn limits(config: &FilesSourceConfig) -> Limits {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits { lines: config.batch_rows as usize, bytes: bytes(config.block_bytes), line_bytes: bytes(config.line_bytes_max) }
}

/// What the start of a text tells of its rows; `None` where it tells nothing yet.
fn shape(name: &str, format: Format, config: &FilesSourceConfig, mut head: Vec<u8>, is_cut: bool) -> Result<Option<Shape>> {
    let whole_lines = head.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // A last line that is cut off tells nothing; it is an error when it is read.
    if is_cut || (format == Format::Ndjson && whole_lines > 0) {
        head.truncate(whole_lines);
    }
    if head.is_empty() {
        return Ok(None);
    }
    let told = |error: ArrowError| {
        let text = format!("{name}: its start does not tell its columns: {error}");
        Error::rejected(text).code("files.content").hint("see whether `format`, `delimiter` and `header` fit it")
    };
    let (schema, syntax) = match format {
        Format::Ndjson => (arrow_json::reader::infer_json_schema(Cursor::new(&head), None).map_err(told)?.0, Syntax::Ndjson),
        _ => {
            let delimiter = config.delimiter.as_ref().and_then(|it| it.bytes().next());
            let delimiter = delimiter.unwrap_or(if name.ends_with(".tsv") { b'\t' } else { b',' });
            // What is ragged is found, with its line, when it is read.
            let format = arrow_csv::reader::Format::default().with_header(config.header).with_delimiter(delimiter).with_truncated_rows(true);
            (format.infer_schema(Cursor::new(&head), None).map_err(told)?.0, Syntax::Csv(delimiter))
        }
    };
    let schema = Arc::new(with_types(schema, config, format == Format::Ndjson)?);
    Ok(Some(Shape { schema, syntax, ignores_unknown: config.ignore_unknown_keys }))
}

/// The columns with the types that the file of the pipeline gives them, and, where keys may be absent, those that were not seen.
fn with_types(schema: Schema, config: &FilesSourceConfig, adds: bool) -> Result<Schema> {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for (name, text) in &config.columns {
        let data_type = units::parse_data_type(text).map_err(|error| Error::fatal(error).path(format!("columns.{name}")))?;
        match fields.iter_mut().find(|field| field.name() == name) {
            Some(field) => *field = field.clone().with_data_type(data_type),
            None if adds => fields.push(Field::new(name, data_type, true)),
            None => {
                let known: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
                let error = Error::rejected(format!("the file has no column `{name}`")).path(format!("columns.{name}"));
                return Err(error.code("files.column").hint(format!("it has {}", known.join(", "))));
            }
        }
    }
    // What was always empty at the start tells no type.
    let fields: Vec<Field> = fields
        .into_iter()
        .map(|field| if field.data_type().is_null() { field.with_data_type(arrow::datatypes::DataType::Utf8) } else { field })
        .collect();
    Ok(Schema::new(fields))
}
