//! `where`: passes the rows on for which an expression is true.

use pipeline_sdk::{
    ComponentDescription, Context, Kind, Message, Output, Payload, Result, Transform, TransformConfig,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expression::Expression;

/// Passes the rows on for which an expression is true.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WhereConfig {
    /// As in SQL: `temperature > 20 and device in ('a', 'b')`. `_table`, `_group` and `_namespace` are those of the row.
    condition: Expression,
}

impl TransformConfig for WhereConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("where", Kind::Transform, "Passes the rows on for which an expression is true")
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Where { condition: self.condition, context }))
    }
}

struct Where {
    condition: Expression,
    context: Context,
}

impl Transform for Where {
    fn apply(&mut self, mut message: Message, out: &mut Output) -> Result<()> {
        if let Payload::Rows(rows) = &mut message.payload {
            let mask = self.condition.mask(rows)?;
            let kept = mask.true_count();
            let dropped = rows.batch.num_rows() - kept;
            if dropped > 0 {
                self.context.count("rows_filtered", dropped as u64);
                if kept == 0 {
                    return Ok(());
                }
                *rows = crate::kept(rows, &mask)?;
            }
        }
        out.push(message);
        Ok(())
    }
}
