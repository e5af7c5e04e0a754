//! The transform: a batch in, the query's result out.

use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures_util::TryStreamExt;
use pipeline_sdk::{Context, Error, Message, Output, Payload, Result, Rows, Transform};
use tokio::runtime::Handle;

use crate::config::SqlConfig;
use crate::plan::{Plan, Planner};
use crate::statement::{Query, said};
use crate::tables::TableColumns;

/// How often a query that takes long looks whether it is still wanted.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

pub struct Sql {
    config: SqlConfig,
    context: Context,
    query: Query,
    tables: TableColumns,
    planner: Planner,
    /// The one used last comes last.
    plans: Vec<Plan>,
    runtime: Handle,
}

impl Sql {
    pub fn new(config: SqlConfig, context: Context) -> Result<Self> {
        let query = Query::parse(&config.query, &config.table)?;
        let planner = Planner::new(&config).map_err(|error| Error::fatal(format!("DataFusion does not start: {}", said(&error))))?;
        let runtime = Handle::try_current().map_err(|error| Error::fatal(format!("no runtime to work in: {error}")))?;
        Ok(Self { tables: TableColumns::of(&query), config, context, query, planner, plans: Vec::new(), runtime })
    }

    fn query(&mut self, rows: &Rows) -> Result<Option<Rows>> {
        let input = self.tables.add(rows).map_err(|error| rejected(&error))?;
        self.plan(&input.schema())?;
        let Some(plan) = self.plans.last() else { return Err(Error::fatal("a plan that was just made is gone")) };
        let result = self.runtime.block_on(self.run(plan, input));
        plan.clear();
        match result? {
            Some(batch) => self.tables.take(batch, rows).map(Some).map_err(|error| rejected(&error)),
            None => Ok(None),
        }
    }

    /// Puts the plan for these columns last.
    fn plan(&mut self, schema: &SchemaRef) -> Result<()> {
        let plan = match self.plans.iter().position(|plan| plan.schema == *schema) {
            Some(index) => self.plans.remove(index),
            None => self.runtime.block_on(self.planner.plan(&self.query, schema.clone())).map_err(|error| does_not_fit(&error, schema))?,
        };
        if self.plans.len() >= self.config.plans_max as usize {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        Ok(())
    }

    /// All of the result as one batch; `None` where it has no rows.
    async fn run(&self, plan: &Plan, input: RecordBatch) -> Result<Option<RecordBatch>> {
        let stream = plan.run(input).map_err(|error| failed(&error))?;
        // Beside this call: an operator may reckon for minutes before it lets anything else happen.
        let mut query = self.runtime.spawn(collect(stream, self.config.memory_max));
        loop {
            tokio::select! {
                result = &mut query => match result {
                    Ok(result) => return result,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => return Err(stopped()),
                },
                () = tokio::time::sleep(LOOK_INTERVAL) => if self.context.is_cancelled() {
                    query.abort();
                    return Err(stopped());
                },
            }
        }
    }
}

async fn collect(mut stream: SendableRecordBatchStream, memory_max: u64) -> Result<Option<RecordBatch>> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await.map_err(|error| failed(&error))? {
        bytes += size(&batch).map_err(|error| rejected(&error))?;
        if bytes > memory_max {
            return Err(too_large(format!("the result is larger than {memory_max} bytes")));
        }
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
    }
    Ok(match batches.len() {
        0 | 1 => batches.pop(),
        _ => Some(concat_batches(&batches[0].schema(), &batches).map_err(|error| rejected(&error))?),
    })
}

impl Transform for Sql {
    fn apply(&mut self, mut message: Message, out: &mut Output) -> Result<()> {
        if let Payload::Rows(rows) = &mut message.payload {
            if rows.batch.num_rows() == 0 {
                return Ok(());
            }
            match self.query(rows)? {
                Some(result) => *rows = result,
                None => return Ok(()),
            }
            // Which of them come from rows that may have been written before, a query does not tell.
            message.header.replayed_rows = u64::MAX;
        }
        out.push(message);
        Ok(())
    }
}

/// Bytes of a batch's own rows: it may be a part of a larger one.
fn size(batch: &RecordBatch) -> Result<u64, ArrowError> {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().map(|bytes| bytes as u64)).sum()
}

fn does_not_fit(error: &DataFusionError, schema: &Schema) -> Error {
    let columns: Vec<String> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let error = Error::rejected(format!("the query does not fit the rows: {}", said(error))).code("sql.plan").path("query");
    error.hint(format!("they have {}", columns.join(", ")))
}

fn failed(error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(text) => too_large(text.clone()),
        root => Error::rejected(format!("the query fails on these rows: {}", said(root))).code("sql.rows"),
    }
}

fn stopped() -> Error {
    Error::retry("the query was stopped before it was done").code("sql.stopped")
}

fn too_large(text: String) -> Error {
    Error::rejected(text).code("sql.memory").hint("raise `memory-max`, or let the source make smaller messages (`batch-rows`)")
}

fn rejected(error: &ArrowError) -> Error {
    Error::rejected(format!("the query's rows make no batch: {error}")).code("sql.rows")
}
