//! Notes that services of a group leave for each other: rows in a table of a small database of ours. A note is never changed, the
//! newest of its name counts, by the site's clock.

use std::collections::BTreeMap;

use pipeline_sdk::{Error, Result};
use tdengine_wire::escape::literal;
use xxhash_rust::xxh3::xxh3_64;

use super::locks;
use crate::names::LOCK_DATABASE;
use crate::transport::Connection;

const NAME_BYTES_MAX: usize = 512;
const NOTE_BYTES_MAX: usize = 256;
/// Notes in one statement.
const INSERT_MAX: usize = 500;
/// How far behind the newest one is read again: a row may become visible after a later one.
const OVERLAP_MS: i64 = 60_000;

/// What was read so far.
pub struct Notes {
    pub group: String,
    table: String,
    /// By name, with the time of each.
    known: BTreeMap<String, (i64, String)>,
    newest_ms: i64,
}

impl Notes {
    /// Makes what is missing at the site.
    pub async fn open(connection: &Connection, group: &str) -> Result<Self> {
        locks::make_database(connection).await?;
        let table = format!("{LOCK_DATABASE}.service_notes_{:016x}", xxh3_64(group.as_bytes()));
        // The id tells notes of one moment apart. A name as the key would do, but a 3.3.0.1 server aborted (in `clearRowKey`) at the end of
        // queries over such a table.
        let columns =
            format!("ts timestamp, id bigint primary key, name varchar({NAME_BYTES_MAX}), note varchar({NOTE_BYTES_MAX})");
        connection.exec(&format!("create table if not exists {table} ({columns})")).await?;
        Ok(Self { group: group.to_owned(), table, known: BTreeMap::new(), newest_ms: OVERLAP_MS })
    }

    pub async fn write(&self, connection: &Connection, notes: &BTreeMap<String, String>) -> Result<()> {
        for (name, note) in notes {
            if name.len() > NAME_BYTES_MAX || note.len() > NOTE_BYTES_MAX {
                return Err(Error::fatal(format!("a note has {NAME_BYTES_MAX} bytes of name and {NOTE_BYTES_MAX} of text at most: {name}"))
                    .code("tdengine.note"));
            }
        }
        let id = |name: &String| xxh3_64(name.as_bytes()).cast_signed();
        let row = |(name, note): (&String, &String)| format!("(now, {}, {}, {})", id(name), literal(name), literal(note));
        let rows: Vec<String> = notes.iter().map(row).collect();
        for rows in rows.chunks(INSERT_MAX) {
            connection.exec(&format!("insert into {} values {}", self.table, rows.join(" "))).await?;
        }
        Ok(())
    }

    /// All notes, after a look at what is new.
    pub async fn read(&mut self, connection: &Connection) -> Result<BTreeMap<String, String>> {
        let since = self.newest_ms - OVERLAP_MS;
        let sql = format!("select cast(ts as bigint), name, note from {} where ts >= {since}", self.table);
        for row in connection.query(&sql).await?.texts()? {
            let [Some(at), Some(name), Some(note)] = <[Option<String>; 3]>::try_from(row).unwrap_or_default() else { continue };
            let Ok(at_ms) = at.parse() else { continue };
            self.newest_ms = self.newest_ms.max(at_ms);
            if self.known.get(&name).is_none_or(|(before_ms, _)| *before_ms <= at_ms) {
                self.known.insert(name, (at_ms, note));
            }
        }
        Ok(self.known.iter().map(|(name, (_, note))| (name.clone(), note.clone())).collect())
    }
}
