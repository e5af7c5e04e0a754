//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` in string values, and the redaction of what they brought.
//!
//! Only values are replaced, and only after parsing: what a variable holds can never change the structure of a file. The
//! [`Redactor`] knows every such value, and passwords that stand in the file itself (invariant `secret`).

use std::path::Path;

/// Shorter values are not redacted: replacing every `1` in a text would hide nothing and ruin the text.
const SECRET_LENGTH_MIN: usize = 3;
/// A file named by `${file:PATH}` is a password or an address, not a data file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Keys whose literal values are secrets.
const SECRET_KEYS: [&str; 5] = ["password", "passwd", "token", "secret", "api-key"];

/// What stands for a password that no reference brought.
const COVERED: &str = "***";

/// Where `${NAME}` comes from: the caller's, since libraries do not read the environment.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Something is wrong with the `${…}` that stands at `at` in a text.
#[derive(Debug, PartialEq)]
pub(super) struct BadReference {
    /// The reference as it is written.
    pub reference: String,
    pub message: String,
    pub hint: String,
}

/// Replaces every `${…}`. `$${` stands for `${` itself; any other `$` is left as it is.
/// `None` where nothing was replaced. Secrets are told to `redactor`.
pub(super) fn interpolate(
    template: &str,
    environment: &Environment<'_>,
    folder: &Path,
    redactor: &mut Redactor,
) -> Result<Option<String>, BadReference> {
    if !template.contains("${") {
        return Ok(None);
    }
    let (mut out, mut rest) = (String::new(), template);
    while let Some(start) = rest.find("${") {
        let escaped = rest[..start].ends_with('$');
        out.push_str(&rest[..start - usize::from(escaped)]);
        rest = &rest[start..];
        if escaped {
            out.push_str("${");
            rest = &rest[2..];
            continue;
        }
        let Some(end) = rest.find('}') else {
            return Err(BadReference {
                reference: rest.into(),
                message: "`${` without `}`".into(),
                hint: "close it, or write `$${` where the text itself is meant".into(),
            });
        };
        let reference = &rest[..=end];
        let value = resolve(&reference[2..end], environment, folder)
            .map_err(|(message, hint)| BadReference { reference: reference.into(), message, hint })?;
        redactor.add(&value, reference);
        out.push_str(&value);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// The value of what stands between the braces, or message and hint.
fn resolve(inner: &str, environment: &Environment<'_>, folder: &Path) -> Result<String, (String, String)> {
    if let Some(path) = inner.strip_prefix("file:") {
        return read_secret(&folder.join(path)).map_err(|message| {
            let hint = match Path::new(path).is_absolute() {
                true => "check the path, and whether this user may read the file",
                false => "the path is relative to the folder of this file",
            };
            (format!("cannot read `{path}`: {message}"), hint.into())
        });
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named || name.starts_with(|c: char| c.is_ascii_digit()) {
        let message = format!("`{name}` is no name of a variable");
        return Err((message, "write `${NAME}`, `${NAME:-default}` or `${file:PATH}`".into()));
    }
    match (environment(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.into()),
        (None, None) => Err((
            format!("the environment variable `{name}` is not set"),
            format!("set it, or give a default: `${{{name}:-…}}`"),
        )),
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes, more than the {FILE_BYTES_MAX} of a value"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.trim_end_matches(['\n', '\r']).into())
}

/// Replaces secrets wherever they would be printed. Cheap where it knows none.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Secret and what stands for it, longest secret first.
    secrets: Vec<(String, String)>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

impl Redactor {
    /// Knows `value` from now on, and the password in it where it is an address.
    pub fn add(&mut self, value: &str, shown: &str) {
        self.insert(value, shown);
        for password in passwords(value) {
            self.insert(&password, COVERED);
        }
    }

    /// Knows the passwords of a literal: those of an address, or all of it where `key` says so.
    pub(super) fn add_literal(&mut self, key: &str, value: &str) {
        if SECRET_KEYS.contains(&key.to_lowercase().as_str()) {
            self.insert(value, COVERED);
        }
        for password in passwords(value) {
            self.insert(&password, COVERED);
        }
    }

    /// Knows what `other` knows.
    pub fn merge(&mut self, other: &Redactor) {
        for (secret, shown) in &other.secrets {
            self.insert(secret, shown);
        }
    }

    fn insert(&mut self, secret: &str, shown: &str) {
        if secret.len() < SECRET_LENGTH_MIN || self.secrets.iter().any(|(known, _)| known == secret) {
            return;
        }
        let at = self.secrets.partition_point(|(known, _)| known.len() >= secret.len());
        self.secrets.insert(at, (secret.into(), shown.into()));
    }

    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// `text` with every secret replaced by the reference that brought it.
    pub fn redact(&self, text: &str) -> String {
        self.replace(text, |_, shown| shown.to_owned())
    }

    /// A file's text with the passwords that stand in it covered by as many `*` as they have bytes, so that spans hold.
    pub(super) fn cover(&self, text: &str) -> String {
        self.replace(text, |secret, shown| match shown {
            COVERED => "*".repeat(secret.len()),
            _ => secret.to_owned(),
        })
    }

    fn replace(&self, text: &str, by: impl Fn(&str, &str) -> String) -> String {
        // In one pass, so that a replacement is never searched again.
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        'next: while let Some(c) = rest.chars().next() {
            for (secret, shown) in &self.secrets {
                if rest.starts_with(secret.as_str()) {
                    out.push_str(&by(secret, shown));
                    rest = &rest[secret.len()..];
                    continue 'next;
                }
            }
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
        out
    }
}

/// Passwords and tokens within an address: `scheme://user:PASSWORD@host/?token=TOKEN`, as written and percent-decoded. The scheme
/// may be missing where nothing else than an address looks so.
fn passwords(text: &str) -> Vec<String> {
    let is_bare = || text.contains(['@', '?']) && !text.contains(char::is_whitespace);
    let rest = match text.split_once("://") {
        Some((_, rest)) => rest,
        None if is_bare() => text,
        None => return Vec::new(),
    };
    let mut found = Vec::new();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password with an unescaped `/` or `@` is common: up to the last `@` of the text, if the authority has none.
    let user = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@')).map(|(user, _)| user);
    if let Some((_, password)) = user.and_then(|user| user.split_once(':')) {
        found.push(password.to_owned());
    }
    for pair in rest.split_once('?').map_or("", |(_, query)| query).split(['&', ';', '#']) {
        if let Some((key, value)) = pair.split_once('=')
            && (SECRET_KEYS.contains(&key.to_lowercase().as_str()) || key.to_lowercase().ends_with("token"))
        {
            found.push(value.to_owned());
        }
    }
    let decoded: Vec<String> = found.iter().filter_map(|text| percent_decode(text)).collect();
    found.extend(decoded);
    found
}

/// The text without its percent escapes; `None` where it has none or does not decode.
fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return None;
    }
    let (mut bytes, mut out) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.example".into()),
            "SITE" => Some("taos+ws://root:hidden%21@db:6041?token=t0ken".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn expand(template: &str) -> Result<Option<String>, BadReference> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "from a file\r\n").unwrap();
        interpolate(template, &environment, folder.path(), &mut Redactor::default())
    }

    #[test]
    fn references_are_replaced() {
        let check = |template: &str, expected: Option<&str>| {
            assert_eq!(expand(template), Ok(expected.map(str::to_owned)), "{template}");
        };
        check("plain $HOST costs $5", None);
        check("ws://${HOST}:6041/${HOST}", Some("ws://db.example:6041/db.example"));
        check("${NONE:-a:-b}", Some("a:-b"));
        check("${EMPTY:-filled}${EMPTY}", Some("filled"));
        check("${file:password}", Some("from a file"));
        check("$${HOST} is ${HOST}", Some("${HOST} is db.example"));
    }

    #[test]
    fn a_bad_reference_is_named() {
        let check = |template: &str, reference: &str, message: &str| {
            let bad = expand(template).unwrap_err();
            assert_eq!(bad.reference, reference);
            assert!(bad.message.contains(message), "{bad:?}");
        };
        check("a ${NONE} b", "${NONE}", "`NONE` is not set");
        check("${HOST", "${HOST", "without `}`");
        check("${1}", "${1}", "no name of a variable");
        check("${}", "${}", "no name of a variable");
        check("${file:absent}", "${file:absent}", "cannot read `absent`");
    }

    #[test]
    fn secrets_are_redacted() {
        let mut redactor = Redactor::default();
        interpolate("${SITE}", &environment, Path::new("."), &mut redactor).unwrap();
        redactor.add_literal("dsn", "ws://me:literal@host/db");
        redactor.add_literal("dsn", "root:bare@host:6041");
        redactor.add_literal("dsn", "host:6041?token=of-a-query");
        redactor.add_literal("password", "given");
        redactor.add_literal("name", "kept");
        let check = |text: &str, expected: &str| assert_eq!(redactor.redact(text), expected);
        check("at taos+ws://root:hidden%21@db:6041?token=t0ken!", "at ${SITE}!");
        check("hidden! hidden%21 t0ken literal given kept db:6041", "*** *** *** *** *** kept db:6041");
        check("root:bare@host of-a-query", "root:***@host ***");
        assert_eq!(redactor.cover("a given b"), "a ***** b");
        assert!(!format!("{redactor:?}").contains("hidden"));
    }
}
