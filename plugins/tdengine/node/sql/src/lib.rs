//! TDengine SQL as the embedded node reads it: lexer, syntax tree, parser (PROTOCOL 13.1).
//!
//! Pure and without I/O. Trees borrow from the text where that saves an allocation: values of an INSERT are slices. Errors have
//! the codes and texts of a real server (PROTOCOL 15, `tests/recordings/errors.jsonl`).

pub mod ast;
pub mod error;
mod lexer;
mod parse;

pub use ast::Statement;
pub use error::SyntaxError;
pub use parse::{COLUMN_NAME_MAX, DATABASE_NAME_MAX, DEPTH_MAX, TABLE_NAME_MAX, parse};
