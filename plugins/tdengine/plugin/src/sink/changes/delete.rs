//! Deletes: raw and marked, table by table, while the text that libtaos makes of them fits its buffer; else as SQL
//! between two comments.

use pipeline_sdk::{Header, Result};
use serde_json::json;
use tdengine_wire::escape::{identifier, literal};

use super::super::target::Target;
use super::Applying;
use super::table::{is_missing, tolerate};
use crate::transport::Connection;
use crate::log::change::Delete;
use crate::metadata;
use crate::token::Token;

/// Bytes of the statement that libtaos can hold (FACTS F68).
const RAW_STATEMENT_BYTES_MAX: usize = 255;

/// Deletes the range from every table that it hit at the source.
pub async fn delete(applying: &mut Applying<'_>, delete: &Delete) -> Result<()> {
    let change = applying.change;
    if applying.header.replayed && !is_still_due(applying, delete).await? {
        return Ok(());
    }
    let target = &mut *applying.target;
    let mut here = Vec::with_capacity(change.tables.len());
    for table in &change.tables {
        match target.find(applying.connection, table).await? {
            Some(_) => here.push(table),
            // Before anything is deleted: what was, is not to be deleted again later.
            None => target.may_come(table)?,
        }
    }
    target.waits_since = None;
    for table in here {
        if !target.marks {
            let sql = delete.statement(&target.qualified(table), delete.from, delete.to);
            tolerate(target.exec(applying.connection, &sql).await, is_missing)?;
        } else if delete.raw_statement(table).len() <= RAW_STATEMENT_BYTES_MAX {
            let raw = delete.raw_for(table).map_err(crate::errors::wire_error)?;
            tolerate(target.write_raw(applying.connection, &raw).await, is_missing)?;
        } else {
            between_comments(target, applying.connection, applying.header, delete, table).await?;
        }
        target.rewritten.forget(table, delete.from..=delete.to);
        target.context.count("changes_applied", 1);
    }
    Ok(())
}

/// A delete read again after a restart could take what was written here since (invariant `no-regress`). It is due only
/// where as many rows are here as it took at the source, or none but those that were written again just before it; where others
/// are, it is left out and reported.
async fn is_still_due(applying: &mut Applying<'_>, delete: &Delete) -> Result<bool> {
    let target = &mut *applying.target;
    let (mut rows, mut rewritten) = (0, 0);
    for table in &applying.change.tables {
        let Some(here) = target.find(applying.connection, table).await? else { continue };
        let time = here.definition.columns.first().map(|column| identifier(&column.name)).unwrap_or_default();
        let (from, to) = (delete.from, delete.to);
        rewritten += target.rewritten.rows_in(table, from..=to) as i64;
        let table = target.qualified(table);
        let sql = format!("select count(*) from {table} where {time} >= {from} and {time} <= {to}");
        let counted = applying.connection.query(&sql).await?.texts()?;
        rows += counted.first().and_then(|row| row[0].as_deref()?.parse::<i64>().ok()).unwrap_or_default();
    }
    let is_due = rows == delete.affected || (rows != 0 && rows == rewritten);
    if rows != 0 && !is_due {
        let message = format!(
            "a delete read again after a restart took {} rows at the source, {rows} are here: it was left out",
            delete.affected
        );
        let detail = json!({ "table": delete.table, "from": delete.from, "to": delete.to });
        target.context.incident("regress", message, detail);
    }
    Ok(is_due)
}

/// The token, the delete, and the table's own comment again: what stands between the two in the log is ours.
async fn between_comments(
    target: &Target,
    connection: &Connection,
    header: &Header,
    delete: &Delete,
    table: &str,
) -> Result<()> {
    let Some(found) = metadata::table(connection, &target.database, table).await? else { return Ok(()) };
    let qualified = target.qualified(table);
    // A token that an interrupted try left is nobody's comment.
    let own = if Token::find(found.comment.as_bytes()).is_some() { "" } else { found.comment.as_str() };
    let token = target.token(header)?.to_string();
    let comment = |text: &str| format!("alter table {qualified} comment {}", literal(text));
    tolerate(target.exec(connection, &comment(&token)).await, is_missing)?;
    let sql = delete.statement(&qualified, delete.from, delete.to);
    tolerate(target.exec(connection, &sql).await, is_missing)?;
    tolerate(target.exec(connection, &comment(own)).await, is_missing)
}
