//! The loop-marking filter of active-active replication.
//!
//! Two symmetric pipelines would send each other's writes back and forth for ever (FACTS F2). This filter drops what the
//! source stamped `replicated`, passes what is `local`, and counts both. It looks at nothing else: which way the source told
//! the two apart, natively or by a token in the log, does not matter here.
//!
//! It keeps a pipeline from looping only where the source can tell and the sink marks what it writes; and it lets a pipeline
//! resume without undoing newer rows only where the sink compares what it writes again. All three are required, and a file
//! without them is refused when it is checked (invariants `no-loop` and `no-regress`). A source and a sink that are one and the
//! same site are refused by the engine, which compares their identities once both are connected.

use pipeline_sdk::describe::{COMPARES_REPLAYS, MARKS_WRITES, TELLS_REPLICATED};
use pipeline_sdk::{
    ComponentDescription, Context, Kind, Mark, Message, Output, Plugin, Result, Transform, TransformConfig,
};
use schemars::JsonSchema;
use serde::Deserialize;

const SUMMARY: &str = "Drops what a replica wrote, so that replication both ways does not loop";
const NEEDS_TELLING: &str = "loop-mark drops what another site's replica wrote, and this source cannot tell that from what \
    users wrote: every row would travel back and forth for ever";
const NEEDS_MARKING: &str = "loop-mark at the other site drops what this sink writes by its mark, and this sink leaves none: \
    every row would come back for ever";
const NEEDS_COMPARING: &str = "after a restart the last rows are written again, and this sink would put them over newer rows \
    that users of that site have written since; the newer value would be lost there";

/// Drops what a replica wrote, so that replication both ways does not loop. Nothing to set.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoopMarkConfig {}

impl TransformConfig for LoopMarkConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("loop-mark", Kind::Transform, SUMMARY)
            .any_frame()
            .requires(Kind::Source, TELLS_REPLICATED, NEEDS_TELLING)
            .requires(Kind::Sink, MARKS_WRITES, NEEDS_MARKING)
            .requires(Kind::Sink, COMPARES_REPLAYS, NEEDS_COMPARING)
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(LoopMark { context }))
    }
}

struct LoopMark {
    context: Context,
}

impl Transform for LoopMark {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        match &message.header.mark {
            Mark::Local => {
                self.context.count("local_passed", 1);
                out.push(message);
            }
            Mark::Replicated { site } => {
                tracing::debug!(
                    lane = %message.header.lane,
                    position = %message.header.position,
                    site = site.as_deref(),
                    "loop suppressed"
                );
                self.context.count("replicated_dropped", 1);
                self.context.count("replicated_rows", message.row_count());
                // What the engine sums over a pipeline's components: a source may suppress some as well.
                self.context.count("loops_suppressed", 1);
            }
        }
        Ok(())
    }
}

/// The plugin.
pub fn plugin() -> Plugin {
    Plugin::new("loop-mark", env!("CARGO_PKG_VERSION"), "The loop-marking filter of active-active replication")
        .transform::<LoopMarkConfig>()
}
