//! INSERT, which a real server reads by a parser of its own: other errors, and literals that are kept as they stand.

use std::borrow::Cow;

use super::{Parser, Result};
use crate::ast::*;
use crate::error::SyntaxError;
use crate::lexer::Token;

impl<'a> Parser<'a> {
    pub(super) fn insert(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        self.expect_word("into")?;
        let mut tables = Vec::new();
        loop {
            tables.push(self.insert_table()?);
            if matches!(self.token, Token::End | Token::Mark(";")) {
                return Ok(Statement::Insert(Insert { tables }));
            }
        }
    }

    fn insert_table(&mut self) -> Result<InsertTable<'a>> {
        let target =
            if self.take_mark("?")? { InsertTarget::Parameter } else { InsertTarget::Table(self.table_name()?) };
        let mut columns = if self.is_mark("(") { Some(self.name_list()?) } else { None };
        let using = if self.is_word("using") { Some(self.using()?) } else { None };
        if columns.is_none() && self.is_mark("(") {
            columns = Some(self.name_list()?);
        }
        let at = self.at;
        if !self.take_word("values")? && !self.take_word("value")? {
            return Err(match self.token {
                Token::End => SyntaxError::incomplete(""),
                _ => SyntaxError::insert("keyword VALUES or FILE is expected", &self.text[self.at..]),
            });
        }
        let mut table = InsertTable { target, using, columns, values: Vec::new(), row_lengths: Vec::new(), at };
        self.rows(&mut table)?;
        Ok(table)
    }

    fn rows(&mut self, table: &mut InsertTable<'a>) -> Result<()> {
        if !self.is_mark("(") {
            return Err(SyntaxError::insert("no any data points", &self.text[self.at..]));
        }
        while self.take_mark("(")? {
            let before = table.values.len();
            loop {
                table.values.push(self.value()?);
                if !self.take_comma()? {
                    break;
                }
            }
            if !self.is_mark(")") {
                return Err(SyntaxError::insert(") expected", &self.text[self.at..]));
            }
            self.advance()?;
            table.row_lengths.push((table.values.len() - before) as u32);
            // Rows may have commas between.
            if self.is_mark(",") {
                self.advance()?;
            }
        }
        Ok(())
    }

    /// A literal of VALUES, TAGS or SET TAG.
    pub(super) fn value(&mut self) -> Result<Value<'a>> {
        let at = self.at;
        let literal = self.literal()?;
        Ok(Value { literal, at })
    }

    fn literal(&mut self) -> Result<Literal<'a>> {
        let start = self.at;
        match self.token {
            Token::Text(text) => {
                self.advance()?;
                self.time_offsets(TimeBase::Text(text), Literal::Text(text))
            }
            Token::Number(text) => {
                self.advance()?;
                self.time_offsets(TimeBase::Number(text), Literal::Number(Cow::Borrowed(text)))
            }
            Token::Duration(text) => {
                self.advance()?;
                Ok(Literal::Duration(text))
            }
            Token::Mark("?") => {
                self.advance()?;
                Ok(Literal::Parameter)
            }
            Token::Mark(sign @ ("-" | "+")) => {
                self.advance()?;
                let Token::Number(text) = self.token else {
                    return Err(SyntaxError::insert("invalid data", &self.text[start..]));
                };
                let end = self.at + text.len();
                self.advance()?;
                let whole = &self.text[start..end];
                Ok(Literal::Number(match sign {
                    "+" => Cow::Borrowed(text),
                    _ if whole.len() == text.len() + 1 => Cow::Borrowed(whole),
                    _ => Cow::Owned(format!("-{text}")),
                }))
            }
            Token::Word(word) => self.word_literal(word),
            Token::End => Err(SyntaxError::incomplete("")),
            _ => Err(SyntaxError::insert("invalid data", &self.text[start..])),
        }
    }

    fn word_literal(&mut self, word: &'a str) -> Result<Literal<'a>> {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        let literal = if is("null") {
            Literal::Null
        } else if is("true") {
            Literal::Bool(true)
        } else if is("false") {
            Literal::Bool(false)
        } else if is("now") || is("today") {
            self.advance()?;
            if self.take_mark("(")? {
                self.expect_mark(")")?;
            }
            let base = if is("now") { TimeBase::Now } else { TimeBase::Today };
            let plain = Literal::Time { base: base.clone(), offsets: Vec::new() };
            return self.time_offsets(base, plain);
        } else {
            return Err(SyntaxError::insert("invalid data", &self.text[self.at..]));
        };
        self.advance()?;
        Ok(literal)
    }

    /// `+ 1d - 2h` behind a time; `plain` where nothing follows.
    fn time_offsets(&mut self, base: TimeBase<'a>, plain: Literal<'a>) -> Result<Literal<'a>> {
        let mut offsets = Vec::new();
        while let Token::Mark(sign @ ("+" | "-")) = self.token {
            self.advance()?;
            let Token::Duration(duration) = self.token else { return Err(self.near()) };
            self.advance()?;
            offsets.push((sign == "-", duration));
        }
        Ok(if offsets.is_empty() { plain } else { Literal::Time { base, offsets } })
    }
}
