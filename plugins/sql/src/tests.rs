//! Queries over batches, as the engine would hand them in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, Int32Type, Schema};
use datafusion::arrow::util::pretty::pretty_format_batches;
use pipeline_sdk::context::Place;
use pipeline_sdk::{
    Change, ChangeKind, Context, Detached, Header, Lane, Message, Output, Payload, Position, Reaction, Result, Rows, Run, Transform, TransformConfig,
};
use serde_json::{Value, json};

use crate::config::SqlConfig;

/// A transform under a runtime, as the glue of a library gives it one.
struct Bench {
    transform: Box<dyn Transform>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Bench {
    /// A query that was stopped may go on for a while; nobody waits for it.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bench {
    fn new(config: Value) -> Self {
        Self::with(config, Context::detached())
    }

    fn with(config: Value, context: Context) -> Self {
        let config: SqlConfig = serde_json::from_value(config).unwrap();
        assert_eq!(config.lint(), Vec::new());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let transform = {
            let _entered = runtime.enter();
            config.build(context).unwrap()
        };
        Self { transform, runtime: Some(runtime) }
    }

    fn messages(&mut self, payload: Payload) -> Result<Vec<Message>> {
        let mut out = Output::default();
        self.transform.apply(Message { header: Header::new(Lane::new("1"), Position::from_number(1)), payload }, &mut out)?;
        Ok(out.messages)
    }

    /// What comes of rows; no rows where nothing comes.
    fn rows(&mut self, rows: Rows) -> Result<Rows> {
        match self.messages(Payload::Rows(rows))?.pop().map(|message| message.payload) {
            Some(Payload::Rows(rows)) => Ok(rows),
            None => Ok(Rows::plain(RecordBatch::new_empty(Arc::new(Schema::empty())))),
            other => panic!("{other:?}"),
        }
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        self.rows(Rows::plain(batch)).map(|rows| rows.batch)
    }
}

fn select(query: &str) -> Bench {
    Bench::new(json!({ "query": query }))
}

fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let values: Vec<i64> = values.into_iter().collect();
    let names: StringArray = values.iter().map(|value| Some(if value % 2 == 0 { "even" } else { "odd" })).collect();
    let columns: [(&str, ArrayRef); 2] = [("n", Arc::new(Int64Array::from(values))), ("kind", Arc::new(names))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn ints(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).map_or_else(Vec::new, |column| column.as_primitive::<Int64Type>().values().to_vec())
}

#[test]
fn a_query_sees_one_batch_at_a_time() {
    let mut bench = select("select kind, COUNT(*) as c, sum(n) as s from batch group by kind order by kind");
    let first = bench.batch(numbers(0..10)).unwrap();
    assert_eq!((ints(&first, "c"), ints(&first, "s")), (vec![5, 5], vec![20, 25]), "{}", pretty_format_batches(&[first.clone()]).unwrap());
    // The plan is used again, and remembers nothing.
    for _ in 0..3 {
        let second = bench.batch(numbers(0..4)).unwrap();
        assert_eq!((ints(&second, "c"), ints(&second, "s")), (vec![2, 2], vec![2, 4]));
    }
}

/// What operators keep between runs (hash tables, dynamic filters, results of subqueries) belongs to one batch.
#[test]
fn a_plan_that_is_used_again_remembers_nothing() {
    for (query, expected) in [
        ("select n from batch where n > (select avg(n) from batch) order by n", [vec![3, 4], vec![103, 104]]),
        ("select a.n from batch a join batch b on a.n = b.n + 1 order by n", [vec![1, 2, 3, 4], vec![101, 102, 103, 104]]),
        ("select n from batch order by n desc limit 2", [vec![4, 3], vec![104, 103]]),
        ("select distinct n / 100 as n from batch", [vec![0], vec![1]]),
        ("select n from batch where n in (select max(n) from batch)", [vec![4], vec![104]]),
        ("select sum(n) over (order by n) as n from batch order by n", [vec![0, 1, 3, 6, 10], vec![100, 201, 303, 406, 510]]),
        ("with x as (select n from batch where n % 2 = 0) select n from x union all select -1", [vec![0, 2, 4, -1], vec![100, 102, 104, -1]]),
        ("select n from batch a where exists (select 1 from batch b where b.n = a.n - 4)", [vec![4], vec![104]]),
    ] {
        let mut bench = select(query);
        for _ in 0..2 {
            for (turn, expected) in expected.iter().enumerate() {
                let from = turn as i64 * 100;
                let mut found = ints(&bench.batch(numbers(from..from + 5)).unwrap(), "n");
                let mut expected = expected.clone();
                if query.contains("union") {
                    found.sort_unstable();
                    expected.sort_unstable();
                }
                assert_eq!(found, expected, "{query}");
            }
        }
    }
}

#[test]
fn order_is_kept_and_nothing_comes_of_nothing() {
    let mut bench = Bench::new(json!({ "query": "select n * 2 as n from batch where n >= 0", "batch-rows": 100 }));
    let found = ints(&bench.batch(numbers(0..10_000)).unwrap(), "n");
    assert_eq!(found, (0..10_000).map(|n| n * 2).collect::<Vec<i64>>());
    assert!(bench.messages(Payload::Rows(Rows::plain(numbers(-5..0)))).unwrap().is_empty(), "no row is left");
    let mut count = select("select count(*) as c from batch");
    assert!(count.messages(Payload::Rows(Rows::plain(numbers([])))).unwrap().is_empty(), "no row came in");
    // Several threads: the same rows.
    let mut bench = Bench::new(json!({ "query": "select kind, count(*) as c from batch group by kind order by kind", "threads": 4 }));
    assert_eq!(ints(&bench.batch(numbers(0..10_001)).unwrap(), "c"), [5001, 5000]);
    assert_eq!(ints(&bench.batch(numbers(0..3)).unwrap(), "c"), [2, 1], "fewer rows than threads have parts");
}

#[test]
fn names_are_as_they_are_written() {
    let batch = RecordBatch::try_from_iter([("Temp", Arc::new(Float64Array::from(vec![1.5, 2.5])) as ArrayRef)]).unwrap();
    let found = select("SELECT Avg(Temp) AS MeanTemp FROM batch").batch(batch.clone()).unwrap();
    assert_eq!(found.schema().field(0).name(), "MeanTemp");
    assert_eq!(found.column(0).as_primitive::<Float64Type>().value(0), 2.0);
    let found = Bench::new(json!({ "query": "select \"Temp\" from readings", "table": "readings" })).batch(batch).unwrap();
    assert_eq!(found.num_rows(), 2);
}

#[test]
fn columns_of_every_kind_pass_as_they_are() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![0, 60_000, 120_000]).with_timezone("UTC"))),
        ("price", Arc::new(Decimal128Array::from(vec![150, 225, 1]).with_precision_and_scale(10, 2).unwrap())),
        ("site", Arc::new(dictionary)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bench = select("select * from batch");
    for _ in 0..2 {
        let same = bench.batch(batch.clone()).unwrap();
        assert_eq!(same.columns(), batch.columns());
        assert_eq!(same.schema().fields(), batch.schema().fields());
    }
    let found = select("select site, sum(price) as total, min(ts) as since from batch group by site order by total").batch(batch.clone()).unwrap();
    assert_eq!(found.column_by_name("total").unwrap().data_type(), &DataType::Decimal128(20, 2));
    assert_eq!(found.num_rows(), 2);
    let found = select("select date_trunc('hour', ts) as hour, cast(count(*) as varchar) as c from batch where site = 'a' group by 1").batch(batch).unwrap();
    assert_eq!(found.column_by_name("c").unwrap().data_type(), &DataType::Utf8);
    assert_eq!(found.column_by_name("c").unwrap().as_string::<i32>().value(0), "2");
}

#[test]
fn a_schema_that_changes_gets_a_plan_of_its_own() {
    let other = |rows: i64| {
        let column: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64)));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    };
    let mut bench = Bench::new(json!({ "query": "select max(n) as n from batch", "plans-max": 1 }));
    for round in 1..4 {
        assert_eq!(ints(&bench.batch(numbers(0..round + 1)).unwrap(), "n"), [round]);
        assert_eq!(bench.batch(other(round + 1)).unwrap().column(0).as_primitive::<Float64Type>().values(), &[round as f64]);
    }
}

#[test]
fn what_is_no_query_is_refused_before_it_runs() {
    for (query, expected) in [
        ("selec n from batch", "Expected"),
        ("", "one query"),
        ("select n from batch; select n from batch", "one query"),
        ("copy batch to 'x.csv'", "`COPY` is no query"),
        ("create external table t stored as csv location 'x.csv'", "`CREATE` is no query"),
        ("insert into batch values (1)", "`INSERT` is no query"),
        ("drop table batch", "`DROP` is no query"),
        ("set x = 1", "`SET` is no query"),
        ("explain select n from batch", "`EXPLAIN` is no query"),
        ("select n from other", "does not read the table `batch`"),
        ("select 1", "does not read the table `batch`"),
        ("with batch as (select 1 as n) select n from batch", "does not read the table `batch`"),
    ] {
        let config: SqlConfig = serde_json::from_value(json!({ "query": query })).unwrap();
        let problems = config.lint();
        assert_eq!(problems.len(), 1, "{query}: {problems:?}");
        assert_eq!(problems[0].path.as_deref(), Some("query"));
        assert!(problems[0].message.contains(expected), "{query}: {}", problems[0]);
    }
}

#[test]
fn what_does_not_fit_is_rejected_and_says_why() {
    for (query, expected) in [
        ("select missing from batch", "missing"),
        ("select n + kind from batch", "kind"),
        ("select no_such_function(n) from batch", "no_such_function"),
        ("select * from batch, 'secrets.csv'", "secrets.csv"),
        ("select * from batch, other", "other"),
        ("select n, now() from batch", "`now()` gives another value each time"),
        ("select n from batch where n > (select random() * 10)", "`random()` gives another value each time"),
        ("select * into t from batch", ""),
        ("select n / 0 from batch", "zero"),
        ("select cast(kind as int) from batch", "odd"),
    ] {
        let mut bench = select(query);
        let error = bench.batch(numbers([1, 2])).err().unwrap_or_else(|| panic!("{query} passes"));
        assert_eq!(error.reaction, Reaction::Rejected, "{query}: {error}");
        assert!(error.to_string().contains(expected), "{query}: {error}");
    }
    let error = select("select missing from batch").batch(numbers([1])).unwrap_err();
    assert!(error.to_string().contains("they have n Int64, kind Utf8"), "{error}");
    // The next batch is as good as ever.
    let mut bench = select("select 10 / n as n from batch");
    assert!(bench.batch(numbers([0])).is_err());
    assert_eq!(ints(&bench.batch(numbers([5])).unwrap(), "n"), [2]);
}

#[test]
fn memory_is_bounded() {
    let huge = "select a.n, b.kind from batch a, batch b";
    let error = Bench::new(json!({ "query": huge, "memory-max": "1MiB" })).batch(numbers(0..2_000)).unwrap_err();
    assert!(error.code == "sql.memory" && error.to_string().contains("raise `memory-max`"), "{error}");
    let error = Bench::new(json!({ "query": "select distinct n, kind from batch", "memory-max": "100KiB" })).batch(numbers(0..50_000)).unwrap_err();
    assert_eq!(error.code, "sql.memory", "{error}");
    // What passes through, in many parts of one batch, is counted once.
    let mut bench = Bench::new(json!({ "query": "select * from batch", "memory-max": "2MiB", "batch-rows": 100 }));
    assert_eq!(bench.batch(numbers(0..50_000)).unwrap().num_rows(), 50_000);
}

#[test]
fn rows_are_of_the_tables_that_the_query_says() {
    let run = |first_row, table: &str| Run { first_row, namespace: "power".into(), table: table.into(), group: "meters".into(), labels: "{}".into() };
    let input = Rows { batch: numbers(0..6), runs: vec![run(0, "d1"), run(2, "d2"), run(4, "d1")] };
    let found = select("select _table, sum(n) as s from batch group by _table order by _table").rows(input.clone()).unwrap();
    assert_eq!(ints(&found.batch, "s"), [10, 5]);
    assert_eq!(found.batch.num_columns(), 1, "what a row is of is no column of it");
    assert_eq!(found.runs, [run(0, "d1"), run(1, "d2")]);
    let found = select("select n, kind as _table, _group from batch where _table = 'd1' order by kind").rows(input.clone()).unwrap();
    let names: Vec<_> = found.runs.iter().map(|run| (run.first_row, &*run.table, &*run.group)).collect();
    assert_eq!(names, [(0, "even", "meters"), (2, "odd", "meters")]);
    let found = select("select n from batch").rows(input).unwrap();
    assert_eq!(found.runs, [Run::default()], "of no table in particular");
    let one = Rows { batch: numbers(0..6), runs: vec![run(0, "d1")] };
    assert_eq!(select("select max(n) as n from batch").rows(one).unwrap().runs, [run(0, "d1")]);
}

#[test]
fn what_is_no_row_passes() {
    let change = Change {
        kind: ChangeKind::DropTable, identity: String::new(), namespace: "power".into(), group: None, tables: vec!["d1".into()],
        detail: Value::Null, raw: None,
    };
    let found = select("select n from batch").messages(Payload::Change(change.clone())).unwrap();
    assert!(matches!(&found[0].payload, Payload::Change(same) if *same == change), "{found:?}");
}

#[test]
fn a_query_that_takes_long_can_be_stopped() {
    let host = Arc::new(Detached::default());
    let endless = "select count(*) as c from batch a, batch b, batch c where a.n + b.n + c.n < 0";
    let mut bench = Bench::with(json!({ "query": endless }), Context::new(Place::default(), host.clone()));
    let waiting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        host.cancel();
    });
    let begun = Instant::now();
    let error = bench.batch(numbers(0..2_000)).unwrap_err();
    assert_eq!(error.code, "sql.stopped", "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    waiting.join().unwrap();
}
