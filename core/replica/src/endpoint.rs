//! An address with its password elsewhere: in a variable or a file, named in the address as `${…}`, never in clear.

use std::path::PathBuf;

/// Where the password of an address stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFrom {
    Environment(String),
    /// An absolute path: it is read by a service in another folder.
    File(PathBuf),
}

impl PasswordFrom {
    /// As a pipeline file says it.
    fn reference(&self) -> Result<String, String> {
        match self {
            Self::Environment(name) => {
                let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                match is_name && !name.starts_with(|c: char| c.is_ascii_digit()) {
                    true => Ok(format!("${{{name}}}")),
                    false => Err(format!("`{name}` is no name of a variable")),
                }
            }
            Self::File(path) => match path.to_str().filter(|path| !path.contains('}')) {
                Some(path) => Ok(format!("${{file:{path}}}")),
                None => Err(format!("the path `{}` cannot stand in a pipeline file", path.display())),
            },
        }
    }
}

/// `[scheme://][user@]host…` as `[scheme://][user]:${…}@host…`.
///
/// # Errors
/// What is wrong, without the address, which may hold a password.
pub fn with_password(address: &str, from: &PasswordFrom) -> Result<String, String> {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    if rest.starts_with("${") {
        return Err("the whole address comes from a variable: put the password into it".into());
    }
    let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    if user.contains(':') {
        return Err("the address holds a password already: take it out".into());
    }
    Ok(format!("{scheme}{user}:{}@{rest}", from.reference()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_named_where_it_belongs() {
        let variable = PasswordFrom::Environment("SITE_A".into());
        let file = PasswordFrom::File("/run/secrets/site a".into());
        for (address, from, expect) in [
            ("host", &variable, Ok(":${SITE_A}@host")),
            ("me@host:6030", &variable, Ok("me:${SITE_A}@host:6030")),
            ("ws://host:6041/db?token=x", &file, Ok("ws://:${file:/run/secrets/site a}@host:6041/db?token=x")),
            ("ws://me:hush@host", &variable, Err("a password already")),
            ("${SITE}", &variable, Err("comes from a variable")),
            ("host", &PasswordFrom::Environment("1A".into()), Err("no name")),
            ("host", &PasswordFrom::File("/a}".into()), Err("cannot stand")),
        ] {
            match (with_password(address, from), expect) {
                (Ok(text), Ok(expect)) => assert_eq!(text, expect),
                (Err(message), Err(expect)) => {
                    assert!(message.contains(expect) && !message.contains("hush"), "{message}");
                }
                (found, expect) => panic!("{address}: {found:?} instead of {expect:?}"),
            }
        }
    }
}
