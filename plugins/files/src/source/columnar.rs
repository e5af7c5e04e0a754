//! Parquet and Arrow files: whole once they are there, read batch by batch.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow_ipc::reader::{FileReader, StreamReader};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use pipeline_sdk::{Error, Result};

use super::Read as Batch;
use crate::format::Format;

const PARQUET_MAGIC: &[u8; 4] = b"PAR1";
const ARROW_MAGIC: &[u8; 6] = b"ARROW1";

pub(super) struct ColumnarReader {
    batches: Batches,
    name: String,
    /// Rows of Parquet, batches of Arrow.
    at: u64,
    /// Absent where only reading tells.
    end: Option<u64>,
}

enum Batches {
    Parquet(ParquetRecordBatchReader),
    File(Box<FileReader<BufReader<File>>>),
    Stream(Box<StreamReader<BufReader<File>>>),
}

impl ColumnarReader {
    /// Opens behind position `at`.
    ///
    /// # Errors
    /// Rejected where the file is not whole: its end is missing, or is another one's.
    pub fn open(mut file: File, path: &Path, format: Format, at: u64, batch_rows: usize) -> Result<Self> {
        let name = path.display().to_string();
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::rejected(format!("{name}: {error}")).code("files.content").hint("the file is damaged, or of another format")
        };
        check_whole(&mut file, format, &name)?;
        let (batches, end) = match format {
            Format::Parquet => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(&error))?;
                let rows = builder.metadata().file_metadata().num_rows().max(0) as u64;
                let builder = builder.with_batch_size(batch_rows).with_offset(at.min(rows) as usize);
                (Batches::Parquet(builder.build().map_err(|error| unreadable(&error))?), Some(rows))
            }
            _ if starts_with(&mut file, ARROW_MAGIC).map_err(|error| unreadable(&error))? => {
                let mut reader = FileReader::try_new(BufReader::new(file), None).map_err(|error| unreadable(&error))?;
                let count = reader.num_batches();
                if at > 0 && (at as usize) < count {
                    reader.set_index(at as usize).map_err(|error| unreadable(&error))?;
                } else if at > 0 {
                    while reader.next().is_some() {}
                }
                (Batches::File(Box::new(reader)), Some(count as u64))
            }
            _ => {
                let mut reader = StreamReader::try_new(BufReader::new(file), None).map_err(|error| unreadable(&error))?;
                for _ in 0..at {
                    reader.next().transpose().map_err(|error| unreadable(&error))?;
                }
                (Batches::Stream(Box::new(reader)), None)
            }
        };
        Ok(Self { batches, name, at, end })
    }

    pub fn next(&mut self) -> Result<Batch> {
        let next: Option<Result<RecordBatch, ArrowError>> = match &mut self.batches {
            Batches::Parquet(reader) => reader.next(),
            Batches::File(reader) => reader.next(),
            Batches::Stream(reader) => reader.next(),
        };
        let Some(batch) = next else { return Ok(Batch::End) };
        let batch = batch.map_err(|error| {
            let text = format!("{}: behind {} {}: {error}", self.name, self.at, self.unit());
            Error::rejected(text).code("files.content").hint("the file is damaged; what is before it was read")
        })?;
        self.at += if matches!(self.batches, Batches::Parquet(_)) { batch.num_rows() as u64 } else { 1 };
        Ok(Batch::Rows(batch))
    }

    fn unit(&self) -> &'static str {
        if matches!(self.batches, Batches::Parquet(_)) { "rows" } else { "batches" }
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn end(&self) -> Option<u64> {
        self.end
    }
}

/// Both formats of files end with what they begin with: one that is still being written does not.
fn check_whole(file: &mut File, format: Format, name: &str) -> Result<()> {
    let io = |error: std::io::Error| Error::rejected(format!("{name}: {error}")).code("files.read");
    let magic: &[u8] = if format == Format::Parquet { PARQUET_MAGIC } else { ARROW_MAGIC };
    let length = file.metadata().map_err(io)?.len();
    let begins = starts_with(file, magic).map_err(io)?;
    let mut end = vec![0; magic.len()];
    if length >= 2 * magic.len() as u64 {
        file.seek(SeekFrom::End(-(magic.len() as i64))).map_err(io)?;
        file.read_exact(&mut end).map_err(io)?;
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    // An Arrow stream begins with the length of its first message and ends anywhere.
    let is_whole = match format {
        Format::Parquet => begins && end == magic,
        _ => length > 0 && (!begins || end == magic),
    };
    if is_whole {
        return Ok(());
    }
    let what = if format == Format::Parquet { "Parquet" } else { "Arrow" };
    let error = Error::rejected(format!("{name}: no whole {what} file: {length} bytes without the footer that ends one"));
    Err(error.code(super::NOT_WHOLE).hint("it is still being written, or was cut off; nothing of it was read"))
}

fn starts_with(file: &mut File, magic: &[u8]) -> std::io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut start = Vec::new();
    Read::by_ref(file).take(magic.len() as u64).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(start == magic)
}
