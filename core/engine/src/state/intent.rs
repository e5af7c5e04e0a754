//! What a sink may have written beyond its checkpoint.

use std::collections::BTreeMap;

use pipeline_sdk::{Checkpoint, Error, Lane, Result};
use serde::{Deserialize, Serialize};

/// Up to where an instance of a sink may have written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    #[serde(flatten)]
    pub upto: Checkpoint,
    /// By lane, where positions have numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<Lane, RowCounts>,
}

/// Rows of a lane since a session began: up to the intent, and at some of the positions before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowCounts {
    pub upto: u64,
    /// Number of a position, and rows up to it; in order.
    pub barriers: Vec<(i64, u64)>,
}

impl RowCounts {
    /// Rows that may have been written behind a position: rather too many. `None` where that is not known.
    pub fn behind(&self, number: i64) -> Option<u64> {
        let (_, rows) = self.barriers.iter().rev().find(|(barrier, _)| *barrier <= number)?;
        Some(self.upto.saturating_sub(*rows))
    }
}

impl Intent {
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an intent is plain JSON")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes).map_err(|error| Error::fatal(format!("an intent is not readable: {error}")))
    }
}
