//! What a message pays for crossing the plugin boundary: the same components called through the shared library and directly.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pipeline_engine::host::{LoadOptions, Plugins, SearchPath};
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::context::{Host, Place};
use pipeline_sdk::plugin::Instance;
use pipeline_sdk::{Context, Incident, Kind, Output, Polled, Sink, Source, Transform};
use serde_json::json;

use crate::options::Options;
use crate::process::thread_cpu_seconds;
use crate::report::{Report, Wanted};

const MESSAGES: u64 = 200_000;
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
            let chain = if way == 0 { direct()? } else { imported(&loaded)? };
            let before = thread_cpu_seconds()?;
            runtime.block_on(run(chain))?;
            seconds[way] = thread_cpu_seconds()? - before;
        }
        costs.push((seconds[1] - seconds[0]) / MESSAGES as f64 * 1e6);
    }
    let one = costs.iter().map(|cost| cost / CROSSINGS).collect();
    report.add("plugin boundary, one crossing of a message", "µs", Wanted::Below(1.0), one);
    report.add("plugin boundary, source + transform + sink", "µs/message", Wanted::Nothing, costs);
    Ok(())
}

async fn run(mut chain: Chain) -> Result<()> {
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
    anyhow::ensure!(written == MESSAGES);
    Ok(())
}

fn imported(plugins: &Plugins) -> Result<Chain> {
    let place = Place::default();
    let parts = HostParts { host: Arc::new(Nobody), log: Arc::new(|_, _, _, _| {}) };
    let library = plugins.library(Kind::Source, "bench-frames")?;
    Ok(Chain {
        source: library.source("bench-frames", &frames(), &place, parts.clone())?,
        transform: library.transform("bench-pass", &json!({}), &place, parts.clone())?,
        sink: library.sink("bench-drop", &json!({}), &place, parts)?,
    })
}

fn direct() -> Result<Chain> {
    let plugin = pipeline_bench::plugin();
    let make = |kind, name, config| -> Result<Instance> {
        Ok((plugin.component(kind, name)?.build)(config, Context::detached())?)
    };
    let source = make(Kind::Source, "bench-frames", frames())?;
    let transform = make(Kind::Transform, "bench-pass", json!({}))?;
    let sink = make(Kind::Sink, "bench-drop", json!({}))?;
    match (source, transform, sink) {
        (Instance::Source(source), Instance::Transform(transform), Instance::Sink(sink)) => {
            Ok(Chain { source, transform, sink })
        }
        _ => None.context("a component is of another kind than its description says"),
    }
}

fn frames() -> serde_json::Value {
    json!({ "messages": MESSAGES, "bytes": FRAME_BYTES })
}

/// A host that keeps nothing.
pub struct Nobody;

impl Host for Nobody {
    fn counter(&self, _: &str, _: u64) {}
    fn gauge(&self, _: &str, _: f64) {}
    fn incident(&self, _: &Incident) {}
    fn state_get(&self, _: bool, _: &str) -> pipeline_sdk::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn state_put(&self, _: bool, _: &str, _: Option<&[u8]>) -> pipeline_sdk::Result<()> {
        Ok(())
    }
    fn state_keys(&self, _: bool, _: &str) -> pipeline_sdk::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn is_cancelled(&self) -> bool {
        false
    }
}
