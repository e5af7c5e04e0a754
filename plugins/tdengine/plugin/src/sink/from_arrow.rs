//! Arrow rows as a raw block of the target's columns.
//!
//! Columns are matched by name, stand in the target's order and take its types; where the Arrow type is another, it is cast once per column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType as ArrowType, Schema};
use arrow::record_batch::RecordBatch;
use pipeline_sdk::{Error, Result, Run};
use serde_json::json;
use tdengine_wire::arrow::{column_type_of, field_of, from_columns};
use tdengine_wire::block::VERSION_TMQ;
use tdengine_wire::types::flags;
use tdengine_wire::{ColumnType, Field, Precision};

use super::decide::NO_ID;
use super::target::Target;
use super::{NO_COLUMN, NOT_ANNOUNCED, parked, shared};
use crate::metadata::{self, Column, Definition};
use crate::transport::Connection;

/// What was decided about columns that the target lacks, for the rows of one message: by super table or normal table.
pub type Lacking = HashMap<Arc<str>, Result<()>>;

/// A block with header version 2, its fields, and the unit of its times. `first_row` is the batch's first row in its message.
pub async fn block_of(
    target: &mut Target,
    connection: &Connection,
    run: &Run,
    batch: &RecordBatch,
    first_row: usize,
    lacking: &mut Lacking,
) -> Result<(Vec<u8>, Vec<Field>, Precision)> {
    let precision = precision_of(target, connection).await?;
    let (table, schema) = (&*run.table, batch.schema());
    let here = table_of(target, connection, run, &schema, lacking).await?;
    let known = here.as_ref().map(|here| &*here.definition);
    let placed = placed(&schema, known);
    if placed.len() < batch.num_columns() {
        check_names(&schema, table)?;
        target.context.count("values_left_out", ((batch.num_columns() - placed.len()) * batch.num_rows()) as u64);
    }
    let mut fields = Vec::with_capacity(placed.len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(placed.len());
    for (index, known) in placed {
        let (field, column) = (schema.field(index), batch.column(index));
        let column_type = match known {
            Some(known) => known.column_type,
            None => column_type_of(field).map_err(|error| Error::rejected(error.to_string()).code("tdengine.type"))?,
        };
        let wanted = field_of(field.name(), column_type, precision);
        // Bytes go into a column of any text as they are: a VARCHAR need not be UTF-8.
        let fits = column.data_type() == wanted.data_type()
            || (column.data_type() == &ArrowType::Binary && column_type.is_variable());
        if !fits && target.marks && is_text(column.data_type()) != column_type.is_variable() {
            return Err(other_kind(target, table, field, column_type));
        }
        columns.push(if fits { column.clone() } else { converted(column, wanted.data_type(), first_row).map_err(|error| {
            let what = format!("column `{}` of `{table}` cannot become {column_type}", field.name());
            error.context(what).code("tdengine.cast").hint("make the column's type at the target one that holds these values")
        })? });
        let mut made = Field::new(field.name().clone(), column_type, NO_ID);
        if known.is_some_and(|known| known.is_primary_key) {
            made.flags |= flags::PRIMARY_KEY;
        }
        fields.push(made);
    }
    let types: Vec<ColumnType> = fields.iter().map(|field| field.column_type).collect();
    let block = from_columns(&columns, &types, VERSION_TMQ).map_err(|error| {
        Error::rejected(format!("rows of `{table}` do not fit their columns: {error}")).code("tdengine.values")
    })?;
    Ok((block, fields, precision))
}

fn is_text(data_type: &ArrowType) -> bool {
    use ArrowType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// In a replica a number is not written as a text, nor a text as a number: sites would differ, and nobody would be told. As for frames.
fn other_kind(target: &Target, table: &str, field: &arrow::datatypes::Field, here: ColumnType) -> Error {
    let there = column_type_of(field).map_or_else(|_| field.data_type().to_string(), |there| there.to_string());
    target.conflict(table, format!("column `{}` is {there} at the source and {here} here", field.name()))
}

/// Which of the rows' columns are written, with those of the table: all, where it is not here yet.
fn placed<'a>(schema: &Schema, table: Option<&'a Definition>) -> Vec<(usize, Option<&'a Column>)> {
    let Some(table) = table else { return (0..schema.fields().len()).map(|index| (index, None)).collect() };
    let place = |column: &'a Column| schema.index_of(&column.name).ok().map(|index| (index, Some(column)));
    table.columns.iter().filter_map(place).collect()
}

/// Of two columns with one name only one could be written.
fn check_names(schema: &Schema, table: &str) -> Result<()> {
    let is_second = |(index, name): (usize, &str)| schema.index_of(name).is_ok_and(|first| first != index);
    let mut names = schema.fields().iter().map(|field| field.name().as_str()).enumerate();
    let Some((_, name)) = names.find(|it| is_second(*it)) else { return Ok(()) };
    let error = Error::rejected(format!("rows of `{table}` have two columns `{name}`")).code(NO_COLUMN);
    Err(error.hint("give one of them another name, or drop it (`select`)"))
}

/// The rows' columns that the table has not.
fn lacking_in<'a>(schema: &'a Schema, table: &Definition) -> impl Iterator<Item = &'a str> {
    schema.fields().iter().map(|field| field.name().as_str()).filter(|name| table.column(name).is_none())
}

/// The table that rows go to, if it is here. Where it lacks a column of theirs, its definition is read again: a user may have added it.
async fn table_of(
    target: &mut Target,
    connection: &Connection,
    run: &Run,
    schema: &Schema,
    lacking: &mut Lacking,
) -> Result<Option<shared::Target>> {
    let Some(mut here) = target.find(connection, &run.table).await? else { return Ok(None) };
    if lacking_in(schema, &here.definition).next().is_some() {
        if let Some(decided) = lacking.get(&here.group) {
            return decided.clone().map(|()| Some(here));
        }
        if target.waits_since.is_some() {
            parked::retry(target, connection).await?;
        }
        target.shared.reload(connection, &target.database, &here.group).await?;
        let Some(again) = target.find(connection, &run.table).await? else { return Ok(None) };
        here = again;
        let decided = decide(target, run, schema, &here);
        lacking.insert(here.group.clone(), decided.clone());
        decided?;
    }
    let time = here.definition.columns.first().filter(|time| schema.index_of(&time.name).is_err());
    let Some(time) = time else { return Ok(Some(here)) };
    let message = format!("rows of {} have no column `{}`, which is the time of that table", target.place_of(&run.table), time.name);
    Err(Error::rejected(message).code(NO_COLUMN).hint("let the transforms keep it under that name"))
}

/// Whether values of columns that are not here are left out: as in a frame those of a column that was dropped since. Else the log may
/// announce the column; what it does not announce is rejected, and never left out.
fn decide(target: &mut Target, run: &Run, schema: &Schema, here: &shared::Target) -> Result<()> {
    let place = target.place_of(&run.table);
    let origin = target.origins.get(&here.group)?.filter(|origin| origin.is_counterpart_of(&here.definition));
    for name in lacking_in(schema, &here.definition) {
        let key = (here.group.clone(), format!("column `{name}`"));
        if origin.as_ref().is_some_and(|origin| origin.had_column(name)) {
            if target.never_announced.insert(key) {
                let message = format!("column `{name}` of {place} was dropped here or at the source; its values are left out");
                target.context.incident("left-out", message, json!({ "table": &*run.table, "column": name }));
            }
            continue;
        }
        let what = format!("rows of {place} have a column `{name}`, which is not there");
        let is_told = !run.namespace.is_empty() && !target.never_announced.contains(&key);
        if is_told && !target.is_overdue() {
            let hint = format!("the log may announce it: it is waited for, up to `announce-timeout`. Else {}", what_to_do(name));
            return Err(Error::retry(format!("{what} yet")).code(NOT_ANNOUNCED).hint(hint));
        }
        target.never_announced.insert(key);
        return Err(Error::rejected(what).code(NO_COLUMN).hint(what_to_do(name)));
    }
    Ok(())
}

fn what_to_do(name: &str) -> String {
    format!("add the column at the target, or leave it away: {{ type = \"select\", drop = [\"{name}\"] }}")
}

/// The column as another type; a value that does not fit is an error with its row, never a NULL.
fn converted(column: &ArrayRef, wanted: &ArrowType, first_row: usize) -> Result<ArrayRef> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, wanted, &exact).map_err(|error| {
        let lossy = cast_with_options(column, wanted, &CastOptions { safe: true, ..CastOptions::default() });
        let is_lost = |row: &usize| lossy.as_ref().is_ok_and(|lossy| lossy.is_null(*row) && !column.is_null(*row));
        let rows = (0..column.len()).filter(is_lost).map(|row| (first_row + row) as u64).collect();
        Error::rejected(error.to_string()).of_rows(rows)
    })
}

/// The unit of the target database's times, asked for once.
async fn precision_of(target: &mut Target, connection: &Connection) -> Result<Precision> {
    if let Some(precision) = target.precision {
        return Ok(precision);
    }
    let found = metadata::database(connection, &target.database).await?;
    let missing = || Error::retry(format!("database `{}` is missing", target.database));
    let precision = found.ok_or_else(missing)?.precision;
    target.precision = Some(precision);
    Ok(precision)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field as ArrowField;
    use tdengine_wire::DataType;

    use super::*;

    fn rows_of(names: &[&str]) -> Schema {
        Schema::new(names.iter().map(|name| ArrowField::new(*name, ArrowType::Int32, true)).collect::<Vec<_>>())
    }

    #[test]
    fn columns_go_by_name_and_stand_as_in_the_table() {
        let column = |name: &str| Column { name: name.into(), column_type: ColumnType::of(DataType::Int), is_primary_key: false };
        let table = Definition { columns: ["ts", "a", "b", "c"].map(column).into(), ..Definition::default() };
        let go = |names: &[&str]| {
            let schema = rows_of(names);
            placed(&schema, Some(&table)).into_iter().map(|(index, known)| (names[index].to_owned(), known.unwrap().name.clone())).unzip()
        };
        for (names, expect) in [
            (&["ts", "a", "c"][..], &["ts", "a", "c"][..]),
            (&["c", "way", "b", "ts"], &["ts", "b", "c"]),
            (&["A", "ts"], &["ts"]),
        ] {
            let (from, to): (Vec<String>, Vec<String>) = go(names);
            assert_eq!((&*from, &*to), (&*expect.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), &*from), "{names:?}");
        }
        let schema = rows_of(&["c", "way", "A"]);
        assert_eq!(lacking_in(&schema, &table).collect::<Vec<_>>(), ["way", "A"]);
        assert_eq!(placed(&schema, None).len(), 3, "a table that is not here yet says nothing");
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        assert_eq!(check_names(&rows_of(&["ts", "a"]), "t"), Ok(()));
        let error = check_names(&rows_of(&["ts", "a", "a"]), "t").unwrap_err();
        assert!(error.to_string().contains("two columns `a`"), "{error}");
    }
}
