//! Who one is, in the header `Authorization`: a token or a user with a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeline_sdk::Error;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The keys of a component.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub token: Option<SecretString>,
    pub username: Option<String>,
    pub password: Option<SecretString>,
}

impl Login {
    pub fn lint(&self) -> Vec<Error> {
        match (&self.token, &self.username, &self.password) {
            (Some(_), Some(_), _) => vec![Error::fatal("a token or a user, not both").path("token")],
            (_, Some(_), None) => vec![Error::fatal("a user needs a `password`").path("password")],
            (_, None, Some(_)) => vec![Error::fatal("a password needs its `username`").path("username")],
            _ => Vec::new(),
        }
    }

    /// The header's value; `None` where nobody needs to say who they are.
    pub fn header(&self) -> Option<SecretString> {
        match (&self.token, &self.username) {
            (Some(token), _) => Some(format!("Bearer {}", token.expose_secret()).into()),
            (None, Some(name)) => {
                let password = self.password.as_ref().map_or("", |it| it.expose_secret());
                Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))).into())
            }
            (None, None) => None,
        }
    }
}

/// What requests must show; only a digest is kept, and comparing digests tells nothing by how long it takes.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Option<[u8; 32]>);

impl Guard {
    pub fn new(login: &Login) -> Self {
        Self(login.header().map(|it| Sha256::digest(it.expose_secret().as_bytes()).into()))
    }

    pub fn lets_in(&self, header: Option<&[u8]>) -> bool {
        let Some(expected) = &self.0 else { return true };
        let Some(header) = header else { return false };
        // The scheme's name may be written in any case.
        let shown = match header.iter().position(|byte| *byte == b' ') {
            Some(at) if header[..at].eq_ignore_ascii_case(b"bearer") => [b"Bearer".as_slice(), &header[at..]].concat(),
            Some(at) if header[..at].eq_ignore_ascii_case(b"basic") => [b"Basic".as_slice(), &header[at..]].concat(),
            _ => return false,
        };
        let shown: [u8; 32] = Sha256::digest(shown).into();
        shown == *expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_shows_the_same_is_let_in() {
        let login = |token: Option<&str>, name: Option<&str>, password: Option<&str>| Login {
            token: token.map(Into::into),
            username: name.map(Into::into),
            password: password.map(Into::into),
        };
        let check = |login: &Login, header: Option<&str>, expected: bool| {
            assert_eq!(Guard::new(login).lets_in(header.map(str::as_bytes)), expected, "{header:?}");
        };
        check(&login(None, None, None), None, true);
        for (header, expected) in [(Some("Bearer abc"), true), (Some("bearer abc"), true), (Some("Bearer abd"), false), (Some("abc"), false), (None, false)] {
            check(&login(Some("abc"), None, None), header, expected);
        }
        check(&login(None, Some("u"), Some("p")), Some("Basic dTpw"), true);
        check(&login(None, Some("u"), Some("p")), Some("Bearer dTpw"), false);
        assert_eq!(login(Some("a"), Some("u"), None).lint().len(), 1);
        assert_eq!(login(None, None, Some("p")).lint().len(), 1);
    }
}
