//! `pipeline run`: services and pipelines of files, until they end, are told to, or the time is over.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_engine::config::units::parse_duration;
use pipeline_engine::graph::Graph;
use pipeline_engine::host::Plugins;
use pipeline_engine::runtime::{Engine, RunEnd, RunOptions, Running, Threads};
use pipeline_engine::state::Store;
use pipeline_replica::{Comparison, compare};
use pipeline_service::{Endpoints, Options, Server, Supervisor, UnixEndpoint};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::component;
use crate::error::{CommandError, CommandResult};
use crate::host::{HostArgs, build_graphs, load_files};
use crate::output::{Output, is_terminal};
use crate::socket::run_socket;
use crate::status::{self, Rates};
use crate::summary::Summary;

/// How often the table on a terminal is drawn anew.
const TABLE_INTERVAL: Duration = Duration::from_millis(500);
/// A call to a site while sites are compared.
const COMPARE_LIMIT: Duration = Duration::from_secs(300);

/// Run the services and pipelines of files
///
/// On a terminal a table shows what happens; elsewhere structured log lines do. Ctrl-C (or SIGTERM) stops gracefully: what
/// was read is written and positions are stored. A second one ends at once; nothing is lost, what was not stored is read again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Stop after this long (`30s`): generators first, then every lane is drained, the sites of replicas are compared, and
    /// a summary is printed. Wins over the file's `run-for`
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    run_for: Option<Duration>,
    /// The folder for positions and dead letters, instead of `.NAME.state` beside the file
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Forget positions that were stored for another source (another cluster, a database made anew), and read it from where its
    /// configuration says
    #[arg(long)]
    accept_new_sources: bool,
    /// How often a status line is logged where there is no terminal
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    status_interval: Duration,
    /// Offer the admin API of `pipeline serve` on this unix socket as well while it runs, so that `pipeline replica` looks into it
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the summary as JSON, and no table
    #[arg(long)]
    json: bool,
    /// Print neither table nor summary: standard output is a sink's
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  pipeline run events.toml
  pipeline run a.toml b.toml --state /var/lib/pipeline --accept-new-sources
  pipeline run replica.toml --for 30s --json
  pipeline run to-stdout.toml --quiet | head";

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// A file and its run.
type Run = (Graph, Arc<Running>);

/// Why a run is over.
enum Reason {
    Ended,
    TimeIsOver,
    Signal,
}

impl Args {
    pub fn shows_table(&self) -> bool {
        is_terminal() && !self.json && !self.quiet
    }

    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        let mut files = load_files(&self.files, output)?;
        if let Some(state) = &self.state {
            let [file] = files.as_mut_slice() else {
                let error = CommandError::bad_usage("--state takes one file only");
                return Err(error.hint("give each file `[state]` with a `path` of its own"));
            };
            file.state.clone_from(state);
        }
        let copies = files.first().map(|file| file.state.join("plugins"));
        let plugins = Arc::new(host.plugins(&files, copies, output));
        let graphs = build_graphs(&files, &plugins)?;
        block_on(run(&self, graphs, plugins, output))
    }
}

/// Runs the services of a graph until a signal comes; nothing is kept.
pub fn services(graph: Graph, plugins: Arc<Plugins>, output: &Output) -> CommandResult {
    block_on(async {
        let mut signals = Signals::new()?;
        let mut options = run_options();
        options.store = Some(Store::in_memory());
        let running = Engine::start(graph.clone(), plugins, options).await?;
        output.error("hint", "Ctrl-C ends it");
        signals.next().await;
        match stop_all(&[(graph, Arc::new(running))], &mut signals).await {
            Some(_) => Ok(()),
            None => Err(CommandError::failed("ended at once, as told by a second signal")),
        }
    })
}

/// Threads of what runs no component's code: the API, signals, the monitor.
const CONTROL_THREADS: usize = 2;
/// How long what is in a call may take once everything else has ended.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);
/// Of all runs of this process.
static THREADS: LazyLock<Arc<Threads>> = LazyLock::new(Arc::default);

pub(super) fn block_on(body: impl Future<Output = CommandResult>) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(CONTROL_THREADS)
        .thread_name("pipeline")
        .build()
        .map_err(|error| CommandError::failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(body);
    // A component that hangs must not keep the process.
    let deadline = Instant::now() + SHUTDOWN_MAX;
    THREADS.shutdown(SHUTDOWN_MAX);
    runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
    result
}

async fn run(args: &Args, graphs: Vec<Graph>, plugins: Arc<Plugins>, output: &Output) -> CommandResult {
    let mut signals = Signals::new()?;
    let begin = Instant::now();
    let mut runs = Vec::new();
    for graph in graphs {
        let mut options = run_options();
        options.accept_new_sources = args.accept_new_sources;
        let started = tokio::select! {
            started = Engine::start(graph.clone(), plugins.clone(), options) => started.map_err(CommandError::from),
            () = signals.next() => Err(CommandError::failed("interrupted before everything had started")),
        };
        match started {
            Ok(running) => runs.push((graph, Arc::new(running))),
            Err(error) => {
                stop_all(&runs, &mut signals).await;
                return Err(error);
            }
        }
    }
    let servers = match offer_all(args, &runs, &plugins).await {
        Ok(servers) => servers,
        Err(error) => {
            stop_all(&runs, &mut signals).await;
            return Err(error);
        }
    };
    let run_for = args.run_for.or_else(|| runs.iter().filter_map(|(graph, _)| graph.engine.run_for).max());
    let mut display = Display::new(args, begin, output);
    let reason = watch(&mut display, &runs, run_for, &mut signals).await;
    let settling = match reason {
        Reason::TimeIsOver => tokio::select! {
            settled = settle(&runs, &plugins) => Settling::Done(settled),
            // The first signal: nothing is compared, but what was read is written.
            () = signals.next() => Settling::Cut,
            () = display.go_on(&runs, "the time is over: generators stop, lanes are drained, sites are compared") => Settling::Cut,
        },
        Reason::Ended | Reason::Signal => Settling::NotMeant,
    };
    let ends = tokio::select! {
        ends = stop_all(&runs, &mut signals) => ends,
        () = display.go_on(&runs, "stopping: what was read is written; a second signal ends at once") => None,
    };
    output.live_clear();
    for server in servers {
        server.stop().await;
    }
    let Some(ends) = ends else { return abort(&runs) };
    finish(args, &runs, ends, settling, begin, output)
}

/// The admin API: of every file in its state folder, where `pipeline tap` finds it, and of all where the user says.
async fn offer_all(args: &Args, runs: &[Run], plugins: &Arc<Plugins>) -> Result<Vec<Server>, CommandError> {
    let mut servers = Vec::new();
    if let Some(socket) = &args.socket {
        servers.push(offer(socket, &args.files, runs, plugins).await?);
    }
    for (file, run) in args.files.iter().zip(runs) {
        let socket = run_socket(&run.0.state);
        match offer(&socket, std::slice::from_ref(file), std::slice::from_ref(run), plugins).await {
            Ok(server) => servers.push(server),
            // Not every file system takes sockets; the run does not need one.
            Err(error) => tracing::debug!(socket = %socket.display(), error = error.text(), "no admin API of this run"),
        }
    }
    Ok(servers)
}

/// The admin API over runs that end with this command.
async fn offer(socket: &Path, files: &[PathBuf], runs: &[Run], plugins: &Arc<Plugins>) -> Result<Server, CommandError> {
    let options = Options {
        folder: None,
        states: None,
        version: env!("CARGO_PKG_VERSION").into(),
        socket: Some(socket.to_owned()),
        environment: Arc::new(|name| std::env::var(name).ok()),
        run: Arc::new(run_options),
        orders: None,
        hand_overs: None,
        learn: Arc::new(|_| {}),
    };
    let supervisor = Supervisor::new(options, plugins.clone())?;
    for (file, (graph, running)) in files.iter().zip(runs) {
        supervisor.adopt(file, graph.clone(), running.clone());
    }
    let unix = Some(UnixEndpoint { path: socket.to_owned(), group: None });
    Ok(Server::start(supervisor, Endpoints { unix, tcp: None }).await?)
}

/// Shows what happens: a table on a terminal, lines elsewhere.
struct Display<'a> {
    is_live: bool,
    begin: Instant,
    rates: Rates,
    ticks: tokio::time::Interval,
    output: &'a Output,
}

impl<'a> Display<'a> {
    fn new(args: &Args, begin: Instant, output: &'a Output) -> Self {
        let is_live = args.shows_table();
        let interval = if is_live { TABLE_INTERVAL } else { args.status_interval };
        let ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        Self { is_live, begin, rates: Rates::default(), ticks, output }
    }

    /// Shows the state at every tick, with `note` below the table; never ends by itself.
    async fn go_on(&mut self, runs: &[Run], note: &str) {
        if self.is_live {
            // What is new to say does not wait for the next tick.
            self.ticks.reset_immediately();
        }
        loop {
            self.ticks.tick().await;
            let pipelines = runs.iter().flat_map(|(_, running)| running.status().pipelines).collect();
            let rows = self.rates.rows(pipelines, self.begin.elapsed());
            if self.is_live {
                let table = status::render_within(&rows, self.output.columns());
                self.output.live(format!("{table}\n{note}").trim_end());
            } else {
                status::log(&rows);
            }
        }
    }
}

/// Shows what happens until the run is over.
async fn watch(
    display: &mut Display<'_>,
    runs: &[Run],
    run_for: Option<Duration>,
    signals: &mut Signals,
) -> Reason {
    let time_is_over = async {
        match run_for {
            Some(run_for) => tokio::time::sleep(run_for).await,
            None => std::future::pending().await,
        }
    };
    let all_ended = async {
        for (_, running) in runs {
            running.wait().await;
        }
    };
    tokio::select! {
        () = time_is_over => Reason::TimeIsOver,
        () = all_ended => Reason::Ended,
        () = signals.next() => Reason::Signal,
        () = display.go_on(runs, "") => Reason::Ended,
    }
}

/// Whether everything was drained and compared.
enum Settling {
    /// The run ended otherwise than by its time.
    NotMeant,
    /// A signal came before it was done.
    Cut,
    Done(Vec<Settled>),
}

/// What the end of the time came to, of one file.
#[derive(Default)]
struct Settled {
    is_drained: bool,
    /// Tasks that were not drained in time, as for people.
    waits: Vec<String>,
    comparisons: Vec<Comparison>,
    /// Why sites could not be compared.
    error: Option<pipeline_sdk::Error>,
}

/// Stops what makes data, waits until every lane is drained, and compares the sites of every replica.
async fn settle(runs: &[Run], plugins: &Plugins) -> Vec<Settled> {
    for (_, running) in runs {
        running.stop_generators().await;
    }
    let mut settled = Vec::new();
    for (graph, running) in runs {
        settled.push(settle_one(graph, running, plugins).await);
    }
    settled
}

async fn settle_one(graph: &Graph, running: &Running, plugins: &Plugins) -> Settled {
    let mut settled = Settled::default();
    let limit = graph.engine.drain_timeout;
    let limit_ms = limit.as_millis() as u64;
    let of = first_of(status::waits(running.status().pipelines, &|_| true));
    if !of.is_empty() {
        tracing::info!(file = graph.file, limit_ms, of, "the time is over: lanes are drained");
    }
    settled.is_drained = running.drain(limit).await;
    if !settled.is_drained {
        settled.waits = status::waits(running.status().pipelines, &status::is_behind);
        let of = first_of(settled.waits.clone());
        tracing::warn!(file = graph.file, limit_ms, of, "lanes were not drained in time; sites are not compared");
        return settled;
    }
    let redactor = Arc::new(graph.redactor.clone());
    for replica in &graph.replicas {
        match compare(replica, plugins, &redactor, COMPARE_LIMIT).await {
            Ok(comparison) => settled.comparisons.push(comparison),
            Err(error) => {
                settled.error = Some(error);
                break;
            }
        }
    }
    settled
}

/// The first ones, and how many more there are.
fn first_of(mut texts: Vec<String>) -> String {
    /// A run may have thousands of tasks.
    const SHOWN_MAX: usize = 10;
    let more = texts.len().saturating_sub(SHOWN_MAX);
    texts.truncate(SHOWN_MAX);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    texts.join(", ")
}

/// Stops gracefully. `None` where a further signal came meanwhile.
async fn stop_all(runs: &[Run], signals: &mut Signals) -> Option<Vec<RunEnd>> {
    let stopping = async {
        let mut ends = Vec::new();
        for (_, running) in runs {
            ends.push(running.stop().await);
        }
        ends
    };
    tokio::select! {
        ends = stopping => Some(ends),
        () = signals.next() => None,
    }
}

fn abort(runs: &[Run]) -> CommandResult {
    runs.iter().for_each(|(_, running)| running.abort());
    let error = CommandError::failed("ended at once, as told by a second signal");
    Err(error.hint("nothing is lost: what was not stored is read again at the next start"))
}

/// Prints summaries and says how it went.
fn finish(
    args: &Args,
    runs: &[Run],
    ends: Vec<RunEnd>,
    settling: Settling,
    begin: Instant,
    output: &Output,
) -> CommandResult {
    let is_cut = matches!(settling, Settling::Cut);
    let mut settled = match settling {
        Settling::Done(settled) => settled,
        Settling::NotMeant | Settling::Cut => Vec::new(),
    };
    let mut of_files = settled.iter_mut();
    let summary = |((graph, running), mut end): (&Run, RunEnd)| {
        let settled = of_files.next();
        end.is_drained &= settled.as_ref().is_none_or(|it| it.is_drained);
        let comparisons = settled.filter(|it| it.error.is_none()).map(|it| std::mem::take(&mut it.comparisons));
        let comparisons = comparisons.filter(|it| !it.is_empty());
        Summary {
            file: graph.file.clone(),
            seconds: begin.elapsed().as_secs_f64(),
            status: running.status(),
            sites_are_equal: comparisons.as_ref().map(|it| it.iter().all(Comparison::is_equal)),
            comparisons,
            end,
        }
    };
    let summaries: Vec<Summary> = runs.iter().zip(ends).map(summary).collect();
    match args.json {
        _ if args.quiet => {}
        true => output.json(&summaries),
        false => summaries.iter().for_each(|summary| output.line(&summary.render())),
    }
    let waits: Vec<String> = settled.iter_mut().flat_map(|it| std::mem::take(&mut it.waits)).collect();
    verdict(&summaries, &waits)?;
    match settled.into_iter().find_map(|it| it.error) {
        Some(error) => Err(CommandError::from(error)),
        None if is_cut => {
            let error = CommandError::failed("ended by a signal before everything was drained and compared");
            Err(error.hint("nothing is lost: the next run goes on where this one stopped"))
        }
        None => Ok(()),
    }
}

fn verdict(summaries: &[Summary], waits: &[String]) -> CommandResult {
    let named = |pairs: &mut dyn Iterator<Item = &(String, String)>| {
        pairs.map(|(name, reason)| format!("{name}: {reason}")).collect::<Vec<_>>().join("\n")
    };
    let failed = named(&mut summaries.iter().flat_map(|it| &it.end.failed));
    let rejected = named(&mut summaries.iter().flat_map(|it| &it.end.rejected));
    if !failed.is_empty() {
        return Err(CommandError::failed(failed).hint("what failed starts where it was when you run it again"));
    }
    if !rejected.is_empty() {
        let (rejected, own) = own_hint(&rejected);
        let hint = own.unwrap_or("correct the cause, or let `on-error` and `on-rejected-change` say what to do instead");
        return Err(CommandError::stopped(rejected).hint(hint));
    }
    if summaries.iter().any(|it| it.sites_are_equal == Some(false)) {
        let hint = "the log tells what was refused; while others write, differences may be on their way";
        return Err(CommandError::failed("the sites are not equal").hint(hint));
    }
    if summaries.iter().any(|it| !it.end.is_drained) {
        let hint = "correct what it waits for, or raise `drain-timeout` in `[engine]`; nothing is lost, it is read again at the next start";
        let message = match waits {
            [] => "stopped before everything was written".to_owned(),
            waits => format!("stopped before everything was written: {}", first_of(waits.to_vec())),
        };
        return Err(CommandError::failed(message).hint(hint));
    }
    Ok(())
}

/// The reason of the only task there is without the hint that ends it, which knows better what to do, and that hint; those of
/// several stay with their tasks.
fn own_hint(reasons: &str) -> (&str, Option<&str>) {
    match reasons.split_once("]; ") {
        // An error ends in its code, in brackets, and then its hint.
        Some((before, hint)) if !reasons.contains('\n') => (&reasons[..=before.len()], Some(hint)),
        _ => (reasons, None),
    }
}

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, CommandError> {
        let listen = |kind| signal(kind).map_err(|error| CommandError::failed(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Of a run that is this process's alone.
pub(super) fn run_options() -> RunOptions {
    static EPOCH: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);
    let mut options = RunOptions::new(seed(), Arc::new(wall_clock_ms));
    options.epoch = *EPOCH;
    options.launch = Some(component::launch());
    options.threads = Some(THREADS.clone());
    options
}

fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Another one for each run.
fn seed() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    nanos ^ u64::from(std::process::id()).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_knows_best_what_to_do_about_it() {
        let reason = "p/power: vgroup 2 has a hole: 1 to 7 are gone [source.hole]; let `on-hole` say what to do";
        let expect = ("p/power: vgroup 2 has a hole: 1 to 7 are gone [source.hole]", Some("let `on-hole` say what to do"));
        assert_eq!(own_hint(reason), expect);
        let several = format!("{reason}\n{reason}");
        for text in [several.as_str(), "p: row 1 is too wide [test.wide]", "p: no code"] {
            assert_eq!(own_hint(text), (text, None));
        }
    }

    #[test]
    fn of_thousands_the_first_are_told() {
        let names = |count: usize| (0..count).map(|it| it.to_string()).collect::<Vec<_>>();
        assert_eq!(first_of(names(2)), "0, 1");
        assert_eq!(first_of(names(12)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2 more");
    }
}
