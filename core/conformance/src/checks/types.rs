//! Batches as such: every Arrow type, whole columns, runs; and what repetition leaves behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use pipeline_sdk::{Checkpoint, Error, Message, Payload, Reaction, Rows};

use super::sink::connected;
use crate::bench::{Bench, Done, apply, failure};
use crate::feed;
use crate::memory::{Held, resident, shown};
use crate::state::KitHost;
use crate::{Check, Outcome};

/// Rounds of `leak`: to warm up, and in each of two windows that must both grow.
const WARM_UP: u64 = 20;
const WINDOW: u64 = 60;
const GROWTH_MAX: i64 = 2 << 20;
/// A slow component gets fewer rounds.
const WINDOW_TIME: Duration = Duration::from_secs(4);
const GIVE_BACK: Duration = Duration::from_secs(3);

/// Runs a round again and again; memory must not grow in both of two windows behind a warm-up.
pub fn repeat(bench: &Bench, round: impl Fn(u64) -> Result<(), Outcome>) -> Done {
    bench.config()?;
    let mut done = 0;
    let mut window = |rounds: u64| -> Result<i64, Outcome> {
        let (begin, before) = (Instant::now(), resident());
        for _ in 0..rounds {
            if begin.elapsed() > WINDOW_TIME {
                break;
            }
            round(done)?;
            done += 1;
        }
        Ok(resident() - before)
    };
    window(WARM_UP)?;
    let (first, second) = (window(WINDOW)?, window(WINDOW)?);
    if first.min(second) > GROWTH_MAX {
        let reason = format!("memory grew by {} and again by {} over {done} rounds", shown(first), shown(second));
        return Err(Outcome::failed("made, used and destroyed again and again", reason));
    }
    Ok(Outcome::passed(format!("{done} rounds, memory grew by {}", shown((first + second).max(0)))))
}

/// Waits until the component gave its host back.
pub fn given_back(host: &Arc<KitHost>, round: u64) -> Result<(), Outcome> {
    wait(|| host.is_released(), round, "kept a handle of its host (`release` in pl_host was not called) after `destroy`")
}

pub fn released(held: &Held, round: u64) -> Result<(), Outcome> {
    wait(|| held.count() == 0, round, "kept messages (`release` of an array or a buffer was not called) after `destroy`")
}

fn wait(is_done: impl Fn() -> bool, round: u64, reason: &str) -> Result<(), Outcome> {
    let deadline = Instant::now() + GIVE_BACK;
    while !is_done() {
        if Instant::now() > deadline {
            return Err(Outcome::failed(format!("round {round}"), reason));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether the columns are whole and the runs cover the batch.
pub fn check_batch(rows: &Rows) -> Result<(), String> {
    let count = rows.batch.num_rows() as u64;
    for (field, column) in rows.batch.schema().fields().iter().zip(rows.batch.columns()) {
        column.to_data().validate_full().map_err(|error| format!("column `{}` of type {}: {error}", field.name(), field.data_type()))?;
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(format!("column `{}` has NULLs though its schema says that it has none", field.name()));
        }
    }
    if count > 0 && rows.runs.first().is_none_or(|run| run.first_row != 0) {
        return Err("the first run does not begin at row 0".into());
    }
    if let Some(pair) = rows.runs.windows(2).find(|pair| pair[0].first_row > pair[1].first_row) {
        return Err(format!("a run at row {} behind one at row {}", pair[1].first_row, pair[0].first_row));
    }
    match rows.runs.last() {
        Some(run) if run.first_row > count => Err(format!("a run at row {} of {count}", run.first_row)),
        _ => Ok(()),
    }
}

/// `batches` and `arrow-types` of a source: what it gives is whole.
pub fn of_source(bench: &Bench) -> Done {
    let mut source = bench.source("a")?;
    source.connect(&Checkpoint::default())?;
    let read = source.read(200)?;
    source.destroy()?;
    let (mut types, mut largest, mut batches) = (std::collections::BTreeSet::new(), 0, 0);
    for message in read.messages {
        let place = format!("lane {}, position {}", message.header.lane, message.header.position);
        let decoded = match &message.payload {
            Payload::Frame(_) => bench.library.decode(&bench.job.component, message).map_err(|error| failure(format!("decode, {place}"), &error))?,
            _ => vec![message],
        };
        for message in decoded {
            if let Payload::Rows(rows) = &message.payload {
                check_batch(rows).map_err(|reason| Outcome::failed(place.clone(), reason))?;
                types.extend(rows.batch.schema().fields().iter().map(|field| field.data_type().to_string()));
                largest = largest.max(rows.batch.num_rows());
                batches += 1;
            }
        }
    }
    if batches == 0 {
        return Ok(Outcome::not_applicable("the source gave no rows"));
    }
    Ok(Outcome::passed(match bench.job.check {
        Check::ArrowTypes => format!("whole columns of {}", types.into_iter().collect::<Vec<_>>().join(", ")),
        _ => format!("{batches} whole batches of up to {largest} rows"),
    }))
}

pub fn of_sink(bench: &Bench) -> Done {
    of_types(|message| {
        let mut sink = connected(bench, "a")?;
        let written = sink.try_write_one(&message)?;
        let result = written.and(sink.try_flush()?);
        sink.destroy()?;
        Ok(result)
    })
}

pub fn of_transform(bench: &Bench) -> Done {
    of_types(|message| {
        let mut transform = bench.transform(&bench.host("a"))?;
        let result = apply(&mut *transform, vec![message]);
        if let Ok(out) = &result {
            super::transform::check_rows(bench, out)?;
        }
        bench.destroy(transform)?;
        Ok(result.map(drop))
    })
}

fn of_types(take: impl Fn(Message) -> Result<Result<(), Error>, Outcome>) -> Done {
    let (mut taken, mut rejected) = (0, Vec::new());
    for column in columns() {
        let name = column.data_type().to_string();
        // With an offset, as a slice of a larger batch has.
        let column = column.slice(1, 3);
        let field = Field::new("typed", column.data_type().clone(), true);
        let batch = feed::batch("a", 0, 3);
        let mut fields: Vec<FieldRef> = batch.schema().fields().to_vec();
        let mut all = batch.columns().to_vec();
        fields.push(Arc::new(field));
        all.push(column);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), all).expect("columns of three rows");
        let result = take(feed::message("a", 3, batch)).map_err(|outcome| Outcome { place: format!("type {name}, {}", outcome.place), ..outcome })?;
        match result {
            Ok(()) => taken += 1,
            Err(error) if error.reaction == Reaction::Rejected => rejected.push(name),
            Err(error) => {
                let reason = format!("{error}; what can never be written is to be rejected (reaction `rejected`)");
                return Err(Outcome::failed(format!("type {name}"), reason));
            }
        }
    }
    let text = if rejected.is_empty() { String::new() } else { format!(", rejected: {}", rejected.join(", ")) };
    Ok(Outcome::passed(format!("{taken} types taken{text}")))
}

/// A column of four rows, one of them NULL, of every type.
fn columns() -> Vec<ArrayRef> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(9), Some(1), None, Some(3)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("nine"), Some(""), None, Some("Zürich 😀")]));
    let binary: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"nine"[..]), Some(b""), None, Some(b"\0\xff")]));
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |from: &ArrayRef, to: DataType| cast_with_options(from, &to, &strict).ok();
    let zone: Arc<str> = "+02:00".into();
    use DataType::*;
    let mut all: Vec<ArrayRef> = vec![
        Arc::new(NullArray::new(4)),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])),
        numbers.clone(), texts.clone(), binary.clone(),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1, 2]), Some([3, 4]), None, Some([5, 6])].into_iter(), 2).expect("two bytes each")),
        Arc::new(IntervalYearMonthArray::from(vec![Some(1), Some(2), None, Some(3)])),
        Arc::new(IntervalDayTimeArray::from(vec![Some(IntervalDayTime::new(1, 2)), Some(IntervalDayTime::ZERO), None, Some(IntervalDayTime::MAX)])),
        Arc::new(IntervalMonthDayNanoArray::from(vec![Some(IntervalMonthDayNano::ONE), Some(IntervalMonthDayNano::ZERO), None, Some(IntervalMonthDayNano::MAX)])),
    ];
    let of_numbers = [
        Int8, Int16, Int32, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64,
        Decimal32(9, 2), Decimal64(18, 2), Decimal128(38, 4), Decimal256(76, 4),
        Timestamp(TimeUnit::Second, None), Timestamp(TimeUnit::Millisecond, None), Timestamp(TimeUnit::Microsecond, None),
        Timestamp(TimeUnit::Nanosecond, None), Timestamp(TimeUnit::Microsecond, Some(zone)), Date64, Time64(TimeUnit::Microsecond),
        Time64(TimeUnit::Nanosecond), Duration(TimeUnit::Second), Duration(TimeUnit::Millisecond), Duration(TimeUnit::Microsecond), Duration(TimeUnit::Nanosecond),
    ];
    all.extend(of_numbers.into_iter().filter_map(|to| cast(&numbers, to)));
    let small = cast(&numbers, Int32).expect("small numbers");
    all.extend([Date32, Time32(TimeUnit::Second), Time32(TimeUnit::Millisecond)].into_iter().filter_map(|to| cast(&small, to)));
    let of_texts = [LargeUtf8, Utf8View, Dictionary(Box::new(Int32), Box::new(Utf8))];
    all.extend(of_texts.into_iter().filter_map(|to| cast(&texts, to)));
    all.extend([LargeBinary, BinaryView].into_iter().filter_map(|to| cast(&binary, to)));
    all.extend(nested(&numbers, &texts));
    all
}

fn nested(numbers: &ArrayRef, texts: &ArrayRef) -> Vec<ArrayRef> {
    let item: FieldRef = Arc::new(Field::new("item", DataType::Int64, true));
    let nulls = || Some(NullBuffer::from(vec![true, true, false, true]));
    let offsets = OffsetBuffer::from_lengths([1, 2, 0, 1]);
    let large = OffsetBuffer::<i64>::from_lengths([1, 2, 0, 1]);
    let pair = Fields::from(vec![Field::new("number", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]);
    let records = StructArray::new(pair, vec![numbers.clone(), texts.clone()], nulls());
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d"]));
    let entry = Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)]);
    let entries = StructArray::new(entry.clone(), vec![keys, numbers.clone()], None);
    let entry: FieldRef = Arc::new(Field::new("entries", DataType::Struct(entry), false));
    let ends = Int32Array::from(vec![1, 3, 4]);
    let runs = RunArray::<Int32Type>::try_new(&ends, &StringArray::from(vec![Some("a"), None, Some("b")])).expect("three runs over four rows");
    let kinds = UnionFields::try_new([0, 1], [Field::new("number", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]).expect("two kinds");
    let sparse = UnionArray::try_new(kinds.clone(), vec![0i8, 1, 0, 1].into(), None, vec![numbers.clone(), texts.clone()]);
    let dense = UnionArray::try_new(kinds, vec![0i8, 1, 0, 1].into(), Some(vec![0, 1, 2, 3].into()), vec![numbers.clone(), texts.clone()]);
    let views = ListViewArray::new(item.clone(), vec![0, 1, 0, 3].into(), vec![1, 2, 0, 1].into(), numbers.clone(), nulls());
    let mut all: Vec<ArrayRef> = vec![
        Arc::new(ListArray::new(item.clone(), offsets.clone(), numbers.clone(), nulls())),
        Arc::new(LargeListArray::new(item.clone(), large, numbers.clone(), nulls())),
        Arc::new(FixedSizeListArray::new(item, 1, numbers.clone(), nulls())),
        Arc::new(views),
        Arc::new(records),
        Arc::new(MapArray::new(entry, offsets, entries, nulls(), false)),
        Arc::new(runs),
    ];
    all.extend([sparse, dense].into_iter().flatten().map(|union| Arc::new(union) as ArrayRef));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_arrow_is_there() {
        let all = columns();
        assert!(all.iter().all(|column| column.len() == 4 && column.to_data().validate_full().is_ok()));
        assert_eq!(all.len(), 52, "{:?}", all.iter().map(|column| column.data_type().to_string()).collect::<Vec<_>>());
    }
}
