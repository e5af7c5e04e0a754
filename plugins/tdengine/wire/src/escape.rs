//! SQL quoting of names and string literals (FACTS F52).

/// A name in back-quotes. Case is kept; quotes, blanks and dots need nothing more.
///
/// A back-quote inside is doubled, but a real server makes of it a name that no statement can use again: see
/// [`is_usable_name`].
pub fn identifier(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('`');
    for character in name.chars() {
        if character == '`' {
            quoted.push('`');
        }
        quoted.push(character);
    }
    quoted.push('`');
    quoted
}

/// `database.table`, both quoted.
pub fn qualified(database: &str, table: &str) -> String {
    format!("{}.{}", identifier(database), identifier(table))
}

/// A string literal in single quotes; quotes, backslashes and control characters are escaped with a backslash.
pub fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// Whether a table of this name can be created and then written to: 1 to 190 bytes, no dot, no back-quote, no NUL.
pub fn is_usable_name(name: &str) -> bool {
    (1..=190).contains(&name.len()) && !name.contains(['.', '`', '\0'])
}
