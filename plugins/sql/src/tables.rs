//! Which table rows are of: columns of the query's input where it names them, and of its result where they are in it.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use pipeline_sdk::{Rows, Run};

use crate::statement::Query;

type Part = fn(&mut Run) -> &mut Arc<str>;

/// Name of the column, and what it is of a run.
const COLUMNS: [(&str, Part); 3] =
    [("_namespace", |run| &mut run.namespace), ("_table", |run| &mut run.table), ("_group", |run| &mut run.group)];

/// The columns of a query that say which table a row is of.
pub struct TableColumns {
    named: Vec<(&'static str, Part)>,
}

impl TableColumns {
    /// Those that stand in the query.
    pub fn of(query: &Query) -> Self {
        Self { named: COLUMNS.into_iter().filter(|(name, _)| query.has_word(name)).collect() }
    }

    /// The batch with these columns. One that it has is its own.
    pub fn add(&self, rows: &Rows) -> Result<RecordBatch, ArrowError> {
        let schema = rows.batch.schema();
        let added: Vec<_> = self.named.iter().filter(|(name, _)| schema.index_of(name).is_err()).collect();
        if added.is_empty() {
            return Ok(rows.batch.clone());
        }
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        let mut columns = rows.batch.columns().to_vec();
        for (name, part) in added {
            fields.push(Arc::new(Field::new(*name, DataType::Utf8, false)));
            columns.push(of_runs(rows, *part));
        }
        RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns)
    }

    /// A result as rows: of the tables that its columns name, which are taken out of it, or of the one table that the input was of.
    pub fn take(&self, result: RecordBatch, input: &Rows) -> Result<Rows, ArrowError> {
        let schema = input.batch.schema();
        let mut parts = Vec::new();
        let mut others = Vec::new();
        for (index, field) in result.schema().fields().iter().enumerate() {
            match self.named.iter().find(|(name, _)| field.name() == name && schema.index_of(name).is_err()) {
                Some((_, part)) => parts.push((*part, cast(result.column(index), &DataType::Utf8)?)),
                None => others.push(index),
            }
        }
        let known = match input.runs.as_slice() {
            [one] => Run { first_row: 0, ..one.clone() },
            _ => Run::default(),
        };
        if parts.is_empty() {
            return Ok(Rows { batch: result, runs: vec![known] });
        }
        let parts: Vec<(Part, &StringArray)> = parts.iter().map(|(part, column)| (*part, column.as_string())).collect();
        let runs = runs(result.num_rows(), &parts, &known, input);
        let options = RecordBatchOptions::new().with_row_count(Some(result.num_rows()));
        let fields = Arc::new(result.schema().project(&others)?);
        let columns: Vec<ArrayRef> = others.iter().map(|index| result.column(*index).clone()).collect();
        Ok(Rows { batch: RecordBatch::try_new_with_options(fields, columns, &options)?, runs })
    }
}

/// A run for each stretch of rows of one table. What a table's run was known to have beside (its group, its labels), it keeps.
fn runs(rows: usize, parts: &[(Part, &StringArray)], known: &Run, input: &Rows) -> Vec<Run> {
    let value = |column: &StringArray, row: usize| if column.is_null(row) { "" } else { column.value(row) }.to_owned();
    let is_new = |row: usize| row == 0 || parts.iter().any(|(_, column)| value(column, row) != value(column, row - 1));
    (0..rows)
        .filter(|row| is_new(*row))
        .map(|row| {
            let mut run = known.clone();
            let named = |run: &mut Run| parts.iter().for_each(|(part, column)| *part(run) = value(column, row).into());
            named(&mut run);
            if let Some(same) = input.runs.iter().find(|it| it.table == run.table && (run.namespace.is_empty() || it.namespace == run.namespace)) {
                run = same.clone();
                named(&mut run);
            }
            Run { first_row: row as u64, ..run }
        })
        .collect()
}

fn of_runs(rows: &Rows, part: Part) -> ArrayRef {
    let mut builder = StringBuilder::new();
    for (run, range) in rows.ranges() {
        let mut run = run.clone();
        let text = part(&mut run).clone();
        range.for_each(|_| builder.append_value(&text));
    }
    Arc::new(builder.finish())
}
