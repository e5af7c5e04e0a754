//! Texts with columns in braces: `meters.{device}`.

use std::fmt;

/// A part of such a text; two texts never stand side by side, and none is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Column(String),
}

/// Why a text has no pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    NoEnd,
    NoStart,
    NoName,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEnd => "a brace has no end",
            Self::NoStart => "a brace has no start",
            Self::NoName => "a column's name stands between braces: `{device}`",
        })
    }
}

/// # Errors
/// A brace without its other one, or without a name behind it.
pub fn pieces(text: &str) -> Result<Vec<Piece>, Wrong> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let end = rest[start..].find('}').map(|end| start + end).ok_or(Wrong::NoEnd)?;
        let (before, name) = (&rest[..start], &rest[start + 1..end]);
        if name.is_empty() || name.contains('{') {
            return Err(Wrong::NoName);
        }
        push_text(before, &mut pieces)?;
        pieces.push(Piece::Column(name.to_owned()));
        rest = &rest[end + 1..];
    }
    push_text(rest, &mut pieces)?;
    Ok(pieces)
}

fn push_text(text: &str, pieces: &mut Vec<Piece>) -> Result<(), Wrong> {
    if text.contains('}') {
        return Err(Wrong::NoStart);
    }
    pieces.extend((!text.is_empty()).then(|| Piece::Text(text.to_owned())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_braces() {
        let text = |it: &str| Piece::Text(it.to_owned());
        let column = |it: &str| Piece::Column(it.to_owned());
        let check = |whole: &str, expected: Result<&[Piece], Wrong>| assert_eq!(pieces(whole), expected.map(<[_]>::to_vec), "{whole}");
        check("", Ok(&[]));
        check("plain", Ok(&[text("plain")]));
        check("x-{t}{n}.y", Ok(&[text("x-"), column("t"), column("n"), text(".y")]));
        for (whole, wrong) in [
            ("a{", Wrong::NoEnd),
            ("{a}{b", Wrong::NoEnd),
            ("}", Wrong::NoStart),
            ("a}{b}", Wrong::NoStart),
            ("{}", Wrong::NoName),
            ("a{b{c}", Wrong::NoName),
        ] {
            check(whole, Err(wrong));
        }
    }
}
