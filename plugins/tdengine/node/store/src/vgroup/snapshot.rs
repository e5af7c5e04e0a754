//! Snapshot files of a vgroup: its state at one version, so that older log segments can go.
//!
//! Format 1: magic, format `u32`, vgroup `i32`, version `i64`; length `u32` and JSON of the index; for each table of it
//! the number of runs `u32`, and for each run the number of columns `u32`, their ids `i16`, length `u32` and raw block; at
//! the end the CRC of everything before. A file gets its name only when it is complete and on the disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tdengine_wire::cursor::Reader;

use super::VgroupOptions;
use super::index::{Index, IndexImage};
use crate::error::Result;
use crate::rows::{Rows, Run};
use crate::wal::sync_dir;
use crate::{Version, VgroupId};

const MAGIC: &[u8; 8] = b"TDNODSNP";
const FORMAT: u32 = 1;

/// A snapshot that was read.
pub(super) struct Loaded {
    pub version: Version,
    pub bytes: u64,
    pub index: Index,
}

/// Writes the snapshot and removes older ones. Returns its bytes.
pub(super) fn save(
    options: &VgroupOptions,
    version: Version,
    image: &IndexImage,
    rows: &[Arc<[Arc<Run>]>],
) -> Result<u64> {
    let path = options.dir.join(format!("{version:020}.snapshot"));
    let unfinished = path.with_extension("unfinished");
    let written = write(&unfinished, options, version, image, rows);
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            // What is left of it would only take room; it has no meaning without its final name.
            let _ = fs::remove_file(&unfinished);
            return Err(error.into());
        }
    };
    fs::rename(&unfinished, &path)?;
    sync_dir(&options.dir)?;
    for old in snapshot_paths(&options.dir)?.into_iter().filter(|old| *old != path) {
        fs::remove_file(old)?;
    }
    Ok(bytes)
}

fn write(
    path: &Path,
    options: &VgroupOptions,
    version: Version,
    image: &IndexImage,
    rows: &[Arc<[Arc<Run>]>],
) -> io::Result<u64> {
    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut out = Checked { file, crc: crc32fast::Hasher::new(), bytes: 0, options };
    out.put(MAGIC)?;
    out.put(&FORMAT.to_le_bytes())?;
    out.put(&options.id.to_le_bytes())?;
    out.put(&version.to_le_bytes())?;
    out.put_block(&serde_json::to_vec(image)?)?;
    for runs in rows {
        out.put(&(runs.len() as u32).to_le_bytes())?;
        for run in runs.iter() {
            out.put(&(run.ids().len() as u32).to_le_bytes())?;
            for id in run.ids().iter() {
                out.put(&id.to_le_bytes())?;
            }
            out.put_block(run.block())?;
        }
    }
    let crc = out.crc.clone().finalize();
    out.put(&crc.to_le_bytes())?;
    out.file.flush()?;
    out.file.get_ref().sync_all()?;
    Ok(out.bytes)
}

struct Checked<'a> {
    file: BufWriter<File>,
    crc: crc32fast::Hasher,
    bytes: u64,
    options: &'a VgroupOptions,
}

impl Checked<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.options.faults.take_disk(bytes.len())?;
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn put_block(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }
}

fn snapshot_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("snapshot") => paths.push(path),
            Some("unfinished") => {
                tracing::warn!(file = %path.display(), "removing a snapshot that a crash left unfinished");
                fs::remove_file(&path)?;
            }
            _ => {}
        }
    }
    paths.sort();
    Ok(paths)
}

/// The newest snapshot of the folder, `None` when there is none.
///
/// # Errors
/// When it is damaged: the log behind it may be gone, so there is nothing else to start from.
pub(super) fn load(dir: &Path, vgroup: VgroupId, unmerged_rows_max: usize) -> io::Result<Option<Loaded>> {
    let Some(path) = snapshot_paths(dir)?.pop() else { return Ok(None) };
    let bytes = Bytes::from(fs::read(&path)?);
    let loaded = parse(&bytes, vgroup, unmerged_rows_max);
    loaded.map(Some).map_err(|why| {
        let text = format!("{} is damaged: {why}; restore it from a copy, or remove the folder to start empty", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn parse(bytes: &Bytes, vgroup: VgroupId, unmerged_rows_max: usize) -> Result<Loaded, String> {
    let text = |error: tdengine_wire::WireError| error.to_string();
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("shorter than its checksum")?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum is wrong".to_owned());
    }
    let mut reader = Reader::new(body);
    let (magic, format) = (reader.array::<8>("magic").map_err(text)?, reader.u32("format").map_err(text)?);
    if &magic != MAGIC || format != FORMAT {
        return Err(format!("format {format}, expected {FORMAT}"));
    }
    let (owner, version) = (reader.i32("vgroup").map_err(text)?, reader.i64("version").map_err(text)?);
    if owner != vgroup {
        return Err(format!("it belongs to vgroup {owner}"));
    }
    let length = reader.u32("index length").map_err(text)? as usize;
    let image = reader.take(length, "index").map_err(text)?;
    let image: IndexImage = serde_json::from_slice(image).map_err(|error| error.to_string())?;
    let mut rows = Vec::with_capacity(image.tables.len());
    for _ in &image.tables {
        let runs = reader.u32("runs").map_err(text)?;
        let runs = (0..runs).map(|_| parse_run(&mut reader, bytes)).collect::<Result<Vec<_>, _>>()?;
        rows.push(Rows::from_merged(runs));
    }
    let index = Index::restore(vgroup, unmerged_rows_max, image, rows);
    Ok(Loaded { version, bytes: bytes.len() as u64, index })
}

fn parse_run(reader: &mut Reader<'_>, bytes: &Bytes) -> Result<Arc<Run>, String> {
    let text = |error: tdengine_wire::WireError| error.to_string();
    let columns = reader.u32("columns").map_err(text)?;
    let columns = reader.count(i64::from(columns), 2, "columns").map_err(text)?;
    let ids = (0..columns).map(|_| reader.i16("column id")).collect::<Result<Vec<_>, _>>().map_err(text)?;
    let length = reader.u32("block length").map_err(text)? as usize;
    let start = reader.position();
    reader.take(length, "block").map_err(text)?;
    let run = Run::new(ids.into(), bytes.slice(start..start + length)).map_err(|error| error.to_string())?;
    Ok(Arc::new(run))
}
