//! What a replica would find at a site, read without writing anything.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use pipeline_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use tdengine_wire::escape::literal;
use tokio::time::Instant;

use super::digest::columns_text;
use crate::dsn::Dsn;
use crate::metadata;
use crate::names;
use crate::transport::Connection;

/// Topics that a cluster allows unless told otherwise (FACTS F46).
const TOPICS_DEFAULT: usize = 20;
/// Tables whose definitions are read of one database; super tables first. Each costs a statement.
pub const DEFINITIONS_MAX: usize = 1_000;

/// A site in the terms of [`super::review`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// As it may be printed.
    pub address: String,
    /// The cluster id.
    pub identity: String,
    /// Of the server: `3.3.0.1`.
    pub version: String,
    /// The site's clock minus this machine's, in milliseconds, as far as the way there and back tells.
    pub clock_offset_ms: i64,
    /// Half of the way there and back: the offset is no more exact than this.
    pub clock_error_ms: i64,
    pub user: String,
    pub is_super: bool,
    /// `read power`, `write *`; of a super user empty.
    pub rights: Vec<String>,
    pub topics: Vec<String>,
    pub topics_max: usize,
    /// Topics that reading the databases needs.
    pub topics_needed: Vec<String>,
    /// Those asked for that exist.
    pub databases: BTreeMap<String, DatabaseFacts>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatabaseFacts {
    pub precision: String,
    /// In minutes: how long rows are kept.
    pub keep_min: Option<i64>,
    pub wal_level: i64,
    /// How long the log is kept; negative is for ever.
    pub wal_retention_s: i64,
    pub vgroups: i64,
    pub tables: i64,
    /// Super tables and normal tables with columns and tags in a canonical form.
    pub definitions: BTreeMap<String, String>,
}

/// Reads all of it.
///
/// # Errors
/// A site that does not answer, or does not let the user look.
pub async fn look(connection: &Connection, dsn: &Dsn, prefix: &str, databases: &[String]) -> Result<Facts> {
    let version = metadata::version(connection).await?;
    let (clock_offset_ms, clock_error_ms) = clock(connection).await?;
    let (is_super, rights) = rights(connection, &dsn.user).await;
    let topics = column(connection, "select topic_name from information_schema.ins_topics").await?;
    let mut found = BTreeMap::new();
    let mut topics_needed = Vec::new();
    for name in databases {
        topics_needed.extend([names::topic(prefix, name), names::meta_topic(prefix, name)]);
        if let Some(facts) = database(connection, name).await? {
            found.insert(name.clone(), facts);
        }
    }
    topics_needed.push(names::CANARY_DATABASE.into());
    Ok(Facts {
        address: dsn.to_string(),
        identity: metadata::cluster_id(connection).await?,
        version,
        clock_offset_ms,
        clock_error_ms,
        user: dsn.user.clone(),
        is_super,
        rights,
        topics,
        topics_max: topics_max(connection).await,
        topics_needed,
        databases: found,
    })
}

async fn database(connection: &Connection, name: &str) -> Result<Option<DatabaseFacts>> {
    let sql = format!(
        "select `precision`, `keep`, `wal_level`, `wal_retention_period`, `vgroups`, ntables \
         from information_schema.ins_databases where name = {}",
        literal(name)
    );
    let rows = connection.query(&sql).await?.texts()?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text = |index: usize| row.get(index).and_then(Option::as_deref).unwrap_or_default();
    let number = |index: usize| text(index).parse().unwrap_or_default();
    Ok(Some(DatabaseFacts {
        precision: text(0).into(),
        keep_min: keep_minutes(text(1)),
        wal_level: number(2),
        wal_retention_s: number(3),
        vgroups: number(4),
        tables: number(5),
        definitions: definitions(connection, name).await?,
    }))
}

/// Of `5256000m,5256000m,5256000m` or `3650d,…` the last tier: what is older is gone.
fn keep_minutes(text: &str) -> Option<i64> {
    let last = text.split(',').next_back()?.trim();
    let digits = last.find(|character: char| !character.is_ascii_digit()).unwrap_or(last.len());
    let number: i64 = last[..digits].parse().ok()?;
    let minutes_each = match &last[digits..] {
        "m" => 1,
        "h" => 60,
        // Without a unit it is days.
        "d" | "" => 1_440,
        _ => return None,
    };
    Some(number * minutes_each)
}

async fn definitions(connection: &Connection, database: &str) -> Result<BTreeMap<String, String>> {
    let stables = metadata::stables(connection, database).await?;
    let sql = format!(
        "select table_name from information_schema.ins_tables where db_name = {} and stable_name is null limit {DEFINITIONS_MAX}",
        literal(database)
    );
    let normal = column(connection, &sql).await?;
    let mut definitions = BTreeMap::new();
    for name in stables.into_iter().chain(normal).take(DEFINITIONS_MAX) {
        let Some(definition) = metadata::describe(connection, database, &name).await? else { continue };
        let mut text = columns_text("columns", &definition.columns);
        if !definition.tags.is_empty() {
            text = format!("{text} {}", columns_text("tags", &definition.tags));
        }
        definitions.insert(name, text);
    }
    Ok(definitions)
}

/// Milliseconds that the site is ahead of this machine, and how uncertain that is.
async fn clock(connection: &Connection) -> Result<(i64, i64)> {
    let started = Instant::now();
    let before = wall_clock_ms();
    let there = first_text(connection, "select cast(now() as bigint)").await?;
    let way = started.elapsed().as_millis() as i64;
    let there: i64 = there
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::fatal(format!("{} does not tell the time", connection.place())))?;
    Ok((there - (before + way / 2), (way + 1) / 2))
}

fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Whether the user may do everything, and else what was granted. A site that does not tell is taken at its word at the first
/// statement that it refuses.
async fn rights(connection: &Connection, user: &str) -> (bool, Vec<String>) {
    let of = literal(user);
    let sql = format!("select `super` from information_schema.ins_users where name = {of}");
    let is_super = first_text(connection, &sql).await.ok().flatten().is_some_and(|text| text == "1");
    let sql = format!("select privilege, db_name from information_schema.ins_user_privileges where user_name = {of}");
    let granted = connection.query(&sql).await.and_then(|rows| rows.texts()).unwrap_or_default();
    let right = |row: Vec<Option<String>>| {
        let mut texts = row.into_iter().map(Option::unwrap_or_default);
        let (privilege, database) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        let database = if database.is_empty() || database == "all" { "*".into() } else { database };
        format!("{} {database}", privilege.to_lowercase())
    };
    (is_super, granted.into_iter().map(right).collect())
}

async fn topics_max(connection: &Connection) -> usize {
    let sql = "select `value` from information_schema.ins_dnode_variables where name = 'tmqMaxTopicNum' limit 1";
    let told = first_text(connection, sql).await.ok().flatten();
    told.and_then(|text| text.parse().ok()).unwrap_or(TOPICS_DEFAULT)
}

async fn first_text(connection: &Connection, sql: &str) -> Result<Option<String>> {
    Ok(column(connection, sql).await?.into_iter().next())
}

/// The first column of every row that has one.
async fn column(connection: &Connection, sql: &str) -> Result<Vec<String>> {
    let rows = connection.query(sql).await?.texts()?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_is_told_in_every_unit() {
        for (text, expect) in [
            ("3650d,3650d,3650d", Some(5_256_000)),
            ("5256000m", Some(5_256_000)),
            ("24h", Some(1_440)),
            ("10,20,30", Some(43_200)),
            ("", None),
            ("1y", None),
        ] {
            assert_eq!(keep_minutes(text), expect, "{text}");
        }
    }
}
