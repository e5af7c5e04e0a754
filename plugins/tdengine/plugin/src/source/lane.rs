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
    /// The next offset to be read as of what was read here.
    pub next: i64,
    /// The position of the last message that was handed out: entries that became none are behind it.
    pub handed_out: i64,
    /// Where the server stood when it last had nothing; kept for the second consumer's lanes.
    pub stands_at: i64,
    pub sequence: u64,
    /// Last committed upstream by us, or found there.
    pub committed: i64,
    /// Asked for by the engine, not yet committed upstream.
    pub wanted: Option<i64>,
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
    use super::*;

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
