//! SQL that changes rows: INSERT and DELETE.

pub(crate) mod condition;
pub(crate) mod delete;
pub(crate) mod insert;
