//! CREATE, ALTER and DROP DATABASE.

use crate::catalog::Change;
use crate::database::{Database, DatabaseOptions};
use crate::error::{Result, ServerError, code};
use crate::store::inner::{Inner, new_uid, now_ms};

/// An option's name in lower case and its text without quotes; lists have commas.
pub(crate) type DatabaseOption = (String, String);

const MINUTES_PER_DAY: i64 = 1_440;
/// Options that ALTER cannot change, and those that only we know.
const FIXED: [&str; 6] = ["precision", "vgroups", "duration", "table_prefix", "table_suffix", "pages"];

impl Inner {
    /// Makes a database with its vgroups.
    pub fn create_database(&self, name: &str, if_not_exists: bool, options: &[DatabaseOption]) -> Result<()> {
        if is_system(name) {
            return Err(ServerError::new(0x0383, "Invalid database name"));
        }
        let mut made = Vec::new();
        let result = self.change(|catalog| {
            if catalog.databases.contains_key(name) {
                let exists = ServerError::new(code::DATABASE_EXISTS, "Database already exists");
                return if if_not_exists { Ok(None) } else { Err(exists) };
            }
            let mut vgroups = self.config.vgroups;
            let mut parsed = defaults(self.config.wal_retention_period_s);
            for (option, value) in options {
                match option.as_str() {
                    "vgroups" => vgroups = integer(option, value, 1, 1_024)? as u32,
                    _ => set(&mut parsed, option, value)?,
                }
            }
            let first = catalog.next_vgroup();
            for id in first..first + vgroups.max(1) as i32 {
                made.push(id);
                self.open_vgroup(id)?;
            }
            let (id, vgroups) = (new_uid(), made.clone());
            let database = Database { name: name.to_owned(), id, created_ms: now_ms(), vgroups, options: parsed };
            Ok(Some(Change::PutDatabase(database)))
        });
        if result.is_err() {
            made.into_iter().for_each(|id| self.remove_vgroup(id));
        }
        result
    }

    /// Changes options that can be changed.
    pub fn alter_database(&self, name: &str, options: &[DatabaseOption]) -> Result<()> {
        self.change(|catalog| {
            let database = catalog.databases.get(name).ok_or_else(ServerError::database_missing)?;
            let mut database = (**database).clone();
            for (option, value) in options {
                if FIXED.contains(&option.as_str()) {
                    let text = format!("syntax error near \"{option} {value}\"");
                    return Err(ServerError::new(code::SYNTAX, text));
                }
                set(&mut database.options, option, value)?;
            }
            Ok(Some(Change::PutDatabase(database)))
        })
    }

    /// Drops a database and its files; a topic on it prevents that (FACTS F69).
    pub fn drop_database(&self, name: &str, if_exists: bool) -> Result<()> {
        let mut vgroups = Vec::new();
        self.change(|catalog| {
            let Some(database) = catalog.databases.get(name) else {
                return if if_exists { Ok(None) } else { Err(ServerError::database_missing()) };
            };
            if catalog.topics.values().any(|topic| topic.database == name) {
                return Err(ServerError::new(code::TOPIC_FIRST, "Topic must be dropped first"));
            }
            vgroups = database.vgroups.clone();
            Ok(Some(Change::DropDatabase { name: name.to_owned() }))
        })?;
        vgroups.into_iter().for_each(|id| self.remove_vgroup(id));
        Ok(())
    }
}

/// Whether the name belongs to the server itself.
pub(crate) fn is_system(name: &str) -> bool {
    matches!(name, "information_schema" | "performance_schema")
}

fn defaults(wal_retention_period_s: i64) -> DatabaseOptions {
    DatabaseOptions {
        precision_code: 0,
        keep_minutes: [3_650 * MINUTES_PER_DAY; 3],
        duration_minutes: 10 * MINUTES_PER_DAY,
        wal_retention_period_s,
        wal_retention_size_kib: 0,
        wal_level: 1,
        wal_fsync_period_ms: 3_000,
        others: Vec::new(),
    }
}

fn set(options: &mut DatabaseOptions, option: &str, value: &str) -> Result<()> {
    match option {
        "precision" => {
            let precision = tdengine_wire::Precision::from_name(value);
            let text = || format!("Invalid option precision: {value} valid range: [ms, us, ns]");
            options.precision_code = precision.ok_or_else(|| ServerError::new(code::INVALID_OPTION, text()))?.code();
        }
        "keep" => options.keep_minutes = keep(value)?,
        "duration" => options.duration_minutes = minutes(option, value)?,
        "wal_retention_period" => options.wal_retention_period_s = integer(option, value, -1, i64::MAX)?,
        "wal_retention_size" => options.wal_retention_size_kib = integer(option, value, -1, i64::MAX)?,
        "wal_level" => options.wal_level = integer(option, value, 1, 2)?,
        "wal_fsync_period" => options.wal_fsync_period_ms = integer(option, value, 0, 180_000)?,
        _ => {
            check_other(option, value)?;
            options.others.retain(|(key, _)| key != option);
            options.others.push((option.to_owned(), value.to_owned()));
        }
    }
    Ok(())
}

fn check_other(option: &str, value: &str) -> Result<()> {
    let (low, high) = match option {
        "buffer" => (3, 16_384),
        "cachesize" => (1, 65_536),
        "comp" => (0, 2),
        "maxrows" => (200, 10_000),
        "minrows" => (10, 1_000),
        "replica" => (1, 3),
        // The OSS build knows one value (FACTS F53).
        "stt_trigger" => (1, 1),
        "pages" => (64, i64::from(i32::MAX)),
        "pagesize" => (1, 16_384),
        _ => return Ok(()),
    };
    integer(option, value, low, high).map(drop)
}

fn integer(option: &str, value: &str, low: i64, high: i64) -> Result<i64> {
    let number = value.parse::<i64>().ok().filter(|number| (low..=high).contains(number));
    let text = || format!("Invalid option {option}: {value} valid range: [{low}, {high}]");
    number.ok_or_else(|| ServerError::new(code::INVALID_OPTION, text()))
}

/// `10`, `10d`, `48h`, `900m`; a number alone is days.
fn minutes(option: &str, value: &str) -> Result<i64> {
    let (digits, unit) = match value.as_bytes().last() {
        Some(b'd') => (&value[..value.len() - 1], MINUTES_PER_DAY),
        Some(b'h') => (&value[..value.len() - 1], 60),
        Some(b'm') => (&value[..value.len() - 1], 1),
        _ => (value, MINUTES_PER_DAY),
    };
    let number = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(unit)).filter(|number| *number > 0);
    number.ok_or_else(|| ServerError::new(code::INVALID_OPTION, format!("Invalid option {option}: {value}")))
}

/// One to three durations; what is not given is the last that is.
fn keep(value: &str) -> Result<[i64; 3]> {
    let given = value.split(',').map(|part| minutes("keep", part.trim())).collect::<Result<Vec<_>>>()?;
    let last = given.last().copied().unwrap_or(0);
    let at = |place: usize| given.get(place).copied().unwrap_or(last);
    Ok([at(0), at(1), at(2)])
}
