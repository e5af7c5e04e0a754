//! SELECT and DELETE.

use super::{COLUMN_NAME_MAX, Parser, Result};
use crate::error::SyntaxError;
use crate::ast::*;
use crate::lexer::Token;

impl<'a> Parser<'a> {
    pub(super) fn select(&mut self) -> Result<Select<'a>> {
        self.deeper()?;
        let mut select = self.select_alone()?;
        while self.take_word("union")? {
            let all = self.take_word("all")?;
            select.union.push(UnionPart { all, select: self.select_alone()? });
        }
        self.order_and_limit(&mut select)?;
        self.depth -= 1;
        Ok(select)
    }

    /// Up to HAVING; what follows belongs to a whole UNION.
    fn select_alone(&mut self) -> Result<Select<'a>> {
        self.expect_word("select")?;
        let mut select = Select { distinct: self.take_word("distinct")?, ..Select::default() };
        if !select.distinct {
            self.take_word("all")?;
        }
        // Hints stand in comments, which the lexer passes.
        select.tags = self.take_word("tags")?;
        loop {
            select.items.push(self.item()?);
            if !self.take_comma()? {
                break;
            }
        }
        if self.take_word("from")? {
            select.from = Some(self.from()?);
        }
        if self.take_word("where")? {
            select.condition = Some(self.expr()?);
        }
        if self.take_word("partition")? {
            self.expect_word("by")?;
            select.partition_by = self.expr_list()?;
        }
        if self.take_word("interval")? {
            select.interval = Some(self.interval()?);
        } else if self.is_word("fill") {
            return Err(SyntaxError::code(0x265d, "Invalid usage of RANGE clause, EVERY clause or FILL clause"));
        }
        if self.take_word("group")? {
            self.expect_word("by")?;
            select.group_by = self.expr_list()?;
        }
        if self.take_word("having")? {
            select.having = Some(self.expr()?);
        }
        Ok(select)
    }

    fn order_and_limit(&mut self, select: &mut Select<'a>) -> Result<()> {
        if self.take_word("order")? {
            self.expect_word("by")?;
            loop {
                select.order_by.push(self.order()?);
                if !self.take_comma()? {
                    break;
                }
            }
        }
        if self.take_word("slimit")? {
            select.slimit = Some(self.limit("soffset")?);
        }
        if self.take_word("limit")? {
            select.limit = Some(self.limit("offset")?);
        }
        Ok(())
    }

    fn item(&mut self) -> Result<Item<'a>> {
        let start = self.at;
        let expr = self.expr()?;
        let text = self.text[start..self.at].trim_end();
        let alias = if self.take_word("as")? || matches!(self.token, Token::Quoted(_) | Token::Text(_)) || self.is_alias() {
            Some(self.alias()?)
        } else {
            None
        };
        Ok(Item { expr, alias, text })
    }

    fn alias(&mut self) -> Result<String> {
        if let Token::Text(_) = self.token {
            return self.string();
        }
        if let Token::Word(word) = self.token {
            // Keywords may name a column behind AS.
            self.advance()?;
            return Ok(word.to_ascii_lowercase());
        }
        self.identifier(COLUMN_NAME_MAX)
    }

    fn is_alias(&self) -> bool {
        matches!(self.token, Token::Word(word) if !super::is_reserved(word) && !word.eq_ignore_ascii_case("then") && !word.eq_ignore_ascii_case("fill"))
    }

    fn from(&mut self) -> Result<From<'a>> {
        if self.take_mark("(")? {
            let select = Box::new(self.select()?);
            self.expect_mark(")")?;
            return Ok(From::Select { select, alias: self.table_alias()? });
        }
        Ok(From::Table { name: self.table_name()?, alias: self.table_alias()? })
    }

    fn table_alias(&mut self) -> Result<Option<String>> {
        if self.take_word("as")? || (self.is_alias() && !self.is_word("partition")) {
            return self.identifier(COLUMN_NAME_MAX).map(Some);
        }
        Ok(None)
    }

    fn expr_list(&mut self) -> Result<Vec<Expr<'a>>> {
        let mut list = vec![self.expr()?];
        while self.take_comma()? {
            list.push(self.expr()?);
        }
        Ok(list)
    }

    fn interval(&mut self) -> Result<Interval<'a>> {
        self.expect_mark("(")?;
        let width = self.duration()?;
        let offset = if self.take_comma()? { Some(self.duration()?) } else { None };
        self.expect_mark(")")?;
        let sliding = if self.take_word("sliding")? {
            self.expect_mark("(")?;
            let sliding = self.duration()?;
            self.expect_mark(")")?;
            Some(sliding)
        } else {
            None
        };
        let fill = if self.take_word("fill")? { self.fill()? } else { None };
        Ok(Interval { width, offset, sliding, fill })
    }

    fn fill(&mut self) -> Result<Option<Fill<'a>>> {
        self.expect_mark("(")?;
        let Token::Word(word) = self.token else { return Err(self.near()) };
        let word = word.to_ascii_lowercase();
        let mode = match word.as_str() {
            "none" => None,
            "null" | "null_f" => Some(FillMode::Null),
            "value" | "value_f" => Some(FillMode::Value(Vec::new())),
            "prev" => Some(FillMode::Previous),
            "next" => Some(FillMode::Next),
            "linear" => Some(FillMode::Linear),
            _ => return Err(self.near()),
        };
        self.advance()?;
        let mode = match mode {
            Some(FillMode::Value(_)) => {
                self.expect_mark(",")?;
                Some(FillMode::Value(self.expr_list()?))
            }
            other => other,
        };
        self.expect_mark(")")?;
        Ok(mode.map(|mode| Fill { mode, is_forced: word.ends_with("_f") }))
    }

    fn duration(&mut self) -> Result<&'a str> {
        let Token::Duration(text) = self.token else { return Err(self.near()) };
        self.advance()?;
        Ok(text)
    }

    fn order(&mut self) -> Result<Order<'a>> {
        let expr = self.expr()?;
        let descending = self.take_word("desc")?;
        if !descending {
            self.take_word("asc")?;
        }
        let mut nulls_first = None;
        if self.take_word("nulls")? {
            nulls_first = Some(self.take_word("first")?);
            if nulls_first == Some(false) {
                self.expect_word("last")?;
            }
        }
        Ok(Order { expr, descending, nulls_first })
    }

    /// `n`, `n OFFSET m` or `m, n`.
    fn limit(&mut self, offset_word: &str) -> Result<Limit> {
        let first = self.unsigned()?;
        if self.take_comma()? {
            return Ok(Limit { offset: first, rows: self.unsigned()? });
        }
        let offset = if self.take_word(offset_word)? { self.unsigned()? } else { 0 };
        Ok(Limit { rows: first, offset })
    }

    pub(super) fn delete(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        self.expect_word("from")?;
        let table = self.table_name()?;
        let condition = if self.take_word("where")? { Some(self.expr()?) } else { None };
        Ok(Statement::Delete { table, condition })
    }
}
