//! The `taos` crate as a writer: does what each line of standard input says, answers each with a line. See ../README.md.
//!
//! usage: writer HOST:PORT DATABASE

use anyhow::{anyhow, bail, Context, Result};
use taos::taos_query::common::{SchemalessPrecision, SchemalessProtocol, SmlDataBuilder};
use taos::*;

async fn stmt(taos: &Taos, table: &str, group: i64, time: i64) -> Result<()> {
    let mut stmt = Stmt::init(taos).await?;
    stmt.prepare("insert into ? using meters (place, grp) tags (?, ?) (ts, current, voltage) values (?, ?, ?)").await?;
    stmt.set_tbname(table).await?;
    stmt.set_tags(&[Value::VarChar(table.into()), Value::BigInt(group)]).await?;
    stmt.bind(&[
        ColumnView::from_millis_timestamp(vec![time, time + 1]),
        ColumnView::from_floats(vec![Some(1.5), None]),
        ColumnView::from_ints(vec![None, Some(221)]),
    ])
    .await?;
    stmt.add_batch().await?;
    stmt.execute().await?;
    Ok(())
}

async fn write(taos: &Taos, request: &str) -> Result<()> {
    let (action, rest) = request.split_once(' ').context("ACTION REST")?;
    match action {
        "sql" => taos.exec(rest).await.map(drop).map_err(Into::into),
        "stmt" => {
            let mut words = rest.split(' ');
            let mut word = || words.next().ok_or_else(|| anyhow!("stmt TABLE GROUP TIME"));
            stmt(taos, word()?, word()?.parse()?, word()?.parse()?).await
        }
        "line" => {
            let line = SmlDataBuilder::default()
                .protocol(SchemalessProtocol::Line)
                .precision(SchemalessPrecision::Millisecond)
                .data(vec![rest.to_owned()])
                .build()?;
            taos.put(&line).await.map_err(Into::into)
        }
        _ => bail!("unknown action {action}"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, database] = arguments.as_slice() else { bail!("usage: writer HOST:PORT DATABASE") };
    let taos = TaosBuilder::from_dsn(format!("ws://root:taosdata@{address}/{database}"))?.build().await?;
    println!("ready");
    for request in std::io::stdin().lines() {
        match write(&taos, &request?).await {
            Ok(()) => println!("ok"),
            Err(error) => println!("error {}", format!("{error:#}").replace('\n', " ")),
        }
    }
    Ok(())
}
