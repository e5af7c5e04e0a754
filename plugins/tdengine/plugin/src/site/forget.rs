//! Taking away what reading a database left at its site: consumer groups, topics, and the canary.
//!
//! A server allows few topics, so all replicas that read a database share them (FACTS F46); groups tell replicas apart. So only
//! groups that are named go, a topic when no other group is left on it, and the canary when no topic of ours is left at all.

use std::collections::BTreeSet;
use std::time::Duration;

use pipeline_sdk::{Error, Result};
use tdengine_wire::escape::{identifier, literal};
use tokio::time::Instant;

use crate::client::ClientError;
use crate::names::{self, CANARY_DATABASE, LOCK_DATABASE};
use crate::transport::Connection;

/// How long to wait for consumers that are on their way out: a server keeps one that was lost for 12 s and more.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The same, of consumers that tried the canary.
const CANARY_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(250);

/// Removes the groups of these pipelines, and what nobody needs any more then.
///
/// # Errors
/// A group that is in use for longer than a minute, or that the user may not drop.
pub async fn forget(connection: &Connection, prefix: &str, database: &str, pipelines: &[String]) -> Result<()> {
    let ours: BTreeSet<String> = pipelines.iter().map(|pipeline| names::group(pipeline, database)).collect();
    for topic in [names::topic(prefix, database), names::meta_topic(prefix, database)] {
        forget_topic(connection, &topic, &ours).await?;
    }
    forget_canary(connection, prefix).await
}

async fn forget_topic(connection: &Connection, topic: &str, ours: &BTreeSet<String>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let groups = groups_of(connection, topic).await?;
        let mut result = Ok(0);
        for group in groups.iter().filter(|group| ours.contains(*group) || names::is_observer(group)) {
            let dropped = drop_group(connection, topic, group).await;
            // An observer that still looks keeps only itself.
            if ours.contains(group) {
                result = result.and(dropped);
            }
        }
        let others: Vec<&String> = groups.iter().filter(|it| !ours.contains(*it) && !names::is_observer(it)).collect();
        if result.is_ok() {
            if !others.is_empty() {
                tracing::info!(topic, ?others, "a topic stays: others read it");
                return Ok(());
            }
            result = connection.exec(&format!("drop topic if exists {}", identifier(topic))).await;
        }
        match result {
            Ok(_) => return Ok(()),
            Err(error) if is_in_use(&error) && Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(error) => {
                return Err(Error::from(error).hint("stop every pipeline that reads this database, then try again"));
            }
        }
    }
}

/// A group has consumers, or moves lanes; another transaction works on the topic (FACTS F41, F58).
fn is_in_use(error: &ClientError) -> bool {
    matches!(error, ClientError::Server { code: 0x03eb | 0x03ec | 0x03d3 | 0x03ea | 0x03e6, .. })
}

async fn groups_of(connection: &Connection, topic: &str) -> Result<BTreeSet<String>, ClientError> {
    let sql = format!(
        "select distinct consumer_group from information_schema.ins_subscriptions where topic_name = {}",
        literal(topic)
    );
    let rows = connection.query(&sql).await?.texts()?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

async fn drop_group(connection: &Connection, topic: &str, group: &str) -> Result<u64, ClientError> {
    let sql = format!("drop consumer group if exists {} on {}", identifier(group), identifier(topic));
    connection.exec(&sql).await
}

/// Drops the canary once no topic of ours is left. It is a helper that the next replica makes anew: one that cannot be dropped in
/// time is no error.
async fn forget_canary(connection: &Connection, prefix: &str) -> Result<()> {
    let deadline = Instant::now() + CANARY_TIMEOUT;
    while !is_needed(connection, prefix).await? {
        match drop_canary(connection).await {
            Ok(()) => return Ok(()),
            Err(error) if is_in_use(&error) && Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(error) => {
                tracing::debug!(%error, "the canary stays");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether a topic of ours is left: whoever tries the canary made one before (see `source::connect`).
async fn is_needed(connection: &Connection, prefix: &str) -> Result<bool> {
    let rows = connection.query("select topic_name from information_schema.ins_topics").await?.texts()?;
    let starts = [prefix, names::PREFIX_DEFAULT].map(|prefix| format!("{prefix}_"));
    let is_ours = |topic: &str| ![CANARY_DATABASE, LOCK_DATABASE].contains(&topic) && starts.iter().any(|start| topic.starts_with(start));
    Ok(rows.iter().filter_map(|row| row[0].as_deref()).any(is_ours))
}

async fn drop_canary(connection: &Connection) -> Result<(), ClientError> {
    for group in groups_of(connection, CANARY_DATABASE).await? {
        drop_group(connection, CANARY_DATABASE, &group).await?;
    }
    connection.exec(&format!("drop topic if exists {CANARY_DATABASE}")).await?;
    connection.exec(&format!("drop database if exists {CANARY_DATABASE}")).await?;
    Ok(())
}
