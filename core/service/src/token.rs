//! The bearer token of an endpoint that others than the owner can reach.

use sha2::{Digest, Sha256};

/// Kept as a hash, so that comparing takes as long whatever was sent and nothing can print it.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Of a token's text; blanks around it are left out. `None` where nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(hash(text)))
    }

    /// Whether the value of an `Authorization` header brings it.
    pub fn is_in(&self, header: Option<&str>) -> bool {
        let given = header.and_then(|it| it.strip_prefix("Bearer ")).map(|it| hash(it.trim()));
        given == Some(self.0)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_taken() {
        let token = Token::new(" s3cret\n").unwrap();
        assert!(token.is_in(Some("Bearer s3cret")));
        for wrong in [None, Some("s3cret"), Some("Bearer s3cre"), Some("Bearer "), Some("Basic s3cret")] {
            assert!(!token.is_in(wrong), "{wrong:?}");
        }
        assert!(Token::new(" \n").is_none());
    }
}
