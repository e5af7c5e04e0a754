//! Rows per second of frames and rows against bare loops, in turns.

use std::path::Path;

use anyhow::{Context, Result};

use crate::bare::{self, Job, Rate};
use crate::load::{self, Address, Sites};
use crate::options::{Figure, Options};
use crate::report::{Report, Wanted};
use crate::{native, piped};

/// The database at the source, and the start of the names of those at the target.
const SOURCE: &str = "bench_source";
const TARGET: &str = "bench_target";
/// Rows per second over WebSocket, of a real pair on two cores.
const WEB_SOCKET_WANTED: f64 = 1.4e6;

/// One way to move the rows.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Bare,
    BareNative,
    Frames,
    Rows,
}

pub fn measure(options: &Options, sites: &Sites, plugins: &Path, report: &mut Report) -> Result<()> {
    let mut ways = vec![Way::Bare, Way::Frames];
    if options.wants(Figure::Rows) {
        ways.push(Way::Rows);
    }
    let rates = rounds(options, &sites.a, &sites.b, &ways, plugins)?;
    let kind = sites.kind();
    let of = |way: Way| rates.iter().filter(move |(it, _)| *it == way).map(|(_, rate)| *rate).collect::<Vec<_>>();
    let (bare, frames, rows) = (of(Way::Bare), of(Way::Frames), of(Way::Rows));
    let wanted = if sites.is_real { Wanted::Nothing } else { Wanted::AtLeast(0.95) };
    report.add(format!("frames / bare loop, rows/s, {kind}"), "×", wanted, ratios(&frames, &bare));
    if !rows.is_empty() {
        report.add(format!("rows / frames, rows/s, {kind}"), "×", Wanted::AtLeast(0.7), ratios(&rows, &frames));
    }
    let wanted = if sites.is_real { Wanted::AtLeast(WEB_SOCKET_WANTED / 1e6) } else { Wanted::Nothing };
    for (name, rates, wanted) in
        [("frames", &frames, wanted), ("bare loop", &bare, Wanted::Nothing), ("rows", &rows, Wanted::Nothing)]
    {
        if !rates.is_empty() {
            let speed = rates.iter().map(|rate| rate.rows_per_second / 1e6).collect();
            report.add(format!("{name}, WebSocket, {kind}"), "M rows/s", wanted, speed);
            let cpu = rates.iter().map(|rate| rate.cpu_seconds_per_million).collect();
            report.add(format!("{name}, own processor time, {kind}"), "s/M rows", Wanted::Nothing, cpu);
        }
    }
    Ok(())
}

pub fn measure_native(options: &Options, plugins: &Path, report: &mut Report) -> Result<()> {
    let addresses = options.native.as_ref().context("native figures need --native with two addresses")?;
    let [a, b] = addresses.as_slice() else { anyhow::bail!("two addresses are needed") };
    let rates = rounds(options, &Address::new(a)?, &Address::new(b)?, &[Way::BareNative, Way::Frames], plugins)?;
    let of = |way: Way| rates.iter().filter(move |(it, _)| *it == way).map(|(_, rate)| *rate).collect::<Vec<_>>();
    let (bare, frames) = (of(Way::BareNative), of(Way::Frames));
    report.add("frames / bare loop over libtaos, rows/s", "×", Wanted::AtLeast(0.95), ratios(&frames, &bare));
    for (name, rates) in [("frames", &frames), ("bare loop", &bare)] {
        let speed = rates.iter().map(|rate| rate.rows_per_second / 1e6).collect();
        report.add(format!("{name}, libtaos, real pair"), "M rows/s", Wanted::Nothing, speed);
    }
    Ok(())
}

fn ratios(of: &[Rate], to: &[Rate]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of.rows_per_second / to.rows_per_second).collect()
}

/// Moves the same rows in every way, each round in another order.
fn rounds(options: &Options, from: &Address, to: &Address, ways: &[Way], plugins: &Path) -> Result<Vec<(Way, Rate)>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(load::clean(from, SOURCE))?;
    eprintln!("filling {} with {} rows", from.dsn, options.rows);
    runtime.block_on(load::fill(from, SOURCE, options.rows))?;
    runtime.block_on(load::create_topic(from, SOURCE))?;
    let mut rates = Vec::new();
    for round in 0..options.rounds {
        let mut ways = ways.to_vec();
        if round % 2 == 1 {
            ways.reverse();
        }
        for (index, way) in ways.into_iter().enumerate() {
            let target = format!("{TARGET}_{}_{round}_{index}", std::process::id());
            runtime.block_on(load::create(to, &target))?;
            let group = format!("{target}_group");
            let job = Job { from, to, source: SOURCE, target: &target, rows: options.rows, group };
            let rate = match way {
                Way::Bare => runtime.block_on(bare::run(&job))?,
                Way::BareNative => native::run(&job)?,
                Way::Frames => piped::run(&job, "", &[], plugins)?,
                Way::Rows => piped::run(&job, "", &["bench-rows"], plugins)?,
            };
            rates.push((way, rate));
            runtime.block_on(load::clean(to, &target))?;
        }
    }
    runtime.block_on(load::clean(from, SOURCE))?;
    Ok(rates)
}
