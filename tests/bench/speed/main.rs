//! Speed and memory of the built binary and its shared libraries, printed as a table of figure, wanted, reached.
//!
//! `cargo bench --bench speed -- --help`. Machines are noisy: what is compared runs in turns within one run, a ratio is
//! made of two neighbours, and minimum, median and maximum of the rounds are shown. `--check` fails when a median misses.

mod bare;
mod boundary;
mod distance;
mod load;
mod native;
mod node;
mod options;
mod piped;
mod process;
mod replica;
mod report;
mod tasks;
mod throughput;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use pipeline_tests::start_node;

use load::Sites;
use options::{Figure, Options};
use report::Report;

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
        Ok(report) => {
            println!("{}", report.render());
            let is_missed = options.check && report.is_missed();
            if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<Report> {
    if !options.no_build {
        process::build()?;
    }
    let folder = tempfile::tempdir()?;
    let plugins = process::plugin_folder(folder.path())?;
    let mut report = Report::default();
    if options.wants(Figure::Boundary) {
        boundary::measure(options, &plugins, &mut report)?;
        boundary::measure_isolated(options, &plugins, &mut report)?;
    }
    if options.wants(Figure::Node) {
        node::measure(options, folder.path(), &mut report)?;
    }
    if options.wants(Figure::Tasks) {
        tasks::measure(options, folder.path(), &mut report)?;
    }
    let needs_sites = [Figure::Frames, Figure::Rows, Figure::Distance, Figure::Latency, Figure::Start].into_iter().any(|it| options.wants(it));
    let mut nodes = Vec::new();
    if needs_sites {
        let sites = match &options.sites {
            Some(sites) => Sites::real(sites)?,
            None => {
                let (a, first) = start_node(&folder.path().join("a"), None)?;
                let (b, second) = start_node(&folder.path().join("b"), None)?;
                nodes.extend([first, second]);
                Sites::nodes(&a, &b)?
            }
        };
        if options.wants(Figure::Frames) || options.wants(Figure::Rows) {
            throughput::measure(options, &sites, &plugins, &mut report)?;
        }
        if options.wants(Figure::Distance) {
            distance::measure(options, &sites, &plugins, &mut report)?;
        }
        if options.wants(Figure::Latency) || options.wants(Figure::Start) {
            replica::measure(options, &sites, &mut report)?;
        }
    }
    if options.wants(Figure::Native) {
        throughput::measure_native(options, &plugins, &mut report)?;
    }
    Ok(report)
}
