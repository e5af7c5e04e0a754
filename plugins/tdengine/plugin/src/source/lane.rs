//! One lane: a vgroup as one of the two consumers sees it, and its positions.

use bytes::Bytes;
use pipeline_sdk::{Error, Lane, Position, Result, SOURCE_REPLACED};

/// Which consumer a lane belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// Rows and changes.
    Main,
    /// Changes that exclusion hides from the first.
    Meta,
}

/// Name of a lane: the vgroup, and `.meta` for the second consumer.
pub fn lane_name(reader: Reader, vgroup: i32) -> Lane {
    match reader {
        Reader::Main => Lane::new(vgroup.to_string()),
        Reader::Meta => Lane::new(format!("{vgroup}.meta")),
    }
}

/// The reader and vgroup of a lane's name.
pub fn lane_of(lane: &Lane) -> Option<(Reader, i32)> {
    match lane.as_str().strip_suffix(".meta") {
        Some(vgroup) => Some((Reader::Meta, vgroup.parse().ok()?)),
        None => Some((Reader::Main, lane.as_str().parse().ok()?)),
    }
}

/// Where a lane is.
#[derive(Clone, Debug)]
pub struct LaneState {
    pub lane: Lane,
    pub reader: Reader,
    pub vgroup: i32,
    /// Nothing came since it was sought: answers to polls of before may come first.
    pub is_sought: bool,
    /// The next offset to be read as of what was read here.
    pub next: i64,
    /// The position of the last message that was handed out: entries that became none are behind it.
    pub handed_out: i64,
    /// Where the server stood when that was last asked.
    pub stands_at: i64,
    pub sequence: u64,
    /// Last committed upstream by us, or found there.
    pub committed: i64,
}

impl LaneState {
    /// Where the server stands, as it last said, or behind what came since.
    pub fn at(&self) -> i64 {
        self.stands_at.max(self.next)
    }

    /// Whether a message that begins at this offset is the lane's next one. A server hands out an answer to a poll of before a seek, too;
    /// it stands where it was sought to, so that what it answered comes again.
    ///
    /// # Errors
    /// Disconnected when the server went back: the lane was another consumer's meanwhile, and begins where the group had committed.
    pub fn takes(&mut self, begins: i64) -> Result<bool> {
        if begins >= self.next {
            self.is_sought = false;
            return Ok(true);
        }
        if self.is_sought {
            return Ok(false);
        }
        let message = format!("lane {} is handed out from {begins}, where it stood at {}", self.lane, self.next);
        Err(Error::disconnected(message).code("tdengine.lanes"))
    }
}

/// A position: the next offset to be read, and the creation time of the database that it belongs to.
pub fn position(offset: i64, database_created: i64) -> Position {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..].copy_from_slice(&database_created.to_le_bytes());
    Position { bytes: Bytes::copy_from_slice(&bytes), number: Some(offset), display: None }
}

/// The offset of a position of this database.
///
/// # Errors
/// Fatal for a position of another incarnation of the database: its offsets mean nothing here.
pub fn offset_of(position: &Position, database: &str, database_created: i64) -> Result<i64> {
    let (offset, created) = match position.bytes.as_ref().as_chunks::<8>() {
        ([offset, created], []) => (i64::from_le_bytes(*offset), i64::from_le_bytes(*created)),
        _ => return Err(Error::fatal(format!("a stored position of `{database}` is not one of this source"))),
    };
    if created != database_created {
        let message = format!("database `{database}` is not the one that positions are stored for: it was made anew, or this is another cluster");
        return Err(Error::fatal(message).code(SOURCE_REPLACED));
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use pipeline_sdk::Reaction;

    use super::*;

    #[test]
    fn what_was_answered_before_a_seek_is_left_out_and_nothing_else() {
        for (is_sought, begins, expect) in [
            (false, vec![10, 15, 20], vec![Ok(true), Ok(true), Ok(true)]),
            (false, vec![4], vec![Err(Reaction::Disconnected)]),
            (true, vec![4, 7, 10, 12], vec![Ok(false), Ok(false), Ok(true), Ok(true)]),
            (true, vec![4, 14, 4], vec![Ok(false), Ok(true), Err(Reaction::Disconnected)]),
        ] {
            let (lane, reader) = (lane_name(Reader::Main, 2), Reader::Main);
            let mut lane = LaneState { lane, reader, vgroup: 2, is_sought, next: 10, handed_out: 10, stands_at: 10, sequence: 0, committed: 10 };
            let found: Vec<_> = begins.iter().map(|begins| lane.takes(*begins).map_err(|error| error.reaction)).collect();
            assert_eq!(found, expect, "{begins:?}");
        }
    }

    #[test]
    fn lanes_and_positions_read_back() {
        for (reader, vgroup) in [(Reader::Main, 2), (Reader::Meta, 17)] {
            assert_eq!(lane_of(&lane_name(reader, vgroup)), Some((reader, vgroup)));
        }
        assert_eq!(lane_of(&Lane::new("x")), None);
        let place = position(41, 7);
        assert_eq!(offset_of(&place, "d", 7).unwrap(), 41);
        assert_eq!(offset_of(&place, "d", 8).unwrap_err().code, SOURCE_REPLACED);
        assert!(offset_of(&Position::from_number(1), "d", 7).is_err());
    }
}
