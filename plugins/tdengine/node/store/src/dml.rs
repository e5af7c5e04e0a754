//! SQL that changes rows: INSERT and DELETE.

pub(crate) mod delete;
