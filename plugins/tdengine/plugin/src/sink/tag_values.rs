//! Values of tags that came under a name which is not here, kept until the log tells what became of their tag.
//!
//! A user here has renamed or dropped the tag, and the source made a child or set the value before that reached it; or a schemaless
//! write added the tag at the source, which is told another way (FACTS F10). An entry holds the tag's id, and the log shows ids and
//! names again with the change that is on its way: then the value is written, or forgotten with its tag.

use pipeline_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tdengine_wire::escape::{identifier, literal};
use tdengine_wire::DataType;
use tokio::time::Instant;

use super::NOT_ANNOUNCED;
use super::origin::{OriginStable, TagNow};
use super::target::Target;
use crate::client::ClientError;
use crate::errors::wire_error;
use crate::log::change::{SetTag, Tag};
use crate::metadata::Definition;
use crate::transport::Connection;

const KEY: &str = "v1/tag-value/";
/// Values kept at once; with more the lane waits, up to `announce-timeout`.
const KEPT_MAX: usize = 1_000;
/// Values that a report names.
const SHOWN_MAX: usize = 20;

/// A value that waits for its tag.
#[derive(Serialize, Deserialize)]
struct Kept {
    stable: String,
    table: String,
    /// The tag at the source, and its name in the entry.
    id: i16,
    name: String,
    code: u8,
    value: Option<Vec<u8>>,
    time_ms: i64,
    /// Of a new child, which has no value here: one that was set since is newer.
    is_first: bool,
}

impl Kept {
    fn data_type(&self) -> Result<DataType> {
        DataType::from_code(self.code).map_err(wire_error)
    }
}

/// Keeps the value of a new child's tag.
pub fn keep_first(target: &mut Target, stable: &str, table: &str, created_ms: i64, tag: &Tag) -> Result<()> {
    let kept = Kept {
        stable: stable.into(),
        table: table.into(),
        id: tag.id,
        name: tag.name.clone(),
        code: tag.data_type.code(),
        value: Some(tag.bytes.clone()),
        time_ms: created_ms,
        is_first: true,
    };
    keep(target, &kept)
}

/// Keeps a new value.
pub fn keep_set(target: &mut Target, stable: &str, table: &str, id: i16, set: &SetTag) -> Result<()> {
    let kept = Kept {
        stable: stable.into(),
        table: table.into(),
        id,
        name: set.name.clone(),
        code: set.data_type.code(),
        value: set.value.clone(),
        time_ms: set.time_ms,
        is_first: false,
    };
    keep(target, &kept)
}

fn keep(target: &mut Target, kept: &Kept) -> Result<()> {
    let (state, key) = (target.context.shared_state(), key(target, &kept.table, kept.id));
    let is_full = state.get(&key)?.is_none() && state.keys(&prefix(target))?.len() >= KEPT_MAX;
    if is_full && target.waits_since.get_or_insert_with(Instant::now).elapsed() <= target.announce_timeout {
        let message = format!("{KEPT_MAX} values wait for tags that the log of the source has not told of yet");
        return Err(Error::retry(message).code(NOT_ANNOUNCED).hint("it is waited for, up to `announce-timeout`"));
    }
    // A JSON tag has no id to be told by.
    if is_full || kept.id == 0 {
        report(target, &[kept]);
        return Ok(());
    }
    target.tag_values_since.get_or_insert_with(Instant::now);
    state.put(&key, &serde_json::to_vec(kept).expect("plain JSON"))
}

/// A newer value was written.
pub fn forget(target: &Target, table: &str, id: i16) -> Result<()> {
    let (state, key) = (target.context.shared_state(), key(target, table, id));
    if state.get(&key)?.is_some() { state.delete(&key) } else { Ok(()) }
}

/// A table is gone.
pub fn forget_table(target: &Target, table: &str) -> Result<()> {
    forget_all(target, |kept| kept.table == table)
}

/// A super table is gone.
pub fn forget_stable(target: &Target, stable: &str) -> Result<()> {
    forget_all(target, |kept| kept.stable == stable)
}

fn forget_all(target: &Target, is_gone: impl Fn(&Kept) -> bool) -> Result<()> {
    for (key, _) in all(target)?.into_iter().filter(|(_, kept)| is_gone(kept)) {
        target.context.shared_state().delete(&key)?;
    }
    Ok(())
}

/// More is known of the super table at the source: writes what has its tag now. Under the lock on definitions.
pub async fn settle(target: &Target, connection: &Connection, stable: &str, origin: &OriginStable) -> Result<()> {
    for (key, kept) in all(target)?.into_iter().filter(|(_, kept)| kept.stable == stable) {
        let is_settled = match origin.tag_now(kept.id) {
            TagNow::Dropped => {
                target.context.count("values_left_out", 1);
                true
            }
            TagNow::NotAnnounced => false,
            TagNow::Named(tag) => write(target, connection, &kept, tag).await?,
        };
        if is_settled {
            target.context.shared_state().delete(&key)?;
        }
    }
    Ok(())
}

/// Whether nothing is left to do. A tag that is not here by this name either was changed again: that is on its way, too.
async fn write(target: &Target, connection: &Connection, kept: &Kept, tag: &str) -> Result<bool> {
    if !has_tag(target, connection, &kept.stable, tag).await? {
        return Ok(false);
    }
    if kept.is_first && has_value(target, connection, &kept.table, tag).await? {
        return Ok(true);
    }
    let set = SetTag::new(&kept.table, i32::from(kept.id), tag, kept.data_type()?, kept.value.clone(), kept.time_ms);
    match write_set(target, connection, &kept.table, &set, tag).await {
        Ok(()) => {
            target.context.count("changes_applied", 1);
            Ok(true)
        }
        Err(ClientError::Server { code, .. }) if super::changes::is_missing(code) => Ok(true),
        Err(ClientError::Server { code, .. }) if is_tag_missing(code) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets a tag by the name that it has here: marked in a replica.
pub async fn write_set(target: &Target, connection: &Connection, table: &str, set: &SetTag, tag: &str) -> Result<(), ClientError> {
    if target.marks {
        return target.write_raw(connection, &set.raw_named(tag)?).await;
    }
    target.exec(connection, &statement(target, table, set, tag)).await
}

/// As a statement.
pub fn statement(target: &Target, table: &str, set: &SetTag, tag: &str) -> String {
    format!("alter table {} set tag {} = {}", target.qualified(table), identifier(tag), set.to_sql())
}

/// There is no such tag: by SQL (PROTOCOL 15), and raw (0x0526, as for columns).
pub fn is_tag_missing(code: u32) -> bool {
    matches!(code, 0x2649 | 0x260e | 0x2602 | 0x0526)
}

/// Whether the super table has the tag here.
pub async fn has_tag(target: &Target, connection: &Connection, stable: &str, tag: &str) -> Result<bool> {
    let has = |here: &Definition| here.tag(tag).is_some();
    let here = target.shared.definition_with(connection, &target.database, stable, has).await?;
    Ok(here.as_deref().is_some_and(has))
}

async fn has_value(target: &Target, connection: &Connection, table: &str, tag: &str) -> Result<bool> {
    let sql = format!(
        "select tag_value from information_schema.ins_tags where db_name = {} and table_name = {} and tag_name = {}",
        literal(&target.database),
        literal(table),
        literal(tag)
    );
    let rows = connection.query(&sql).await?.texts()?;
    Ok(rows.first().is_some_and(|row| row[0].is_some()))
}

/// Reports, once, values whose tag was not told in time; they are kept all the same.
pub fn report_overdue(target: &mut Target) -> Result<()> {
    if target.tag_values_since.is_none_or(|since| since.elapsed() <= target.announce_timeout) {
        return Ok(());
    }
    target.tag_values_since = None;
    let waiting = all(target)?;
    if !waiting.is_empty() {
        report(target, &waiting.iter().map(|(_, kept)| kept).collect::<Vec<_>>());
    }
    Ok(())
}

fn report(target: &Target, values: &[&Kept]) {
    target.context.count("values_left_out", values.len() as u64);
    let shown: Vec<_> = values.iter().take(SHOWN_MAX).map(|kept| json!({ "table": kept.table, "tag": kept.name })).collect();
    let (first, database) = (values[0], &target.database);
    let message = format!(
        "{} values of tags that are not here, such as `{}` of `{database}`.`{}`: they are left out unless the log tells of the tag",
        values.len(),
        first.name,
        first.table
    );
    target.context.incident("left-out", message, json!({ "values": shown }));
}

fn all(target: &Target) -> Result<Vec<(String, Kept)>> {
    let state = target.context.shared_state();
    let mut all = Vec::new();
    for key in state.keys(&prefix(target))? {
        let Some(bytes) = state.get(&key)? else { continue };
        let kept = serde_json::from_slice(&bytes)
            .map_err(|error| Error::fatal(format!("stored state `{key}` is not readable: {error}")))?;
        all.push((key, kept));
    }
    Ok(all)
}

fn prefix(target: &Target) -> String {
    format!("{KEY}{}/", target.database)
}

fn key(target: &Target, table: &str, id: i16) -> String {
    format!("{}{table}/{id}", prefix(target))
}
