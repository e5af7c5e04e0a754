//! Batches to bytes of each format, and what makes an unfinished file whole.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::FileWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataWriter};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use pipeline_formats::write_objects;
use pipeline_sdk::{Error, Result};

use super::config::{Compression, FilesSinkConfig};
use crate::format::Format;

/// An Arrow file begins with its magic, padded to the writer's alignment; what follows is a stream.
const ARROW_START_BYTES: u64 = 64;

pub(super) enum Encoder {
    Text { file: File, format: Format, delimiter: u8, has_header: bool, bytes: u64, buffer: Vec<u8> },
    Parquet(Box<ArrowWriter<File>>),
    Arrow(Box<FileWriter<File>>),
}

/// How much of a file is durable, and what must follow that to make it whole.
pub(super) struct Durable {
    pub length: u64,
    pub tail: Vec<u8>,
}

impl Encoder {
    pub fn new(file: File, schema: &SchemaRef, config: &FilesSinkConfig) -> Result<Self> {
        let refused = |error: &dyn std::fmt::Display| Error::rejected(format!("these columns cannot be written: {error}")).code("files.schema");
        Ok(match config.format()? {
            format @ (Format::Csv | Format::Ndjson) => {
                let delimiter = delimiter(config);
                Self::Text { file, format, delimiter, has_header: !config.header, bytes: 0, buffer: Vec::new() }
            }
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(codec(config.compression))
                    .set_statistics_enabled(EnabledStatistics::Chunk)
                    .build();
                Self::Parquet(Box::new(ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(|error| refused(&error))?))
            }
            Format::Arrow => Self::Arrow(Box::new(FileWriter::try_new(file, schema).map_err(|error| refused(&error))?)),
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Text { file, format, delimiter, has_header, bytes, buffer } => {
                buffer.clear();
                encode_text(batch, *format, *delimiter, std::mem::replace(has_header, true), buffer)?;
                file.write_all(buffer).map_err(failed)?;
                *bytes += buffer.len() as u64;
                Ok(())
            }
            Self::Parquet(writer) => writer.write(batch).map_err(|error| from_parquet(&error)),
            Self::Arrow(writer) => writer.write(batch).map_err(|error| failed(std::io::Error::other(error))),
        }
    }

    /// Bytes that wait in memory.
    pub fn waiting_bytes(&self) -> u64 {
        match self {
            Self::Parquet(writer) => writer.memory_size() as u64,
            _ => 0,
        }
    }

    /// Of the file, with what waits in memory as it will be, about.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Text { bytes, .. } => *bytes,
            Self::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Self::Arrow(writer) => writer.get_ref().metadata().map_or(0, |it| it.len()),
        }
    }

    /// Hands what waits in memory on.
    pub fn spill(&mut self) -> Result<()> {
        match self {
            Self::Parquet(writer) if writer.in_progress_rows() > 0 => writer.flush().map_err(|error| from_parquet(&error)),
            _ => Ok(()),
        }
    }

    /// Makes everything written durable.
    pub fn durable(&mut self) -> Result<Durable> {
        self.spill()?;
        match self {
            Self::Text { file, bytes, .. } => {
                file.sync_data().map_err(failed)?;
                Ok(Durable { length: *bytes, tail: Vec::new() })
            }
            Self::Parquet(writer) => {
                writer.sync().map_err(failed)?;
                writer.inner().sync_data().map_err(failed)?;
                Ok(Durable { length: writer.bytes_written() as u64, tail: footer(writer)? })
            }
            Self::Arrow(writer) => {
                writer.flush().map_err(|error| failed(std::io::Error::other(error)))?;
                writer.get_ref().sync_data().map_err(failed)?;
                Ok(Durable { length: writer.get_ref().metadata().map_err(failed)?.len(), tail: Vec::new() })
            }
        }
    }

    /// Ends the file: it is whole and durable.
    pub fn finish(self) -> Result<()> {
        let file = match self {
            Self::Text { file, .. } => file,
            Self::Parquet(writer) => writer.into_inner().map_err(|error| from_parquet(&error))?,
            Self::Arrow(mut writer) => {
                writer.finish().map_err(|error| failed(std::io::Error::other(error)))?;
                return writer.get_ref().sync_all().map_err(failed);
            }
        };
        file.sync_all().map_err(failed)
    }
}

/// Makes a file whole that was left as [`Durable`] says; may be done again.
pub(super) fn complete(path: &Path, format: Format, length: u64, tail: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    if format != Format::Arrow {
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(tail)?;
        return file.sync_all();
    }
    // Its footer lists every batch: written anew from the batches, which gives the same bytes up to the length.
    file.seek(SeekFrom::Start(ARROW_START_BYTES))?;
    let batches = StreamReader::try_new(BufReader::new(file.take(length - ARROW_START_BYTES)), None).map_err(std::io::Error::other)?;
    let whole = path.with_extension("whole");
    let mut writer = FileWriter::try_new(File::create(&whole)?, &batches.schema()).map_err(std::io::Error::other)?;
    for batch in batches {
        writer.write(&batch.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?;
    }
    writer.finish().map_err(std::io::Error::other)?;
    writer.get_ref().sync_all()?;
    std::fs::rename(&whole, path)
}

/// Appends a batch as lines.
pub(super) fn encode_text(batch: &RecordBatch, format: Format, delimiter: u8, has_header: bool, buffer: &mut Vec<u8>) -> Result<()> {
    let written = match format {
        Format::Ndjson => write_objects(batch, buffer),
        _ => arrow_csv::WriterBuilder::new().with_header(!has_header).with_delimiter(delimiter).build(&mut *buffer).write(batch),
    };
    written.map_err(|error| Error::rejected(format!("these rows make no lines: {error}")).code("files.rows"))
}

pub(super) fn delimiter(config: &FilesSinkConfig) -> u8 {
    let by_name = if config.path.ends_with(".tsv") { b'\t' } else { b',' };
    config.delimiter.as_ref().and_then(|it| it.bytes().next()).unwrap_or(by_name)
}

/// What makes the row groups so far a file.
fn footer(writer: &ArrowWriter<File>) -> Result<Vec<u8>> {
    let groups = writer.flushed_row_groups();
    let Some(first) = groups.first() else { return Ok(Vec::new()) };
    let rows = groups.iter().map(|group| group.num_rows()).sum();
    let file = FileMetaData::new(1, rows, None, None, first.schema_descr_ptr(), None);
    let mut tail = Vec::new();
    let metadata = ParquetMetaData::new(file, groups.to_vec());
    ParquetMetaDataWriter::new(&mut tail, &metadata).finish().map_err(|error| from_parquet(&error))?;
    Ok(tail)
}

fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::UNCOMPRESSED,
        Compression::Snappy => Codec::SNAPPY,
        Compression::Lz4 => Codec::LZ4_RAW,
        Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
    }
}

/// A full disk may have room later: the task begins again at what is durable.
pub(super) fn failed(error: std::io::Error) -> Error {
    Error::disconnected(format!("cannot write: {error}")).code("files.write")
}

fn from_parquet(error: &parquet::errors::ParquetError) -> Error {
    Error::disconnected(format!("cannot write: {error}")).code("files.write")
}

/// Whether rows of one can be written behind rows of the other.
pub(super) fn is_same_table(one: &Schema, other: &Schema) -> bool {
    let same = |(a, b): (&std::sync::Arc<arrow::datatypes::Field>, &std::sync::Arc<arrow::datatypes::Field>)| {
        a.name() == b.name() && a.data_type() == b.data_type() && a.is_nullable() == b.is_nullable()
    };
    one.fields().len() == other.fields().len() && one.fields().iter().zip(other.fields()).all(same)
}
