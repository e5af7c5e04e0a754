//! Recursive descent over the tokens of one statement.
//!
//! Each kind of statement has a file below; here is what they share: looking at the next token, names, options, types.

mod alter;
mod create;
mod expr;
mod insert;
mod other;
mod select;
mod show;

use crate::ast::*;
use crate::error::SyntaxError;
use crate::lexer::{Lexer, Token};

type Result<T> = std::result::Result<T, SyntaxError>;

/// Longest names, in bytes (PROTOCOL 13.1).
pub const TABLE_NAME_MAX: usize = 192;
pub const COLUMN_NAME_MAX: usize = 64;
pub const DATABASE_NAME_MAX: usize = 64;
/// Expressions deeper than this are refused, so that no text overflows the stack.
pub const DEPTH_MAX: usize = 200;

/// Reads the first statement of a text; what follows a `;` is ignored, as a real server does (FACTS F58).
///
/// # Errors
/// Code and text as a real server answers.
pub fn parse(text: &str) -> Result<Statement<'_>> {
    let mut parser = Parser::new(text)?;
    let statement = parser.statement()?;
    match parser.token {
        Token::End | Token::Mark(";") => Ok(statement),
        _ => Err(parser.near()),
    }
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    token: Token<'a>,
    /// Where `token` starts.
    at: usize,
    depth: usize,
    /// In an INSERT with rows, which says other errors.
    inserting: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let (token, at) = lexer.next()?;
        Ok(Self { text, lexer, token, at, depth: 0, inserting: false })
    }

    fn statement(&mut self) -> Result<Statement<'a>> {
        let Token::Word(word) = self.token else { return Err(self.near()) };
        match word.to_ascii_lowercase().as_str() {
            "select" => Ok(Statement::Select(Box::new(self.select()?))),
            "insert" | "import" => self.insert(),
            "create" => self.create(),
            "drop" => self.drop(),
            "alter" => self.alter(),
            "use" => {
                self.advance()?;
                Ok(Statement::Use { database: self.database_name()? })
            }
            "show" => self.show(),
            "describe" | "desc" => {
                self.advance()?;
                Ok(Statement::Describe(self.table_name()?))
            }
            "delete" => self.delete(),
            "flush" => self.flush(),
            "kill" => self.kill(),
            "trim" | "compact" | "grant" | "revoke" | "reset" | "balance" | "redistribute" | "analyze" | "s3migrate" => {
                self.no_operation(word)
            }
            _ => Err(self.near()),
        }
    }

    // Looking and moving

    fn advance(&mut self) -> Result<Token<'a>> {
        let (next, at) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// The error that the next token calls for.
    fn near(&self) -> SyntaxError {
        match self.token {
            Token::End => SyntaxError::incomplete(""),
            _ => SyntaxError::near(&self.text[self.at..]),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token, Token::Word(token) if token.eq_ignore_ascii_case(word))
    }

    fn is_mark(&self, mark: &str) -> bool {
        self.token == Token::Mark(mark)
    }

    /// Passes a keyword where it stands.
    fn take_word(&mut self, word: &str) -> Result<bool> {
        let found = self.is_word(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn take_mark(&mut self, mark: &str) -> Result<bool> {
        let found = self.is_mark(mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.take_word(word)? { Ok(()) } else { Err(self.near()) }
    }

    fn expect_mark(&mut self, mark: &str) -> Result<()> {
        if self.take_mark(mark)? { Ok(()) } else { Err(self.near()) }
    }

    /// Whether another element of a list follows.
    fn take_comma(&mut self) -> Result<bool> {
        self.take_mark(",")
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.near()) } else { Ok(()) }
    }

    // Names

    fn identifier(&mut self, bytes_max: usize) -> Result<String> {
        let name = match self.token {
            Token::Word(word) if !is_reserved(word) => word.to_ascii_lowercase(),
            Token::Quoted(name) if !name.is_empty() => name.to_owned(),
            _ => return Err(self.near()),
        };
        if name.len() > bytes_max {
            return Err(SyntaxError::code(0x2617, format!("Invalid identifier name: {}", &self.text[self.at..])));
        }
        self.advance()?;
        Ok(name)
    }

    fn column_name(&mut self) -> Result<String> {
        self.identifier(COLUMN_NAME_MAX)
    }

    /// A name for a column or tag that is made: what a query says of rows and windows is a name only in quotes (FACTS F52).
    fn new_column_name(&mut self) -> Result<String> {
        match self.token {
            Token::Word(word) if is_pseudo_column(word) => Err(self.near()),
            _ => self.column_name(),
        }
    }

    /// A table that is made: its name may hold anything but a dot (FACTS F52).
    fn new_table_name(&mut self) -> Result<Name> {
        let name = self.table_name()?;
        no_dot("table", &name.table)?;
        Ok(name)
    }

    fn database_name(&mut self) -> Result<String> {
        self.identifier(DATABASE_NAME_MAX)
    }

    /// `[database.]table`.
    fn table_name(&mut self) -> Result<Name> {
        let first = self.identifier(TABLE_NAME_MAX)?;
        if self.take_mark(".")? {
            return Ok(Name { database: Some(first), table: self.identifier(TABLE_NAME_MAX)? });
        }
        Ok(Name { database: None, table: first })
    }

    fn if_not_exists(&mut self) -> Result<bool> {
        if !self.take_word("if")? {
            return Ok(false);
        }
        self.expect_word("not")?;
        self.expect_word("exists")?;
        Ok(true)
    }

    fn if_exists(&mut self) -> Result<bool> {
        if !self.take_word("if")? {
            return Ok(false);
        }
        self.expect_word("exists")?;
        Ok(true)
    }

    /// A string's value.
    fn string(&mut self) -> Result<String> {
        let Token::Text(text) = self.token else { return Err(self.near()) };
        self.advance()?;
        Ok(unescape(text).into_owned())
    }

    fn unsigned(&mut self) -> Result<u64> {
        let Token::Number(text) = self.token else { return Err(self.near()) };
        let number = text.parse().map_err(|_| self.near())?;
        self.advance()?;
        Ok(number)
    }

    fn signed(&mut self) -> Result<i64> {
        let negative = self.take_mark("-")?;
        let number = i64::try_from(self.unsigned()?).map_err(|_| self.near())?;
        Ok(if negative { -number } else { number })
    }

    // Types

    fn data_type(&mut self) -> Result<TypeName> {
        let Token::Word(word) = self.token else { return Err(self.near()) };
        let Some((name, brackets)) = type_of(&word.to_ascii_uppercase()) else { return Err(self.near()) };
        self.advance()?;
        let mut data_type = TypeName { name, length: None, scale: None };
        if self.is_word("unsigned") {
            data_type.name = unsigned_of(name).ok_or_else(|| self.near())?;
            self.advance()?;
        }
        match brackets {
            Brackets::None => {}
            Brackets::Needed => self.brackets(&mut data_type)?,
            Brackets::Optional if self.is_mark("(") => self.brackets(&mut data_type)?,
            Brackets::Optional => {}
        }
        Ok(data_type)
    }

    fn brackets(&mut self, data_type: &mut TypeName) -> Result<()> {
        self.expect_mark("(")?;
        let number = |parser: &mut Self| -> Result<u32> { u32::try_from(parser.unsigned()?).map_err(|_| parser.near()) };
        data_type.length = Some(number(self)?);
        if self.take_comma()? {
            data_type.scale = Some(number(self)?);
        }
        self.expect_mark(")")
    }
}

fn no_dot(what: &str, name: &str) -> Result<()> {
    match name.contains('.') {
        true => Err(SyntaxError::code(0x2617, format!("The {what} name cannot contain '.'"))),
        false => Ok(()),
    }
}

fn is_pseudo_column(word: &str) -> bool {
    const PSEUDO_COLUMNS: [&str; 12] = [
        "tbname", "_c0", "_irowts", "_isfilled", "_qduration", "_qend", "_qstart", "_rowts", "_tags", "_wduration", "_wend",
        "_wstart",
    ];
    PSEUDO_COLUMNS.iter().any(|pseudo| pseudo.eq_ignore_ascii_case(word))
}

enum Brackets {
    None,
    Needed,
    Optional,
}

fn type_of(word: &str) -> Option<(&'static str, Brackets)> {
    use Brackets::{Needed, None as Never, Optional};
    Some(match word {
        "TIMESTAMP" => ("TIMESTAMP", Never),
        "BOOL" => ("BOOL", Never),
        "TINYINT" => ("TINYINT", Never),
        "SMALLINT" => ("SMALLINT", Never),
        "INT" | "INTEGER" => ("INT", Never),
        "BIGINT" => ("BIGINT", Never),
        "FLOAT" => ("FLOAT", Never),
        "DOUBLE" => ("DOUBLE", Never),
        "VARCHAR" | "BINARY" => ("VARCHAR", Needed),
        "NCHAR" => ("NCHAR", Needed),
        "VARBINARY" => ("VARBINARY", Needed),
        "GEOMETRY" => ("GEOMETRY", Needed),
        "JSON" => ("JSON", Never),
        "DECIMAL" => ("DECIMAL", Needed),
        "BLOB" => ("BLOB", Optional),
        _ => return None,
    })
}

fn unsigned_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "TINYINT" => "TINYINT UNSIGNED",
        "SMALLINT" => "SMALLINT UNSIGNED",
        "INT" => "INT UNSIGNED",
        "BIGINT" => "BIGINT UNSIGNED",
        _ => return None,
    })
}

/// Words that are no names unless quoted; options of databases among them (asked of a 3.3.0.1 server one by one).
fn is_reserved(word: &str) -> bool {
    const RESERVED: [&str; 82] = [
        "add", "all", "alter", "and", "as", "asc", "between", "bool", "by", "column", "create", "database", "desc",
        "describe", "distinct", "drop", "exists", "from", "group", "having", "if", "in", "insert", "interval", "into", "is",
        "like", "limit", "match", "nmatch", "not", "null", "offset", "on", "or", "order", "partition", "select", "set",
        "show", "sliding", "slimit", "soffset", "stable", "table", "tag", "tags", "topic", "union", "use", "using", "values",
        "where", "buffer", "cachemodel", "cachesize", "comment", "comp", "duration", "keep", "maxrows", "minrows", "pages",
        "pagesize", "precision", "replica", "retentions", "single_stable", "state", "strict", "stt_trigger", "table_prefix",
        "table_suffix", "tsdb_pagesize", "ttl", "vgroups", "wal_fsync_period", "wal_level", "wal_retention_period",
        "wal_retention_size", "wal_roll_period", "wal_segment_size",
    ];
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}
