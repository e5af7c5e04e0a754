//! Statements: unmarked rows as multi-row INSERTs, and the definitions that cannot be written raw.

use std::fmt::Write as _;

use pipeline_sdk::{Error, Result};
use tdengine_wire::{ColumnType, DataType};
use tdengine_wire::block::BlockView;
use tdengine_wire::escape::{identifier, literal};
use tdengine_wire::value::{Value, nchar_text};

use super::rows::Rebuilt;
use super::target::Target;
use crate::client::ClientError;
use crate::transport::Connection;
use crate::errors::wire_error;
use crate::log::change::{CreateTable, Stable, TableOf};

/// Writes blocks as a user would: unmarked, many tables and rows a statement.
pub async fn insert(
    target: &Target,
    connection: &Connection,
    blocks: &[Rebuilt<'_>],
) -> Result<Result<(), ClientError>> {
    check_texts(target, blocks)?;
    let mut text = String::with_capacity(target.statement_bytes_max);
    let mut row_text = String::new();
    for block in blocks {
        let view = BlockView::parse(&block.bytes).map_err(wire_error)?;
        let head = insert_head(target, block);
        let mut is_open = false;
        for row in 0..view.rows() {
            row_text.clear();
            push_row(&mut row_text, &view, row);
            let needed = row_text.len() + if is_open { 0 } else { head.len() };
            if text.len() + needed + INSERT.len() > target.statement_bytes_max && !text.is_empty() {
                if let Err(error) = target.exec(connection, &text).await {
                    return Ok(Err(error));
                }
                text.clear();
                is_open = false;
            }
            if text.is_empty() {
                text.push_str(INSERT);
            }
            if !is_open {
                text.push_str(&head);
                is_open = true;
            }
            text.push_str(&row_text);
        }
    }
    if text.is_empty() {
        return Ok(Ok(()));
    }
    Ok(target.exec(connection, &text).await)
}

const INSERT: &str = "insert into";

/// A statement is text: bytes that are none would arrive as other ones. Only raw writes, those of a replica, carry them.
fn check_texts(target: &Target, blocks: &[Rebuilt<'_>]) -> Result<()> {
    let mut rows = Vec::new();
    let mut first = None;
    for block in blocks {
        let view = BlockView::parse(&block.bytes).map_err(wire_error)?;
        for (column, field) in view.columns().iter().zip(&block.fields) {
            if !matches!(column.column_type().data_type, DataType::Varchar | DataType::Json) {
                continue;
            }
            for row in (0..view.rows()).filter(|row| !is_text(&column.value(*row))) {
                first.get_or_insert_with(|| format!("column {} of {}", identifier(&field.name), target.qualified(block.table)));
                rows.push((block.first_row + row) as u64);
            }
        }
    }
    let Some(place) = first else { return Ok(()) };
    rows.sort_unstable();
    rows.dedup();
    let message = format!("{place} has values that are no UTF-8 ({} rows), which a statement cannot carry", rows.len());
    let error = Error { rows, ..Error::rejected(message) };
    Err(error.code("tdengine.no-text").hint("correct them at the source, keep them as dead letters (`on-error`), or use VARBINARY"))
}

fn is_text(value: &Value<'_>) -> bool {
    match value {
        Value::Varchar(bytes) | Value::Json(bytes) => std::str::from_utf8(bytes).is_ok(),
        _ => true,
    }
}

fn insert_head(target: &Target, block: &Rebuilt<'_>) -> String {
    let columns: Vec<String> = block.fields.iter().map(|field| identifier(&field.name)).collect();
    format!(" {} ({}) values", target.qualified(block.table), columns.join(","))
}

fn push_row(out: &mut String, view: &BlockView<'_>, row: usize) {
    out.push_str(" (");
    for (index, column) in view.columns().iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_literal(out, &column.value(row), column.column_type());
    }
    out.push(')');
}

/// Appends a literal without allocating for the common types.
fn push_literal(out: &mut String, value: &Value<'_>, column_type: ColumnType) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Null => out.write_str("NULL"),
        Value::Int(value) | Value::Timestamp(value) => write!(out, "{value}"),
        Value::UInt(value) => write!(out, "{value}"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Float(value) if value.is_finite() => write!(out, "{value:e}"),
        Value::Double(value) if value.is_finite() => write!(out, "{value:e}"),
        Value::Nchar(bytes) => out.write_str(&literal(&nchar_text(bytes))),
        other => out.write_str(&other.to_sql(column_type)),
    };
}

/// `CREATE STABLE` with the entry's columns and tags.
pub fn create_stable(target: &Target, stable: &Stable) -> String {
    let columns = definitions(stable.columns.iter().map(|column| (&*column.name, column.column_type, column.is_primary_key())));
    let tags = definitions(stable.tags.iter().map(|tag| (&*tag.name, tag.column_type, false)));
    format!("create stable {} ({columns}) tags ({tags})", target.qualified(&stable.name))
}

/// `CREATE TABLE`, with a token as its comment where one is given.
pub fn create_table(target: &Target, table: &CreateTable, first_tag: &str, comment: Option<&str>) -> String {
    let name = target.qualified(&table.name);
    let comment = comment.map(|comment| format!(" comment {}", literal(comment))).unwrap_or_default();
    match &table.of {
        TableOf::Stable { stable, tags, .. } => {
            let stable = target.qualified(stable);
            // All NULL: one tag has to be named, and any will do.
            if tags.is_empty() {
                return format!("create table {name} using {stable} ({}) tags (NULL){comment}", identifier(first_tag));
            }
            let names: Vec<String> = tags.iter().map(|tag| identifier(&tag.name)).collect();
            let values: Vec<String> = tags.iter().map(crate::log::change::Tag::to_sql).collect();
            format!("create table {name} using {stable} ({}) tags ({}){comment}", names.join(","), values.join(","))
        }
        TableOf::Normal { columns } => {
            let columns =
                definitions(columns.iter().map(|column| (&*column.name, column.column_type, column.is_primary_key())));
            format!("create table {name} ({columns}){comment}")
        }
    }
}

fn definitions<'a>(columns: impl Iterator<Item = (&'a str, ColumnType, bool)>) -> String {
    let one = |(name, column_type, is_key): (&str, ColumnType, bool)| {
        format!("{} {column_type}{}", identifier(name), if is_key { " primary key" } else { "" })
    };
    columns.map(one).collect::<Vec<_>>().join(", ")
}
