//! Sites, and a database of meters at them: 100 tables of 4 columns over 2 vgroups.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use pipeline_tdengine::client::SocketLimits;
use pipeline_tdengine::dsn::Dsn;
use pipeline_tdengine::transport::Connection;
use pipeline_tests::Site;

pub const TABLES: u64 = 100;
/// Rows of one statement, all of one table, and so of one entry in the log.
const ROWS_PER_STATEMENT: u64 = 5_000;
const FIRST_TIME_MS: u64 = 1_700_000_000_000;
/// Statements that are under way at once.
const WRITERS: u64 = 2;

/// Two sites, with the addresses as a file holds them.
pub struct Sites {
    pub a: Address,
    pub b: Address,
    /// Whether these are servers that somebody else started.
    pub is_real: bool,
}

#[derive(Clone)]
pub struct Address {
    pub text: String,
    pub dsn: Dsn,
}

impl Address {
    pub fn new(text: &str) -> Result<Self> {
        Ok(Self { text: text.to_owned(), dsn: Dsn::parse(text)? })
    }

    pub async fn connect(&self, database: Option<&str>) -> Result<Connection> {
        Ok(Connection::open(&self.dsn, database, SocketLimits::default()).await?)
    }
}

impl Sites {
    pub fn real(addresses: &[String]) -> Result<Self> {
        let [a, b] = addresses else { anyhow::bail!("two addresses are needed") };
        Ok(Self { a: Address::new(a)?, b: Address::new(b)?, is_real: true })
    }

    pub fn nodes(a: &Site, b: &Site) -> Result<Self> {
        Ok(Self { a: Address::new(&a.dsn())?, b: Address::new(&b.dsn())?, is_real: false })
    }

    /// For names of figures.
    pub fn kind(&self) -> &'static str {
        if self.is_real { "real pair" } else { "nodes" }
    }
}

/// Makes the database with its tables, without rows.
pub async fn create(address: &Address, database: &str) -> Result<Connection> {
    let connection = address.connect(None).await?;
    connection.exec(&format!("drop database if exists {database}")).await?;
    connection.exec(&format!("create database {database} vgroups 2 wal_retention_period 3600")).await?;
    connection.exec(&format!("use {database}")).await?;
    connection.exec("create stable meters (ts timestamp, current float, voltage int, phase float) tags (g int)").await?;
    for table in 0..TABLES {
        connection.exec(&format!("create table t{table} using meters tags ({table})")).await?;
    }
    Ok(connection)
}

/// Makes the database and fills it as users do: by unmarked statements.
pub async fn fill(address: &Address, database: &str, rows: u64) -> Result<()> {
    create(address, database).await?;
    let statements = rows.div_ceil(ROWS_PER_STATEMENT);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (address, database) = (address.clone(), database.to_owned());
            tokio::spawn(async move {
                let connection = address.connect(Some(&database)).await?;
                let mut text = String::new();
                for statement in (writer..statements).step_by(WRITERS as usize) {
                    let first = statement * ROWS_PER_STATEMENT;
                    insert_text(&mut text, statement, ROWS_PER_STATEMENT.min(rows - first));
                    connection.exec(&text).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await?.context("filling the source")?;
    }
    Ok(())
}

fn insert_text(text: &mut String, statement: u64, rows: u64) {
    text.clear();
    let first = FIRST_TIME_MS + statement / TABLES * ROWS_PER_STATEMENT;
    // Writing to a String cannot fail.
    let _ = write!(text, "insert into t{} values", statement % TABLES);
    for row in 0..rows {
        let _ = write!(text, "({},{}.{},{},0.3)", first + row, row % 12, row % 10, 220 + row % 7);
    }
}

/// Drops what a run left: groups and topics first, they keep a database.
pub async fn clean(address: &Address, database: &str) -> Result<()> {
    let connection = address.connect(None).await?;
    for topic in [topic(database), pipeline_tdengine::names::meta_topic(pipeline_tdengine::names::PREFIX_DEFAULT, database)] {
        let look = "select distinct consumer_group from information_schema.ins_subscriptions where topic_name = ";
        let groups = connection.query(&format!("{look}'{topic}'")).await?.texts()?;
        for group in groups.into_iter().flatten().flatten() {
            // One that still has a member goes with its session; the topic then stays for the next run.
            let _ = connection.exec(&format!("drop consumer group if exists `{group}` on `{topic}`")).await;
        }
        let _ = connection.exec(&format!("drop topic if exists `{topic}`")).await;
    }
    let _ = connection.exec(&format!("drop database if exists {database}")).await;
    Ok(())
}

/// The topic that the source makes, so that a bare loop reads the same.
pub fn topic(database: &str) -> String {
    pipeline_tdengine::names::topic(pipeline_tdengine::names::PREFIX_DEFAULT, database)
}

/// Makes that topic.
pub async fn create_topic(address: &Address, database: &str) -> Result<()> {
    let topic = topic(database);
    let sql = format!("create topic if not exists {topic} with meta as database {database}");
    address.connect(None).await?.exec(&sql).await?;
    Ok(())
}
