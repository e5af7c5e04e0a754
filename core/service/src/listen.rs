//! TCP with TLS, as axum takes connections: a client that is slow to shake hands keeps nobody else waiting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::tls::{self, Identity};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

/// Clients that shake hands at once; others wait in the system's queue.
const HANDSHAKES_MAX: usize = 64;
/// For one of them.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that are encrypted already.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsListener {
    /// # Errors
    /// The socket has no address.
    pub fn new(listener: TcpListener, identity: Identity) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(HANDSHAKES_MAX);
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, identity, sender)));
        Ok(Self { ready, address, _accepting: accepting })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // Only when the process ends: nobody accepts any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, identity: Identity, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let (identity, slots) = (Arc::new(identity), Arc::new(Semaphore::new(HANDSHAKES_MAX)));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, from) = tls::accept(&listener).await;
        let (identity, ready) = (identity.clone(), ready.clone());
        tokio::spawn(async move {
            if let Some(stream) = identity.shake(stream, HANDSHAKE_TIMEOUT).await {
                // The receiver is gone when the service stops.
                let _ = ready.send((stream, from)).await;
            }
            drop(slot);
        });
    }
}
