//! One WebSocket, whichever protocol it speaks: frames in, replies out, keep-alive, injected faults.
//!
//! Requests run concurrently and are answered in the order in which they end, as the real adapter does it (FACTS F33);
//! only what needs no waiting is done before the next frame is read. Every ping is answered with its own payload, no
//! close frame is ever sent, and nothing is sent that was not asked for (PROTOCOL 1.2).

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::fault::Fate;
use crate::node::Shared;

/// A reply, and what faults need to know of it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub action: Cow<'static, str>,
    /// Whether it hands a TMQ message out.
    pub hands_out: bool,
    pub frame: Frame,
}

#[derive(Debug)]
pub(crate) enum Frame {
    Text(String),
    Binary(Bytes),
}

/// What a connection does with its frames. Requests without a reply, and those that the real adapter leaves unanswered,
/// give `None`.
pub(crate) trait Protocol: Send + Sync + 'static {
    fn text(self: Arc<Self>, text: String) -> impl Future<Output = Option<Reply>> + Send;
    fn binary(self: Arc<Self>, frame: Bytes) -> impl Future<Output = Option<Reply>> + Send;
    /// The socket is gone; called once.
    fn closed(&self);
}

/// Serves one socket until the client leaves, the node stops or a fault drops it.
pub(crate) async fn serve<P: Protocol>(shared: Arc<Shared>, socket: WebSocket, protocol: P) {
    let Ok(_place) = shared.connections.clone().try_acquire_owned() else {
        tracing::warn!(limit = shared.config.limits.connections, "limits.connections reached, socket dropped");
        return;
    };
    let limits = &shared.config.limits;
    let gone = shared.stopped.child_token();
    let (replies, waiting) = mpsc::channel(limits.replies_per_connection);
    let (sink, stream) = socket.split();
    let idle = Duration::from_secs(limits.idle_seconds);
    let writer = tokio::spawn(write(sink, waiting, idle.mul_f32(0.9), gone.clone()));
    let line = Line {
        in_flight: Arc::new(Semaphore::new(limits.requests_per_connection)),
        shared: shared.clone(),
        replies,
        gone: gone.clone(),
    };
    let protocol = Arc::new(protocol);
    tokio::select! {
        biased;
        () = read(stream, idle, &protocol, &line) => {}
        () = gone.cancelled() => {}
    }
    gone.cancel();
    protocol.closed();
    if let Err(error) = writer.await {
        tracing::error!(%error, "socket writer failed");
    }
}

/// What a request needs to be answered.
#[derive(Clone)]
struct Line {
    shared: Arc<Shared>,
    in_flight: Arc<Semaphore>,
    replies: mpsc::Sender<Frame>,
    gone: CancellationToken,
}

async fn read<P: Protocol>(mut stream: SplitStream<WebSocket>, idle: Duration, protocol: &Arc<P>, line: &Line) {
    loop {
        let message = match tokio::time::timeout(idle, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            // Also a message beyond `limits.message-bytes`, whose sender is told nothing.
            Ok(Some(Err(error))) => return tracing::info!(%error, "socket lost"),
            Ok(None) => return,
            Err(_) => return tracing::info!(seconds = idle.as_secs(), "socket silent, dropped"),
        };
        match message {
            Message::Text(text) => start(protocol.clone().text(text.as_str().to_owned()), line).await,
            Message::Binary(frame) => start(protocol.clone().binary(frame), line).await,
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

/// Runs a request: at once as far as it goes without waiting, the rest on a task of its own.
async fn start(request: impl Future<Output = Option<Reply>> + Send + 'static, line: &Line) {
    let Ok(place) = line.in_flight.clone().acquire_owned().await else {
        return;
    };
    let mut request = Box::pin(request);
    if let std::task::Poll::Ready(reply) = futures_util::poll!(&mut request) {
        return line.answer(reply).await;
    }
    let line = line.clone();
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            biased;
            reply = request => line.answer(reply).await,
            () = line.shared.stopped.cancelled() => {}
        }
    });
}

impl Line {
    async fn answer(&self, reply: Option<Reply>) {
        let Some(reply) = reply else {
            return;
        };
        match self.shared.faults.after(&reply.action, reply.hands_out) {
            Fate::Send => {}
            Fate::Late(delay) => {
                let replies = self.replies.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // As below.
                    let _ = replies.send(reply.frame).await;
                });
                return;
            }
            Fate::Lose => return,
            Fate::Drop => return self.gone.cancel(),
            Fate::Kill => return self.shared.kill(),
        }
        // An error means that the socket is gone: nobody waits for the reply.
        let _ = self.replies.send(reply.frame).await;
    }
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut replies: mpsc::Receiver<Frame>,
    ping_interval: Duration,
    gone: CancellationToken,
) {
    let mut ping = tokio::time::interval(ping_interval);
    ping.tick().await;
    loop {
        let message = tokio::select! {
            biased;
            () = gone.cancelled() => return,
            reply = replies.recv() => match reply {
                Some(Frame::Text(text)) => Message::text(text),
                Some(Frame::Binary(bytes)) => Message::Binary(bytes),
                None => return,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        let sent = tokio::select! {
            biased;
            sent = sink.send(message) => sent,
            () = gone.cancelled() => return,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "socket lost");
            return gone.cancel();
        }
    }
}
