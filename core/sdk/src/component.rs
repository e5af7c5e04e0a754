//! The four kinds of component.
//!
//! The engine never drops a call half-way and never runs two calls of one instance at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::checkpoint::{Checkpoint, LaneProgress};
use crate::error::Result;
use crate::message::{Lane, Message};

/// What a source or a sink tells about its other end once connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Who the other end is (a cluster id): checkpoints are kept under it, a changed one is refused, and a pipeline whose
    /// source and sink are one and the same is refused where it could loop.
    pub identity: Option<String>,
}

/// What [`Source::next`] brought.
#[derive(Debug)]
pub enum Polled {
    Messages(Vec<Message>),
    /// Lanes came or went. What the engine holds of a revoked lane is dropped, not committed.
    Lanes { assigned: Vec<Lane>, revoked: Vec<Lane> },
    /// Nothing within the wait.
    Idle,
    /// A finite source is done.
    End,
}

#[async_trait]
pub trait Source: Send {
    /// Connects and places every lane behind its position in `from`. Called again after `Disconnected`.
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected>;

    /// Returns within about `wait`. Never dropped half-way.
    async fn next(&mut self, wait: Duration) -> Result<Polled>;

    /// Tells the other end; called only after every sink made everything up to `upto` durable
    /// (invariant `committed-after-durable`).
    async fn commit(&mut self, upto: &Checkpoint) -> Result<()>;

    async fn progress(&mut self) -> Result<Vec<LaneProgress>>;

    /// With which the host ends a wait of [`Source::next`] early. A source that has it is asked to wait for longer than its `freshness`
    /// while nothing comes: it returns as soon as something is there, a second later at most, whatever the wait.
    fn interrupt(&self) -> Option<Interrupt> {
        None
    }
}

/// Ends a wait early, from any thread: that of the call under way, or of the next one. Cheap to clone.
#[derive(Clone)]
pub struct Interrupt {
    end: Arc<dyn Fn() + Send + Sync>,
}

impl Interrupt {
    pub(crate) fn new(end: impl Fn() + Send + Sync + 'static) -> Self {
        Self { end: Arc::new(end) }
    }

    /// For a source: the first is what [`Source::interrupt`] returns, the second is waited for in [`Source::next`].
    pub fn channel() -> (Self, Interrupted) {
        let notify = Arc::new(tokio::sync::Notify::new());
        let told = notify.clone();
        (Self::new(move || told.notify_one()), Interrupted { notify })
    }

    pub fn interrupt(&self) {
        (self.end)();
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupt").finish_non_exhaustive()
    }
}

/// The source's end of an [`Interrupt`].
#[derive(Debug)]
pub struct Interrupted {
    notify: Arc<tokio::sync::Notify>,
}

impl Interrupted {
    /// Resolves when the host wants the wait to end; once for each time, also where that was before.
    pub async fn interrupted(&self) {
        self.notify.notified().await;
    }
}

/// Collects what a transform emits.
#[derive(Debug, Default)]
pub struct Output {
    pub messages: Vec<Message>,
}

impl Output {
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }
}

pub trait Transform: Send {
    /// May emit none, one or many messages. A message that is not passed on must still end its position: the engine takes
    /// the position of what went in.
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()>;

    /// Emits whatever is held.
    fn barrier(&mut self, _out: &mut Output) -> Result<()> {
        Ok(())
    }
}

/// Writes messages, one instance a lane unless the description asks for merged lanes.
#[async_trait]
pub trait Sink: Send {
    async fn connect(&mut self) -> Result<Connected>;

    /// The host keeps the message until `Ok`.
    async fn write(&mut self, message: &Message) -> Result<()>;

    /// `Ok` means that everything written is durable.
    async fn flush(&mut self) -> Result<()>;

    /// Writes in order and says how many were written; overridden by sinks that gain from seeing several at once.
    async fn write_many(&mut self, messages: &[Message]) -> (usize, Result<()>) {
        for (done, message) in messages.iter().enumerate() {
            if let Err(error) = self.write(message).await {
                return (done, Err(error));
            }
        }
        (messages.len(), Ok(()))
    }
}

/// Runs beside the pipelines of a file; pipelines start when all services said that they are ready.
#[async_trait]
pub trait Service: Send {
    async fn run(self: Box<Self>, ready: Ready, stop: Stop) -> Result<()>;
}

/// With which a service says that it can be used.
#[derive(Debug)]
pub struct Ready {
    pub(crate) tell: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Ready {
    /// The receiver resolves when [`Ready::ready`] is called, and fails when the service ends without.
    pub fn channel() -> (Self, tokio::sync::oneshot::Receiver<()>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (Self { tell: Some(sender) }, receiver)
    }

    pub fn ready(&mut self) {
        if let Some(tell) = self.tell.take() {
            // Nobody listens any more when the run is being stopped: nothing to do about it.
            let _ = tell.send(());
        }
    }
}

/// Resolves when a service shall end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop {
    pub(crate) receiver: tokio::sync::watch::Receiver<bool>,
}

impl Stop {
    pub fn channel() -> (tokio::sync::watch::Sender<bool>, Self) {
        let (sender, receiver) = tokio::sync::watch::channel(false);
        (sender, Self { receiver })
    }

    pub fn is_stopped(&self) -> bool {
        *self.receiver.borrow()
    }

    pub async fn stopped(&self) {
        let mut receiver = self.receiver.clone();
        // An error means that the host is gone: that is a stop as well.
        let _ = receiver.wait_for(|stopped| *stopped).await;
    }
}
