//! Text into tokens: slices of the text, nothing copied.

use crate::error::SyntaxError;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// An unquoted word as it is written; keywords are words.
    Word(&'a str),
    /// A name in back-quotes, without them; a doubled back-quote stays doubled (FACTS F52).
    Quoted(&'a str),
    /// The inside of a string, escapes not undone, and its quote.
    Text(&'a str),
    /// A number without sign, digits first: `12`, `1.5e3`, `0x1F`.
    Number(&'a str),
    /// A number with a unit of time: `10s`.
    Duration(&'a str),
    /// One of `( ) , . ; * + - / % = < > ? & | ! :` or a pair like `<=`.
    Mark(&'a str),
    End,
}

#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token and where it starts, in bytes.
    ///
    /// # Errors
    /// A quote that is not closed.
    pub fn next(&mut self) -> Result<(Token<'a>, usize), SyntaxError> {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let bytes = rest.as_bytes();
        let Some(&first) = bytes.first() else { return Ok((Token::End, start)) };
        let (token, length) = match first {
            b'`' => {
                let end = self.quoted_end(start, b'`')?;
                (Token::Quoted(&self.text[start + 1..end]), end + 1 - start)
            }
            b'\'' | b'"' => {
                let end = self.quoted_end(start, first)?;
                (Token::Text(&self.text[start + 1..end]), end + 1 - start)
            }
            b'0'..=b'9' => number(rest),
            b'.' if bytes.get(1).is_some_and(u8::is_ascii_digit) => number(rest),
            _ if is_word(first) => {
                let length = bytes.iter().take_while(|byte| is_word(**byte) || byte.is_ascii_digit()).count();
                (Token::Word(&rest[..length]), length)
            }
            _ => {
                let pair = rest.get(..2).filter(|pair| ["<=", ">=", "<>", "!=", "||", "&&", "->"].contains(pair));
                let one = rest.chars().next().map_or(1, char::len_utf8);
                let text = pair.unwrap_or(&rest[..one]);
                (Token::Mark(text), text.len())
            }
        };
        self.at = start + length;
        Ok((token, start))
    }

    pub fn position(&self) -> usize {
        self.at
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let blanks = rest.len() - rest.trim_start().len();
            let rest = &rest[blanks..];
            let comment = if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else if rest.starts_with("--") {
                rest.find('\n').unwrap_or(rest.len())
            } else {
                0
            };
            self.at += blanks + comment;
            if comment == 0 {
                return;
            }
        }
    }

    /// Where a quoted text ends: at its closing quote.
    fn quoted_end(&self, start: usize, quote: u8) -> Result<usize, SyntaxError> {
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        while at < bytes.len() {
            let is_escape = bytes[at] == b'\\' && quote != b'`';
            let is_doubled = bytes[at] == quote && bytes.get(at + 1) == Some(&quote);
            if is_escape || is_doubled {
                at += 2;
            } else if bytes[at] == quote {
                return Ok(at);
            } else {
                at += 1;
            }
        }
        Err(SyntaxError::incomplete(&self.text[start..]))
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn number(rest: &str) -> (Token<'_>, usize) {
    let bytes = rest.as_bytes();
    if let Some(radix) = bytes.get(1).filter(|_| bytes[0] == b'0')
        && matches!(radix, b'x' | b'X' | b'b' | b'B')
    {
        let length = 2 + bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if length > 2 {
            return (Token::Number(&rest[..length]), length);
        }
    }
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut length = digits(0);
    if bytes.get(length) == Some(&b'.') {
        length += 1;
        length += digits(length);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits((length + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let unit = bytes.get(length).copied().unwrap_or(0);
    let after = bytes.get(length + 1).copied().unwrap_or(b' ');
    if b"abusmhdwnyABUSMHDWNY".contains(&unit) && !is_word(after) && !after.is_ascii_digit() {
        return (Token::Duration(&rest[..length + 1]), length + 1);
    }
    (Token::Number(&rest[..length]), length)
}
