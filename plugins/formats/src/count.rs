//! Positions of what cannot be read again: a count of what was handed out.

use std::sync::Arc;

use pipeline_sdk::{Error, Lane, Position, Result, SOURCE_REPLACED};

/// Of the bytes of a position.
const VERSION: u8 = 1;

/// Behind so many. Only its bytes tell: what a crash left comes in other batches, so that its numbers are no places of rows.
pub fn counted(count: u64) -> Position {
    let bytes: Vec<u8> = std::iter::once(VERSION).chain(count.to_le_bytes()).collect();
    Position { bytes: bytes.into(), number: None, display: Some(Arc::from(count.to_string())) }
}

/// # Errors
/// As [`foreign`].
pub fn count_of(lane: &Lane, position: &Position) -> Result<u64> {
    match position.bytes.split_first() {
        Some((&VERSION, count)) if count.len() == 8 => Ok(u64::from_le_bytes(count.try_into().unwrap_or_default())),
        _ => Err(foreign(lane, position)),
    }
}

/// A stored position that the source cannot read.
pub fn foreign(lane: &Lane, position: &Position) -> Error {
    let text = format!("the stored position of `{lane}` (`{position}`) was not stored by this plugin, or by another version of it");
    Error::fatal(text).code(SOURCE_REPLACED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_counted_is_a_count() {
        let lane = Lane::new("session");
        assert_eq!(count_of(&lane, &counted(u64::MAX)).unwrap(), u64::MAX);
        let error = count_of(&lane, &Position::from_number(1)).unwrap_err();
        assert!(error.code == SOURCE_REPLACED && error.to_string().contains("`session` (`1`)"), "{error}");
    }
}
