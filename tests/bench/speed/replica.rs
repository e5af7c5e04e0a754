//! Two symmetric pipelines with nothing to do: how fast one write shows, how soon they run, what they hold.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pipeline_sdk::context::{Context, Place};
use pipeline_sdk::describe::TELLS_REPLICATED;
use pipeline_sdk::plugin::Instance;
use pipeline_sdk::{Checkpoint, Detached, Kind};
use serde_json::json;

use crate::load::{self, Address, Sites};
use crate::options::{Figure, Options};
use crate::piped::Log;
use crate::process::{cpu_seconds, resident_mib};
use crate::report::{Report, Wanted};

const DATABASE: &str = "bench_replica";
/// Writes whose way is timed, half in each direction.
const WRITES: usize = 100;
/// Before memory is looked at, and before the first write.
const REST: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(60);

pub fn measure(options: &Options, sites: &Sites, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for site in [&sites.a, &sites.b] {
        runtime.block_on(load::clean(site, DATABASE))?;
        runtime.block_on(create(site))?;
    }
    let kind = sites.kind();
    let (mut beyond, mut whole, mut memory, mut idle, mut visible) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..options.rounds {
        let servers = runtime.block_on(connect_alone(sites, round))?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("replica.toml");
        std::fs::write(&file, text(sites, round))?;
        let (log, started) = start(&file)?;
        whole.push(started.as_secs_f64() * 1e3);
        beyond.push((started.as_secs_f64() - servers.as_secs_f64()) * 1e3);
        std::thread::sleep(REST);
        memory.push(resident_mib(log.process.id())?);
        if options.wants(Figure::Latency) && round == 0 {
            visible = runtime.block_on(times(sites))?;
        }
        let (before, begun) = (cpu_seconds(log.process.id())?, Instant::now());
        std::thread::sleep(REST);
        idle.push((cpu_seconds(log.process.id())? - before) / begun.elapsed().as_secs_f64() * 100.0);
        log.stop()?;
    }
    if options.wants(Figure::Latency) {
        report.add(format!("a write shows at the other site, {kind}"), "ms", Wanted::Below(20.0), visible);
    }
    if options.wants(Figure::Start) {
        report.add(format!("start to running, beyond the servers, {kind}"), "ms", Wanted::Below(150.0), beyond);
        report.add(format!("start to running, {kind}"), "ms", Wanted::Nothing, whole);
        report.add(format!("memory of two idle pipelines, {kind}"), "MiB", Wanted::Below(40.0), memory);
        report.add(format!("two idle pipelines, {kind}"), "% of a core", Wanted::Nothing, idle);
    }
    for site in [&sites.a, &sites.b] {
        runtime.block_on(load::clean(site, DATABASE))?;
    }
    Ok(())
}

async fn create(address: &Address) -> Result<()> {
    let connection = address.connect(None).await?;
    connection.exec(&format!("create database {DATABASE} vgroups 2 wal_retention_period 3600")).await?;
    connection.exec(&format!("create table {DATABASE}.t (ts timestamp, v int)")).await?;
    load::create_topic(address, DATABASE).await
}

fn group(round: usize) -> String {
    format!("bench_replica_{}_{round}", std::process::id())
}

fn text(sites: &Sites, round: usize) -> String {
    let one = |name: &str, from: &Address, to: &Address| {
        format!(
            "[pipeline.{name}]\n\
             source = {{ type = \"tdengine-tmq\", freshness = \"10ms\", dsn = \"{}\", databases = [\"{DATABASE}\"], group = \"{}\" }}\n\
             transform = {{ type = \"loop-mark\" }}\n\
             sink = {{ type = \"tdengine\", dsn = \"{}\" }}\n\n",
            from.text,
            group(round),
            to.text
        )
    };
    one("a-to-b", &sites.a, &sites.b) + &one("b-to-a", &sites.b, &sites.a)
}

/// Starts the file; how long it took until both pipelines ran.
fn start(file: &Path) -> Result<(Log, Duration)> {
    let begun = Instant::now();
    // Plugins are found beside the executable.
    let mut log = Log::start(file, Path::new("no-such-folder"), Duration::from_millis(5))?;
    let mut running: [Option<Instant>; 2] = [None; 2];
    loop {
        for line in log.new_lines()? {
            let which = usize::from(line["pipeline"] == "b-to-a");
            if line["state"] == "running" && running[which].is_none() {
                running[which] = Some(log.at(&line)?);
            }
        }
        if let [Some(first), Some(second)] = running {
            return Ok((log, first.max(second).duration_since(begun)));
        }
        if begun.elapsed() > LONGEST || !log.process.is_running() {
            bail!("the pipelines do not run:\n{}", log.process.output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the servers take: the two sources' own connect, side by side, in this process.
async fn connect_alone(sites: &Sites, round: usize) -> Result<Duration> {
    let plugin = pipeline_tdengine::plugin();
    let component = plugin.component(Kind::Source, "tdengine-tmq")?;
    let mut connecting = Vec::new();
    let begun = Instant::now();
    for address in [&sites.a, &sites.b] {
        let config = json!({ "dsn": address.text, "databases": [DATABASE], "group": format!("{}_alone", group(round)) });
        let place = Place { negotiated: [TELLS_REPLICATED.to_owned()].into(), ..Place::default() };
        let Instance::Source(mut source) = (component.build)(config, Context::new(place, Arc::new(Detached::default())))? else {
            bail!("a source was asked for");
        };
        connecting.push(tokio::spawn(async move { source.connect(&Checkpoint::default()).await.map(|_| source) }));
    }
    let mut sources = Vec::new();
    for source in connecting {
        sources.push(source.await??);
    }
    let took = begun.elapsed();
    drop(sources);
    Ok(took)
}

/// From sending a write to the first read at the other site that returns it, milliseconds.
async fn times(sites: &Sites) -> Result<Vec<f64>> {
    let (a, b) = (sites.a.connect(Some(DATABASE)).await?, sites.b.connect(Some(DATABASE)).await?);
    let mut times = Vec::with_capacity(WRITES);
    for write in 0..WRITES {
        let (from, to) = if write % 2 == 0 { (&a, &b) } else { (&b, &a) };
        // Out of step with the polls.
        tokio::time::sleep(Duration::from_micros(100_000 + (write as u64 * 7_919) % 50_000)).await;
        let ts = 1_700_000_000_000 + write as u64;
        let begun = Instant::now();
        from.exec(&format!("insert into t values ({ts}, {write})")).await?;
        while to.query(&format!("select v from t where ts = {ts}")).await?.row_count()? == 0 {
            if begun.elapsed() > LONGEST {
                bail!("write {write} did not show within {LONGEST:?}");
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}
