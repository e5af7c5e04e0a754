//! The unmodified `taos` crate 0.12.3 over WebSocket against the server that TDENGINE names (HOST:PORT).

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use taos::taos_query::common::{SchemalessPrecision, SchemalessProtocol, SmlDataBuilder};
use taos::*;

const T0: i64 = 1_780_000_000_000;

fn address() -> String {
    std::env::var("TDENGINE").expect("TDENGINE=HOST:PORT")
}

async fn fresh(database: &str) -> Result<Taos> {
    let taos = TaosBuilder::from_dsn(format!("ws://root:taosdata@{}", address()))?.build().await?;
    taos.exec(format!("drop topic if exists topic_{database}")).await?;
    taos.exec(format!("drop database if exists {database}")).await?;
    taos.exec(format!("create database {database} vgroups 2 wal_retention_period 3600")).await?;
    taos.exec(format!("use {database}")).await?;
    Ok(taos)
}

async fn count(taos: &Taos, sql: &str) -> Result<i64> {
    Ok(taos.query_one::<_, i64>(sql).await?.unwrap_or(-1))
}

#[tokio::test(flavor = "multi_thread")]
async fn query_and_exec() -> Result<()> {
    let taos = fresh("rust_query").await?;
    taos.exec("create table t (ts timestamp, n int, d double, v varchar(20), w nchar(10))").await?;
    let affected = taos
        .exec(format!("insert into t values ({T0}, 1, 2.5, 'ab', '涛') ({}, null, null, null, null)", T0 + 1))
        .await?;
    assert_eq!(affected, 2);
    let mut result = taos.query("select n, d, v, w from t order by ts").await?;
    let rows: Vec<(Option<i32>, Option<f64>, Option<String>, Option<String>)> =
        result.deserialize().try_collect().await?;
    assert_eq!(rows, [(Some(1), Some(2.5), Some("ab".into()), Some("涛".into())), (None, None, None, None)]);
    let error = taos.exec("insert into missing values (now, 1)").await.unwrap_err();
    assert_eq!(i32::from(error.code()) & 0xffff, 0x2603, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn statement() -> Result<()> {
    let taos = fresh("rust_stmt").await?;
    taos.exec("create stable s (ts timestamp, n int, v varchar(10)) tags (g int)").await?;
    let mut stmt = Stmt::init(&taos).await?;
    stmt.prepare("insert into ? using s tags (?) values (?, ?, ?)").await?;
    for table in 0..2 {
        stmt.set_tbname(&format!("t{table}")).await?;
        stmt.set_tags(&[Value::Int(table)]).await?;
        stmt.bind(&[
            ColumnView::from_millis_timestamp(vec![T0, T0 + 1]),
            ColumnView::from_ints(vec![Some(table), None]),
            ColumnView::from_varchar(vec!["a", "b"]),
        ])
        .await?;
        stmt.add_batch().await?;
    }
    assert_eq!(stmt.execute().await?, 4);
    assert_eq!(count(&taos, "select count(*) from s").await?, 4);
    assert_eq!(count(&taos, "select count(n) from s").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn schemaless() -> Result<()> {
    fresh("rust_schemaless").await?;
    // It writes through another connection, whose database is that of the address.
    let dsn = format!("ws://root:taosdata@{}/rust_schemaless", address());
    let taos = TaosBuilder::from_dsn(dsn)?.build().await?;
    let lines = [format!("weather,city=a temp=1.5,n=3i32 {T0}"), format!("weather,city=b,zone=z temp=2.5 {}", T0 + 1)];
    let data = SmlDataBuilder::default()
        .protocol(SchemalessProtocol::Line)
        .precision(SchemalessPrecision::Millisecond)
        .data(lines.to_vec())
        .build()?;
    taos.put(&data).await?;
    assert_eq!(count(&taos, "select count(*) from weather").await?, 2);
    assert_eq!(count(&taos, "select count(*) from weather where zone = 'z' and temp = 2.5").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_block() -> Result<()> {
    let taos = fresh("rust_raw_block").await?;
    taos.exec("create table t (ts timestamp, n int, v varchar(10), w int)").await?;
    taos.exec(format!("insert into t values ({T0}, 0, 'old', 7)")).await?;
    let columns = [
        ColumnView::from_millis_timestamp(vec![T0, T0 + 1]),
        ColumnView::from_varchar(vec!["a", "b"]),
        ColumnView::from_ints(vec![Some(1), None]),
    ];
    let mut block = RawBlock::from_views(&columns, Precision::Millisecond);
    block.with_table_name("t").with_field_names(["ts", "v", "n"]);
    taos.write_raw_block(&block).await?;
    // By name, and what is not in the block stays as it is (FACTS F25).
    let mut result = taos.query("select n, v, w from t order by ts").await?;
    let rows: Vec<(Option<i32>, Option<String>, Option<i32>)> = result.deserialize().try_collect().await?;
    assert_eq!(rows, [(Some(1), Some("a".into()), Some(7)), (None, Some("b".into()), None)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribe_and_raw_writes() -> Result<()> {
    const ROWS: i64 = 7;
    let target = fresh("rust_raw_target").await?;
    let taos = fresh("rust_raw").await?;
    taos.exec("create topic topic_rust_raw with meta as database rust_raw").await?;
    taos.exec("create stable s (ts timestamp, n int) tags (g int)").await?;
    for table in 0..3 {
        taos.exec(format!("insert into t{table} using s tags ({table}) values ({T0}, {table}) ({}, 7)", T0 + 1)).await?;
    }
    taos.exec("alter stable s add column m int").await?;
    taos.exec(format!("insert into t0 values ({}, 8, 9)", T0 + 2)).await?;

    let dsn = format!("ws://root:taosdata@{}?group.id=g&auto.offset.reset=earliest", address());
    let mut consumer = TmqBuilder::from_dsn(dsn)?.build().await?;
    consumer.subscribe(["topic_rust_raw"]).await?;
    {
        let mut stream = consumer.stream();
        let deadline = Instant::now() + Duration::from_secs(60);
        // Reading ends when all rows were written and nothing more comes for three seconds, or at the deadline; the consumer is not read
        // again after that (trap T3). Before the first message there is no table.
        loop {
            let is_all = count(&target, "select count(*) from s").await.is_ok_and(|rows| rows >= ROWS);
            let patience = if is_all { Duration::from_secs(3) } else { deadline.saturating_duration_since(Instant::now()) };
            let Ok(Some(item)) = tokio::time::timeout(patience, stream.next()).await else { break };
            let (offset, message) = item?;
            match message {
                MessageSet::Meta(meta) => target.write_raw_meta(&meta.as_raw_meta().await?).await?,
                MessageSet::Data(data) => target.write_raw_meta(&RawMeta::from(data.as_raw_data().await?)).await?,
                MessageSet::MetaData(meta, _) => target.write_raw_meta(&meta.as_raw_meta().await?).await?,
            }
            consumer.commit(offset).await?;
        }
    }
    assert_eq!(count(&target, "select count(*) from s").await?, ROWS);
    assert_eq!(count(&target, "select sum(m) from s").await?, 9);
    consumer.unsubscribe().await;
    Ok(())
}
