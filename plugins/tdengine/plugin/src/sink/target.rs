//! One database at the target, as one lane of the sink sees it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{Context, Error, Header, Message, Payload, Result};
use tdengine_wire::escape::{identifier, qualified};
use tokio::sync::watch;
use tokio::time::Instant;

use super::decide::Fit;
use super::origin::Origins;
use super::replay::Rewritten;
use super::shared::{self, Shared};
use super::{MISSING_TABLE, MissingTable, TdengineConfig};
use crate::client::ClientError;
use crate::transport::Connection;
use crate::errors::{CodeReaction, reaction_to};
use crate::metadata::{self, Definition};
use crate::token::Token;

/// Tries of a statement that another transaction was in the way of (0x03D3).
const CONFLICT_TRIES: u32 = 50;
const CONFLICT_WAIT: Duration = Duration::from_millis(100);
/// Names of tables remembered before they are forgotten.
const NAMES_MAX: usize = 10_000;

/// A target database and what this lane knows of it.
pub struct Target {
    pub context: Context,
    pub database: String,
    /// The unit of its times, once it was asked for.
    pub precision: Option<tdengine_wire::Precision>,
    /// Whether writes are marked and changes leave tokens.
    pub marks: bool,
    pub missing_table: MissingTable,
    pub shared: Arc<Shared>,
    /// Changes that any lane brought since the last write began.
    pub news: watch::Receiver<()>,
    pub origins: Origins,
    /// How blocks of a schema fit a definition; emptied when either may have changed.
    pub fits: HashMap<FitKey, (Arc<Definition>, Arc<Fit>)>,
    pub fits_generation: u64,
    /// Whether definitions that the server's client library remembers may be older than those compared with.
    pub is_server_cache_old: bool,
    pub statement_bytes_max: usize,
    pub announce_timeout: Duration,
    pub parked_interval: Duration,
    /// Since when this lane waits for an entry that announces a column or table.
    pub waits_since: Option<Instant>,
    /// Since when values of tags are kept that nothing was told of; see [`super::tag_values`].
    pub tag_values_since: Option<Instant>,
    /// What was waited for in vain, by super table or normal table: it is not waited for again.
    pub never_announced: HashSet<(Arc<str>, String)>,
    /// Tables and super tables whose changes waited for them in vain.
    pub never_made: HashSet<Box<str>>,
    /// Tables whose missing was told of when rows of theirs were left out.
    left_out_of: HashSet<Box<str>>,
    pub last_parked_try: Instant,
    pub rewritten: Rewritten,
    /// The super table that was last found never altered here, as of a generation.
    pub unaltered: Option<String>,
    origin: String,
    may_create: bool,
}

/// Super table or normal table, and hash of the block's schema.
pub type FitKey = (Arc<str>, u64);

impl Target {
    pub fn new(
        config: &TdengineConfig,
        context: &Context,
        connection: &Connection,
        namespace: &str,
        database: String,
        marks: bool,
    ) -> Self {
        let shared = Shared::of(context, connection.place(), &database);
        Self {
            context: context.clone(),
            precision: None,
            marks,
            missing_table: config.missing_table,
            news: shared.news(),
            shared,
            origins: Origins::new(context, namespace),
            fits: HashMap::new(),
            fits_generation: 0,
            is_server_cache_old: true,
            statement_bytes_max: config.statement_bytes_max,
            announce_timeout: config.announce_timeout.0,
            parked_interval: config.parked_interval.0,
            waits_since: None,
            // An earlier process may have kept some.
            tag_values_since: Some(Instant::now()),
            never_announced: HashSet::new(),
            never_made: HashSet::new(),
            left_out_of: HashSet::new(),
            last_parked_try: Instant::now(),
            rewritten: Rewritten::default(),
            unaltered: None,
            origin: context.place.source_identity.clone().unwrap_or_default(),
            may_create: config.create_database,
            database,
        }
    }

    /// The table as it is here, looked up when it is not known: a user may have made it meanwhile.
    pub async fn find(&self, connection: &Connection, table: &str) -> Result<Option<shared::Target>> {
        if let Some(known) = self.shared.known_table(table) {
            return Ok(Some(known));
        }
        if let Some(found) = self.shared.table(connection, &self.database, table).await? {
            return Ok(Some(found));
        }
        self.shared.refresh_tables(connection, &self.database, &[table]).await?;
        self.shared.table(connection, &self.database, table).await
    }

    /// The token of a change: where it was born, and where it stands in that log.
    pub fn token(&self, header: &Header) -> Result<Token> {
        if self.origin.parse::<i64>().is_err() {
            return Err(Error::fatal("the source does not say which cluster it is: its changes cannot carry a token"));
        }
        let position = header.position.number.unwrap_or_default().to_string();
        Ok(Token { origin: self.origin.clone(), lane: header.lane.to_string(), position })
    }

    /// `database.table`, quoted.
    pub fn qualified(&self, table: &str) -> String {
        qualified(&self.database, table)
    }

    /// The table for a person, in back-quotes.
    pub fn place_of(&self, table: &str) -> String {
        format!("`{}`.`{table}`", self.database)
    }

    /// Of rows that never fit the definition here.
    pub fn conflict(&self, table: &str, why: impl std::fmt::Display) -> Error {
        let message = format!("rows of {} cannot be written: {why}", self.place_of(table));
        Error::rejected(message).code("tdengine.conflict").hint("make the definitions equal at both sites, then retry")
    }

    /// What a change is of is not here. Among more than two sites it may come another way, and the change waits for it as rows do; what
    /// was waited for in vain is not waited for again.
    pub fn may_come(&mut self, name: &str) -> Result<()> {
        if self.missing_table != MissingTable::Wait || self.never_made.contains(name) {
            return Ok(());
        }
        let place = self.place_of(name);
        if !self.is_overdue() {
            let message = format!("{place} is missing, and a change of it waits; its creation may still come");
            return Err(Error::retry(message).code(MISSING_TABLE).hint("it is waited for, up to `announce-timeout`"));
        }
        self.waits_since = None;
        is_first(&mut self.never_made, name);
        tracing::warn!(table = place, "it was never made here: changes of it are left out");
        Ok(())
    }

    /// Whether this lane has waited long enough for the log to announce something; it waits from now on.
    pub fn is_overdue(&mut self) -> bool {
        self.waits_since.get_or_insert_with(Instant::now).elapsed() > self.announce_timeout
    }

    /// Counts rows that are left out because their table is missing, and says so once a table.
    pub fn left_out(&mut self, table: &str, rows: usize, detail: &serde_json::Value) {
        self.context.count("rows_left_out", rows as u64);
        if is_first(&mut self.left_out_of, table) {
            tracing::warn!(table = self.place_of(table), %detail, "rows are left out and counted: their table is missing");
        } else {
            tracing::debug!(rows, %detail, "rows left out");
        }
    }

    /// Runs a statement; one that another transaction is in the way of is tried again (FACTS F11).
    pub async fn exec(&self, connection: &Connection, sql: &str) -> Result<(), ClientError> {
        for _ in 1..CONFLICT_TRIES {
            match connection.exec(sql).await {
                Err(ClientError::Server { code, .. }) if reaction_to(code) == CodeReaction::Retry => {
                    tokio::time::sleep(CONFLICT_WAIT).await;
                }
                other => return other.map(|_| ()),
            }
        }
        connection.exec(sql).await.map(|_| ())
    }

    /// Raw rows are laid out by the definition that the adapter's client library remembers: with one from before an ALTER,
    /// values of the new column vanish without an error (FACTS F26). It is made to forget before the first rows of a
    /// schema that was not seen yet.
    pub async fn renew_server_cache(&mut self, connection: &Connection) -> Result<(), ClientError> {
        if !std::mem::take(&mut self.is_server_cache_old) {
            return Ok(());
        }
        metadata::reset_query_cache(connection).await
    }

    /// Writes a raw message; one that another transaction is in the way of is tried again.
    pub async fn write_raw(&self, connection: &Connection, raw: &[u8]) -> Result<(), ClientError> {
        self.write_pieces(connection, &[raw]).await
    }

    /// As [`Target::write_raw`], of a message in pieces.
    pub async fn write_pieces(&self, connection: &Connection, raw: &[&[u8]]) -> Result<(), ClientError> {
        for _ in 1..CONFLICT_TRIES {
            match connection.write_raw(raw).await {
                Err(ClientError::Server { code, .. }) if reaction_to(code) == CodeReaction::Retry => {
                    tokio::time::sleep(CONFLICT_WAIT).await;
                }
                other => return other,
            }
        }
        connection.write_raw(raw).await
    }

    /// Makes the database with the options that it has at the source.
    pub async fn create_database(&mut self, connection: &Connection, message: &Message) -> Result<()> {
        let missing = Error::fatal(format!("{} has no database `{}`", connection.place(), self.database))
            .code("tdengine.database")
            .hint("create it, or let the sink (create-database = true)");
        if !self.may_create {
            return Err(missing.path("create-database"));
        }
        let statement = match &message.payload {
            Payload::Change(change) => change.detail["database"].as_str(),
            _ => None,
        };
        let Some(options) = statement.and_then(|statement| options_of(statement)) else {
            if self.marks {
                return Err(missing.hint("the log no longer says how it was made at the source: create it by hand"));
            }
            return self.exec(connection, &self.create_statement("")).await.map_err(Error::from);
        };
        match self.exec(connection, &self.create_statement(options)).await {
            Ok(()) => Ok(()),
            // Made by another lane.
            Err(ClientError::Server { code: 0x0381, .. }) => Ok(()),
            // Another version knows other options: those that matter are known to all.
            Err(ClientError::Server { code: 0x2600 | 0x2619 | 0x0118 | 0x260c, .. }) => {
                let kept = kept_options(options);
                self.exec(connection, &self.create_statement(&kept)).await.map_err(Error::from)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn create_statement(&self, options: &str) -> String {
        format!("create database if not exists {} {options}", identifier(&self.database))
    }
}

/// Whether a name was not told of yet.
fn is_first(told: &mut HashSet<Box<str>>, name: &str) -> bool {
    if told.len() >= NAMES_MAX {
        told.clear();
    }
    told.insert(name.into())
}

/// What stands behind the name in `CREATE DATABASE `name` …`.
fn options_of(statement: &str) -> Option<&str> {
    let rest = statement.trim_start();
    let rest = rest.get(.."CREATE DATABASE".len()).filter(|start| start.eq_ignore_ascii_case("CREATE DATABASE")).map(|start| &rest[start.len()..])?;
    let rest = rest.trim_start();
    match rest.strip_prefix('`') {
        Some(quoted) => quoted.split_once('`').map(|(_, options)| options.trim()),
        None => Some(rest.split_once(' ').map_or("", |(_, options)| options.trim())),
    }
}

/// The options that change what the data is, of those in the text.
fn kept_options(options: &str) -> String {
    const KEPT: [&str; 5] = ["PRECISION", "VGROUPS", "KEEP", "DURATION", "WAL_RETENTION_PERIOD"];
    let words: Vec<&str> = options.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(pair[0])));
    pairs.map(|pair| format!("{} {}", pair[0], pair[1])).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_source_are_taken_over() {
        let text = "CREATE DATABASE `a b` BUFFER 256 PRECISION 'us' VGROUPS 4 KEEP 5256000m,5256000m,5256000m S3_COMPACT 0";
        let options = options_of(text).unwrap();
        assert!(options.starts_with("BUFFER 256"), "{options}");
        assert_eq!(kept_options(options), "PRECISION 'us' VGROUPS 4 KEEP 5256000m,5256000m,5256000m");
        assert_eq!(options_of("CREATE DATABASE power VGROUPS 2"), Some("VGROUPS 2"));
        assert_eq!(options_of("DROP DATABASE power"), None);
    }
}
