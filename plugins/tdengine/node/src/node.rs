//! A running node: its listeners, its store, and what all connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use tdengine_store::{ServerVersion, Session, Store};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{Fail, NodeError};
use crate::fault::Faults;
use crate::rest::Tokens;
use crate::tmq::Groups;
use crate::{admin, server};

/// What a node says of itself when it starts.
pub const BANNER: &str = "tdengine-node is an embedded stand-in that speaks TDengine's WebSocket protocol, for trying, \
developing and testing. It is no TDengine: do not keep data in it that matters.";

/// Time that REST requests have to end when the node stops; sockets are dropped at once.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// How often to look whether the last request has let go of the data.
const STOP_LOOK: Duration = Duration::from_millis(2);

/// A running node. Dropping it stops it without waiting; [`Node::stop`] waits until its ports and its data are free.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    shared: Arc<Shared>,
    listeners: Vec<JoinHandle<()>>,
}

/// What all connections of a node share.
pub(crate) struct Shared {
    pub config: Config,
    pub version: ServerVersion,
    pub store: Store,
    pub faults: Faults,
    pub groups: Groups,
    pub connections: Arc<Semaphore>,
    /// Cancelled when the node stops or was killed.
    pub stopped: CancellationToken,
    killed: AtomicBool,
    pub tokens: Tokens,
    /// Requests that could not be read, for the admin address.
    pub malformed: AtomicU64,
    place: Place,
}

/// Where requests work against the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On threads that may wait for the disk.
    Threads,
    /// On the thread of whoever serves the connection, one after another.
    Here,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the data, recovers what the logs hold, and listens.
    ///
    /// # Errors
    /// When the configuration is wrong, a port is taken, or the data is damaged or used by another process.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        config.check()?;
        let listener = listen(config.listen_address()?).await?;
        let admin = match config.admin_address()? {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let (address, admin_address) = (local(&listener)?, admin.as_ref().map(local).transpose()?);
        let shared = Shared::open(config, Place::Threads).await?;
        let no_delay = |stream: &mut tokio::net::TcpStream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
        };
        let mut listeners = vec![run(listener.tap_io(no_delay), server::router(shared.clone()), &shared)];
        listeners.extend(admin.map(|admin| run(admin.tap_io(no_delay), admin::router(shared.clone()), &shared)));
        Ok(Self::new(address, admin_address, shared, listeners))
    }

    /// Serves a listener of the caller's, without an admin address, and does all work in place: one thread, and so one order
    /// of everything. For simulations.
    ///
    /// # Errors
    /// When the configuration is wrong, or the data is damaged or in use.
    pub async fn start_in_place<L: Listener<Addr = SocketAddr>>(config: Config, listener: L) -> Result<Self, NodeError> {
        config.check()?;
        let address = listener.local_addr().map_err(no_address)?;
        let shared = Shared::open(config, Place::Here).await?;
        let listeners = vec![run(listener, server::router(shared.clone()), &shared)];
        Ok(Self::new(address, None, shared, listeners))
    }

    fn new(
        address: SocketAddr,
        admin_address: Option<SocketAddr>,
        shared: Arc<Shared>,
        listeners: Vec<JoinHandle<()>>,
    ) -> Self {
        tracing::warn!("{BANNER}");
        tracing::info!(%address, version = %shared.version, data = %shared.config.data.display(), "node listens");
        Self { address, admin_address, shared, listeners }
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where faults are injected.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The store, for tests that look at it from inside.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Ends as a killed process does: drops every socket, flushes nothing, and returns when the data can be opened again.
    pub async fn kill(mut self) {
        self.shared.kill();
        self.release().await;
    }

    /// Drops every socket and waits until the listeners are gone and the data is closed.
    pub async fn stop(mut self) {
        self.shared.stopped.cancel();
        self.release().await;
        let store = self.shared.store.clone();
        let closed = self.shared.blocking(move |_| {
            let flushed = store.flush();
            store.close();
            Ok(flushed?)
        });
        if let Err(error) = closed.await {
            tracing::error!(?error, "the data could not be flushed; its logs hold what was answered");
        }
    }

    /// Waits until nothing but this value holds the data.
    async fn release(&mut self) {
        for mut listener in std::mem::take(&mut self.listeners) {
            if tokio::time::timeout(STOP_WAIT, &mut listener).await.is_err() {
                listener.abort();
                // It was aborted just now; there is nothing left in it to report.
                let _ = listener.await;
            }
        }
        let deadline = Instant::now() + STOP_WAIT;
        while Arc::strong_count(&self.shared) > 1 && Instant::now() < deadline {
            tokio::time::sleep(STOP_LOOK).await;
        }
    }

    /// Resolves when an injected fault killed the node; never otherwise. Whoever runs the node decides what dies.
    pub async fn killed(&self) -> NodeError {
        self.shared.stopped.cancelled().await;
        if self.shared.killed.load(Ordering::Acquire) {
            return NodeError::Killed;
        }
        std::future::pending().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

impl Shared {
    /// Opens the data.
    async fn open(config: Config, place: Place) -> Result<Arc<Self>, NodeError> {
        let (version, store) = (config.version()?, open_store(&config, place).await?);
        let stopped = CancellationToken::new();
        Ok(Arc::new(Self {
            version,
            faults: Faults::default(),
            groups: Groups::new(store.clone(), config.member_lost(), stopped.clone()),
            store,
            connections: Arc::new(Semaphore::new(config.limits.connections)),
            stopped,
            killed: AtomicBool::new(false),
            tokens: Tokens::default(),
            malformed: AtomicU64::new(0),
            place,
            config,
        }))
    }

    /// Ends the node as a crash would: no reply, no flush.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.stopped.cancel();
    }

    /// A session for a user, in `database` where one is named.
    pub async fn sign_in(
        self: &Arc<Self>,
        user: String,
        password: String,
        database: Option<String>,
    ) -> Result<Session, Fail> {
        self.blocking(move |shared| {
            if user.is_empty() {
                return Err(Fail::new(0x0207, "Invalid user name"));
            }
            shared.store.authenticate(&user, &password)?;
            shared.session(user, database)
        })
        .await
    }

    /// The same for whom a token of `/rest/login` stands for.
    pub async fn sign_in_by_token(self: &Arc<Self>, token: &str, database: String) -> Result<Session, Fail> {
        let user = self.tokens.user(token).ok_or_else(|| Fail::new(0x0357, "Authentication failure"))?;
        self.blocking(move |shared| shared.session(user, Some(database))).await
    }

    fn session(&self, user: String, database: Option<String>) -> Result<Session, Fail> {
        let database = database.filter(|database| !database.is_empty());
        if let Some(database) = &database {
            self.store.database(database)?;
        }
        Ok(Session { database, ..Session::new(user) })
    }

    /// A request that could not be read is logged and counted; the real adapter does not answer it either.
    pub fn count_malformed(&self, endpoint: &str, error: &dyn std::fmt::Display) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(endpoint, %error, "malformed request, not answered");
    }

    /// Runs `work` against the store on a thread that may wait for the disk.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, Fail> {
        let shared = self.clone();
        if self.place == Place::Here {
            return work(&shared);
        }
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a request failed inside the node");
                Err(Fail::protocol("the node failed inside, see its log"))
            }
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, NodeError> {
    let failed = |source| NodeError::Listen { address: address.to_string(), source };
    TcpListener::bind(address).await.map_err(failed)
}

fn no_address(source: std::io::Error) -> NodeError {
    NodeError::Listen { address: "its own address".into(), source }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, NodeError> {
    listener.local_addr().map_err(no_address)
}

fn run<L>(listener: L, router: Router, shared: &Arc<Shared>) -> JoinHandle<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let stopped = shared.stopped.clone();
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "listener failed");
        }
    })
}

async fn open_store(config: &Config, place: Place) -> Result<Store, NodeError> {
    let (folder, store) = (config.data.clone(), config.store()?);
    let failed = |why: String| NodeError::Data { folder: folder.clone(), why };
    if place == Place::Here {
        return Store::open(store).map_err(|error| failed(error.to_string()));
    }
    match tokio::task::spawn_blocking(move || Store::open(store)).await {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::State;
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_node_that_stops_says_so_to_probes() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(Config::local(folder.path())).await.unwrap();
        let probe = || crate::rest::ping(State(node.shared.clone()));
        assert_eq!(probe().await, StatusCode::OK);
        node.shared.stopped.cancel();
        assert_eq!(probe().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
