//! The text of a query: parsed when the file is checked, before any row is there.

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use pipeline_sdk::{Error, Result};

/// One query over one table.
pub struct Query {
    pub statement: Statement,
    /// Words of the text.
    words: Vec<String>,
}

impl Query {
    /// # Errors
    /// No SQL, more or less than one statement, anything but a query, or a query that does not read `table`.
    pub fn parse(text: &str, table: &str) -> Result<Self> {
        let wrong = |message: String| Error::fatal(message).code("sql.query").path("query");
        let mut statements = DFParser::parse_sql(text).map_err(|error| wrong(said(&error)))?;
        let (Some(statement), true) = (statements.pop_front(), statements.is_empty()) else {
            return Err(wrong("one query is wanted, no more and no less".into()));
        };
        if !matches!(&statement, Statement::Statement(it) if matches!(**it, ast::Statement::Query(_))) {
            let text = statement.to_string();
            let verb = text.split_whitespace().next().unwrap_or_default();
            let error = wrong(format!("`{verb}` is no query"));
            return Err(error.hint("only `select` and `with … select` can stand here: they read the rows of a message, and write nothing"));
        }
        let (tables, _) = resolve_table_references(&statement, false).map_err(|error| wrong(said(&error)))?;
        if !tables.iter().any(|it| it.schema().is_none() && it.table() == table) {
            let error = wrong(format!("the query does not read the table `{table}`, which is the rows of a message"));
            return Err(error.hint(format!("write `from {table}`, or give the rows another name with `table`")));
        }
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|error| wrong(error.to_string()))?;
        let word = |token| if let Token::Word(word) = token { Some(word.value) } else { None };
        Ok(Self { statement, words: tokens.into_iter().filter_map(word).collect() })
    }

    /// Whether a name stands in the text, as a column or as what one is called.
    pub fn has_word(&self, name: &str) -> bool {
        self.words.iter().any(|word| word == name)
    }
}

/// What DataFusion says, without the kind of error before it.
pub fn said(error: &DataFusionError) -> String {
    match error {
        DataFusionError::SQL(error, _) => error.to_string(),
        DataFusionError::ArrowError(error, _) => error.to_string(),
        DataFusionError::Context(_, of) | DataFusionError::Diagnostic(_, of) => said(of),
        DataFusionError::Shared(of) => said(of),
        other => other.strip_backtrace(),
    }
}
