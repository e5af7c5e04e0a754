//! Statements that the node accepts without doing much.

use super::{Parser, Result};
use crate::ast::Statement;
use crate::lexer::Token;

impl<'a> Parser<'a> {
    pub(super) fn flush(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        self.expect_word("database")?;
        Ok(Statement::Flush { database: self.database_name()? })
    }

    pub(super) fn kill(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        if self.take_word("query")? {
            let Token::Text(id) = self.token else { return Err(self.near()) };
            self.advance()?;
            return Ok(Statement::KillQuery(id));
        }
        self.no_operation("kill")
    }

    /// Passes the rest of the statement.
    pub(super) fn no_operation(&mut self, word: &'a str) -> Result<Statement<'a>> {
        self.skip_rest()?;
        Ok(Statement::NoOperation(word))
    }

    pub(super) fn skip_rest(&mut self) -> Result<()> {
        while !matches!(self.token, Token::End | Token::Mark(";")) {
            self.advance()?;
        }
        Ok(())
    }
}
