//! Tokens seen in COMMENTs: what is dropped or deleted next under that name was done by a replica.
//!
//! Entries of DROP and DELETE hold no text (FACTS F61), so a sink gives the table a token as its comment first. From
//! such an entry on, a DROP or DELETE of that name in that lane is `replicated`, until a DROP or another comment. This is
//! kept in the state store, because the source may be stopped between the two, and with the positions of both, so that
//! what is read again after a restart is judged as it was the first time.

use std::collections::BTreeMap;

use pipeline_sdk::{Context, Error, Result, State};
use serde::{Deserialize, Serialize};

use crate::token::Token;

/// Start of this module's keys in the state store.
const KEY: &str = "v1/token/";

/// A token on a table or super table in a lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    origin: String,
    /// Position behind the entry with the token.
    opened: i64,
    /// Position behind the entry that ended it.
    closed: Option<i64>,
}

/// All tokens that may still matter.
pub struct PendingTokens {
    state: State,
    by_key: BTreeMap<String, Vec<Pending>>,
}

impl PendingTokens {
    /// Reads what an earlier process stored.
    pub fn load(context: &Context) -> Result<Self> {
        let state = context.state();
        let mut by_key = BTreeMap::new();
        for key in state.keys(KEY)? {
            let Some(bytes) = state.get(&key)? else { continue };
            let pending = serde_json::from_slice(&bytes)
                .map_err(|error| Error::fatal(format!("stored state `{key}` is not readable: {error}")))?;
            by_key.insert(key, pending);
        }
        Ok(Self { state, by_key })
    }

    /// A comment was set on `name`: with a token it opens, without it closes.
    pub fn comment(&mut self, lane: &str, name: &str, position: i64, token: Option<&Token>) -> Result<()> {
        let key = key(lane, name);
        self.close(&key, position)?;
        let Some(token) = token else { return Ok(()) };
        let all = self.by_key.entry(key.clone()).or_default();
        if !all.iter().any(|pending| pending.opened == position) {
            all.push(Pending { origin: token.origin.clone(), opened: position, closed: None });
            self.store(&key)?;
        }
        Ok(())
    }

    /// The site that dropped `name` by way of a replica, if so. Ends the token.
    pub fn drop_of(&mut self, lane: &str, name: &str, position: i64) -> Result<Option<String>> {
        let key = key(lane, name);
        let origin = self.open_at(&key, position);
        self.close(&key, position)?;
        Ok(origin)
    }

    /// The site that deleted from `name` by way of a replica, if so.
    pub fn delete_from(&self, lane: &str, name: &str, position: i64) -> Option<String> {
        self.open_at(&key(lane, name), position)
    }

    /// Position behind the oldest token in a lane that nothing ended yet.
    pub fn oldest_open(&self, lane: &str) -> Option<i64> {
        let prefix = key(lane, "");
        let of_lane = self.by_key.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        of_lane.flat_map(|(_, all)| all).filter(|pending| pending.closed.is_none()).map(|pending| pending.opened).min()
    }

    /// Forgets what ended before `position`, which the lane will never read again.
    pub fn forget(&mut self, lane: &str, position: i64) -> Result<()> {
        let prefix = key(lane, "");
        let of_lane = self.by_key.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let keys: Vec<String> = of_lane.map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(all) = self.by_key.get_mut(&key) else { continue };
            let before = all.len();
            all.retain(|pending| pending.closed.is_none_or(|closed| closed > position));
            if all.len() != before {
                self.store(&key)?;
            }
        }
        Ok(())
    }

    fn open_at(&self, key: &str, position: i64) -> Option<String> {
        let pending = self.by_key.get(key)?.iter().rev().find(|pending| {
            pending.opened < position && pending.closed.is_none_or(|closed| closed >= position)
        })?;
        Some(pending.origin.clone())
    }

    fn close(&mut self, key: &str, position: i64) -> Result<()> {
        let Some(all) = self.by_key.get_mut(key) else { return Ok(()) };
        let Some(pending) = all.iter_mut().find(|pending| pending.closed.is_none() && pending.opened < position) else {
            return Ok(());
        };
        pending.closed = Some(position);
        self.store(key)
    }

    fn store(&mut self, key: &str) -> Result<()> {
        match self.by_key.get(key).filter(|all| !all.is_empty()) {
            Some(all) => self.state.put(key, &serde_json::to_vec(all).expect("plain JSON")),
            None => {
                self.by_key.remove(key);
                self.state.delete(key)
            }
        }
    }
}

fn key(lane: &str, name: &str) -> String {
    format!("{KEY}{lane}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { origin: "7".into(), lane: "2".into(), position: "1".into() }
    }

    #[test]
    fn the_first_drop_after_a_token_is_replicated_and_no_other() {
        let context = Context::detached();
        let mut tokens = PendingTokens::load(&context).unwrap();
        assert_eq!(tokens.drop_of("2", "t", 5).unwrap(), None, "no token yet");
        tokens.comment("2", "t", 10, Some(&token())).unwrap();
        assert_eq!(tokens.oldest_open("2"), Some(10));
        assert_eq!(tokens.drop_of("3", "t", 11).unwrap(), None, "another lane");
        assert_eq!(tokens.drop_of("2", "u", 11).unwrap(), None, "another table");
        assert_eq!(tokens.drop_of("2", "t", 12).unwrap(), Some("7".into()));
        assert_eq!(tokens.drop_of("2", "t", 20).unwrap(), None, "a user's own, later");
        assert_eq!(tokens.oldest_open("2"), None);
    }

    #[test]
    fn what_is_read_again_is_judged_as_before() {
        let context = Context::detached();
        let mut tokens = PendingTokens::load(&context).unwrap();
        tokens.comment("2", "t", 10, Some(&token())).unwrap();
        tokens.drop_of("2", "t", 12).unwrap();
        let mut tokens = PendingTokens::load(&context).unwrap();
        assert_eq!(tokens.drop_of("2", "t", 12).unwrap(), Some("7".into()), "from between the two");
        tokens.comment("2", "t", 10, Some(&token())).unwrap();
        assert_eq!(tokens.drop_of("2", "t", 12).unwrap(), Some("7".into()), "from before both");
        assert_eq!(tokens.drop_of("2", "t", 20).unwrap(), None);
        tokens.forget("2", 12).unwrap();
        assert_eq!(tokens.drop_of("2", "t", 12).unwrap(), None, "forgotten once it cannot be read again");
    }

    #[test]
    fn a_delete_stands_between_two_comments() {
        let context = Context::detached();
        let mut tokens = PendingTokens::load(&context).unwrap();
        tokens.comment("2", "t", 10, Some(&token())).unwrap();
        assert_eq!(tokens.delete_from("2", "t", 11), Some("7".into()));
        assert_eq!(tokens.delete_from("2", "t", 12), Some("7".into()));
        tokens.comment("2", "t", 13, None).unwrap();
        assert_eq!(tokens.delete_from("2", "t", 14), None);
        assert_eq!(tokens.drop_of("2", "t", 15).unwrap(), None);
    }
}
