//! The `taos` crate as a writer: does what each line of standard input says, answers each with a line. See ../README.md.
//!
//! usage: writer HOST:PORT DATABASE

use std::time::Duration;

use anyhow::{anyhow, bail, Context, Result};
use taos::taos_query::common::{SchemalessPrecision, SchemalessProtocol, SmlDataBuilder};
use taos::*;

/// How long a request may take: the crate notices a broken connection only at its next ping, up to 29 s later.
const ANSWER: Duration = Duration::from_secs(5);

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

/// Does one request; what the answer holds beyond `ok`.
async fn answer(taos: &Taos, request: &str) -> Result<String> {
    let (action, rest) = request.split_once(' ').context("ACTION REST")?;
    match action {
        "count" => return Ok(format!(" {}", taos.query_one::<_, i64>(rest).await?.context("no row")?)),
        "sql" => drop(taos.exec(rest).await?),
        "stmt" => {
            let mut words = rest.split(' ');
            let mut word = || words.next().ok_or_else(|| anyhow!("stmt TABLE GROUP TIME"));
            stmt(taos, word()?, word()?.parse()?, word()?.parse()?).await?;
        }
        "line" => {
            let line = SmlDataBuilder::default()
                .protocol(SchemalessProtocol::Line)
                .precision(SchemalessPrecision::Millisecond)
                .data(vec![rest.to_owned()])
                .build()?;
            taos.put(&line).await?;
        }
        _ => bail!("unknown action {action}"),
    }
    Ok(String::new())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, database] = arguments.as_slice() else { bail!("usage: writer HOST:PORT DATABASE") };
    let dsn = format!("ws://root:taosdata@{address}/{database}");
    let mut connection = Some(TaosBuilder::from_dsn(&dsn)?.build().await?);
    println!("ready");
    for request in std::io::stdin().lines() {
        let request = request?;
        let answered = async {
            // A connection that was lost does not come back by itself.
            if connection.is_none() {
                connection = Some(TaosBuilder::from_dsn(&dsn)?.build().await?);
            }
            let answer = answer(connection.as_ref().context("connected")?, &request);
            tokio::time::timeout(ANSWER, answer).await.context("no answer")?
        };
        match answered.await {
            Ok(value) => println!("ok{value}"),
            Err(error) => {
                connection = None;
                println!("error {}", format!("{error:#}").replace('\n', " "));
            }
        }
    }
    Ok(())
}
