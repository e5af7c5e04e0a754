//! `pipeline serve`: every pipeline file of a folder, for as long as the process lives, with the admin API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::Redactor;
use pipeline_engine::host::Plugins;
use pipeline_engine::runtime::Share;
use pipeline_sdk::tls::Identity;
use pipeline_service::{Endpoints, Member, OWN_FOLDER, Options, Server, Sharing, Supervisor, TcpEndpoint, UnixEndpoint};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::run::{Signals, block_on, duration, run_options};
use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::Output;
use crate::socket::{group_number, read_token, socket_path};

/// Run every pipeline file of a folder as a service
///
/// The folder is watched: a file that changed is checked first, then only what differs is restarted; a broken file changes nothing and
/// is shown as broken. `pipeline replica` commands look into the service and change it; what they stop stays stopped. State is kept
/// beside the files (`.NAME.state`). SIGTERM or Ctrl-C stops gracefully, SIGHUP looks at the folder at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder with the pipeline files (`*.toml`)
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// The unix socket for the admin API; `pipeline.sock` in the user's runtime folder where absent
    #[arg(long, value_name = "PATH", env = "PIPELINE_SOCKET")]
    socket: Option<PathBuf>,
    /// A group, by name or number, that may use the socket as well
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// Offer the admin API over TCP as well, for those who bring the token; unencrypted without `--tls-cert`
    #[arg(long, value_name = "ADDRESS", requires = "token_file")]
    listen: Option<SocketAddr>,
    /// A file with the token that requests over TCP must bring
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
    /// A PEM file with the certificate for `--listen`, and those that signed it after it; read again when it changes
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// A PEM file with that certificate's key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The folder for the state of all files, instead of beside each
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// How often the folder is looked at; a file is taken when it did not change between two looks
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    watch_interval: Duration,
    /// Forget positions that were stored for another source (another cluster, a database made anew), and read it from where its
    /// configuration says
    #[arg(long)]
    accept_new_sources: bool,
    /// Share the tasks with every other service that is given the same site and name, on other machines as well: each task runs in
    /// one of them at a time. A site's address as in `start -f`; it may hold a password, so rather use the variable
    #[arg(long, value_name = "ADDRESS", env = "PIPELINE_SHARE", hide_env_values = true)]
    share: Option<String>,
    /// Services with this name share
    #[arg(long, value_name = "NAME", env = "PIPELINE_SHARE_NAME", default_value = "pipeline_services")]
    share_name: String,
    /// Where the commands of other machines reach this service's admin API, HOST:PORT or https://HOST:PORT: the other services tell it of
    /// tasks that this one has. Where absent, the address of `--listen`, with the machine's name where it listens on all addresses
    #[arg(long, value_name = "ADDRESS", env = "PIPELINE_ADVERTISE", requires = "listen")]
    advertise: Option<String>,
}

const TOKEN_HINT: &str = "make one that only you can read: `(umask 077; openssl rand -hex 32 > FILE)`";

const EXAMPLES: &str = "Examples:
  pipeline serve --dir /etc/pipeline
  pipeline serve --dir pipelines --socket /run/pipeline/pipeline.sock \\
      --socket-group operators
  PIPELINE_SHARE='ws://root:SECRET@berlin:6041' pipeline serve --dir pipelines
  pipeline serve --dir pipelines --listen 0.0.0.0:8080 \\
      --token-file /run/secrets/pipeline-token \\
      --tls-cert /etc/pipeline/tls.crt --tls-key /etc/pipeline/tls.key";

impl Args {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        if !self.dir.is_dir() {
            let error = CommandError::bad_usage(format!("{} is no folder", self.dir.display()));
            return Err(error.hint("make it first; every *.toml in it is a pipeline file"));
        }
        let endpoints = self.endpoints()?;
        let own = self.state.as_deref().unwrap_or(&self.dir).join(OWN_FOLDER);
        let plugins = Arc::new(host.plugins(&[], Some(own.join("plugins")), output));
        let (accept_new_sources, learn) = (self.accept_new_sources, output.clone());
        let sharing = self.sharing(&plugins, output)?;
        let share = sharing.as_ref().map(Sharing::share);
        if let Some(share) = share.clone() {
            watch_leases(share, output.clone())?;
        }
        let options = Options {
            folder: Some(self.dir.clone()),
            states: self.state.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            socket: endpoints.unix.as_ref().map(|it| it.path.clone()),
            environment: Arc::new(|name| std::env::var(name).ok()),
            run: Arc::new(move || {
                let mut options = run_options();
                options.accept_new_sources = accept_new_sources;
                options.share = share.clone();
                options
            }),
            orders: sharing.as_ref().map(Sharing::orders),
            hand_overs: sharing.as_ref().map(Sharing::hand_overs),
            learn: Arc::new(move |redactor| learn.learn(redactor)),
        };
        let supervisor = Supervisor::new(options, plugins)?;
        block_on(serve(&self, supervisor, endpoints, sharing, output))
    }

    fn sharing(&self, plugins: &Arc<Plugins>, output: &Output) -> Result<Option<Sharing>, CommandError> {
        let Some(address) = self.share.as_deref().filter(|it| !it.is_empty()) else { return Ok(None) };
        let mut redactor = Redactor::default();
        redactor.add(address, "--share");
        output.learn(&redactor);
        Ok(Some(Sharing::new(address, &self.share_name, self.member()?, plugins.clone(), redactor)?))
    }

    /// This service, as the others that share the tasks know it.
    fn member(&self) -> Result<Member, CommandError> {
        let host = host_name();
        let address = self.advertise.clone().or_else(|| {
            let listen = self.listen?;
            let scheme = if self.tls_cert.is_some() { "https://" } else { "" };
            Some(match listen.ip().is_unspecified() {
                true => format!("{scheme}{host}:{}", listen.port()),
                false => format!("{scheme}{listen}"),
            })
        });
        Member::new(format!("{host}/{}", std::process::id()), address).map_err(|error| CommandError::from(error).usage())
    }

    fn endpoints(&self) -> Result<Endpoints, CommandError> {
        let group = self.socket_group.as_deref().map(group_number).transpose()?;
        let unix = Some(UnixEndpoint { path: socket_path(self.socket.as_deref()), group });
        let tcp = match (self.listen, &self.token_file) {
            (Some(address), Some(file)) => {
                let identity = self.tls_cert.as_ref().zip(self.tls_key.as_ref()).map(|(certificate, key)| Identity::load(certificate, key));
                let tls = identity.transpose().map_err(|error| CommandError::from(error).usage())?;
                Some(TcpEndpoint { address, token: read_token(file, TOKEN_HINT)?, tls })
            }
            _ => None,
        };
        Ok(Endpoints { unix, tcp })
    }
}

/// Of this machine, or container.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".into() } else { name.to_owned() }
}

async fn serve(
    args: &Args,
    supervisor: Arc<Supervisor>,
    endpoints: Endpoints,
    sharing: Option<Sharing>,
    output: &Output,
) -> CommandResult {
    // Until all tasks have stopped: what they still write needs the lease.
    let _shares = sharing.map(|sharing| {
        let stop = CancellationToken::new();
        tokio::spawn(sharing.keep(stop.clone()));
        stop.drop_guard()
    });
    let mut signals = Signals::new()?;
    let socket = endpoints.unix.as_ref().map(|it| it.path.display().to_string()).unwrap_or_default();
    // Asked before the files are begun, it tells what is starting.
    let server = Server::start(supervisor.clone(), endpoints).await?;
    let stop = CancellationToken::new();
    let looking = tokio::select! {
        looked = supervisor.look() => looked,
        () = signals.next() => return end(&supervisor, server, &mut signals).await,
    };
    looking.map_err(|error| CommandError::failed(error.message))?;
    let address = server.address.map_or_else(String::new, |address| format!(" and {address}"));
    tracing::info!(folder = %args.dir.display(), files = supervisor.files().len(), socket, "serving");
    output.line(&format!("serving {} at {socket}{address}", args.dir.display()));
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    tokio::spawn(supervisor.clone().watch(args.watch_interval, stop.clone()));
    if let Some(orders) = supervisor.orders() {
        tokio::spawn(supervisor.clone().follow(orders, stop.clone()));
    }
    tokio::spawn(look_when_told(supervisor.clone(), stop.clone()));
    tokio::spawn(feed_watchdog(stop.clone()));
    signals.next().await;
    stop.cancel();
    notify(&[NotifyState::Stopping]);
    end(&supervisor, server, &mut signals).await
}

/// Stops gracefully, or at once at a further signal.
async fn end(supervisor: &Arc<Supervisor>, server: Server, signals: &mut Signals) -> CommandResult {
    let ends = tokio::select! {
        ends = supervisor.stop() => ends,
        () = signals.next() => {
            supervisor.abort();
            let error = CommandError::failed("ended at once, as told by a second signal");
            return Err(error.hint("nothing is lost: what was not stored is read again at the next start"));
        }
    };
    server.stop().await;
    let overdue: Vec<String> = ends.into_iter().filter(|(_, end)| !end.is_drained).map(|(id, _)| id).collect();
    match overdue.is_empty() {
        true => Ok(()),
        false => {
            let error = CommandError::failed(format!("stopped before everything was written: {}", overdue.join(", ")));
            Err(error.hint("raise `drain-timeout` in `[engine]`; nothing is lost, it is read again at the next start"))
        }
    }
}

/// SIGHUP: look at the folder now.
async fn look_when_told(supervisor: Arc<Supervisor>, stop: CancellationToken) {
    let Ok(mut told) = signal(SignalKind::hangup()) else { return };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = told.recv() => {}
        }
        if let Err(error) = supervisor.look().await {
            tracing::warn!(%error, "cannot reload");
        }
    }
}

/// Ends the process when a task outlives its lease: another service has it by then, and only this ends what is under way. A thread of
/// its own, so that nothing else can hold it up.
fn watch_leases(share: Arc<Share>, output: Output) -> CommandResult {
    const LOOK_INTERVAL: Duration = Duration::from_millis(50);
    let watch = move || {
        loop {
            if let Some(task) = share.overrun() {
                tracing::error!(%task, "ended at once: the task did not stop before another service may have it");
                output.error("error", &format!("ended at once: {task} did not stop before another service may have it"));
                std::process::exit(1);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    };
    let started = std::thread::Builder::new().name("leases".into()).spawn(watch);
    started.map(drop).map_err(|error| CommandError::failed(format!("cannot start a thread: {error}")))
}

/// Tells systemd that the process lives, where it wants to know (`WatchdogSec=`).
async fn feed_watchdog(stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(limit / 2);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => notify(&[NotifyState::Watchdog]),
        }
    }
}

/// Where no systemd listens, nobody needs to know.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
