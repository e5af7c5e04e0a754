//! Changes that the target refuses because something of a user's is in the way: a topic that selects the column, say
//! (0x03C4, 0x03ED; FACTS F69). They are kept, shown, and tried again; rows go on by name meanwhile.

use std::sync::atomic::Ordering;

use pipeline_sdk::{Error, Result};
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

#[derive(Serialize, Deserialize)]
struct Parked {
    name: String,
    statement: String,
    code: u32,
}

/// Keeps a statement for later, and tells which topics are in its way (FACTS F69).
pub async fn park(
    target: &Target,
    connection: &Connection,
    name: &str,
    statement: &str,
    code: u32,
    message: &str,
) -> Result<()> {
    let state = target.context.shared_state();
    let number = state.keys(KEY)?.len();
    if number >= PARKED_MAX {
        return Err(Error::fatal(format!("{number} changes are parked already: see what forbids them")));
    }
    let key = format!("{KEY}{}/{name}/{:016x}", target.database, xxhash_rust::xxh3::xxh3_64(statement.as_bytes()));
    let parked = Parked { name: name.into(), statement: statement.into(), code };
    state.put(&key, &serde_json::to_vec(&parked).expect("plain JSON"))?;
    target.shared.has_parked.store(true, Ordering::Release);
    let topics = metadata::topics_of_users(connection, &target.database).await?;
    let text = format!(
        "`{}`.`{name}` cannot be changed while a topic here uses it ({message}): {}; it is tried again",
        target.database,
        topics.join(", ")
    );
    let detail = json!({ "statement": statement, "code": format!("0x{code:04X}"), "topics": topics });
    target.context.incident("parked-change", text, detail);
    Ok(())
}

/// Tries what is parked again, at most once an interval.
pub async fn retry(target: &mut Target, connection: &Connection) -> Result<()> {
    let is_due = target.last_parked_try.elapsed() >= target.parked_interval;
    if !(is_due && target.shared.has_parked.swap(false, Ordering::AcqRel)) {
        return Ok(());
    }
    target.last_parked_try = Instant::now();
    let state = target.context.shared_state();
    let keys = state.keys(&format!("{KEY}{}/", target.database))?;
    target.shared.has_parked.fetch_or(!keys.is_empty(), Ordering::AcqRel);
    for key in keys {
        let Some(bytes) = state.get(&key)? else { continue };
        let mut parked: Parked = serde_json::from_slice(&bytes)
            .map_err(|error| Error::fatal(format!("stored state `{key}` is not readable: {error}")))?;
        let shared = target.shared.clone();
        let _held = shared.definitions.write().await;
        match target.exec(connection, &parked.statement).await {
            Ok(()) => {}
            Err(ClientError::Server { code, .. }) if changes::is_settled(code) => {}
            Err(ClientError::Server { code, message, .. }) if reaction_to(code) != CodeReaction::Reconnect => {
                let is_told = matches!(reaction_to(code), CodeReaction::Park | CodeReaction::Retry) || code == parked.code;
                if !is_told {
                    parked.code = code;
                    state.put(&key, &serde_json::to_vec(&parked).expect("plain JSON"))?;
                    let text = format!("{} cannot be changed ({message}); it is tried again", target.place_of(&parked.name));
                    let detail = json!({ "statement": parked.statement, "code": format!("0x{code:04X}") });
                    target.context.incident("parked-change", text, detail);
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        state.delete(&key)?;
        target.shared.forget();
    }
    Ok(())
}
