//! Checkpoints: for each lane the position behind which a source resumes.
//!
//! A checkpoint crosses the boundary and is stored as JSON: `{"LANE": {"position": "HEX", "number": 7}}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::message::{Lane, Position};

/// Lane → position. A lane that is absent starts where the source's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checkpoint {
    pub lanes: BTreeMap<Lane, Position>,
}

impl Checkpoint {
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a checkpoint is plain JSON")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes).map_err(|error| Error::fatal(format!("a checkpoint is not readable: {error}")))
    }
}

/// How far a lane is. Each is absent where the source does not know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneProgress {
    pub lane: Lane,
    /// The oldest position still kept: a stored one below it is a hole (invariant `no-silent-hole`).
    pub oldest: Option<Position>,
    /// The next position to be read.
    pub current: Option<Position>,
    /// The next position to be written.
    pub latest: Option<Position>,
    /// How long the log keeps an entry, at least; absent where that is not bounded by time, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<i64>,
    /// Whether nothing comes behind `latest`: how much of the lane is done can be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredPosition {
    position: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    display: Option<String>,
}

impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        StoredPosition {
            position: self.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            number: self.number,
            display: self.display.as_deref().map(str::to_owned),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let stored = StoredPosition::deserialize(deserializer)?;
        let bytes = decode_hex(&stored.position)
            .ok_or_else(|| serde::de::Error::custom(format!("`{}` is not hexadecimal", stored.position)))?;
        Ok(Self { bytes: bytes.into(), number: stored.number, display: stored.display.map(Arc::from) })
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_as_it_was_stored() {
        let mut checkpoint = Checkpoint::default();
        checkpoint.lanes.insert(Lane::new("vgroup 2"), Position::from_number(-7));
        let odd = Position { bytes: vec![0, 255].into(), number: None, display: Some("file:3".into()) };
        checkpoint.lanes.insert(Lane::new("é"), odd);
        assert_eq!(Checkpoint::decode(&checkpoint.encode()).unwrap(), checkpoint);
    }

    #[test]
    fn a_torn_checkpoint_is_an_error() {
        for torn in [&b"{\"a\":"[..], b"{\"a\":{\"position\":\"0g\"}}", b"{\"a\":{\"position\":\"123\"}}"] {
            assert!(Checkpoint::decode(torn).is_err(), "{torn:?}");
        }
    }
}
