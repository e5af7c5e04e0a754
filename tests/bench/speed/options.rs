//! The command line.

use clap::{Parser, ValueEnum};

/// Speed and memory of pipeline, as ratios where a ratio says more
///
/// Without `--sites` everything runs against two embedded nodes that the benchmark starts.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench speed --")]
pub struct Options {
    /// End with an error when the median of a figure misses what is wanted
    #[arg(long)]
    pub check: bool,
    /// These figures only; all (but `native`) otherwise
    #[arg(long, value_enum)]
    pub only: Vec<Figure>,
    /// A real pair instead of embedded nodes: two addresses like `ws://root:taosdata@host:6041`. Databases, topics and groups
    /// that begin with `bench_` are made and dropped there
    #[arg(long, env = "PIPELINE_BENCH_SITES", value_delimiter = ',')]
    pub sites: Option<Vec<String>>,
    /// The pair through libtaos: two addresses like `taos://host:6030`
    #[arg(long, env = "PIPELINE_BENCH_NATIVE", value_delimiter = ',')]
    pub native: Option<Vec<String>>,
    /// Rows that are replicated in each round: as many as take seconds
    #[arg(long, default_value_t = 20_000_000)]
    pub rows: u64,
    /// Rounds of everything that is compared
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Tasks of the service
    #[arg(long, default_value_t = 1_000)]
    pub tasks: usize,
    /// Measure what lies beside the benchmark instead of building it first
    #[arg(long)]
    pub no_build: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    pub bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// What a message pays for crossing the plugin boundary
    Boundary,
    /// Rows that an embedded node takes
    Node,
    /// Frames through the engine against a bare loop
    Frames,
    /// Rows decoded and encoded against frames
    Rows,
    /// Frames between sites that are 50 ms from each other, a pipeline near one of them
    Distance,
    /// From a write until it is visible at the other site
    Latency,
    /// From start to running, and memory while idle
    Start,
    /// A service with many idle tasks
    Tasks,
    /// Through libtaos against a bare loop over it
    Native,
}

impl Options {
    pub fn wants(&self, figure: Figure) -> bool {
        match self.only.is_empty() {
            true => figure != Figure::Native || self.native.is_some(),
            false => self.only.contains(&figure),
        }
    }
}
