//! Expressions over the columns of a batch, as in SQL: comparison, `and`, `or`, `not`, `in`, `like`, `between`, `is null`,
//! arithmetic.
//!
//! A text is parsed once; a batch is evaluated by Arrow's compute kernels, column by column. A comparison with NULL is NULL, and
//! what is not true is not selected, as in SQL.

mod evaluate;
mod parse;

use pipeline_sdk::Error;
use serde::Deserialize;

/// A parsed expression; it reads from a file as its text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Expression {
    text: String,
    root: Node,
}

impl Expression {
    /// Longest text, in bytes.
    pub const BYTES_MAX: usize = 16 * 1024;

    /// # Errors
    /// What was expected where.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let root = parse::parse(text).map_err(Error::fatal)?;
        Ok(Self { text: text.to_owned(), root })
    }
}

impl TryFrom<String> for Expression {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| error.message)
    }
}

impl schemars::JsonSchema for Expression {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expression".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1 })
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Column(String),
    Literal(Literal),
    Not(Box<Node>),
    Negative(Box<Node>),
    IsNull { of: Box<Node>, is_negated: bool },
    Binary(Operator, Box<Node>, Box<Node>),
    In { of: Box<Node>, list: Vec<Node> },
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    /// `like` that takes upper and lower case for the same.
    LikeAnyCase,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}
