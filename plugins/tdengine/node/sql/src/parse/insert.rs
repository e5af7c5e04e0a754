//! INSERT, which a real server reads by a parser of its own: other errors, and literals that are kept as they stand.

use std::borrow::Cow;

use super::{Parser, Result};
use crate::ast::*;
use crate::error::SyntaxError;
use crate::lexer::Token;

const NO_VALUE: &str = "invalid data or symbol";

impl<'a> Parser<'a> {
    pub(super) fn insert(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        if !self.has_rows() {
            return self.insert_query();
        }
        self.inserting = true;
        if !self.take_word("into")? {
            return Err(SyntaxError::insert("keyword INTO is expected", self.rest()));
        }
        let mut tables = Vec::new();
        loop {
            let mut table = self.insert_table()?;
            let broken = self.insert_rows(&mut table)?;
            tables.push(table);
            if broken.is_some() {
                // What follows was not read.
                self.token = Token::End;
            }
            if matches!(self.token, Token::End | Token::Mark(";")) {
                return Ok(Statement::Insert(Insert { tables, broken }));
            }
        }
    }

    /// Whether rows follow, and no query.
    fn has_rows(&self) -> bool {
        let (mut lexer, mut token) = (self.lexer.clone(), self.token);
        loop {
            match token {
                Token::Word(word) if ["values", "file", "using"].iter().any(|rows| word.eq_ignore_ascii_case(rows)) => return true,
                Token::Word(word) if word.eq_ignore_ascii_case("select") => return false,
                Token::End => return false,
                _ => {}
            }
            let Ok((next, _)) = lexer.next() else { return false };
            token = next;
        }
    }

    /// `INSERT INTO table [(columns)] SELECT …`, whose query may stand in brackets.
    fn insert_query(&mut self) -> Result<Statement<'a>> {
        self.expect_word("into")?;
        let table = self.table_name()?;
        let columns = if self.is_mark("(") && !self.is_query_next() { Some(self.name_list()?) } else { None };
        let in_brackets = self.take_mark("(")?;
        let query = Box::new(self.select()?);
        if in_brackets {
            self.expect_mark(")")?;
        }
        Ok(Statement::InsertQuery(InsertQuery { table, columns, query }))
    }

    /// Whether SELECT stands behind this token.
    fn is_query_next(&self) -> bool {
        matches!(self.lexer.clone().next(), Ok((Token::Word(word), _)) if word.eq_ignore_ascii_case("select"))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn insert_table(&mut self) -> Result<InsertTable<'a>> {
        let target = if self.take_mark("?")? { InsertTarget::Parameter } else { InsertTarget::Table(self.insert_target()?) };
        let mut columns = self.bound_columns()?;
        let using = if self.is_word("using") { Some(self.insert_using()?) } else { None };
        if columns.is_none() {
            columns = self.bound_columns()?;
        }
        Ok(InsertTable { target, using, columns, values: Vec::new(), rows: Vec::new(), at: self.at })
    }

    /// A table's name, which may stand in any quotes.
    fn insert_target(&mut self) -> Result<Name> {
        match self.token {
            Token::Text(text) => {
                self.advance()?;
                Ok(Name { database: None, table: unescape(text).into_owned() })
            }
            Token::Word(word) if word.eq_ignore_ascii_case("select") => Err(SyntaxError::insert("table_name is expected", self.rest())),
            Token::Word(_) | Token::Quoted(_) | Token::End => self.table_name().map_err(|error| match error.code {
                0x2617 => SyntaxError::code(0x0200, "name too long"),
                _ => error,
            }),
            _ => Err(SyntaxError::insert("table_name is expected", self.rest())),
        }
    }

    /// Names in brackets, which may stand in any quotes and without commas.
    fn bound_columns(&mut self) -> Result<Option<Vec<String>>> {
        if !self.take_mark("(")? {
            return Ok(None);
        }
        let mut names = Vec::new();
        while !self.take_mark(")")? {
            match self.token {
                Token::Text(text) => names.push(unescape(text).into_owned()),
                Token::Word(word) => names.push(word.to_ascii_lowercase()),
                Token::Quoted(name) => names.push(name.to_owned()),
                Token::Mark(",") => {}
                _ => return Err(SyntaxError::insert(") expected", "")),
            }
            self.advance()?;
        }
        Ok(Some(names))
    }

    /// `USING stable [(tags)] TAGS (values)` of an INSERT, whose values need no commas.
    fn insert_using(&mut self) -> Result<Using<'a>> {
        self.advance()?;
        let stable = self.table_name()?;
        let tags = self.bound_columns()?;
        if !self.take_word("tags")? {
            return Err(SyntaxError::insert("TAGS is expected", self.rest()));
        }
        if !self.take_mark("(")? {
            return Err(SyntaxError::insert("( is expected", self.rest()));
        }
        let mut values = Vec::new();
        loop {
            let end = self.at;
            match self.token {
                Token::Mark(")") => {
                    self.advance()?;
                    return Ok(Using { stable, tags, values, end });
                }
                Token::Mark(",") if !values.is_empty() => {
                    self.advance()?;
                }
                Token::End => return Err(SyntaxError::code(0x0216, "syntax error near '' () is expected)")),
                _ => values.push(self.value()?),
            }
        }
    }

    /// VALUES and the rows; what breaks them off.
    fn insert_rows(&mut self, table: &mut InsertTable<'a>) -> Result<Option<Broken>> {
        table.at = self.at;
        let broken = |error| Ok(Some(Broken::Error(error)));
        if self.is_word("file") {
            return broken(SyntaxError::code(0x0200, "proxy mode does not support csv loading"));
        }
        if !self.take_word("values")? {
            return broken(SyntaxError::insert("keyword VALUES or FILE is expected", self.rest()));
        }
        if !self.is_mark("(") {
            return broken(SyntaxError::insert("no any data points", ""));
        }
        while self.is_mark("(") {
            match self.row(table) {
                Ok(None) => {}
                Ok(broken) => return Ok(broken),
                Err(error) => return broken(error),
            }
            // Rows may have commas between.
            if self.is_mark(",") {
                self.advance()?;
            }
        }
        Ok(None)
    }

    fn row(&mut self, table: &mut InsertTable<'a>) -> Result<Option<Broken>> {
        let before = table.values.len();
        self.insert_advance()?;
        loop {
            if self.is_mark(")") {
                return Err(SyntaxError::code(0x263f, "Illegal number of columns"));
            }
            table.values.push(self.value()?);
            match self.token {
                Token::Mark(",") => self.insert_advance()?,
                Token::Mark(")") => break,
                _ => return Ok(Some(Broken::AfterValue { at: self.at })),
            }
        }
        table.rows.push(InsertRow { length: (table.values.len() - before) as u32, end: self.at });
        self.insert_advance()?;
        Ok(None)
    }

    /// To the next token; a quote that is not closed is no value.
    fn insert_advance(&mut self) -> Result<()> {
        let end = self.lexer.position();
        let rest = self.text[end..].trim_start();
        self.advance().map(drop).map_err(|_| SyntaxError::insert(NO_VALUE, rest))
    }

    /// A literal of VALUES, TAGS or SET TAG.
    pub(super) fn value(&mut self) -> Result<Value<'a>> {
        let at = self.at;
        let literal = self.literal()?;
        Ok(Value { literal, at })
    }

    /// What stands at `start` is no value.
    fn no_value(&self, start: usize) -> SyntaxError {
        match &self.text[start..] {
            rest if self.inserting => SyntaxError::insert(NO_VALUE, rest),
            "" => SyntaxError::incomplete(""),
            rest => SyntaxError::near(rest),
        }
    }

    fn literal(&mut self) -> Result<Literal<'a>> {
        let start = self.at;
        match self.token {
            Token::Text(text) => {
                self.advance()?;
                self.time_offsets(TimeBase::Text(text), Literal::Text(text))
            }
            Token::Number(text) => {
                self.number_alone(start, text)?;
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
                let Token::Number(text) = self.token else { return Err(self.no_value(start)) };
                let is_apart = self.at > start + 1;
                if is_apart && self.inserting {
                    return Err(self.no_value(start));
                }
                let end = self.at + text.len();
                self.number_alone(start, text)?;
                Ok(Literal::Number(match sign {
                    "+" => Cow::Borrowed(text),
                    _ if is_apart => Cow::Owned(format!("-{text}")),
                    _ => Cow::Borrowed(&self.text[start..end]),
                }))
            }
            Token::Word(word) => self.word_literal(word),
            _ => Err(self.no_value(start)),
        }
    }

    /// Passes a number; one that goes on as a word or another number (`12x`, `1.5.5`) is none.
    fn number_alone(&mut self, start: usize, text: &str) -> Result<()> {
        let end = self.at + text.len();
        if self.text[end..].starts_with(|next: char| next.is_ascii_alphanumeric() || matches!(next, '.' | '_')) {
            return Err(self.no_value(start));
        }
        self.advance().map(drop)
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
            let plain = Literal::Time { base: base.clone(), offsets: Vec::new(), sign_at: self.at };
            return self.time_offsets(base, plain);
        } else {
            return Err(self.no_value(self.at));
        };
        self.advance()?;
        Ok(literal)
    }

    /// `+ 1d - 2h` behind a time; `plain` where nothing follows.
    fn time_offsets(&mut self, base: TimeBase<'a>, plain: Literal<'a>) -> Result<Literal<'a>> {
        let (mut offsets, sign_at) = (Vec::new(), self.at);
        while let Token::Mark(sign @ ("+" | "-")) = self.token {
            self.advance()?;
            let Token::Duration(duration) = self.token else {
                offsets.push((sign == "-", ""));
                break;
            };
            self.advance()?;
            offsets.push((sign == "-", duration));
        }
        Ok(if offsets.is_empty() { plain } else { Literal::Time { base, offsets, sign_at } })
    }
}
