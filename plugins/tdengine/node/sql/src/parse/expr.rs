//! Expressions, by precedence.

use std::borrow::Cow;

use super::{COLUMN_NAME_MAX, Parser, Result, TABLE_NAME_MAX};
use crate::ast::*;
use crate::lexer::Token;

impl<'a> Parser<'a> {
    pub(super) fn expr(&mut self) -> Result<Expr<'a>> {
        self.deeper()?;
        let mut left = self.and()?;
        while self.take_word("or")? {
            left = binary(Binary::Or, left, self.and()?);
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr<'a>> {
        let mut left = self.not()?;
        while self.take_word("and")? {
            left = binary(Binary::And, left, self.not()?);
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr<'a>> {
        if self.take_word("not")? {
            self.deeper()?;
            let operand = Box::new(self.not()?);
            self.depth -= 1;
            return Ok(Expr::Unary { operator: Unary::Not, operand });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr<'a>> {
        let left = self.sum()?;
        let operator = match self.token {
            Token::Mark("=") => Binary::Equal,
            Token::Mark("<>" | "!=") => Binary::NotEqual,
            Token::Mark("<") => Binary::Less,
            Token::Mark("<=") => Binary::LessEqual,
            Token::Mark(">") => Binary::Greater,
            Token::Mark(">=") => Binary::GreaterEqual,
            Token::Word(_) => return self.word_comparison(left),
            _ => return Ok(left),
        };
        self.advance()?;
        Ok(binary(operator, left, self.sum()?))
    }

    fn word_comparison(&mut self, left: Expr<'a>) -> Result<Expr<'a>> {
        if self.take_word("is")? {
            let negated = self.take_word("not")?;
            self.expect_word("null")?;
            return Ok(Expr::IsNull { operand: Box::new(left), negated });
        }
        let negated = self.take_word("not")?;
        if self.take_word("in")? {
            self.expect_mark("(")?;
            let mut list = vec![self.expr()?];
            while self.take_comma()? {
                list.push(self.expr()?);
            }
            self.expect_mark(")")?;
            return Ok(Expr::In { operand: Box::new(left), list, negated });
        }
        if self.take_word("between")? {
            let low = Box::new(self.sum()?);
            self.expect_word("and")?;
            let high = Box::new(self.sum()?);
            return Ok(Expr::Between { operand: Box::new(left), low, high, negated });
        }
        if self.take_word("like")? {
            return Ok(binary(if negated { Binary::NotLike } else { Binary::Like }, left, self.sum()?));
        }
        if self.take_word("match")? || self.take_word("regexp")? {
            return Ok(binary(if negated { Binary::NotMatch } else { Binary::Match }, left, self.sum()?));
        }
        if self.take_word("nmatch")? {
            return Ok(binary(Binary::NotMatch, left, self.sum()?));
        }
        if negated { Err(self.near()) } else { Ok(left) }
    }

    fn sum(&mut self) -> Result<Expr<'a>> {
        let mut left = self.product()?;
        loop {
            let operator = match self.token {
                Token::Mark("+") => Binary::Add,
                Token::Mark("-") => Binary::Subtract,
                _ => return Ok(left),
            };
            self.advance()?;
            left = binary(operator, left, self.product()?);
        }
    }

    fn product(&mut self) -> Result<Expr<'a>> {
        let mut left = self.bits()?;
        loop {
            let operator = match self.token {
                Token::Mark("*") => Binary::Multiply,
                Token::Mark("/") => Binary::Divide,
                Token::Mark("%") => Binary::Remainder,
                _ => return Ok(left),
            };
            self.advance()?;
            left = binary(operator, left, self.bits()?);
        }
    }

    fn bits(&mut self) -> Result<Expr<'a>> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.token {
                Token::Mark("&") => Binary::BitAnd,
                Token::Mark("|") => Binary::BitOr,
                Token::Mark("->") => Binary::Arrow,
                _ => return Ok(left),
            };
            self.advance()?;
            left = binary(operator, left, self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Expr<'a>> {
        if self.take_mark("+")? {
            return self.unary();
        }
        if !self.take_mark("-")? {
            return self.primary();
        }
        if let Token::Number(text) = self.token {
            self.advance()?;
            return Ok(Expr::Literal(Literal::Number(Cow::Owned(format!("-{text}")))));
        }
        self.deeper()?;
        let operand = Box::new(self.unary()?);
        self.depth -= 1;
        Ok(Expr::Unary { operator: Unary::Minus, operand })
    }

    fn primary(&mut self) -> Result<Expr<'a>> {
        let literal = match self.token {
            Token::Number(text) => Literal::Number(Cow::Borrowed(text)),
            Token::Duration(text) => Literal::Duration(text),
            Token::Text(text) => Literal::Text(text),
            Token::Mark("?") => Literal::Parameter,
            Token::Mark("*") => {
                self.advance()?;
                return Ok(Expr::Star);
            }
            Token::Mark("(") => {
                self.advance()?;
                let inner = self.expr()?;
                self.expect_mark(")")?;
                return Ok(inner);
            }
            Token::Quoted(_) => return self.column_or_call(),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "null" => Literal::Null,
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                "case" => return self.case(),
                "now" => return self.now(TimeBase::Now),
                "today" => return self.now(TimeBase::Today),
                _ => return self.column_or_call(),
            },
            _ => return Err(self.near()),
        };
        self.advance()?;
        Ok(Expr::Literal(literal))
    }

    fn now(&mut self, base: TimeBase<'a>) -> Result<Expr<'a>> {
        self.advance()?;
        if self.take_mark("(")? {
            self.expect_mark(")")?;
        }
        Ok(Expr::Literal(Literal::Time { base, offsets: Vec::new(), sign_at: self.at }))
    }

    fn case(&mut self) -> Result<Expr<'a>> {
        self.advance()?;
        let operand = if self.is_word("when") { None } else { Some(Box::new(self.expr()?)) };
        let mut branches = Vec::new();
        while self.take_word("when")? {
            let condition = self.expr()?;
            self.expect_word("then")?;
            branches.push((condition, self.expr()?));
        }
        let otherwise = if self.take_word("else")? { Some(Box::new(self.expr()?)) } else { None };
        self.expect_word("end")?;
        if branches.is_empty() { Err(self.near()) } else { Ok(Expr::Case { operand, branches, otherwise }) }
    }

    fn column_or_call(&mut self) -> Result<Expr<'a>> {
        let quoted = matches!(self.token, Token::Quoted(_));
        // A function may have the name of a keyword that is no name of a column (`database()`).
        let keyword = match self.token {
            Token::Word(word) if self.lexer_is_at_bracket() => Some(word.to_ascii_lowercase()),
            _ => None,
        };
        if let Some(name) = keyword {
            self.advance()?;
            return self.call(name);
        }
        let name = self.identifier(TABLE_NAME_MAX)?;
        if self.take_mark(".")? {
            if self.take_mark("*")? {
                return Ok(Expr::Star);
            }
            let quoted = matches!(self.token, Token::Quoted(_));
            let column = self.any_column()?;
            return Ok(Expr::Column { table: Some(name), name: column, quoted });
        }
        Ok(Expr::Column { table: None, name, quoted })
    }

    fn any_column(&mut self) -> Result<String> {
        self.identifier(TABLE_NAME_MAX.max(COLUMN_NAME_MAX))
    }

    fn lexer_is_at_bracket(&self) -> bool {
        self.text[self.lexer.position()..].trim_start().starts_with('(')
    }

    fn call(&mut self, name: String) -> Result<Expr<'a>> {
        self.expect_mark("(")?;
        if name == "cast" {
            let operand = Box::new(self.expr()?);
            self.expect_word("as")?;
            let data_type = self.cast_type()?;
            self.expect_mark(")")?;
            return Ok(Expr::Cast { operand, data_type });
        }
        let mut arguments = Vec::new();
        if !self.is_mark(")") {
            loop {
                arguments.push(self.expr()?);
                if !self.take_comma()? {
                    break;
                }
            }
        }
        self.expect_mark(")")?;
        Ok(Expr::Call { name, arguments })
    }

    /// A cast's type may leave out the length.
    fn cast_type(&mut self) -> Result<TypeName> {
        let open = ["varchar", "binary", "nchar", "varbinary"].iter().find(|name| self.is_word(name)).copied();
        if let Some(open) = open
            && !self.lexer_is_at_bracket()
        {
            self.advance()?;
            let name = match open {
                "nchar" => "NCHAR",
                "varbinary" => "VARBINARY",
                _ => "VARCHAR",
            };
            return Ok(TypeName { name, length: None, scale: None });
        }
        self.data_type()
    }
}

fn binary<'a>(operator: Binary, left: Expr<'a>, right: Expr<'a>) -> Expr<'a> {
    Expr::Binary { operator, left: Box::new(left), right: Box::new(right) }
}
