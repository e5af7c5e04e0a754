//! Between sites that are far from each other: rows per second by the site that the pipeline is near, and tables that are made.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::bare::Job;
use crate::load::{self, Address, Sites};
use crate::options::Options;
use crate::piped;
use crate::report::{Report, Wanted};

const SOURCE: &str = "bench_far_source";
const CREATED: &str = "bench_far_created";
const TARGET: &str = "bench_far_target";
/// Of sites on one continent, far from each other.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Fewer than elsewhere: over a long way they take as long. Of these a part where a message takes two round trips.
const ROWS_MAX: u64 = 3_000_000;
const SLOW_PART: u64 = 8;
/// Tables that are made.
const CREATIONS: u64 = 3_000;
/// Rows of a large message: as many bytes as are written at once by default.
const LARGE_ROWS: u64 = 50_000;
/// Bytes that are read at once, and such pieces that are under way at most in each direction of a connection.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_MAX: usize = 1_024;

pub fn measure(options: &Options, sites: &Sites, plugins: &Path, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = options.rows.min(ROWS_MAX);
    runtime.block_on(load::clean(&sites.a, SOURCE))?;
    runtime.block_on(load::fill(&sites.a, SOURCE, rows))?;
    let (far_a, far_b) = runtime.block_on(async { anyhow::Ok((far(&sites.a).await?, far(&sites.b).await?)) })?;
    let large = format!(", min-poll-rows = {LARGE_ROWS}");
    let mut ways = [
        ("near the source", &sites.a, &far_b, "", rows, Vec::new()),
        ("near the source, larger messages", &sites.a, &far_b, large.as_str(), rows, Vec::new()),
        ("near the target", &far_a, &sites.b, "", rows / SLOW_PART, Vec::new()),
        ("near the target, larger messages", &far_a, &sites.b, large.as_str(), rows, Vec::new()),
    ];
    for round in 0..options.rounds {
        for (index, (_, from, to, settings, rows, rates)) in ways.iter_mut().enumerate() {
            let target = format!("{TARGET}_{}_{round}_{index}", std::process::id());
            runtime.block_on(load::create(&sites.b, &target))?;
            let job = Job { from, to, source: SOURCE, target: &target, rows: *rows, group: format!("{target}_group") };
            rates.push(piped::run(&job, settings, &[], plugins)?.rows_per_second / 1e6);
            runtime.block_on(load::clean(&sites.b, &target))?;
        }
    }
    runtime.block_on(load::clean(&sites.a, SOURCE))?;
    let away = format!("{} ms away", ROUND_TRIP.as_millis());
    for (name, _, _, _, _, rates) in ways {
        report.add(format!("{name}, {away}, {}", sites.kind()), "M rows/s", Wanted::Nothing, rates);
    }
    runtime.block_on(create_tables(&sites.a))?;
    for (name, to) in [("beside each other", &sites.b), (away.as_str(), &far_b)] {
        let rates = creations(options, &runtime, sites, to, plugins)?;
        report.add(format!("tables made, {name}, {}", sites.kind()), "tables/s", Wanted::Nothing, rates);
    }
    runtime.block_on(load::clean(&sites.a, CREATED))?;
    Ok(())
}

/// Children, by a statement each.
async fn create_tables(site: &Address) -> Result<()> {
    load::clean(site, CREATED).await?;
    let connection = load::create(site, CREATED).await?;
    for table in load::TABLES..CREATIONS {
        connection.exec(&format!("create table t{table} using meters tags ({table})")).await?;
    }
    Ok(())
}

/// The same at a target that is reached by way of `to`: tables per second of each round.
fn creations(options: &Options, runtime: &Runtime, sites: &Sites, to: &Address, plugins: &Path) -> Result<Vec<f64>> {
    let near = runtime.block_on(sites.b.connect(None))?;
    let mut rates = Vec::new();
    for round in 0..options.rounds {
        let target = format!("{TARGET}_{}_{round}_{}", std::process::id(), to.dsn.port);
        let job = Job { from: &sites.a, to, source: CREATED, target: &target, rows: CREATIONS, group: format!("{target}_group") };
        let sql = format!("select count(*) from information_schema.ins_tables where db_name = '{target}'");
        let rate = piped::run_creations(&job, plugins, || {
            let rows = runtime.block_on(near.query(&sql))?.texts()?;
            Ok(rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or_default())
        })?;
        rates.push(rate.rows_per_second);
        runtime.block_on(load::clean(&sites.b, &target))?;
    }
    Ok(rates)
}

/// The site as it is reached from afar: every byte comes half a round trip later, whatever else is under way.
async fn far(site: &Address) -> Result<Address> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (near, here) = (format!("{}:{}", site.dsn.host, site.dsn.port), listener.local_addr()?);
    let text = site.text.replace(&near, &here.to_string());
    anyhow::ensure!(text != site.text, "no `{near}` in the address of a site");
    tokio::spawn(serve(listener, near));
    Address::new(&text)
}

async fn serve(listener: TcpListener, near: String) -> Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let server = TcpStream::connect(&near).await.with_context(|| format!("the way to {near}"))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        delay(from_client, to_server);
        delay(from_server, to_client);
    }
}

fn delay(mut from: impl AsyncRead + Send + Unpin + 'static, mut to: impl AsyncWrite + Send + Unpin + 'static) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Bytes)>(PIECES_MAX);
    // Either ends when its side is closed; then so does the other.
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES);
            if !matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
            if sender.send((Instant::now() + ROUND_TRIP / 2, buffer.split().freeze())).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
}
