//! `generate`: rows out of nothing, at a rate or as fast as they are taken.
//!
//! A value depends on the seed, its column and the row's number alone, so what is read again after a restart is equal to what was read
//! before. The position is the number of rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pipeline_sdk::{
    Checkpoint, ComponentDescription, Connected, Context, Error, Header, Kind, Lane, LaneProgress, Message, Payload, Polled,
    Position, Result, Rows, Source, SourceConfig, async_trait,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes rows, for tests and benchmarks. `--for` ends it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// Rows until the end; without end where absent.
    rows: Option<u64>,
    /// Rows a second; as fast as they are taken where absent.
    #[schemars(range(min = 1))]
    rate: Option<u64>,
    /// Rows of a message at most.
    #[schemars(range(min = 1, max = 1_000_000))]
    batch_rows: u32,
    /// The same rows for the same seed.
    seed: u64,
    /// What a row is made of.
    columns: Vec<Column>,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        let column = |name: &str, makes| Column { name: name.into(), makes };
        let columns = vec![
            column("ts", Makes::Time { start_ms: start_ms(), step_ms: step_ms() }),
            column("id", Makes::Sequence),
            column("device", Makes::Text { values: 100 }),
            column("value", Makes::Float { min: 0.0, max: 100.0 }),
        ];
        Self { rows: None, rate: None, batch_rows: 8_192, seed: 0, columns }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Column {
    name: String,
    #[serde(flatten)]
    makes: Makes,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "type", rename_all_fields = "kebab-case")]
enum Makes {
    /// The row's number.
    Sequence,
    /// Moments, one step apart, in milliseconds since the epoch.
    Time {
        #[serde(default = "start_ms")]
        start_ms: i64,
        #[serde(default = "step_ms")]
        step_ms: i64,
    },
    /// Whole numbers from `min` up to, without, `max`.
    Int { min: i64, max: i64 },
    /// Numbers from `min` up to, without, `max`.
    Float { min: f64, max: f64 },
    Bool,
    /// One of so many texts: `device-0`, `device-1`, … where the column is called `device`.
    Text { values: u32 },
}

/// 2026-01-01
fn start_ms() -> i64 {
    1_767_225_600_000
}

fn step_ms() -> i64 {
    1
}

impl Makes {
    fn data_type(&self) -> DataType {
        match self {
            Self::Sequence | Self::Int { .. } => DataType::Int64,
            Self::Time { .. } => DataType::Timestamp(TimeUnit::Millisecond, None),
            Self::Float { .. } => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Text { .. } => DataType::Utf8,
        }
    }
}

impl SourceConfig for GenerateConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("generate", Kind::Source, "Makes rows, for tests and benchmarks").generator()
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        if self.columns.is_empty() {
            problems.push(Error::fatal("a row needs a column").path("columns"));
        }
        for (index, column) in self.columns.iter().enumerate() {
            let is_empty = match column.makes {
                Makes::Int { min, max } => min >= max,
                Makes::Float { min, max } => min >= max || !(max - min).is_finite(),
                Makes::Text { values } => values == 0,
                _ => false,
            };
            let path = format!("columns[{index}]");
            if is_empty {
                problems.push(Error::fatal(format!("column `{}` has no value to choose", column.name)).path(path));
            } else if self.columns[..index].iter().any(|other| other.name == column.name) {
                problems.push(Error::fatal(format!("two columns are named `{}`", column.name)).path(path));
            }
        }
        problems
    }

    fn build(self, _: Context) -> Result<Box<dyn Source>> {
        let fields: Vec<Field> = self.columns.iter().map(|it| Field::new(&it.name, it.makes.data_type(), false)).collect();
        let texts = self.columns.iter().map(texts).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Box::new(Generate { config: self, schema, texts, next: 0, sequence: 0, begun: (Instant::now(), 0) }))
    }
}

/// All texts of a column, empty where it has none.
fn texts(column: &Column) -> Vec<String> {
    match column.makes {
        Makes::Text { values } => (0..values).map(|value| format!("{}-{value}", column.name)).collect(),
        _ => Vec::new(),
    }
}

struct Generate {
    config: GenerateConfig,
    schema: SchemaRef,
    texts: Vec<Vec<String>>,
    /// The next row's number.
    next: u64,
    sequence: u64,
    /// When it was connected, and the next row's number then.
    begun: (Instant, u64),
}

const LANE: &str = "1";

#[async_trait]
impl Source for Generate {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        let position = from.lanes.get(&Lane::new(LANE));
        self.next = match position {
            None => 0,
            Some(position) => position.number.and_then(|number| u64::try_from(number).ok()).ok_or_else(|| {
                Error::fatal(format!("the stored position `{position}` is no number of rows: another version stored it"))
                    .code("generate.position")
            })?,
        };
        self.sequence = 0;
        self.begun = (Instant::now(), self.next);
        Ok(Connected::default())
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let left = self.config.rows.map_or(u64::MAX, |rows| rows.saturating_sub(self.next));
        if left == 0 {
            return Ok(Polled::End);
        }
        let mut count = left.min(u64::from(self.config.batch_rows));
        if let Some(rate) = self.config.rate {
            // What is due: one row at least, so that a low rate is one of single rows and not of rare batches.
            let made = self.next - self.begun.1;
            let due_at = self.begun.0 + Duration::from_secs_f64((made + 1) as f64 / rate as f64);
            let left = due_at.saturating_duration_since(Instant::now());
            tokio::time::sleep(left.min(wait)).await;
            let due = (self.begun.0.elapsed().as_secs_f64() * rate as f64) as u64;
            if due <= made {
                return Ok(Polled::Idle);
            }
            count = count.min(due - made);
        }
        let batch = self.batch(count as usize)?;
        self.next += count;
        self.sequence += 1;
        let mut header = Header::new(Lane::new(LANE), Position::from_number(self.next as i64));
        header.sequence = self.sequence;
        Ok(Polled::Messages(vec![Message { header, payload: Payload::Rows(Rows::plain(batch)) }]))
    }

    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let position = |number: u64| Some(Position::from_number(number as i64));
        Ok(vec![LaneProgress {
            lane: Lane::new(LANE),
            oldest: position(0),
            current: position(self.next),
            // Without an end nothing waits: what was not asked for is not there.
            latest: position(self.config.rows.unwrap_or(self.next)),
            retention_seconds: None,
            ends: self.config.rows.is_some(),
        }])
    }
}

impl Generate {
    fn batch(&self, count: usize) -> Result<RecordBatch> {
        let columns = self.config.columns.iter().enumerate().map(|(index, column)| self.column(index, column, count)).collect();
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| Error::fatal(format!("rows of this shape: {error}")))
    }

    fn column(&self, index: usize, column: &Column, count: usize) -> ArrayRef {
        let salt = mixed(self.config.seed ^ mixed(index as u64 + 1));
        let numbers = self.next..self.next + count as u64;
        let random = numbers.clone().map(|number| mixed(salt.wrapping_add(number)));
        match &column.makes {
            Makes::Sequence => Arc::new(Int64Array::from_iter_values(numbers.map(|number| number as i64))),
            Makes::Time { start_ms, step_ms } => {
                let at = |number: u64| start_ms.saturating_add(step_ms.saturating_mul(number as i64));
                Arc::new(TimestampMillisecondArray::from_iter_values(numbers.map(at)))
            }
            Makes::Int { min, max } => {
                let span = max.abs_diff(*min);
                Arc::new(Int64Array::from_iter_values(random.map(|value| min.wrapping_add_unsigned(value % span))))
            }
            Makes::Float { min, max } => {
                Arc::new(Float64Array::from_iter_values(random.map(|value| min + (max - min) * fraction(value))))
            }
            Makes::Bool => Arc::new(random.map(|value| Some(value & 1 == 1)).collect::<BooleanArray>()),
            Makes::Text { .. } => {
                let texts = &self.texts[index];
                Arc::new(StringArray::from_iter_values(random.map(|value| &texts[(value % texts.len() as u64) as usize])))
            }
        }
    }
}

/// 0 up to, without, 1.
fn fraction(value: u64) -> f64 {
    (value >> 11) as f64 / (1u64 << 53) as f64
}

/// SplitMix64's finalizer: numbers one apart come to values that tell nothing of each other.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn read(config: serde_json::Value, from: i64) -> RecordBatch {
        let config: GenerateConfig = serde_json::from_value(config).unwrap();
        assert_eq!(config.lint(), Vec::new());
        let schema_of = |batches: &[RecordBatch]| batches[0].schema();
        let mut source = config.build(Context::detached()).unwrap();
        let lanes = [(Lane::new(LANE), Position::from_number(from))].into();
        source.connect(&Checkpoint { lanes }).await.unwrap();
        let mut batches = Vec::new();
        loop {
            match source.next(Duration::from_secs(1)).await.unwrap() {
                Polled::Messages(messages) => batches.extend(messages.into_iter().map(|message| match message.payload {
                    Payload::Rows(rows) => rows.batch,
                    _ => panic!("it makes rows"),
                })),
                Polled::Idle => {}
                _ => break,
            }
        }
        arrow::compute::concat_batches(&schema_of(&batches), &batches).unwrap()
    }

    #[tokio::test]
    async fn rows_depend_on_seed_and_number_alone() {
        let columns = json!([
            { "name": "n", "type": "sequence" }, { "name": "t", "type": "time", "step-ms": 10 },
            { "name": "i", "type": "int", "min": -5, "max": 5 }, { "name": "f", "type": "float", "min": 0.0, "max": 1.0 },
            { "name": "b", "type": "bool" }, { "name": "s", "type": "text", "values": 3 },
        ]);
        let config = |seed: u64, batch_rows: u32| json!({ "rows": 1_000, "seed": seed, "batch-rows": batch_rows, "columns": columns });
        let whole = read(config(1, 1_000), 0).await;
        assert_eq!(whole.num_rows(), 1_000);
        assert_eq!(read(config(1, 7), 0).await, whole);
        assert_eq!(read(config(1, 7), 400).await, whole.slice(400, 600));
        assert_ne!(read(config(2, 7), 0).await, whole);
    }

    #[tokio::test]
    async fn a_rate_is_kept() {
        let begun = Instant::now();
        assert_eq!(read(json!({ "rows": 300, "rate": 1_000 }), 0).await.num_rows(), 300);
        assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    }

    #[test]
    fn columns_that_cannot_be_are_refused() {
        let config: GenerateConfig = serde_json::from_value(json!({ "columns": [
            { "name": "a", "type": "int", "min": 1, "max": 1 }, { "name": "b", "type": "bool" }, { "name": "b", "type": "bool" },
        ] }))
        .unwrap();
        let paths: Vec<_> = config.lint().into_iter().filter_map(|error| error.path).collect();
        assert_eq!(paths, ["columns[0]", "columns[2]"]);
    }
}
