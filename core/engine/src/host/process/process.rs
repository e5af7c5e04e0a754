//! The process of a component, seen from its host: started, answered, watched, ended.
//!
//! It talks over three kinds of connections: the control connection, over which it asks its host (log, metrics, state); one connection
//! an instance, see [`super::proxy`]; and its standard error, which becomes log lines. Sockets have abstract names: nothing is left
//! behind. The host takes a control connection from that process alone; the process takes connections that know a token, which
//! went over the control connection. It ends when the control connection closes, and is killed where it does not.

use std::collections::VecDeque;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pipeline_sdk::abi::host::Log;
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::{Error, Ready, Result};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::frame::{Codec, Word};
use super::hosts::{HostEnd, HostEnds, answer};
use super::{Create, ENDED, Hello, Launch, START, VERSION};
use crate::config::IsolationLimits;

/// The longest line of standard error that is logged as one, and how many of the last are told when the process ends.
const LINE_BYTES_MAX: usize = 4 << 10;
const LAST_LINES: usize = 3;
/// How often a thread that may not be asynchronous looks whether the process has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How long an instance that is destroyed may keep its host before the next one is made.
const GIVE_BACK: Duration = Duration::from_millis(100);

/// A component's process. Dropping it ends it.
pub struct Process {
    /// Of the component, for errors.
    name: String,
    id: u32,
    entrance: SocketAddr,
    token: String,
    pub(super) limits: IsolationLimits,
    host_ends: HostEnds,
    ids: AtomicU64,
    /// How it ended, once it has.
    ended: watch::Receiver<Option<String>>,
    doom: Arc<Doom>,
}

/// How the process is asked to end.
#[derive(Default)]
struct Doom {
    gently: CancellationToken,
    at_once: CancellationToken,
    reason: Mutex<Option<String>>,
}

impl Process {
    /// Starts a process and lets it load a library; `name` is the component's, for errors, and `log` takes what it writes to
    /// standard error.
    ///
    /// # Errors
    /// It does not come up within the limit (to be tried again), or cannot use the library.
    pub async fn start(launch: &Launch, library: &Path, name: &str, limits: &IsolationLimits, log: Arc<Log>) -> Result<Arc<Self>> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::disconnected(format!("the process of `{name}` was not started: {what}: {error}")).code(START)
        };
        let (control_name, entrance_name, token) = (random_name(), random_name(), random_name());
        let listener = listen(&control_name).map_err(|error| failed("a socket", &error))?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).arg(&control_name).arg0("pipeline").env_clear().envs(launch.environment.iter().map(|(key, value)| (key, value)));
        // Not in the terminal's foreground: an interrupt is the host's to handle.
        command.stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(&launch.program.display().to_string(), &error))?;
        let last = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log_lines(stderr, log, last.clone()));
        }
        let hello = Hello {
            version: VERSION.into(),
            library: library.to_owned(),
            entrance: entrance_name.clone(),
            token: token.clone(),
            frame_bytes_max: limits.frame_bytes_max,
        };
        let pid = child.id();
        let control = tokio::select! {
            opened = tokio::time::timeout(limits.start_timeout, greet(&listener, pid, &hello)) => match opened {
                Ok(Ok(control)) => control,
                Ok(Err(error)) => return Err(error.context(format!("the process of `{name}`"))),
                Err(_) => {
                    let text = format!("it did not answer within {}s", limits.start_timeout.as_secs_f64());
                    return Err(failed("start", &text).hint("`start-timeout` in `[engine.isolation]` says how long it may take"));
                }
            },
            status = child.wait() => {
                let how = status.map_or_else(|error| error.to_string(), shown_exit);
                return Err(failed("it ended while it loaded the library", &with_last(how, &last)));
            }
        };
        let (host_ends, doom): (HostEnds, Arc<Doom>) = Default::default();
        let (tell, ended) = watch::channel(None);
        let answering = control.try_clone().map_err(|error| failed("a socket", &error))?;
        let ends = host_ends.clone();
        let limit = limits.frame_bytes_max;
        let thread = std::thread::Builder::new().name("component-host".into());
        thread.spawn(move || answer(answering, &ends, limit)).map_err(|error| failed("a thread", &error))?;
        tokio::spawn(supervise(child, control, doom.clone(), limits.stop_timeout, last, tell));
        let entrance = SocketAddr::from_abstract_name(&entrance_name).map_err(|error| failed("a socket", &error))?;
        let id = pid.unwrap_or_default();
        Ok(Arc::new(Self { name: name.to_owned(), id, entrance, token, limits: limits.clone(), host_ends, ids: AtomicU64::new(1), ended, doom }))
    }

    /// The system's number of the process.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some() || self.doom.at_once.is_cancelled()
    }

    /// Kills it, as nothing else ends what it does.
    pub fn kill(&self, reason: impl Into<String>) {
        self.doom.reason.lock().get_or_insert_with(|| reason.into());
        self.doom.at_once.cancel();
    }

    /// A connection for an instance, and what it begins with.
    pub(super) fn connect(&self, create: Create, parts: Option<HostParts>) -> Result<(UnixStream, Create)> {
        let stream = UnixStream::connect_addr(&self.entrance).map_err(|error| self.lost(&error.to_string()))?;
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        if let Some(parts) = parts {
            self.host_ends.lock().insert(id, HostEnd { parts, ready: None });
        }
        Ok((stream, Create { token: self.token.clone(), id, ..create }))
    }

    /// Who is told when this instance, a service, is ready.
    pub(super) fn on_ready(&self, id: u64, ready: Ready) {
        if let Some(end) = self.host_ends.lock().get_mut(&id) {
            end.ready = Some(ready);
        }
    }

    /// Waits a little until an instance that is destroyed has given its host back: what the host holds may be wanted again.
    pub(super) fn let_go(&self, id: u64) {
        let deadline = Instant::now() + GIVE_BACK;
        while !self.has_ended() && self.host_ends.lock().contains_key(&id) && Instant::now() < deadline {
            std::thread::sleep(LOOK / 5);
        }
    }

    /// The error for a connection that broke: with how the process ended, which is known in a moment.
    pub(super) async fn lost_with(&self, error: &std::io::Error) -> Error {
        let mut ended = self.ended.clone();
        let how = tokio::time::timeout(self.limits.stop_timeout, ended.wait_for(Option::is_some)).await;
        let how = how.ok().and_then(|how| how.ok().and_then(|how| how.clone()));
        self.lost(&how.unwrap_or_else(|| error.to_string()))
    }

    /// The same in a thread that may not be asynchronous.
    pub(super) fn lost_with_blocking(&self, error: &std::io::Error) -> Error {
        let deadline = Instant::now() + self.limits.stop_timeout;
        while self.ended.borrow().is_none() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        self.lost(&self.ended.borrow().clone().unwrap_or_else(|| error.to_string()))
    }

    /// The error for a connection that is of no use any more.
    pub(super) fn lost(&self, how: &str) -> Error {
        let how = self.ended.borrow().clone().unwrap_or_else(|| how.to_owned());
        Error::disconnected(format!("the process of `{}` ended: {how}", self.name)).code(ENDED)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.doom.gently.cancel();
    }
}

fn random_name() -> String {
    format!("pipeline-{:032x}", rand::random::<u128>())
}

fn listen(name: &str) -> std::io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// The control connection, once the process has loaded the library.
async fn greet(listener: &UnixListener, pid: Option<u32>, hello: &Hello) -> Result<UnixStream> {
    let broke = |error: std::io::Error| Error::disconnected(format!("its control connection: {error}")).code(START);
    let mut control = loop {
        let (stream, _) = listener.accept().await.map_err(broke)?;
        // Anybody can connect to an abstract name; what follows is for that process alone.
        let peer = stream.peer_cred().map_err(broke)?.pid();
        if peer.is_some() && peer == pid.and_then(|pid| i32::try_from(pid).ok()) {
            break tokio::io::BufReader::new(stream);
        }
    };
    let mut codec = Codec::new(hello.frame_bytes_max);
    let text = serde_json::to_vec(hello).expect("a greeting is plain JSON");
    super::line::send(control.get_mut(), codec.encode(Word::Hello, 0, &text, &[])?).await.map_err(broke)?;
    super::line::receive(&mut control, &mut codec).await.map_err(|error| error.or(broke))?.checked()?;
    let control = control.into_inner().into_std().map_err(broke)?;
    control.set_nonblocking(false).map_err(broke)?;
    Ok(control)
}

/// Waits for the end of the process, and brings it about when it is due.
async fn supervise(
    mut child: Child,
    control: UnixStream,
    doom: Arc<Doom>,
    limit: Duration,
    last: Arc<Mutex<VecDeque<String>>>,
    tell: watch::Sender<Option<String>>,
) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = doom.at_once.cancelled() => killed(&mut child).await,
        () = doom.gently.cancelled() => {
            // It ends by itself when this closes; when it is gone already that is fine as well.
            let _ = control.shutdown(std::net::Shutdown::Both);
            match tokio::time::timeout(limit, child.wait()).await {
                Ok(status) => status,
                Err(_) => killed(&mut child).await,
            }
        }
    };
    let _ = control.shutdown(std::net::Shutdown::Both);
    let how = status.map_or_else(|error| error.to_string(), shown_exit);
    let how = match doom.reason.lock().clone() {
        Some(reason) => format!("{reason}, and it was killed"),
        None => with_last(how, &last),
    };
    tell.send_replace(Some(how));
}

async fn killed(child: &mut Child) -> std::io::Result<ExitStatus> {
    // It may have ended by itself meanwhile.
    let _ = child.start_kill();
    child.wait().await
}

fn with_last(how: String, last: &Mutex<VecDeque<String>>) -> String {
    let last = last.lock().iter().cloned().collect::<Vec<_>>().join(" / ");
    if last.is_empty() { how } else { format!("{how}; the last it said: {last}") }
}

/// How a process ended, for people.
pub fn shown_exit(status: ExitStatus) -> String {
    let name = |signal| match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        9 => " (killed: out of memory?)",
        11 => " (memory fault)",
        _ => "",
    };
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}{}", name(signal)),
        (None, code) => format!("exit code {}", code.unwrap_or_default()),
    }
}

/// Standard error, line by line, as warnings.
async fn log_lines(mut stderr: ChildStderr, log: Arc<Log>, last: Arc<Mutex<VecDeque<String>>>) {
    let (mut line, mut bytes) = (Vec::new(), [0; LINE_BYTES_MAX]);
    let told = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim().to_owned();
        line.clear();
        if !text.is_empty() {
            log(2, "stderr", &text, "");
            let mut last = last.lock();
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(text);
        }
    };
    while let Ok(count @ 1..) = stderr.read(&mut bytes).await {
        for byte in &bytes[..count] {
            if *byte == b'\n' || line.len() == LINE_BYTES_MAX {
                told(&mut line);
            }
            line.push(*byte);
        }
    }
    told(&mut line);
}
