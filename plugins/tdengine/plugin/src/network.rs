//! How bytes reach a site: TCP, unless the program that links this plugin in brings a network of its own.
//!
//! Everything above sees a [`ByteStream`]; TLS and WebSocket are spoken over it here, whatever it is. A simulation passes its
//! network to [`crate::plugin_over`].

use std::fmt::Debug;
use std::io;

use pipeline_sdk::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> ByteStream for T {}

/// Where connections come from.
#[async_trait]
pub trait Network: Debug + Send + Sync {
    /// Connects; whoever calls sets a limit to the time.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        // An IPv6 address stands in brackets in an address, and without them here.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        // A request that was given up while the way was closed must not arrive behind those of the next connection: dropped, a
        // connection takes along what it did not send yet.
        stream.set_zero_linger()?;
        Ok(Box::new(stream))
    }
}
