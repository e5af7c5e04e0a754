//! Holds nothing: see `tests/client.rs`.
