//! What a message pays for crossing the plugin boundary: the same components called through the shared library and directly; and for
//! crossing into processes of their own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pipeline_engine::config::IsolationLimits;
use pipeline_engine::host::process::{Launch, Process};
use pipeline_engine::host::{LoadOptions, Plugins, SearchPath};
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::context::Place;
use pipeline_sdk::plugin::Instance;
use pipeline_sdk::{Context, Detached, Kind, Output, Polled, Sink, Source, Transform};
use serde_json::json;

use crate::options::Options;
use crate::process::thread_cpu_seconds;
use crate::report::{Report, Wanted};

const MESSAGES: u64 = 200_000;
/// Through processes, where a message is copied eight times.
const ISOLATED_MESSAGES: u64 = 10_000;
/// Out of the source, into the transform and out of it, into the sink; each with a call of its own.
const CROSSINGS: f64 = 4.0;
/// Of a frame of 5,000 rows.
const FRAME_BYTES: usize = 100_000;

/// A chain as the engine calls it.
struct Chain {
    source: Box<dyn Source>,
    transform: Box<dyn Transform>,
    sink: Box<dyn Sink>,
}

pub fn measure(options: &Options, plugins: &Path, report: &mut Report) -> Result<()> {
    let loaded = Plugins::load(&LoadOptions {
        search: SearchPath { folders: vec![plugins.to_owned()] },
        ..LoadOptions::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut costs = Vec::new();
    for round in 0..options.rounds {
        let mut seconds = [0.0; 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for way in order {
            let chain = if way == 0 { direct()? } else { imported(&loaded, MESSAGES)? };
            let before = thread_cpu_seconds()?;
            runtime.block_on(run(chain, MESSAGES))?;
            seconds[way] = thread_cpu_seconds()? - before;
        }
        costs.push((seconds[1] - seconds[0]) / MESSAGES as f64 * 1e6);
    }
    let one = costs.iter().map(|cost| cost / CROSSINGS).collect();
    report.add("plugin boundary, one crossing of a message", "µs", Wanted::Below(1.0), one);
    report.add("plugin boundary, source + transform + sink", "µs/message", Wanted::Nothing, costs);
    Ok(())
}

/// By the wall's clock: what is wanted of isolation is that the rate is known.
pub fn measure_isolated(options: &Options, plugins: &Path, report: &mut Report) -> Result<()> {
    let loaded = Plugins::load(&LoadOptions {
        search: SearchPath { folders: vec![plugins.to_owned()] },
        ..LoadOptions::default()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let here = timed(&runtime, imported(&loaded, ISOLATED_MESSAGES)?)?;
        let chain = runtime.block_on(isolated(&loaded))?;
        let apart = timed(&runtime, chain)?;
        rates.push(ISOLATED_MESSAGES as f64 / apart);
        ratios.push(here / apart);
    }
    report.add("source + transform + sink in processes of their own", "messages/s", Wanted::Nothing, rates);
    report.add("the same / in process", "", Wanted::Nothing, ratios);
    Ok(())
}

fn timed(runtime: &tokio::runtime::Runtime, chain: Chain) -> Result<f64> {
    let begin = std::time::Instant::now();
    runtime.block_on(run(chain, ISOLATED_MESSAGES))?;
    Ok(begin.elapsed().as_secs_f64())
}

async fn isolated(plugins: &Plugins) -> Result<Chain> {
    let launch = Launch { program: pipeline_tests::binary(), arguments: vec!["component".into()], environment: Vec::new() };
    let place = Place::default();
    let parts = HostParts { host: Arc::new(Detached::default()), log: Arc::new(|_, _, _, _| {}) };
    let file = plugins.plugin(Kind::Source, "bench-frames")?.file()?;
    let limits = IsolationLimits::default();
    let start = |name: &'static str| Process::start(&launch, file, name, &limits, parts.log.clone());
    let limit = Duration::from_secs(60);
    Ok(Chain {
        source: start("source").await?.source("bench-frames", &frames(ISOLATED_MESSAGES), &place, parts.clone()).await?,
        transform: start("transform").await?.transform("bench-pass", &json!({}), &place, parts.clone(), limit).await?,
        sink: start("sink").await?.sink("bench-drop", &json!({}), &place, parts.clone()).await?,
    })
}

async fn run(mut chain: Chain, messages: u64) -> Result<()> {
    chain.source.connect(&Default::default()).await?;
    chain.sink.connect().await?;
    let mut written = 0;
    loop {
        match chain.source.next(Duration::ZERO).await? {
            Polled::Messages(messages) => {
                let mut out = Output::default();
                for message in messages {
                    chain.transform.apply(message, &mut out)?;
                }
                let (count, result) = chain.sink.write_many(&out.messages).await;
                result?;
                written += count as u64;
            }
            Polled::End => break,
            other => bail!("{other:?}"),
        }
    }
    anyhow::ensure!(written == messages);
    Ok(())
}

fn imported(plugins: &Plugins, messages: u64) -> Result<Chain> {
    let place = Place::default();
    let parts = HostParts { host: Arc::new(Detached::default()), log: Arc::new(|_, _, _, _| {}) };
    let library = plugins.library(Kind::Source, "bench-frames")?;
    Ok(Chain {
        source: library.source("bench-frames", &frames(messages), &place, parts.clone())?,
        transform: library.transform("bench-pass", &json!({}), &place, parts.clone())?,
        sink: library.sink("bench-drop", &json!({}), &place, parts)?,
    })
}

fn direct() -> Result<Chain> {
    let plugin = pipeline_bench::plugin();
    let make = |kind, name, config| -> Result<Instance> {
        Ok((plugin.component(kind, name)?.build)(config, Context::detached())?)
    };
    let source = make(Kind::Source, "bench-frames", frames(MESSAGES))?;
    let transform = make(Kind::Transform, "bench-pass", json!({}))?;
    let sink = make(Kind::Sink, "bench-drop", json!({}))?;
    match (source, transform, sink) {
        (Instance::Source(source), Instance::Transform(transform), Instance::Sink(sink)) => {
            Ok(Chain { source, transform, sink })
        }
        _ => None.context("a component is of another kind than its description says"),
    }
}

fn frames(messages: u64) -> serde_json::Value {
    json!({ "messages": messages, "bytes": FRAME_BYTES })
}
