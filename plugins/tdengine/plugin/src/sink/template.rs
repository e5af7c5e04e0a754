//! Rows that know no tables (of a file, a broker) laid out over tables of a super table.
//!
//! The table's name and its tags come from columns of each row; super table and tables are made where they are missing. Only for
//! pipelines that are no replica: there, nothing but the log creates (invariant `log-creates`).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use pipeline_sdk::{Error, Header, Result, Rows, Run};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tdengine_wire::arrow::{column_type_of, field_of};
use tdengine_wire::escape::{identifier, is_usable_name, literal};
use tdengine_wire::{ColumnType, DataType};

use super::rows;
use super::target::Target;
use crate::client::ClientError;
use crate::metadata::Definition;
use crate::transport::Connection;

/// Where rows without a table go.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Template {
    /// The super table. Where it is missing it is made with the columns and tags of the first rows.
    pub stable: String,
    /// A row's table, from its columns: `d_{device}`. Made where it is missing.
    pub table: String,
    /// Columns that are tags of the table, and so not written as columns.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The column of times; the first one that is a time where absent.
    #[serde(default)]
    pub time: Option<String>,
    /// Bytes of texts, where the super table is made.
    #[serde(default = "text_bytes")]
    #[schemars(range(min = 1, max = 16_000))]
    pub text_bytes: u16,
}

fn text_bytes() -> u16 {
    64
}

/// A piece of the pattern.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    Column(&'a str),
}

/// Rows by table.
struct LaidOut {
    rows: Rows,
    /// Of each table its rows as they came.
    groups: Vec<Vec<u32>>,
    /// Names, each with its tags as literals.
    tables: Vec<(Arc<str>, Vec<String>)>,
    columns: Vec<(String, ColumnType)>,
    tags: Vec<(String, ColumnType)>,
}

impl Template {
    /// All that is wrong with it, without looking at rows; paths are within it.
    pub fn lint(&self) -> Vec<Error> {
        let mut wrong = Vec::new();
        if self.stable.contains(['{', '}']) {
            let error = Error::fatal(format!("`{}`: all rows go to one super table, which no column names", self.stable));
            wrong.push(error.path("template.stable").hint("take a sink for each super table, with `when`; `table` may have columns in braces"));
        } else if !is_usable_name(&self.stable) {
            wrong.push(Error::fatal(format!("`{}` cannot be a super table's name", self.stable)).path("template.stable"));
        }
        match pieces(&self.table) {
            Err(error) => wrong.push(Error::fatal(error).path("template.table")),
            Ok(pieces) if self.tags.is_empty() && pieces.iter().all(|piece| matches!(piece, Piece::Text(_))) => {
                let error = Error::fatal("every row would go to one table, and a super table needs a tag");
                wrong.push(error.path("template.tags").hint("name columns that are tags"));
            }
            Ok(_) if self.tags.is_empty() => {
                wrong.push(Error::fatal("a super table needs a tag").path("template.tags").hint("name the columns of the pattern"));
            }
            Ok(_) => {}
        }
        wrong
    }

    /// Writes rows of no table.
    pub async fn write(&self, target: &mut Target, connection: &Connection, header: &Header, rows: &Rows) -> Result<()> {
        let laid_out = self.lay_out(&rows.batch)?;
        self.make_missing(target, connection, &rows.batch, &laid_out).await?;
        // They are in another order now: which of them may have been written is not known any more.
        let header = Header { replayed_rows: u64::MAX, ..header.clone() };
        let written = rows::write_rows(target, connection, &header, &laid_out.rows).await;
        written.map_err(|error| laid_out.as_they_came(error))
    }

    fn lay_out(&self, batch: &RecordBatch) -> Result<LaidOut> {
        let pieces = pieces(&self.table).map_err(|error| Error::fatal(error).path("template.table"))?;
        let of_name = pieces.iter().filter_map(|piece| match piece {
            Piece::Column(name) => Some(*name),
            Piece::Text(_) => None,
        });
        let keys: Vec<&str> = of_name.chain(self.tags.iter().map(String::as_str)).collect();
        let key_columns = keys.iter().map(|name| find(batch, name).cloned()).collect::<Result<Vec<_>>>()?;
        let groups = grouped(&key_columns)?;
        let time = self.time_of(batch)?;
        let schema = batch.schema();
        let is_column = |index: &usize| *index != time && !self.tags.contains(schema.field(*index).name());
        let kept: Vec<usize> = std::iter::once(time).chain((0..batch.num_columns()).filter(is_column)).collect();
        let indices: Vec<u32> = groups.iter().flatten().copied().collect();
        let failed = |error: arrow::error::ArrowError| Error::rejected(format!("rows cannot be laid out over tables: {error}"));
        let ordered = batch.project(&kept).and_then(|batch| take_record_batch(&batch, &UInt32Array::from(indices))).map_err(failed)?;
        let (mut runs, mut tables, mut first_row) = (Vec::new(), Vec::new(), 0);
        for group in &groups {
            let row = group[0] as usize;
            let table: Arc<str> = name_of(batch, &pieces, row, group)?.into();
            let tags = self.tags.iter().map(|tag| find(batch, tag).map(|column| value_literal(column, row))).collect::<Result<_>>()?;
            runs.push(Run { first_row, table: table.clone(), group: self.stable.as_str().into(), ..Run::default() });
            tables.push((table, tags));
            first_row += group.len() as u64;
        }
        let columns = kept.iter().map(|index| self.definition(schema.field(*index))).collect::<Result<_>>()?;
        let tags = self.tags.iter().map(|tag| schema.field_with_name(tag).map_err(failed).and_then(|it| self.definition(it)));
        Ok(LaidOut { rows: Rows { batch: ordered, runs }, groups, tables, columns, tags: tags.collect::<Result<_>>()? })
    }

    fn time_of(&self, batch: &RecordBatch) -> Result<usize> {
        let schema = batch.schema();
        let is_time = |field: &ArrowField| matches!(field.data_type(), ArrowType::Timestamp(..) | ArrowType::Date32 | ArrowType::Date64);
        let found = match &self.time {
            Some(name) => schema.index_of(name).ok(),
            None => schema.fields().iter().position(|field| is_time(field)),
        };
        found.ok_or_else(|| {
            let what = self.time.as_ref().map_or_else(|| "no column of times".into(), |name| format!("no column `{name}`"));
            let error = Error::rejected(format!("the rows have {what}")).code("tdengine.template").path("template.time");
            error.hint("name it, or make it a time with `select`: cast = { ts = \"timestamp[ms]\" }")
        })
    }

    fn definition(&self, field: &ArrowField) -> Result<(String, ColumnType)> {
        let column_type = match field.data_type() {
            ArrowType::Timestamp(..) | ArrowType::Date32 | ArrowType::Date64 => ColumnType::of(DataType::Timestamp),
            ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => ColumnType::varchar(u32::from(self.text_bytes)),
            _ => column_type_of(field).map_err(|error| Error::rejected(error.to_string()).code("tdengine.type"))?,
        };
        Ok((field.name().clone(), column_type))
    }

    async fn make_missing(&self, target: &Target, connection: &Connection, batch: &RecordBatch, laid_out: &LaidOut) -> Result<()> {
        let mut missing = Vec::new();
        for (index, (table, _)) in laid_out.tables.iter().enumerate() {
            if target.shared.known_table(table).is_none() && target.shared.table(connection, &target.database, table).await?.is_none() {
                missing.push(index);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let stable = target.qualified(&self.stable);
        let has_tags = |here: &Definition| self.tags.iter().all(|tag| here.tag(tag).is_some());
        match target.shared.definition_with(connection, &target.database, &self.stable, has_tags).await? {
            Some(here) => self.check_tags(target, batch, laid_out, &missing, &here)?,
            None => {
                let list = |columns: &[(String, ColumnType)]| {
                    columns.iter().map(|(name, column_type)| format!("{} {column_type}", identifier(name))).collect::<Vec<_>>().join(", ")
                };
                let sql = format!("create stable if not exists {stable} ({}) tags ({})", list(&laid_out.columns), list(&laid_out.tags));
                target.exec(connection, &sql).await.map_err(|error| Error::from(error).context(format!("super table {stable}")))?;
                target.shared.reload(connection, &target.database, &self.stable).await?;
            }
        }
        let failed = |error: ClientError| {
            let (first, more) = (target.place_of(&laid_out.tables[missing[0]].0), missing.len() - 1);
            Error::from(error).context(if more == 0 { format!("table {first}") } else { format!("table {first} and {more} more") })
        };
        let names: Vec<String> = self.tags.iter().map(|tag| identifier(tag)).collect();
        let mut sql = String::new();
        for (table, tags) in missing.iter().map(|index| &laid_out.tables[*index]) {
            let one = format!(" if not exists {} using {stable} ({}) tags ({})", target.qualified(table), names.join(","), tags.join(","));
            if sql.len() + one.len() > target.statement_bytes_max {
                target.exec(connection, &std::mem::take(&mut sql)).await.map_err(failed)?;
            }
            if sql.is_empty() {
                sql.push_str("create table");
            }
            sql.push_str(&one);
        }
        target.exec(connection, &sql).await.map_err(failed)?;
        missing.iter().for_each(|index| target.shared.table_created(&laid_out.tables[*index].0, &self.stable));
        Ok(())
    }

    /// Whether tables can be made of a super table that is there: it has the tags, and they can have these values.
    fn check_tags(&self, target: &Target, batch: &RecordBatch, laid_out: &LaidOut, missing: &[usize], here: &Definition) -> Result<()> {
        let stable = target.place_of(&self.stable);
        if here.tags.is_empty() {
            return Err(Error::rejected(format!("{stable} is no super table")).code("tdengine.template").hint("name one, or another name: it is made"));
        }
        for tag in &self.tags {
            let Some(known) = here.tag(tag) else {
                let tags = here.tags.iter().map(|tag| tag.name.as_str()).collect::<Vec<_>>().join(", ");
                let error = Error::rejected(format!("super table {stable} has no tag `{tag}`")).code("tdengine.template");
                return Err(error.hint(format!("it has {tags}: name those (`select`: rename), or add the tag there")));
            };
            let (column, column_type) = (find(batch, tag)?, known.column_type);
            if column_type.is_variable() {
                continue;
            }
            let wanted = field_of(tag, column_type, target.precision.unwrap_or_default());
            let made = cast(column, wanted.data_type()).ok();
            let is_bad = |index: &&usize| {
                let row = laid_out.groups[**index][0] as usize;
                !column.is_null(row) && made.as_ref().is_none_or(|made| made.is_null(row))
            };
            let bad: Vec<usize> = missing.iter().filter(is_bad).copied().collect();
            let Some(first) = bad.first() else { continue };
            let (table, value) = (target.place_of(&laid_out.tables[*first].0), array_value_to_string(column, laid_out.groups[*first][0] as usize));
            let more = if bad.len() == 1 { String::new() } else { format!(", and those of {} tables more", bad.len() - 1) };
            let value = value.unwrap_or_default();
            let error = Error::rejected(format!("tag `{tag}` of {table} cannot become {column_type}: `{value}`{more}")).code("tdengine.template");
            let mut rows: Vec<u64> = bad.iter().flat_map(|index| &laid_out.groups[*index]).map(|row| u64::from(*row)).collect();
            rows.sort_unstable();
            return Err(Error { rows, ..error.hint(format!("super table {stable} has it as {column_type}")) });
        }
        Ok(())
    }
}

impl LaidOut {
    /// The error with its rows by their numbers in the message.
    fn as_they_came(&self, mut error: Error) -> Error {
        let order: Vec<u32> = if error.rows.is_empty() { Vec::new() } else { self.groups.concat() };
        error.rows.iter_mut().for_each(|row| *row = order.get(*row as usize).map_or(*row, |row| u64::from(*row)));
        error.rows.sort_unstable();
        error
    }
}

/// # Errors
/// A brace without its other.
fn pieces(pattern: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, behind) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        let inside = behind.strip_prefix('{').and_then(|it| it.split_once('}'));
        let Some((column, behind)) = inside.filter(|(column, _)| !column.is_empty() && !column.contains('{')) else {
            return Err(format!("`{pattern}` has a brace that is no column in braces: write `d_{{device}}`"));
        };
        pieces.push(Piece::Column(column));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    if pieces.is_empty() { Err("a table needs a name".into()) } else { Ok(pieces) }
}

fn find<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        let schema = batch.schema();
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let error = Error::rejected(format!("the rows have no column `{name}`, which the template needs")).code("tdengine.template");
        error.hint(format!("they have {}", known.join(", ")))
    })
}

/// Rows with equal keys together, in the order in which keys come first.
fn grouped(keys: &[ArrayRef]) -> Result<Vec<Vec<u32>>> {
    let failed = |error: arrow::error::ArrowError| Error::rejected(format!("no table's name of these columns: {error}"));
    let fields = keys.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converted = RowConverter::new(fields).and_then(|converter| converter.convert_columns(keys)).map_err(failed)?;
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for row in 0..converted.num_rows() {
        let group = *known.entry(converted.row(row).data()).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(row as u32);
    }
    Ok(groups)
}

fn name_of(batch: &RecordBatch, pieces: &[Piece<'_>], row: usize, group: &[u32]) -> Result<String> {
    let mut name = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => name.push_str(text),
            Piece::Column(column) => {
                let column = find(batch, column)?;
                let value = if column.is_null(row) { None } else { array_value_to_string(column, row).ok() };
                name.push_str(&value.unwrap_or_default());
            }
        }
    }
    if is_usable_name(&name) {
        return Ok(name);
    }
    let error = Error::rejected(format!("`{name}` cannot be a table's name")).code("tdengine.template");
    let rows = group.iter().map(|row| u64::from(*row)).collect();
    Err(Error { rows, ..error.hint("names have 1 to 190 bytes, without dots and back-quotes") })
}

fn value_literal(column: &ArrayRef, row: usize) -> String {
    let text = || array_value_to_string(column, row).unwrap_or_default();
    match column.data_type() {
        _ if column.is_null(row) => "NULL".into(),
        ArrowType::Boolean => text(),
        numeric if numeric.is_numeric() => text(),
        _ => literal(&text()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn rows_are_laid_out_over_tables() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("device", Arc::new(StringArray::from(vec!["a", "it's", "a"]))),
            ("v", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("ts", Arc::new(TimestampMillisecondArray::from(vec![10, 20, 30]))),
            ("zone", Arc::new(Int64Array::from(vec![Some(7), None, Some(7)]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let template: Template = serde_json::from_str(r#"{ "stable": "m", "table": "d_{device}", "tags": ["device", "zone"] }"#).unwrap();
        assert_eq!(template.lint(), Vec::new());
        let laid_out = template.lay_out(&batch).unwrap();
        let runs: Vec<_> = laid_out.rows.runs.iter().map(|run| (run.first_row, &*run.table)).collect();
        assert_eq!(runs, [(0, "d_a"), (2, "d_it's")]);
        let error = Error { rows: vec![0, 1], ..Error::rejected("the first two of them") };
        assert_eq!(laid_out.as_they_came(error).rows, [0, 2], "as the message has them");
        assert_eq!(laid_out.tables[1].1, ["'it\\'s'", "NULL"]);
        let names: Vec<_> = laid_out.columns.iter().map(|(name, column_type)| format!("{name} {column_type}")).collect();
        assert_eq!(names, ["ts TIMESTAMP", "v BIGINT"]);
        assert_eq!(laid_out.rows.batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap().values(), &[1, 3, 2]);
    }

    #[test]
    fn a_template_that_cannot_be_is_refused() {
        for (table, tags, expected) in [("d_{", &["a"][..], "template.table"), ("d", &[], "template.tags"), ("", &["a"], "template.table")] {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let template = Template { stable: "m".into(), table: table.into(), tags, time: None, text_bytes: 8 };
            assert_eq!(template.lint()[0].path.as_deref(), Some(expected));
        }
        let template = Template { stable: "{kind}".into(), table: "d_{a}".into(), tags: vec!["a".into()], time: None, text_bytes: 8 };
        assert_eq!(template.lint()[0].path.as_deref(), Some("template.stable"));
    }
}
