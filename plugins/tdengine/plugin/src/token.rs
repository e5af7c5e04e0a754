//! The origin of a change, written into the log itself where a change cannot be marked (FACTS F60, F61).
//!
//! `pipeline:v1:ORIGIN:LANE:POSITION` stands in a comment of an `ALTER STABLE` text, or is the COMMENT given to a table
//! that is about to be dropped, deleted from, or created by SQL. ORIGIN is the cluster id of the site that the change was
//! born at. Whoever reads the log stamps such entries `replicated`.

use std::fmt;

const PREFIX: &str = "pipeline:v1:";

/// Where a change comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Cluster id of the site.
    pub origin: String,
    pub lane: String,
    pub position: String,
}

impl Token {
    /// Finds the first token in a log entry or a comment. Text that only looks like one is none: the origin must be a
    /// cluster id, which is a number (FACTS F54).
    pub fn find(entry: &[u8]) -> Option<Self> {
        let mut rest = entry;
        while let Some(at) = rest.windows(PREFIX.len()).position(|window| window == PREFIX.as_bytes()) {
            rest = &rest[at + PREFIX.len()..];
            let end = rest.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(rest.len());
            if let Some(token) = std::str::from_utf8(&rest[..end]).ok().and_then(Self::parse) {
                return Some(token);
            }
        }
        None
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (origin, lane, position) = (parts.next()?, parts.next()?, parts.next()?);
        origin.parse::<i64>().ok()?;
        let whole = !lane.is_empty() && !position.is_empty() && parts.next().is_none();
        whole.then(|| Self { origin: origin.into(), lane: lane.into(), position: position.into() })
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_' | b'.')
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:{}:{}", self.origin, self.lane, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tokens_of_a_cluster_count() {
        let token = Token { origin: "-5823".into(), lane: "2.meta".into(), position: "17".into() };
        let entry = format!("\0\x05alter stable `a` add column b int /* {token} */\0");
        assert_eq!(Token::find(entry.as_bytes()), Some(token.clone()));
        assert_eq!(Token::find(format!("pipeline:v1:x:1:2 {token}").as_bytes()), Some(token));
        for none in ["", "pipeline:v1:", "pipeline:v1:7:2", "pipeline:v1:site:2:3", "pipeline:v1:7:2:3:4", "pipeline:v2:7:2:3"] {
            assert_eq!(Token::find(none.as_bytes()), None, "{none}");
        }
    }
}
