//! CSV and NDJSON: bytes to batches, with the exact offset behind each batch.
//!
//! A batch ends at the end of a line: when it is full, or where a finite input ends. What grows is fed to its last whole line only, so
//! that a line that is being written is never taken for a short one.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use pipeline_formats::json_reader;
use pipeline_sdk::{Error, Result, units};

use super::Read as Batch;
use super::config::FilesSourceConfig;
use crate::format::Format;

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// The start of a file, which tells its columns and their types.
const HEAD_BYTES: u64 = 1 << 20;

enum Input {
    File(File),
    Standard(std::io::Stdin),
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Standard(input) => input.read(buffer),
        }
    }
}

enum Decoder {
    Csv(arrow_csv::reader::Decoder),
    Ndjson(Box<arrow_json::reader::Decoder>),
}

pub(super) struct TextReader {
    input: Input,
    decoder: Decoder,
    name: String,
    buffer: Vec<u8>,
    /// What of the buffer was not decoded yet.
    start: usize,
    /// Behind the last byte that was decoded.
    at: u64,
    /// Where decoding began: errors count lines from there.
    begun: u64,
    batch_rows: usize,
    line_bytes_max: usize,
    /// More may be appended.
    grows: bool,
    is_ended: bool,
}

impl TextReader {
    /// Opens behind byte `at`; `None` where the file has no whole line yet that would tell its columns.
    ///
    /// # Errors
    /// Rejected where the start of the file makes no table.
    pub fn open(mut file: File, name: &str, format: Format, at: u64, config: &FilesSourceConfig) -> Result<Option<Self>> {
        let failed = |error: std::io::Error| Error::disconnected(format!("{name}: {error}")).code("files.read");
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Read::by_ref(&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(failed)?;
        let is_cut = config.follow || head.len() as u64 == HEAD_BYTES;
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        Self::new(Input::File(file), name, format, at, config, head, is_cut, Vec::new())
    }

    /// Opens standard input.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn standard(format: Format, config: &FilesSourceConfig) -> Result<Option<Self>> {
        let failed = |error: std::io::Error| Error::fatal(format!("standard input: {error}")).code("files.read");
        let (mut input, mut head) = (std::io::stdin(), Vec::new());
        let mut is_ended = false;
        // A header and a row tell the columns; more is taken where it is there.
        while !is_ended && (head.len() as u64) < HEAD_BYTES && head.iter().filter(|byte| **byte == b'\n').count() < 2 {
            let before = head.len();
            head.resize(before + CHUNK_BYTES, 0);
            let read = input.read(&mut head[before..]).map_err(failed)?;
            head.truncate(before + read);
            is_ended = read == 0;
        }
        Self::new(Input::Standard(input), "standard input", format, 0, config, head.clone(), !is_ended, head)
    }

    #[expect(clippy::too_many_arguments, reason = "the two ways in have nothing else in common")]
    fn new(
        input: Input,
        name: &str,
        format: Format,
        at: u64,
        config: &FilesSourceConfig,
        mut head: Vec<u8>,
        is_cut: bool,
        buffer: Vec<u8>,
    ) -> Result<Option<Self>> {
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
        let batch_rows = config.batch_rows as usize;
        let decoder = match format {
            Format::Ndjson => {
                let (schema, _) = arrow_json::reader::infer_json_schema(Cursor::new(&head), None).map_err(told)?;
                let schema = Arc::new(with_types(schema, config, true)?);
                let builder = json_reader(schema).with_batch_size(batch_rows);
                let decoder = builder.with_strict_mode(!config.ignore_unknown_keys).build_decoder().map_err(told)?;
                Decoder::Ndjson(Box::new(decoder))
            }
            _ => {
                let delimiter = config.delimiter.as_ref().and_then(|it| it.bytes().next());
                let delimiter = delimiter.unwrap_or(if name.ends_with(".tsv") { b'\t' } else { b',' });
                // What is ragged is found, with its line, when it is read.
                let format = arrow_csv::reader::Format::default().with_header(config.header).with_delimiter(delimiter).with_truncated_rows(true);
                let (schema, _) = format.infer_schema(Cursor::new(&head), None).map_err(told)?;
                let schema = Arc::new(with_types(schema, config, false)?);
                let builder = arrow_csv::ReaderBuilder::new(schema).with_batch_size(batch_rows).with_delimiter(delimiter);
                Decoder::Csv(builder.with_header(config.header && at == 0).build_decoder())
            }
        };
        let line_bytes_max = usize::try_from(config.line_bytes_max).unwrap_or(usize::MAX).max(CHUNK_BYTES);
        let grows = config.follow && matches!(input, Input::File(_));
        let name = name.to_owned();
        Ok(Some(Self { input, decoder, name, buffer, start: 0, at, begun: at, batch_rows, line_bytes_max, grows, is_ended: false }))
    }

    /// The next batch; `Wait` where more may come.
    ///
    /// # Errors
    /// Rejected: lines that are no rows of the table.
    pub fn next(&mut self) -> Result<Batch> {
        loop {
            if self.rows() >= self.batch_rows {
                return self.flush();
            }
            let whole = self.whole();
            if whole > 0 {
                self.decode(whole)?;
                continue;
            }
            if !self.is_ended && self.fill()? {
                continue;
            }
            if self.grows {
                return if self.rows() > 0 { self.flush() } else { Ok(Batch::Wait) };
            }
            if !std::mem::replace(&mut self.is_ended, true) {
                self.end_of_input()?;
            }
            return if self.rows() > 0 { self.flush() } else { Ok(Batch::End) };
        }
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    /// The file, where it is one: its length, and whether it is still the one of its name.
    pub fn file(&mut self) -> Option<&mut File> {
        match &mut self.input {
            Input::File(file) => Some(file),
            Input::Standard(_) => None,
        }
    }

    fn rows(&self) -> usize {
        match &self.decoder {
            Decoder::Csv(decoder) => self.batch_rows - decoder.capacity(),
            Decoder::Ndjson(decoder) => decoder.len() - usize::from(decoder.has_partial_record()),
        }
    }

    /// How much of the buffer can be decoded.
    fn whole(&self) -> usize {
        let waiting = &self.buffer[self.start..];
        if !self.grows {
            return waiting.len();
        }
        let mut end = 0;
        let mut is_quoted = false;
        let quotes = matches!(self.decoder, Decoder::Csv(_));
        for (index, byte) in waiting.iter().enumerate() {
            match byte {
                b'"' if quotes => is_quoted = !is_quoted,
                b'\n' if !is_quoted => end = index + 1,
                _ => {}
            }
        }
        end
    }

    fn decode(&mut self, bytes: usize) -> Result<()> {
        let waiting = &self.buffer[self.start..self.start + bytes];
        let decoded = match &mut self.decoder {
            Decoder::Csv(decoder) => decoder.decode(waiting),
            Decoder::Ndjson(decoder) => decoder.decode(waiting),
        };
        let decoded = decoded.map_err(|error| self.failed(&error))?;
        self.start += decoded;
        self.at += decoded as u64;
        Ok(())
    }

    /// Reads on; whether there was anything.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let before = self.buffer.len();
        if before >= self.line_bytes_max {
            let error = Error::rejected(format!("{}: the line at byte {} is longer than {before} bytes", self.name, self.at));
            return Err(error.code("files.line").hint("raise `line-bytes-max`, or see whether a quote is missing"));
        }
        self.buffer.resize(before + CHUNK_BYTES, 0);
        let read = self.input.read(&mut self.buffer[before..]);
        self.buffer.truncate(before + read.as_ref().copied().unwrap_or(0));
        let read = read.map_err(|error| Error::disconnected(format!("{}: {error}", self.name)).code("files.read"))?;
        Ok(read > 0)
    }

    /// The last line may do without its end.
    fn end_of_input(&mut self) -> Result<()> {
        let ended = match &mut self.decoder {
            Decoder::Csv(decoder) => decoder.decode(&[]).map(drop),
            Decoder::Ndjson(decoder) if decoder.has_partial_record() => {
                Err(ArrowError::JsonError("the last line ends within a record".into()))
            }
            Decoder::Ndjson(_) => Ok(()),
        };
        ended.map_err(|error| {
            let hint = "the last line is cut off: it is still being written (`follow = true` waits for its end), or lost";
            Error { hint: Some(hint.into()), ..self.failed(&error) }
        })
    }

    fn flush(&mut self) -> Result<Batch> {
        let flushed: Result<Option<RecordBatch>, ArrowError> = match &mut self.decoder {
            Decoder::Csv(decoder) => decoder.flush(),
            Decoder::Ndjson(decoder) => decoder.flush(),
        };
        match flushed {
            Ok(Some(batch)) => Ok(Batch::Rows(batch)),
            Ok(None) => Ok(Batch::Wait),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &ArrowError) -> Error {
        let from = if self.begun > 0 { format!(" (lines counted from byte {})", self.begun) } else { String::new() };
        let error = Error::rejected(format!("{}{from}: {}", self.name, with_lines_from_one(&error.to_string()))).code("files.content");
        error.hint("correct the line, or give a column another type: columns = { name = \"text\" }")
    }
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

/// Where a value cannot be read, arrow counts lines from zero; where fields are missing, from one.
fn with_lines_from_one(text: &str) -> String {
    const BEFORE: &str = " at line ";
    let Some(at) = text.find(BEFORE).filter(|_| text.contains("while parsing value")).map(|at| at + BEFORE.len()) else { return text.into() };
    let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
    match text[at..at + digits].parse::<u64>() {
        Ok(line) => format!("{}{}{}", &text[..at], line + 1, &text[at + digits..]),
        Err(_) => text.into(),
    }
}
