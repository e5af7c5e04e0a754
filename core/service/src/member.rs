//! A service as the others that share the tasks know it.

use std::fmt;

use pipeline_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Of a name and of an address, so that both fit into a note.
const BYTES_MAX: usize = 100;

/// One of the services that share the tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Member {
    /// Its machine and its process.
    pub name: String,
    /// Where others reach its admin API over TCP: `HOST:PORT`, or `https://HOST:PORT`. Absent where it listens on a socket alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Member {
    /// # Errors
    /// A name or an address that is too long, or holds white space.
    pub fn new(name: String, address: Option<String>) -> Result<Self> {
        for (what, text) in std::iter::once(("name", &name)).chain(address.iter().map(|address| ("address", address))) {
            if text.is_empty() || text.len() > BYTES_MAX || text.contains(char::is_whitespace) {
                let error = Error::fatal(format!("`{text}` cannot be the {what} by which other services know this one"));
                return Err(error.code("service.member").hint(format!("it has 1 to {BYTES_MAX} bytes, and no white space")));
            }
        }
        Ok(Self { name, address })
    }

    /// As it stands in a note.
    pub(crate) fn note(&self) -> String {
        [Some(self.name.as_str()), self.address.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn of_note(text: &str) -> Self {
        match text.split_once(' ') {
            Some((name, address)) => Self { name: name.into(), address: Some(address.into()) },
            None => Self { name: text.into(), address: None },
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{} at {address}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
