//! A generator of smart-meter rows, for the quickstart, for trials and for tests.
//!
//! It writes as an application does: multi-row INSERT statements over SQL, and now and then a change (a column added,
//! widened or dropped, a value updated, a tag set, a table made or dropped, a range deleted) in an order that follows from the seed.
//!
//! Guarantees: it writes and changes only what is this site's own, and rows of shared tables at timestamps of its own, so
//! that two generators at two sites never touch one key; it is ready when its schema is there; when told to stop it ends
//! behind the statement under way; after a lost connection it connects again.

mod changes;
mod config;
mod known;
mod names;
mod rows;

pub use config::MetersConfig;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_sdk::{Context, Reaction, Ready, Result, Service, Stop, async_trait};

use crate::client::ClientError;
use crate::transport::Connection;
use crate::errors::is_transient;
use changes::{Change, ChangeLimits, Changes, Times, create_table};
use known::Known;
use names::Names;
use rows::Rows;

/// What stands in the place of a site in the names of tables that all write.
const SHARED: &str = "shared";
/// How long a statement under way may still take once the generator shall stop.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// First wait before connecting again; it doubles up to the configured one.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// Tries of a statement that another transaction is in the way of, and the wait between.
const TRIES: u32 = 50;
const TRY_INTERVAL: Duration = Duration::from_millis(100);
/// Rows that were not written in time are not made up for beyond this.
const ARREARS_MAX: Duration = Duration::from_secs(1);
/// Of CREATE DATABASE: somebody else is making it at this moment.
const DATABASE_IS_BEING_MADE: u32 = 0x0396;
/// Retention of the log of a database that is made here, in seconds.
const WAL_RETENTION_SECONDS: u32 = 3_600;

/// The service.
pub struct Meters {
    config: MetersConfig,
    context: Context,
}

#[async_trait]
impl Service for Meters {
    async fn run(self: Box<Self>, mut ready: Ready, stop: Stop) -> Result<()> {
        let mut generator = Generator::new(self.config, self.context);
        let overdue = async {
            stop.stopped().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            result = generator.run(&mut ready, &stop) => result,
            () = overdue => {
                tracing::warn!("a statement was under way for longer than the generator may take to stop");
                Ok(())
            }
        }
    }
}

struct Generator {
    config: MetersConfig,
    context: Context,
    names: Names,
    rows: Rows,
    changes: Changes,
    started_ms: i64,
    /// Rows up to here are written or given up.
    written_until: Instant,
    next_change: Instant,
}

impl Generator {
    fn new(config: MetersConfig, context: Context) -> Self {
        let names =
            Names { database: config.database.clone(), stable: config.stable.clone(), site: config.site.clone() };
        let limits = ChangeLimits {
            tables: config.tables,
            columns_max: config.columns_max,
            width_max: config.width_max,
            extra_tables_max: config.extra_tables_max,
        };
        let rows_max = config.statement_rows_max;
        Self {
            rows: Rows::new(config.seed, names.clone(), config.tables, config.shared_tables, rows_max),
            changes: Changes::new(config.seed, limits),
            names,
            context,
            started_ms: now_ms(),
            written_until: Instant::now(),
            next_change: Instant::now() + config.change_interval.0,
            config,
        }
    }

    /// Connects, and again whenever the connection is lost, until it shall stop.
    async fn run(&mut self, ready: &mut Ready, stop: &Stop) -> Result<()> {
        let mut wait = RECONNECT_FIRST;
        while !stop.is_stopped() {
            let error = match self.session(ready, stop, &mut wait).await {
                Ok(()) => break,
                Err(error) if matches!(error.reaction, Reaction::Disconnected | Reaction::Retry) => error,
                Err(error) => return Err(error),
            };
            tracing::warn!(%error, "the generator connects again");
            self.context.count("reconnects", 1);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.stopped() => {}
            }
            wait = (wait * 2).min(self.config.reconnect_interval_max.0);
        }
        Ok(())
    }

    /// One connection's life.
    async fn session(&mut self, ready: &mut Ready, stop: &Stop, wait: &mut Duration) -> Result<()> {
        let connection = Connection::open(&self.config.dsn, None, self.config.limits()).await?;
        let mut known = self.prepare(&connection).await?;
        ready.ready();
        *wait = RECONNECT_FIRST;
        let mut ticks = tokio::time::interval(self.config.write_interval.0);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.stopped() => return Ok(()),
            }
            if self.config.changes && self.next_change <= Instant::now() {
                self.next_change = Instant::now() + self.config.change_interval.0;
                self.change(&connection, &mut known).await?;
            }
            self.write(&connection, &known, stop).await?;
        }
    }

    /// Makes what is missing. Existing tables are left alone: even IF NOT EXISTS writes to the log (FACTS F13).
    async fn prepare(&self, connection: &Connection) -> Result<Known> {
        let names = &self.names;
        let database = names.database();
        let vgroups = self.config.vgroups;
        let stable = names.qualified(&names.stable);
        for sql in [
            format!(
                "CREATE DATABASE IF NOT EXISTS {database} VGROUPS {vgroups} WAL_RETENTION_PERIOD {WAL_RETENTION_SECONDS}"
            ),
            format!(
                "CREATE STABLE IF NOT EXISTS {stable} (`ts` TIMESTAMP, `current` FLOAT, `voltage` INT, `phase` FLOAT) \
                 TAGS (`group_id` INT, `location` VARCHAR(64))"
            ),
        ] {
            exec(connection, &sql).await?;
        }
        let known = Known::read(connection, names).await?;
        let existing = crate::metadata::tables(connection, &names.database).await?;
        let own = (1..=self.config.tables)
            .map(|number| (names.table(number), number, format!("{} place {number}", names.site)));
        let shared = (1..=self.config.shared_tables)
            .map(|number| (names.shared_table(number), number, format!("{SHARED} place {number}")));
        for (table, number, location) in own.chain(shared).filter(|(table, ..)| !existing.contains_key(table)) {
            exec(connection, &create_table(names, &table, number, &location)).await?;
        }
        Ok(known)
    }

    async fn write(&mut self, connection: &Connection, known: &Known, stop: &Stop) -> Result<()> {
        let now = Instant::now();
        let elapsed = now.duration_since(self.written_until).min(ARREARS_MAX);
        let rate = f64::from(self.config.rate);
        let count = (elapsed.as_secs_f64() * rate).floor();
        self.written_until = now - elapsed.saturating_sub(Duration::from_secs_f64(count / rate));
        let inserts = self.rows.next(known, now_ms(), count as usize);
        for insert in inserts {
            if stop.is_stopped() {
                break;
            }
            let written = exec(connection, &insert.sql).await?;
            self.context.count("rows_written", written);
        }
        Ok(())
    }

    async fn change(&mut self, connection: &Connection, known: &mut Known) -> Result<()> {
        let times = Times { started_ms: self.started_ms, now_ms: now_ms(), written: self.rows.written() };
        let change = self.changes.next(&self.names, known, times);
        let sql = change.sql(&self.names, known.ticks_per_ms());
        let affected = exec(connection, &sql).await?;
        change.made(known);
        self.context.count("changes_written", 1);
        if matches!(change, Change::Delete { .. }) {
            self.context.count("rows_deleted", affected);
        }
        tracing::debug!(?change, affected, "changed");
        Ok(())
    }
}

/// Runs a statement, again while another transaction is in its way.
async fn exec(connection: &Connection, sql: &str) -> Result<u64> {
    for _ in 1..TRIES {
        match connection.exec(sql).await {
            Err(ClientError::Server { code, .. }) if is_transient(code) || code == DATABASE_IS_BEING_MADE => {
                tokio::time::sleep(TRY_INTERVAL).await;
            }
            other => return Ok(other?),
        }
    }
    Ok(connection.exec(sql).await?)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
