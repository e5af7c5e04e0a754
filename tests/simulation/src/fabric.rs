//! A network in memory: every connection is two pipes with a latency, drawn from the seed.
//!
//! Connections are known by who dials (`a-to-b`, `user`) and which site is dialled (`a`). They can be cut, a route can be
//! closed for a while (what is sent meanwhile arrives afterwards, unless who dialled gives the connection up before; new connections wait),
//! a process or a site can die. Bytes of one direction arrive in order.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use pipeline_tdengine::network::{ByteStream, Network};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// Shortest and longest way of a packet.
const LATENCY_MS: std::ops::RangeInclusive<u64> = 0..=3;

thread_local! {
    /// The network of the seed that this thread runs.
    static CURRENT: RefCell<Option<Arc<Fabric>>> = const { RefCell::new(None) };
}

/// The network of whichever seed runs on the calling thread: plugins are linked in once, seeds are many.
#[derive(Clone, Copy, Debug)]
pub struct OfThread;

#[pipeline_sdk::async_trait]
impl Network for OfThread {
    async fn connect(&self, host: &str, _port: u16) -> io::Result<Box<dyn ByteStream>> {
        let fabric = CURRENT.with_borrow(Clone::clone).expect("a seed runs on this thread");
        Ok(Box::new(fabric.connect(host).await?))
    }
}

/// Who dials, and which site.
type Route = (String, String);

#[derive(Debug)]
pub struct Fabric {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: SmallRng,
    listeners: BTreeMap<String, mpsc::UnboundedSender<Stream>>,
    links: Vec<(Route, Weak<Mutex<Pipe>>)>,
    closed_until: BTreeMap<Route, Instant>,
    slow_until: BTreeMap<Route, (Instant, Duration)>,
    sent: u64,
    begun: Instant,
    trail: DefaultHasher,
}

/// What was sent: the same for the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    /// Of who sent to whom at which time.
    pub hash: u64,
}

impl Fabric {
    /// Makes a network and gives it to the calling thread.
    pub fn install(seed: u64) -> Arc<Self> {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            listeners: BTreeMap::new(),
            links: Vec::new(),
            closed_until: BTreeMap::new(),
            slow_until: BTreeMap::new(),
            sent: 0,
            begun: Instant::now(),
            trail: DefaultHasher::new(),
        };
        let fabric = Arc::new(Self { state: Mutex::new(state) });
        CURRENT.set(Some(fabric.clone()));
        fabric
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// What was sent so far.
    pub fn traffic(&self) -> Traffic {
        let state = self.lock();
        Traffic { packets: state.sent, hash: state.trail.finish() }
    }

    /// A site listens, until it dies.
    pub fn listen(&self, site: &str) -> Listener {
        let (sender, incoming) = mpsc::unbounded_channel();
        self.lock().listeners.insert(site.to_owned(), sender);
        Listener { incoming }
    }

    /// `host` is `SITE.DIALLER.…`.
    async fn connect(self: &Arc<Self>, host: &str) -> io::Result<Stream> {
        let mut parts = host.split('.').map(str::to_owned);
        let (Some(site), Some(dialler)) = (parts.next(), parts.next()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let route = (dialler, site);
        while let Some(until) = self.closed_until(&route) {
            tokio::time::sleep_until(until).await;
        }
        tokio::time::sleep(self.latency(&route)).await;
        let mut state = self.lock();
        let listener = state.listeners.get(&route.1).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        let (there, back) = (Arc::<Mutex<Pipe>>::default(), Arc::<Mutex<Pipe>>::default());
        state.links.retain(|(_, pipe)| pipe.strong_count() > 0);
        state.links.extend([&there, &back].map(|pipe| (route.clone(), Arc::downgrade(pipe))));
        let end = |incoming: &Arc<Mutex<Pipe>>, outgoing: &Arc<Mutex<Pipe>>, dials: bool| Stream {
            fabric: self.clone(),
            route: route.clone(),
            dials,
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            timer: None,
        };
        listener.send(end(&there, &back, false)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(end(&back, &there, true))
    }

    fn closed_until(&self, route: &Route) -> Option<Instant> {
        self.lock().closed_until.get(route).copied().filter(|until| *until > Instant::now())
    }

    fn latency(&self, route: &Route) -> Duration {
        let mut state = self.lock();
        let state = &mut *state;
        state.sent += 1;
        (route, state.begun.elapsed()).hash(&mut state.trail);
        let drawn = Duration::from_millis(state.random.random_range(LATENCY_MS));
        match state.slow_until.get(route) {
            Some((until, more)) if *until > Instant::now() => drawn + *more,
            _ => drawn,
        }
    }

    /// When what is sent now arrives, and whether it is held back until then.
    fn arrival(&self, route: &Route) -> (Instant, bool) {
        let (latency, closed) = (self.latency(route), self.closed_until(route));
        (closed.unwrap_or_else(Instant::now) + latency, closed.is_some())
    }

    /// Breaks connections; `None` stands for any.
    pub fn cut(&self, dialler: Option<&str>, site: Option<&str>) {
        let state = self.lock();
        let is_meant = |(from, to): &Route| dialler.is_none_or(|it| it == from) && site.is_none_or(|it| it == to);
        for pipe in state.links.iter().filter(|(route, _)| is_meant(route)).filter_map(|(_, pipe)| pipe.upgrade()) {
            let mut pipe = pipe.lock().expect("nothing panics under this lock");
            pipe.is_broken = true;
            pipe.wake();
        }
    }

    /// Nothing of this route arrives for a while.
    pub fn close(&self, dialler: &str, site: &str, time: Duration) {
        self.lock().closed_until.insert((dialler.into(), site.into()), Instant::now() + time);
    }

    /// Every packet of this route takes longer for a while.
    pub fn slow(&self, dialler: &str, site: &str, time: Duration, more: Duration) {
        self.lock().slow_until.insert((dialler.into(), site.into()), (Instant::now() + time, more));
    }

    /// The site is gone, until it listens again.
    pub fn kill_site(&self, site: &str) {
        self.lock().listeners.remove(site);
        self.cut(None, Some(site));
    }
}

#[derive(Debug)]
struct Packet {
    due: Instant,
    bytes: Bytes,
    /// It was sent while the route was closed: until it is due it is still where it was sent.
    is_held: bool,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    packets: VecDeque<Packet>,
    /// Nothing comes behind the packets.
    is_finished: bool,
    is_broken: bool,
    reader: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Stream {
    fabric: Arc<Fabric>,
    route: Route,
    /// Of a pipeline or a user: the plugin's connections take along what they did not send when they are dropped.
    dials: bool,
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    fn finish(&self) {
        let mut outgoing = self.outgoing.lock().expect("nothing panics under this lock");
        outgoing.is_finished = true;
        outgoing.wake();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut pipe = this.incoming.lock().expect("nothing panics under this lock");
        if pipe.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        pipe.reader = Some(context.waker().clone());
        let now = Instant::now();
        let is_finished = pipe.is_finished;
        match pipe.packets.front_mut() {
            Some(Packet { due, bytes, .. }) if *due <= now => {
                let count = bytes.len().min(into.remaining());
                into.put_slice(&bytes[..count]);
                bytes.advance(count);
                if bytes.is_empty() {
                    pipe.packets.pop_front();
                }
                this.timer = None;
                Poll::Ready(Ok(()))
            }
            Some(Packet { due, .. }) => {
                let due = *due;
                drop(pipe);
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                match timer.as_mut().poll(context) {
                    Poll::Ready(()) => {
                        this.timer = None;
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
            None if is_finished => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (arrival, is_held) = self.fabric.arrival(&self.route);
        let mut pipe = self.outgoing.lock().expect("nothing panics under this lock");
        if pipe.is_broken || pipe.is_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // Bytes stay in order.
        let due = pipe.packets.back().map_or(arrival, |last| arrival.max(last.due));
        pipe.packets.push_back(Packet { due, bytes: Bytes::copy_from_slice(bytes), is_held });
        pipe.wake();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.dials {
            let mut outgoing = self.outgoing.lock().expect("nothing panics under this lock");
            let now = Instant::now();
            if let Some(first) = outgoing.packets.iter().position(|packet| packet.is_held && packet.due > now) {
                outgoing.packets.truncate(first);
            }
        }
        self.finish();
        self.incoming.lock().expect("nothing panics under this lock").is_finished = true;
    }
}

/// Where a site takes connections.
#[derive(Debug)]
pub struct Listener {
    incoming: mpsc::UnboundedReceiver<Stream>,
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        match self.incoming.recv().await {
            Some(stream) => (stream, ADDRESS),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(ADDRESS)
    }
}

/// Every site's: only its name counts here.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 6041);
