//! A query and the columns of a batch to an executable plan, and that over batches with these columns.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures_util::stream;
use parking_lot::Mutex;

use crate::config::SqlConfig;
use crate::statement::Query;

/// DataFusion with the limits of a configuration, and with nothing to read but the batch.
pub struct Planner {
    session: SessionContext,
    config: SqlConfig,
}

/// A query over batches of one schema.
pub struct Plan {
    pub schema: SchemaRef,
    batch: Arc<Mutex<Option<RecordBatch>>>,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

/// A part of the batch that a plan reads now.
#[derive(Debug)]
struct Part {
    schema: SchemaRef,
    batch: Arc<Mutex<Option<RecordBatch>>>,
    /// Of how many parts, which one.
    index: usize,
    parts: usize,
    batch_rows: usize,
}

impl Planner {
    pub fn new(config: &SqlConfig) -> Result<Self> {
        let threads = config.threads as usize;
        let mut options = SessionConfig::new().with_target_partitions(threads).with_batch_size(config.batch_rows as usize);
        // Columns are called what they are called, and text is what our formats know as text.
        options.options_mut().sql_parser.enable_ident_normalization = false;
        options.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let memory = usize::try_from(config.memory_max).unwrap_or(usize::MAX);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()?;
        Ok(Self { session: SessionContext::new_with_config_rt(options, environment), config: config.clone() })
    }

    /// # Errors
    /// The query does not fit these columns, or what it gives depends on more than the batch.
    pub async fn plan(&self, query: &Query, schema: SchemaRef) -> Result<Plan> {
        let parts = self.config.threads as usize;
        let batch = Arc::new(Mutex::new(None));
        let part = |index| {
            let (schema, batch, batch_rows) = (schema.clone(), batch.clone(), self.config.batch_rows as usize);
            Arc::new(Part { schema, batch, index, parts, batch_rows }) as Arc<dyn PartitionStream>
        };
        let table = StreamingTable::try_new(schema.clone(), (0..parts).map(part).collect())?;
        let table_name = TableReference::bare(self.config.table.as_str());
        self.session.deregister_table(table_name.clone())?;
        self.session.register_table(table_name, Arc::new(table))?;
        let state = self.session.state();
        let logical = state.statement_to_plan(query.statement.clone()).await?;
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&logical)?;
        depends_on_the_batch_alone(&logical)?;
        let plan = state.create_physical_plan(&logical).await?;
        Ok(Plan { schema, batch, plan, context: state.task_ctx() })
    }
}

impl Plan {
    /// What the query makes of a batch, which has this plan's schema.
    pub fn run(&self, batch: RecordBatch) -> Result<SendableRecordBatchStream> {
        *self.batch.lock() = Some(batch);
        let plan = reset_plan_states(self.plan.clone())?;
        execute_stream(plan, self.context.clone())
    }

    /// Lets go of the batch.
    pub fn clear(&self) {
        *self.batch.lock() = None;
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = self.batch.lock().clone();
        let rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
        let at = |part: usize| rows * part / self.parts;
        let (begin, end, step) = (at(self.index), at(self.index + 1), self.batch_rows);
        let slice = move |from: usize| batch.as_ref().map(|batch| Ok(batch.slice(from, step.min(end - from))));
        let slices = (begin..end).step_by(step).filter_map(slice);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter(slices)))
    }
}

/// # Errors
/// The query asks for the time, chance, or the like: the same batch, read again after a restart, would give other rows.
fn depends_on_the_batch_alone(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|it| match it {
                Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
                    found = Some(function.func.name().to_owned());
                    Ok(TreeNodeRecursion::Stop)
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    match found {
        Some(name) => Err(DataFusionError::Plan(format!("`{name}()` gives another value each time: a query depends on its batch alone"))),
        None => Ok(()),
    }
}
