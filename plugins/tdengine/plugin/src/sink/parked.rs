//! Changes that the target refuses because something of a user's is in the way: a topic that selects the column, say
//! (0x03C4, 0x03ED; FACTS F69). They are kept, shown, and tried again in their order; rows go on by name meanwhile.
//!
//! A change goes only when it is done, has nothing left to do, or what it takes away was made again at the source meanwhile.

use std::sync::atomic::Ordering;

use pipeline_sdk::{Error, Result, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::changes;
use super::target::Target;
use crate::client::ClientError;
use crate::metadata;
use crate::transport::Connection;
use crate::errors::{CodeReaction, reaction_to};

const KEY: &str = "v1/parked/";
/// Changes kept at once.
const PARKED_MAX: usize = 1_000;

/// A change that was refused.
#[derive(Serialize, Deserialize)]
pub struct Parked {
    /// The table or super table.
    name: String,
    statement: String,
    /// What was written instead of the statement, marked: it must not come back later either.
    #[serde(default)]
    raw: Option<Vec<u8>>,
    #[serde(default)]
    takes: Takes,
    code: u32,
    /// They are tried in this order.
    #[serde(default)]
    number: u64,
}

/// What a change takes away: what comes under that name later is not what was meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Takes {
    #[default]
    Nothing,
    Table,
    Stable,
    /// A column, a tag, or a tag's value.
    Field(String),
}

impl Takes {
    /// The statement that takes the token off what is not dropped after all: a user's drop of it is one to replicate.
    fn without_token(&self, table: &str) -> Option<String> {
        match self {
            Self::Table => Some(format!("alter table {table} comment ''")),
            Self::Stable => Some(format!("alter stable {table} comment ''")),
            Self::Nothing | Self::Field(_) => None,
        }
    }
}

impl Parked {
    pub fn new(name: &str, statement: &str, takes: Takes) -> Self {
        Self { name: name.into(), statement: statement.into(), raw: None, takes, code: 0, number: 0 }
    }

    pub fn raw(self, raw: Option<&[u8]>) -> Self {
        Self { raw: raw.map(Into::into), ..self }
    }

    async fn run(&self, target: &Target, connection: &Connection) -> Result<(), ClientError> {
        match &self.raw {
            Some(raw) => target.write_raw(connection, raw).await,
            None => target.exec(connection, &self.statement).await,
        }
    }
}

/// Keeps a change for later, and tells which topics are in its way (FACTS F69). Under the lock on definitions.
pub async fn park(target: &Target, connection: &Connection, change: Parked, code: u32, message: &str) -> Result<()> {
    let state = target.context.shared_state();
    let count = state.keys(KEY)?.len();
    if count >= PARKED_MAX {
        return Err(Error::fatal(format!("{count} changes are parked already: see what forbids them")));
    }
    let number = all(target)?.last().map_or(1, |(_, last)| last.number + 1);
    let parked = Parked { code, number, ..change };
    let hash = xxhash_rust::xxh3::xxh3_64(parked.raw.as_deref().unwrap_or(parked.statement.as_bytes()));
    put(&state, &format!("{}{}/{hash:016x}", prefix(target), parked.name), &parked)?;
    target.shared.has_parked.store(true, Ordering::Release);
    let topics = metadata::topics_of_users(connection, &target.database).await?;
    let place = target.place_of(&parked.name);
    let text = format!("{place} cannot be changed while a topic here uses it ({message}): {}; it is tried again", topics.join(", "));
    let detail = json!({ "statement": parked.statement, "code": format!("0x{code:04X}"), "topics": topics });
    target.context.incident("parked-change", text, detail);
    Ok(())
}

/// The source has `name`, with the fields that `has` tells: what was to take them away is left out, since they were made again. Under
/// the lock on definitions.
pub async fn discard(target: &Target, connection: &Connection, name: &str, has: impl Fn(&str) -> bool) -> Result<()> {
    if !target.shared.has_parked.load(Ordering::Acquire) {
        return Ok(());
    }
    for (key, parked) in all(target)?.into_iter().filter(|(_, parked)| parked.name == name) {
        let is_outdated = match &parked.takes {
            Takes::Nothing => false,
            Takes::Table | Takes::Stable => true,
            Takes::Field(field) => has(field),
        };
        if !is_outdated {
            continue;
        }
        if let Some(sql) = parked.takes.without_token(&target.qualified(name)).filter(|_| target.marks) {
            changes::tolerate(target.exec(connection, &sql).await, changes::is_settled)?;
        }
        target.context.shared_state().delete(&key)?;
        let text = format!("{}: a parked change is left out, what it takes away was made again at the source", target.place_of(name));
        target.context.incident("parked-change", text, json!({ "statement": parked.statement }));
    }
    Ok(())
}

/// A table or super table is dropped, and with it what was to be changed.
pub fn forget(target: &Target, name: &str) -> Result<()> {
    if !target.shared.has_parked.load(Ordering::Acquire) {
        return Ok(());
    }
    for (key, _) in all(target)?.into_iter().filter(|(_, parked)| parked.name == name) {
        target.context.shared_state().delete(&key)?;
    }
    Ok(())
}

/// Whether what is parked is to be tried again: at most once an interval.
pub fn is_due(target: &Target) -> bool {
    target.last_parked_try.elapsed() >= target.parked_interval && target.shared.has_parked.load(Ordering::Acquire)
}

/// Tries what is parked again, when that is due. The target's database is the connection's.
pub async fn retry(target: &mut Target, connection: &Connection) -> Result<()> {
    if !is_due(target) {
        return Ok(());
    }
    target.last_parked_try = Instant::now();
    let (state, shared) = (target.context.shared_state(), target.shared.clone());
    let parked = {
        let _held = shared.definitions.write().await;
        let parked = all(target)?;
        shared.has_parked.store(!parked.is_empty(), Ordering::Release);
        parked
    };
    for (key, _) in parked {
        let _held = shared.definitions.write().await;
        // Another lane may have done it.
        let Some(mut parked) = get(&state, &key)? else { continue };
        match parked.run(target, connection).await {
            Ok(()) => {}
            Err(ClientError::Server { code, .. }) if changes::is_settled(code) => {}
            Err(ClientError::Server { code, message, .. }) if reaction_to(code) != CodeReaction::Reconnect => {
                let is_told = matches!(reaction_to(code), CodeReaction::Park | CodeReaction::Retry) || code == parked.code;
                if !is_told {
                    parked.code = code;
                    put(&state, &key, &parked)?;
                    let text = format!("{} cannot be changed ({message}); it is tried again", target.place_of(&parked.name));
                    let detail = json!({ "statement": parked.statement, "code": format!("0x{code:04X}") });
                    target.context.incident("parked-change", text, detail);
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        state.delete(&key)?;
        shared.forget();
    }
    Ok(())
}

/// Everything that is parked, in its order.
fn all(target: &Target) -> Result<Vec<(String, Parked)>> {
    let state = target.context.shared_state();
    let mut all = Vec::new();
    for key in state.keys(&prefix(target))? {
        all.extend(get(&state, &key)?.map(|parked| (key, parked)));
    }
    all.sort_by_key(|(_, parked)| parked.number);
    Ok(all)
}

fn get(state: &State, key: &str) -> Result<Option<Parked>> {
    let Some(bytes) = state.get(key)? else { return Ok(None) };
    let parked = serde_json::from_slice(&bytes).map_err(|error| Error::fatal(format!("stored state `{key}` is not readable: {error}")))?;
    Ok(Some(parked))
}

fn put(state: &State, key: &str, parked: &Parked) -> Result<()> {
    state.put(key, &serde_json::to_vec(parked).expect("plain JSON"))
}

fn prefix(target: &Target) -> String {
    format!("{KEY}{}/", target.database)
}
