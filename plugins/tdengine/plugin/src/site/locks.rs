//! Lanes that services share: the vgroups of a small database of ours, dealt out by a consumer group on it.
//!
//! What a consumer is told of its assignment may be old. What proves that a vgroup is ours is a row that we wrote into it and that
//! came back to us: the server gives the entries of a vgroup to the consumer alone that has it then. So a row goes into every
//! vgroup with each call, and what came back by its end is what is held, as of when that row was written.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pipeline_sdk::site::{HeldLane, Holding};
use pipeline_sdk::{Error, Result};
use tdengine_wire::escape::literal;
use tokio::time::Instant;

use crate::client::{SocketLimits, Subscription};
use crate::dsn::Dsn;
use crate::metadata;
use crate::names::LOCK_DATABASE;
use crate::transport::{Connection, Consumer};

/// Vgroups of the database where it is made here: each takes memory of the server, and more share tasks out more evenly.
const LANES: usize = 8;
/// Tables are made until every vgroup has one, up to so many for each.
const TABLES_A_LANE_MAX: usize = 64;
/// How long a call waits for rows to come back.
const WAIT: Duration = Duration::from_millis(1_500);
const POLL: Duration = Duration::from_millis(50);
/// Calls whose rows may still come back.
const BEATS_MAX: usize = 16;
/// What a row's text begins with.
const MARK: &str = "beat-";
const WIDTH: usize = 64;

pub struct Locks {
    connection: Connection,
    consumer: Consumer,
    /// A table in each vgroup.
    tables: BTreeMap<i32, String>,
    /// The time of our rows: each is written over again.
    at_ms: i64,
    /// What our rows begin with.
    own: String,
    beat: u64,
    /// When each row of the last ones was about to be written.
    beats: VecDeque<(u64, Instant)>,
    /// The newest row that came back from each vgroup.
    proved: BTreeMap<i32, Instant>,
}

/// Short: what takes longer than a lease is of no use.
fn limits() -> SocketLimits {
    let limit = Duration::from_secs(5);
    SocketLimits { request_timeout: limit, connect_timeout: limit, ..SocketLimits::default() }
}

impl Locks {
    /// Makes what is missing at the site, and joins.
    pub async fn join(dsn: &Dsn, group: &str) -> Result<Self> {
        let tables = prepare(dsn).await?;
        let connection = Connection::open(dsn, None, limits()).await?;
        let now = connection.query("select cast(now() as bigint)").await?.texts()?;
        let at_ms = now.first().and_then(|row| row[0].as_deref()?.parse().ok());
        let at_ms = at_ms.ok_or_else(|| Error::retry(format!("{} does not tell the time", connection.place())))?;
        let subscription = Subscription {
            topic: LOCK_DATABASE.into(),
            group: group.into(),
            client: "pipeline".into(),
            exclude_marked: false,
            from_oldest: false,
            prefetch: tables.len().max(1),
            rows_min: None,
        };
        let consumer = Consumer::subscribe(dsn, &subscription, SocketLimits { request_timeout: WAIT * 20, ..limits() }).await?;
        let own = format!("{MARK}{:016x}-", rand::random::<u64>());
        let (beats, proved) = (VecDeque::new(), BTreeMap::new());
        Ok(Self { connection, consumer, tables, at_ms, own, beat: 0, beats, proved })
    }

    /// Writes a row into every vgroup, and waits until it came back from those that are ours.
    pub async fn hold(&mut self) -> Result<Holding> {
        let begun = Instant::now();
        self.write(begun).await?;
        let assigned: Vec<i32> = self.consumer.assignment_so_far().await?.into_iter().map(|lane| lane.vgroup_id).collect();
        let is_back = |proved: &BTreeMap<i32, Instant>| assigned.iter().all(|lane| proved.get(lane) >= Some(&begun));
        while begun.elapsed() < WAIT && (assigned.is_empty() || !is_back(&self.proved)) {
            let Some(message) = self.consumer.poll(POLL).await? else { continue };
            if let Some(written) = self.newest_in(&message.raw) {
                let proved = self.proved.entry(message.vgroup).or_insert(written);
                *proved = written.max(*proved);
            }
        }
        let lanes = self.tables.keys().map(ToString::to_string).collect();
        let held = self.proved.iter().map(|(lane, proved)| {
            let before_ms = begun.saturating_duration_since(*proved).as_millis() as u64;
            // What is cut off must not make it younger.
            HeldLane { lane: lane.to_string(), before_ms: if *proved < begun { before_ms + 1 } else { 0 } }
        });
        Ok(Holding { lanes, held: held.collect() })
    }

    async fn write(&mut self, begun: Instant) -> Result<()> {
        self.beat += 1;
        self.beats.push_back((self.beat, begun));
        let surplus = self.beats.len().saturating_sub(BEATS_MAX);
        self.beats.drain(..surplus);
        let text = literal(&format!("{}{:010}", self.own, self.beat));
        let rows = self.tables.values().map(|table| format!("{LOCK_DATABASE}.{table} values ({}, {text})", self.at_ms));
        self.connection.exec(&format!("insert into {}", rows.collect::<Vec<_>>().join(" "))).await?;
        Ok(())
    }

    /// When the newest of our rows in a message was about to be written.
    fn newest_in(&self, raw: &[u8]) -> Option<Instant> {
        let own = self.own.as_bytes();
        let at = raw.windows(own.len()).enumerate().filter(|(_, window)| *window == own).map(|(at, _)| at + own.len());
        let numbers = at.filter_map(|at| std::str::from_utf8(raw.get(at..at + 10)?).ok()?.parse::<u64>().ok());
        let newest = numbers.max()?;
        self.beats.iter().find(|(beat, _)| *beat == newest).map(|(_, written)| *written)
    }
}

/// Makes database, tables and topic where they are missing. A table in each vgroup.
async fn prepare(dsn: &Dsn) -> Result<BTreeMap<i32, String>> {
    // Making a vgroup takes a server seconds.
    let connection = Connection::open(dsn, None, SocketLimits::default()).await?;
    make_database(&connection).await?;
    let vgroups = metadata::vgroups(&connection, LOCK_DATABASE).await?;
    let mut made = 0;
    let tables = loop {
        let tables = tables(&connection).await?;
        if !vgroups.is_empty() && vgroups.iter().all(|vgroup| tables.contains_key(vgroup)) {
            break tables;
        }
        if made >= vgroups.len().max(1) * TABLES_A_LANE_MAX {
            return Err(Error::retry(format!("`{LOCK_DATABASE}` has vgroups that no table falls into")));
        }
        for _ in 0..vgroups.len().max(1) {
            connection
                .exec(&format!("create table if not exists {LOCK_DATABASE}.lane_{made} (ts timestamp, beat varchar({WIDTH}))"))
                .await?;
            made += 1;
        }
    };
    connection.exec(&format!("create topic if not exists {LOCK_DATABASE} as database {LOCK_DATABASE}")).await?;
    Ok(tables)
}

/// Makes the database where it is missing.
pub(super) async fn make_database(connection: &Connection) -> Result<()> {
    if metadata::database(connection, LOCK_DATABASE).await?.is_some() {
        return Ok(());
    }
    let sql = format!("create database if not exists {LOCK_DATABASE} vgroups {LANES} buffer 3 pages 64 wal_retention_period 60");
    let made = connection.exec(&sql).await.map(drop);
    made.map_err(|error| {
        let hint = format!("or make it by hand with fewer vgroups: `create database {LOCK_DATABASE} vgroups 2`");
        Error::retry(format!("the database `{LOCK_DATABASE}` cannot be made: {error}")).hint(hint)
    })
}

/// The first table of each vgroup.
async fn tables(connection: &Connection) -> Result<BTreeMap<i32, String>> {
    let sql = format!("select vgroup_id, table_name from information_schema.ins_tables where db_name = {}", literal(LOCK_DATABASE));
    let rows = connection.query(&sql).await?.texts()?;
    let mut tables: Vec<(i32, String)> =
        rows.into_iter().filter_map(|mut row| Some((row[0].as_deref()?.parse().ok()?, row[1].take()?))).collect();
    tables.retain(|(_, table)| table.starts_with("lane_"));
    tables.sort();
    tables.reverse();
    Ok(tables.into_iter().collect())
}
