//! `dedupe`: passes a row on only where no row with the same key came within a bounded window.
//!
//! Keys are remembered as 128-bit hashes of their values and table: two different keys are taken for one with a chance of 1 to 2^64
//! at four billion keys. The window is empty after a restart.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use pipeline_sdk::{
    ComponentDescription, Context, Error, Kind, Message, Output, Payload, Result, Rows, Transform, TransformConfig, units,
};
use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// Drops rows whose key came before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DedupeConfig {
    /// Columns that make up the key; all where absent.
    columns: Option<Vec<String>>,
    /// Keys that are remembered: the oldest is forgotten first. Each takes about 64 bytes.
    #[serde(default = "keys_max")]
    #[schemars(range(min = 1))]
    keys_max: u32,
    /// For how long a key is remembered at most; as long as there is room where absent.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<String>", extend("format" = "duration"))]
    within: Option<Duration>,
}

fn keys_max() -> u32 {
    1_000_000
}

impl TransformConfig for DedupeConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("dedupe", Kind::Transform, "Drops rows whose key came before, within a window")
    }

    fn lint(&self) -> Vec<Error> {
        match &self.columns {
            Some(columns) if columns.is_empty() => vec![Error::fatal("a key needs a column").path("columns")],
            _ => Vec::new(),
        }
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Dedupe { config: self, converter: None, window: Window::default(), context }))
    }
}

struct Dedupe {
    config: DedupeConfig,
    /// Of the last batch's key columns.
    converter: Option<(Vec<DataType>, RowConverter)>,
    window: Window,
    context: Context,
}

/// Keys by age.
#[derive(Default)]
struct Window {
    known: HashSet<u128>,
    order: VecDeque<(u128, Instant)>,
}

impl Window {
    /// Whether the key is new.
    fn add(&mut self, key: u128, now: Instant, keys_max: usize) -> bool {
        if !self.known.insert(key) {
            return false;
        }
        self.order.push_back((key, now));
        if self.order.len() > keys_max {
            self.forget();
        }
        true
    }

    fn forget_older(&mut self, now: Instant, within: Duration) {
        while self.order.front().is_some_and(|(_, since)| now.duration_since(*since) > within) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some((key, _)) = self.order.pop_front() {
            self.known.remove(&key);
        }
    }
}

impl Transform for Dedupe {
    fn apply(&mut self, mut message: Message, out: &mut Output) -> Result<()> {
        if let Payload::Rows(rows) = &mut message.payload {
            let mask = self.mask(rows)?;
            let dropped = rows.batch.num_rows() - mask.true_count();
            if dropped > 0 {
                self.context.count("rows_duplicate", dropped as u64);
                *rows = crate::kept(rows, &mask)?;
                if rows.batch.num_rows() == 0 {
                    return Ok(());
                }
            }
        }
        out.push(message);
        Ok(())
    }
}

impl Dedupe {
    fn mask(&mut self, rows: &Rows) -> Result<BooleanArray> {
        let now = Instant::now();
        if let Some(within) = self.config.within {
            self.window.forget_older(now, within);
        }
        let columns = self.key_columns(rows)?;
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        if self.converter.as_ref().is_none_or(|(known, _)| *known != types) {
            let fields = types.iter().cloned().map(SortField::new).collect();
            let converter = RowConverter::new(fields).map_err(|error| Error::rejected(format!("these columns make no key: {error}")))?;
            self.converter = Some((types, converter));
        }
        let Some((_, converter)) = &self.converter else { return Err(Error::fatal("the converter was made above")) };
        let keys = converter.convert_columns(&columns).map_err(|error| Error::rejected(format!("no key of a row: {error}")))?;
        let mut keep = Vec::with_capacity(keys.num_rows());
        for (run, range) in rows.ranges() {
            let seed = xxh3_64(format!("{}\0{}", run.namespace, run.table).as_bytes());
            for row in range {
                let key = xxh3_128_with_seed(keys.row(row).data(), seed);
                keep.push(self.window.add(key, now, self.config.keys_max as usize));
            }
        }
        Ok(BooleanArray::from(keep))
    }

    fn key_columns(&self, rows: &Rows) -> Result<Vec<ArrayRef>> {
        let Some(names) = &self.config.columns else { return Ok(rows.batch.columns().to_vec()) };
        let find = |name: &String| {
            rows.batch.column_by_name(name).cloned().ok_or_else(|| {
                Error::rejected(format!("the rows have no column `{name}` of the key")).code("dedupe.column").path("columns")
            })
        };
        names.iter().map(find).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch, StringArray};

    use super::*;

    fn rows(keys: &[i64]) -> Rows {
        let text = keys.iter().map(|key| format!("text {key}")).collect::<Vec<_>>();
        let columns: Vec<(&str, ArrayRef)> =
            vec![("k", Arc::new(Int64Array::from(keys.to_vec()))), ("t", Arc::new(StringArray::from(text)))];
        Rows::plain(RecordBatch::try_from_iter(columns).unwrap())
    }

    #[test]
    fn a_key_passes_once_within_the_window() {
        let config = DedupeConfig { columns: Some(vec!["k".into()]), keys_max: 3, within: None };
        let mut dedupe = Dedupe { config, converter: None, window: Window::default(), context: Context::detached() };
        let mut check = |keys: &[i64], expected: &[bool]| {
            let mask = dedupe.mask(&rows(keys)).unwrap();
            assert_eq!(mask.values().iter().collect::<Vec<_>>(), expected, "{keys:?}");
        };
        check(&[1, 2, 1, 3], &[true, true, false, true]);
        check(&[1, 4], &[false, true]);
        // One is one key too many since: it was forgotten when 4 came.
        check(&[1, 4, 3], &[true, false, false]);
        let mut window = Window::default();
        let start = Instant::now();
        assert!(window.add(1, start, 9));
        window.forget_older(start + Duration::from_secs(2), Duration::from_secs(1));
        assert!(window.add(1, start, 9) && window.order.len() == 1);
    }

    #[test]
    fn the_same_key_of_another_table_is_another_key() {
        let config = DedupeConfig { columns: None, keys_max: 100, within: None };
        let mut dedupe = Dedupe { config, converter: None, window: Window::default(), context: Context::detached() };
        let mut two = rows(&[1, 1]);
        two.runs = vec![pipeline_sdk::Run::default(), pipeline_sdk::Run { first_row: 1, table: "b".into(), ..Default::default() }];
        assert_eq!(dedupe.mask(&two).unwrap().true_count(), 2);
        assert_eq!(dedupe.mask(&two).unwrap().true_count(), 0);
    }
}
