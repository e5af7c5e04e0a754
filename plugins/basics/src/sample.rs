//! `sample`: passes a share of the rows on, chosen by a seeded generator.

use arrow::array::BooleanArray;
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Message, Output, Payload, Result, Transform, TransformConfig};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use schemars::JsonSchema;
use serde::Deserialize;

/// Passes a share of the rows on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SampleConfig {
    /// How many of the rows, 0 to 1.
    fraction: f64,
    /// The same rows of the same input for the same seed.
    #[serde(default)]
    seed: u64,
}

impl TransformConfig for SampleConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("sample", Kind::Transform, "Passes a share of the rows on")
    }

    fn lint(&self) -> Vec<Error> {
        match (0.0..=1.0).contains(&self.fraction) {
            true => Vec::new(),
            false => vec![Error::fatal("a fraction is between 0 and 1").path("fraction")],
        }
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Sample { random: SmallRng::seed_from_u64(self.seed), fraction: self.fraction, context }))
    }
}

struct Sample {
    random: SmallRng,
    fraction: f64,
    context: Context,
}

impl Transform for Sample {
    fn apply(&mut self, mut message: Message, out: &mut Output) -> Result<()> {
        if let Payload::Rows(rows) = &mut message.payload {
            let count = rows.batch.num_rows();
            let keep: BooleanArray = (0..count).map(|_| Some(self.random.random_bool(self.fraction))).collect();
            let dropped = count - keep.true_count();
            self.context.count("rows_sampled_out", dropped as u64);
            if dropped == count {
                return Ok(());
            }
            *rows = crate::kept(rows, &keep)?;
        }
        out.push(message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use pipeline_sdk::{Header, Lane, Position, Rows};

    use super::*;

    #[test]
    fn a_share_passes_and_the_seed_says_which() {
        let run = |fraction, seed| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
            let rows = Rows::plain(RecordBatch::try_from_iter([("v", column)]).unwrap());
            let message = Message { header: Header::new(Lane::new("1"), Position::from_number(1)), payload: Payload::Rows(rows) };
            let mut out = Output::default();
            SampleConfig { fraction, seed }.build(Context::detached()).unwrap().apply(message, &mut out).unwrap();
            let Some(Message { payload: Payload::Rows(rows), .. }) = out.messages.pop() else { return None };
            Some(rows.batch)
        };
        let some = run(0.25, 1).unwrap();
        assert!((2_300..2_700).contains(&some.num_rows()), "{}", some.num_rows());
        assert_eq!(run(0.25, 1).unwrap(), some);
        assert_ne!(run(0.25, 2).unwrap(), some);
        assert_eq!(run(1.0, 1).unwrap().num_rows(), 10_000);
        assert!(run(0.0, 1).is_none());
    }
}
