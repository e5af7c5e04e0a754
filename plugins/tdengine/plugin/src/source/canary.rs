//! The proof that a server keeps its side of the scheme: it hides marked rows from an excluding consumer, and it keeps
//! tokens in its log.
//!
//! Adapters before 3.3.2.3 accept the request for exclusion and ignore it (FACTS F4, F5), so it is tried at every connect:
//! a marked row, then an unmarked control, in a small database of ours; only the control may arrive.
//!
//! Sources that connect to one site while a proof is under way share it: a thousand tasks that start together need a few proofs. One
//! that is over proves nothing for a later connect, as the server may be another by then; one under way loses its own connection then.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::{Error, Result};
use tdengine_wire::block::{BlockBuilder, VERSION_QUERY};
use tdengine_wire::envelope::WriteField;
use tdengine_wire::{ColumnType, DataType};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{SocketLimits, Subscription};
use crate::transport::{Connection, Consumer};
use crate::dsn::Dsn;
use crate::names::CANARY_DATABASE;
use crate::log::change::kind;
use crate::token::Token;

/// How long the control row may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// Width of the text that identifies a run.
const NONCE_WIDTH: u32 = 40;

/// Address, user, cluster and network of a site.
type Key = (String, String, String, usize);
type Verdict = Option<Result<()>>;

/// Proofs that are not over yet.
static UNDER_WAY: Mutex<BTreeMap<Key, watch::Receiver<Verdict>>> = Mutex::new(BTreeMap::new());

/// Proves exclusion and tokens at the site, or waits for a proof that is under way there.
///
/// # Errors
/// Fatal when the server shows marked rows, or loses tokens; otherwise what went wrong on the way.
pub async fn prove(dsn: &Dsn, cluster: &str, limits: SocketLimits) -> Result<()> {
    let mut verdict = proof(dsn, cluster, limits);
    let told = verdict.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
    told.unwrap_or_else(|| Err(Error::retry("the proof of exclusion ended without a word").code("tdengine.canary")))
}

/// A task of its own carries the proof: whoever waits may be given up.
fn proof(dsn: &Dsn, cluster: &str, limits: SocketLimits) -> watch::Receiver<Verdict> {
    let key = (dsn.to_string(), dsn.user.clone(), cluster.to_owned(), dsn.network_id());
    let mut under_way = UNDER_WAY.lock();
    if let Some(verdict) = under_way.get(&key).filter(|it| it.has_changed().is_ok() && it.borrow().is_none()) {
        return verdict.clone();
    }
    let (sender, verdict) = watch::channel(None);
    under_way.insert(key.clone(), verdict.clone());
    let (dsn, cluster) = (dsn.clone(), cluster.to_owned());
    tokio::spawn(async move {
        let proved = prove_now(&dsn, &cluster, limits).await;
        UNDER_WAY.lock().remove(&key);
        sender.send_replace(Some(proved));
    });
    verdict
}

async fn prove_now(dsn: &Dsn, cluster: &str, limits: SocketLimits) -> Result<()> {
    let nonce = format!("{:016x}", rand::random::<u64>());
    let connection = prepare(dsn, limits).await?;
    let subscription = Subscription {
        topic: CANARY_DATABASE.into(),
        group: format!("canary_{nonce}"),
        client: "pipeline".into(),
        exclude_marked: true,
        from_oldest: true,
        prefetch: 1,
        rows_min: None,
    };
    let mut consumer = Consumer::subscribe(dsn, &subscription, limits).await?;
    go_to_end(&mut consumer).await?;
    let (marked, control) = (format!("marked-{nonce}"), format!("control-{nonce}"));
    let token = Token { origin: cluster.into(), lane: "canary".into(), position: nonce.clone() };
    write_marked(&connection, &marked).await?;
    connection.exec(&format!("alter table {CANARY_DATABASE}.one comment '{token}'")).await?;
    connection.exec(&format!("alter stable {CANARY_DATABASE}.many comment 'canary' /* {token} */")).await?;
    connection.exec(&format!("insert into {CANARY_DATABASE}.one values (now, '{control}')")).await?;
    let verdict = match watch(&mut consumer, &marked, &control, &token).await {
        Ok(seen) => seen.judge(dsn),
        Err(error) => Err(error),
    };
    // Leaving takes a real server seconds: nobody waits for it.
    tokio::spawn(leave(consumer, connection, subscription.group));
    verdict
}

/// Skips all proofs of before: a log this small keeps them for good (FACTS F40), and over a long way each takes as long as a round trip.
async fn go_to_end(consumer: &mut Consumer) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let assigned = consumer.assignment_so_far().await?;
        if !assigned.is_empty() {
            consumer.settle().await?;
            for vgroup in assigned {
                consumer.seek(vgroup.vgroup_id, vgroup.end).await?;
            }
            return Ok(());
        }
        if Instant::now() > deadline {
            let message = format!("a consumer of `{CANARY_DATABASE}` was given nothing to read within {TIMEOUT:?}");
            return Err(Error::retry(message).code("tdengine.canary"));
        }
        // What a consumer is given it learns by polling.
        consumer.poll(POLL).await?;
    }
}

/// What the excluding consumer saw until the control row came.
#[derive(Debug, Default)]
struct Seen {
    marked: bool,
    token_in_table: bool,
    token_in_stable: bool,
}

impl Seen {
    fn judge(&self, dsn: &Dsn) -> Result<()> {
        if self.marked {
            return Err(Error::fatal(format!("{dsn} gives a consumer that asks to leave them out rows that a replica wrote"))
                .code("tdengine.exclusion")
                .hint("a replica needs taosadapter 3.3.2.3 or newer: older ones accept msg_consume_excluded and ignore it"));
        }
        if !self.token_in_table || !self.token_in_stable {
            return Err(Error::fatal(format!("{dsn} does not keep comments of ALTER statements in its log"))
                .code("tdengine.tokens")
                .hint("a replica needs them to tell where a change came from; is this a TDengine 3.3 or newer?"));
        }
        Ok(())
    }
}

async fn watch(consumer: &mut Consumer, marked: &str, control: &str, token: &Token) -> Result<Seen> {
    let token = token.to_string();
    let mut seen = Seen::default();
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let Some(message) = consumer.poll(POLL).await? else { continue };
        let holds = |text: &str| message.raw.windows(text.len()).any(|window| window == text.as_bytes());
        seen.marked |= holds(marked);
        seen.token_in_table |= message.raw_type == kind::ALTER_TABLE && holds(&token);
        seen.token_in_stable |= message.raw_type == kind::ALTER_STABLE && holds(&token);
        if holds(control) {
            return Ok(seen);
        }
    }
    Err(Error::retry(format!("a row written to `{CANARY_DATABASE}` did not arrive within {TIMEOUT:?}"))
        .code("tdengine.canary"))
}

/// Makes database, tables and topic where they are missing.
async fn prepare(dsn: &Dsn, limits: SocketLimits) -> Result<Connection> {
    let connection = Connection::open(dsn, None, limits).await?;
    if crate::metadata::database(&connection, CANARY_DATABASE).await?.is_none() {
        connection
            .exec(&format!("create database if not exists {CANARY_DATABASE} vgroups 1 wal_retention_period 60"))
            .await?;
    }
    let columns = format!("(ts timestamp, nonce varchar({NONCE_WIDTH}))");
    let table = format!("create table if not exists {CANARY_DATABASE}.one {columns}");
    let stable = format!("create stable if not exists {CANARY_DATABASE}.many {columns} tags (t int)");
    // Each is looked for: who made them first may have been cut off between the two.
    for (name, create) in [("one", table), ("many", stable)] {
        if crate::metadata::describe(&connection, CANARY_DATABASE, name).await?.is_none() {
            connection.exec(&create).await?;
        }
    }
    let create = format!("create topic if not exists {CANARY_DATABASE} with meta as database {CANARY_DATABASE}");
    connection.exec(&create).await?;
    connection.exec(&format!("use {CANARY_DATABASE}")).await?;
    Ok(connection)
}

async fn write_marked(connection: &Connection, nonce: &str) -> Result<()> {
    let fields = [("ts", ColumnType::of(DataType::Timestamp)), ("nonce", ColumnType::varchar(NONCE_WIDTH))];
    let mut block = BlockBuilder::new(fields.map(|(_, column_type)| column_type));
    // The server's clock, not this machine's: a server refuses times that are too old for it.
    let now = connection.query("select cast(now() as bigint)").await?.texts()?;
    let now_ms = now.first().and_then(|row| row[0].as_deref()?.parse().ok());
    let now_ms = now_ms.ok_or_else(|| Error::fatal(format!("{} does not tell the time", connection.place())))?;
    block.column(0).push_i64(now_ms).map_err(crate::errors::wire_error)?;
    block.column(1).push_str(nonce).map_err(crate::errors::wire_error)?;
    let block = block.encode(VERSION_QUERY).map_err(crate::errors::wire_error)?;
    let fields = fields.map(|(name, column_type)| WriteField::new(name, column_type)).to_vec();
    Ok(connection.write_block("one", &block, fields).await?)
}

async fn leave(consumer: Consumer, connection: Connection, group: String) {
    if consumer.unsubscribe().await.is_err() {
        return;
    }
    drop(consumer);
    let drop_group = format!("drop consumer group if exists `{group}` on {CANARY_DATABASE}");
    if let Err(error) = connection.exec(&drop_group).await {
        tracing::debug!(%error, "the canary's consumer group stays");
    }
}
