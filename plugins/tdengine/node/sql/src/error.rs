//! What the parser says: code and text as a real server does (PROTOCOL 15).

/// A text that is no statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Low 16 bits of the server's code.
    pub code: u16,
    pub message: String,
}

/// Characters of the text that an error shows.
const SHOWN_MAX: usize = 64;
/// Bytes of the text that an error of an INSERT shows.
const INSERT_SHOWN_MAX: usize = 63;

impl SyntaxError {
    /// 0x2600, near what follows.
    pub fn near(rest: &str) -> Self {
        let shown: String = rest.chars().take(SHOWN_MAX).collect();
        Self { code: 0x2600, message: format!("syntax error near \"{shown}\"") }
    }

    /// 0x2601: the text ends too early.
    pub fn incomplete(rest: &str) -> Self {
        let _ = rest;
        Self { code: 0x2601, message: "Incomplete SQL statement".into() }
    }

    /// 0x0216: an INSERT, which the server reads by another parser; without the place where the text has ended.
    pub fn insert(what: &str, rest: &str) -> Self {
        let message = match rest {
            "" => format!("syntax error near '{what}'"),
            _ => insert_near(&statement_shown(rest), what),
        };
        Self { code: 0x0216, message }
    }

    pub fn code(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The text of an error of an INSERT: what it is near to and why.
pub fn insert_near(shown: &str, why: &str) -> String {
    let end = shown.floor_char_boundary(INSERT_SHOWN_MAX);
    format!("syntax error near '{}' ({why})", &shown[..end])
}

/// A piece of a statement as errors show it: a server folds what is not quoted to lower case before it reads it.
pub fn statement_shown(rest: &str) -> String {
    let mut quote = None;
    let fold = |character: char| {
        match quote {
            Some(open) if open == character => quote = None,
            None if matches!(character, '\'' | '"' | '`') => quote = Some(character),
            _ => {}
        }
        if quote.is_some() { character } else { character.to_ascii_lowercase() }
    };
    // Whole texts are long, what is shown is not.
    rest.chars().take(INSERT_SHOWN_MAX + 1).map(fold).collect()
}
