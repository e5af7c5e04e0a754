//! A native consumer: the methods of the WebSocket client's, over libtaos.
//!
//! Guarantees: one poll is in flight at a time, and the next can be under way while the last message is being written; a
//! message that a poll brought is never dropped: it waits in the finished task until it is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tdengine_wire::envelope::AssignedVgroup;
use tokio::task::JoinHandle;

use super::handle::Consumer;
use super::{blocking, keeping_umask, library};
use crate::client::{ClientError, Message, Result, SocketLimits, Subscription};
use crate::client::tmq::{BLOCKING_TIME_MAX, MIN_POLL_ROWS, check_name};
use crate::dsn::Dsn;

/// How much longer than its blocking time a poll may take before the consumer counts as lost.
const POLL_MARGIN: Duration = Duration::from_secs(20);

/// A consumer of one topic. Dropping it leaves the group.
pub struct NativeConsumer {
    /// Calls of one consumer are made one at a time. Empty only while this is being dropped.
    consumer: Option<Arc<Mutex<Consumer>>>,
    topic: String,
    place: String,
    limits: SocketLimits,
    poll: Option<JoinHandle<Result<Option<Message>>>>,
    /// The poll under way is wanted no longer: it ends at the end of its piece.
    is_ending: Arc<AtomicBool>,
}

impl NativeConsumer {
    /// Makes a consumer and subscribes.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] for a name that a server hangs on (FACTS F45) or where libtaos is missing or too old, or
    /// the server's code.
    pub async fn subscribe(dsn: &Dsn, subscription: &Subscription, limits: SocketLimits) -> Result<Self> {
        check_name("topic", &subscription.topic)?;
        check_name("group", &subscription.group)?;
        check_name("client", &subscription.client)?;
        let place = dsn.to_string();
        let (dsn, wanted) = (dsn.clone(), subscription.clone());
        let subscribe = move || subscribe_blocking(&dsn, &wanted);
        let consumer = blocking(&place, "subscribe", limits.request_timeout, subscribe)
            .await
            .map_err(|error| error.at(&format!("subscribe to {}", subscription.topic)))?;
        let topic = subscription.topic.clone();
        Ok(Self { consumer: Some(Arc::new(Mutex::new(consumer))), topic, place, limits, poll: None, is_ending: Arc::default() })
    }

    fn consumer(&self) -> Arc<Mutex<Consumer>> {
        self.consumer.clone().expect("it is there until this is dropped")
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Begins the next poll unless one is under way. A message that comes meanwhile may be seen
    /// only at its end: libtaos looks about every min(`wait`, 1 s) (FACTS F43).
    pub fn start_poll(&mut self, wait: Duration) {
        if self.poll.is_none() {
            self.is_ending.store(false, Ordering::Release);
            let (consumer, is_ending) = (self.consumer(), self.is_ending.clone());
            self.poll = Some(tokio::task::spawn_blocking(move || keeping_umask(|| poll_in_pieces(&consumer, wait, &is_ending))));
        }
    }

    /// Lets the poll under way end early; none is begun until that is asked for.
    pub fn pause(&mut self) {
        self.is_ending.store(true, Ordering::Release);
    }

    /// Whether no poll is under way and no message waits to be taken.
    pub fn is_paused(&self) -> bool {
        self.poll.is_none()
    }

    /// Whether the poll under way is over.
    pub fn has_reply(&self) -> bool {
        self.poll.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the poll under way, begins one if there is none.
    ///
    /// # Errors
    /// After an error the consumer is of no use: subscribe again at the checkpoint.
    pub async fn poll(&mut self, wait: Duration) -> Result<Option<Message>> {
        self.start_poll(wait);
        let poll = self.poll.as_mut().expect("it was just begun");
        let timeout = wait + POLL_MARGIN;
        let polled = tokio::time::timeout(timeout, poll)
            .await
            .map_err(|_| ClientError::timed_out(&self.place, "poll", timeout))?
            .map_err(|error| ClientError::unexpected("poll", error.to_string()));
        self.poll = None;
        polled?
    }

    /// Ends the poll under way and takes what it brought.
    ///
    /// # Errors
    /// As [`NativeConsumer::poll`].
    pub async fn settle(&mut self) -> Result<Vec<Message>> {
        if self.is_paused() {
            return Ok(Vec::new());
        }
        self.pause();
        Ok(self.poll(Duration::ZERO).await?.into_iter().collect())
    }

    /// First kept and next written version of every vgroup of this consumer.
    pub async fn assignment(&self) -> Result<Vec<AssignedVgroup>> {
        self.call("assignment", Consumer::assignment).await
    }

    /// The next offset to be read of each vgroup.
    pub async fn position(&self, vgroups: &[i32]) -> Result<Vec<i64>> {
        let vgroups = vgroups.to_vec();
        self.call("position", move |consumer| vgroups.iter().map(|vgroup| consumer.position(*vgroup)).collect()).await
    }

    /// The committed offset of each vgroup, or [`tdengine_wire::envelope::NEVER_COMMITTED`].
    pub async fn committed(&self, vgroups: &[i32]) -> Result<Vec<i64>> {
        let vgroups = vgroups.to_vec();
        self.call("committed", move |consumer| vgroups.iter().map(|vgroup| consumer.committed(*vgroup)).collect()).await
    }

    /// Stores `offset` as the next to be read by this group.
    pub async fn commit_offset(&self, vgroup: i32, offset: i64) -> Result<()> {
        match self.call("commit_offset", move |consumer| consumer.commit_offset(vgroup, offset)).await {
            // The same value again (PROTOCOL 6.4).
            Err(ClientError::Server { code: 0x4012, .. }) => Ok(()),
            other => other,
        }
    }

    /// Reads on at `offset`.
    pub async fn seek(&self, vgroup: i32, offset: i64) -> Result<()> {
        self.call("seek", move |consumer| consumer.seek(vgroup, offset)).await
    }

    /// Leaves the group.
    pub async fn unsubscribe(&self) -> Result<()> {
        self.call("unsubscribe", Consumer::unsubscribe).await
    }

    /// Waits for a poll under way: libtaos is asked one thing at a time.
    async fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        call: impl FnOnce(&mut Consumer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let consumer = self.consumer();
        let answered = blocking(&self.place, action, self.limits.request_timeout, move || call(&mut consumer.lock())).await;
        answered.map_err(|error| match error {
            // Nothing is wrong with what a consumer asks for: it is asked of a server that just comes back (seen on 3.3.0.1).
            ClientError::Server { code: 0x0115, message, .. } => ClientError::closed(&self.place, action, message),
            other => other,
        })
    }
}

impl Drop for NativeConsumer {
    /// Leaving a group takes seconds: not on the runtime's thread.
    fn drop(&mut self) {
        self.pause();
        let consumer = self.consumer.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(consumer));
        }
    }
}

/// Polls until something comes or `wait` is over. Between pieces other calls of this consumer have their turn.
fn poll_in_pieces(consumer: &Mutex<Consumer>, wait: Duration, is_ending: &AtomicBool) -> Result<Option<Message>> {
    let begun = Instant::now();
    loop {
        let left = wait.saturating_sub(begun.elapsed());
        let polled = consumer.lock().poll(left.min(BLOCKING_TIME_MAX).as_millis() as i64);
        let is_over = left <= BLOCKING_TIME_MAX || is_ending.load(Ordering::Acquire);
        if is_over || !matches!(polled, Ok(None)) {
            return polled;
        }
    }
}

fn subscribe_blocking(dsn: &Dsn, wanted: &Subscription) -> Result<Consumer> {
    let functions = library::load(dsn.parameter("libraryPath"), dsn.parameter("configDir"))?;
    let port = dsn.port.to_string();
    let rows_min = wanted.rows_min.map(|rows| rows.to_string());
    let mut settings = vec![
        ("td.connect.ip", dsn.host.as_str()),
        ("td.connect.port", &port),
        ("td.connect.user", &dsn.user),
        ("td.connect.pass", dsn.password()),
        ("group.id", &wanted.group),
        ("client.id", &wanted.client),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", if wanted.from_oldest { "earliest" } else { "latest" }),
        ("experimental.snapshot.enable", "false"),
        ("msg.with.table.name", "true"),
    ];
    if wanted.exclude_marked {
        settings.push(("msg.consume.excluded", "1"));
    }
    settings.extend(rows_min.as_deref().map(|rows| (MIN_POLL_ROWS, rows)));
    Consumer::subscribe(functions, &settings, &wanted.topic)
}
