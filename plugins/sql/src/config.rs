//! Keys of the transform.

use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Transform, TransformConfig, units};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::statement::Query;
use crate::transform::Sql;

/// Passes on what a query makes of the rows of each message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SqlConfig {
    /// One `select`, as DataFusion takes it. Names of columns are as they are written, upper or lower case. `_table`, `_group` and
    /// `_namespace` are those of the row; as columns of the result they say which table a row is of.
    pub query: String,
    /// What the query calls the rows of a message.
    #[serde(default = "table")]
    #[schemars(length(min = 1))]
    pub table: String,
    /// What a query may hold in memory beside the batch; its result may be as large. One that needs more rejects the batch.
    #[serde(default = "memory_max", with = "units::bytes")]
    #[schemars(with = "String", extend("format" = "bytes"))]
    pub memory_max: u64,
    /// Parts of a batch that are worked on at a time. With more than one, rows come in any order unless the query has an `order by`.
    #[serde(default = "threads")]
    #[schemars(range(min = 1, max = 64))]
    pub threads: u32,
    /// Rows that are worked on at once.
    #[serde(default = "batch_rows")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_rows: u32,
    /// Plans that are kept, one for each set of columns that messages have; of more, the one not used for longest is made again.
    #[serde(default = "plans_max")]
    #[schemars(range(min = 1))]
    pub plans_max: u32,
}

fn table() -> String {
    "batch".into()
}

fn memory_max() -> u64 {
    128 << 20
}

fn threads() -> u32 {
    1
}

fn batch_rows() -> u32 {
    16_384
}

fn plans_max() -> u32 {
    16
}

impl TransformConfig for SqlConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("sql", Kind::Transform, "Passes on what a query makes of the rows of each message").blocking()
    }

    fn lint(&self) -> Vec<Error> {
        Query::parse(&self.query, &self.table).err().into_iter().collect()
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Sql::new(self, context)?))
    }
}
