//! TDengine SQL as the embedded node reads it: lexer, syntax tree, parser.
