//! A connection, encrypted as the address says.
//!
//! `sslmode` means what it means to libpq: without `ca` a connection is encrypted, but whoever answers is believed.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pipeline_sdk::tls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use pipeline_sdk::tls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use pipeline_sdk::tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use pipeline_sdk::tls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};
use pipeline_sdk::{Error, Result, tls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, Connection, NoTls};
use tokio_rustls::TlsConnector;

use crate::config::PostgresSinkConfig;
use crate::error::from_postgres;

/// What `ca` is for the system's own certificates.
const SYSTEM: &str = "system";

/// # Errors
/// The server cannot be reached, or refuses.
pub async fn connect(config: &PostgresSinkConfig, name: &str) -> Result<Client> {
    let mut server = config.server()?;
    server.application_name(name);
    if config.ca.is_some() {
        server.ssl_mode(SslMode::Require);
    }
    let place = place(&server);
    let lost = |error: tokio_postgres::Error| from_postgres(&error).context(&place);
    let client = if server.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = server.connect(NoTls).await.map_err(lost)?;
        drive(connection);
        client
    } else {
        let (client, connection) = server.connect(Tls::new(config.ca.as_deref())?).await.map_err(lost)?;
        drive(connection);
        client
    };
    // What a write returned for is durable, whatever the database's setting is.
    client.batch_execute("SET synchronous_commit = on").await.map_err(lost)?;
    Ok(client)
}

/// For messages: hosts with their ports.
pub fn place(server: &Config) -> String {
    // One for all, one each, or none.
    let ports = server.get_ports();
    let place = |(index, host): (usize, &Host)| {
        let port = ports.get(index).or(ports.first()).map_or_else(String::new, |port| format!(":{port}"));
        match host {
            Host::Tcp(name) => format!("{name}{port}"),
            Host::Unix(path) => format!("{}{port}", path.display()),
        }
    };
    let places: Vec<String> = server.get_hosts().iter().enumerate().map(place).collect();
    format!("PostgreSQL at {}", places.join(","))
}

/// Moves what the client sends and gets, until the client is gone.
fn drive<S, T>(connection: Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // The client's own calls fail with the same.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection ended");
        }
    });
}

#[derive(Clone)]
struct Tls(Arc<ClientConfig>);

impl Tls {
    fn new(ca: Option<&str>) -> Result<Self> {
        if let Some(ca) = ca {
            let file = (ca != SYSTEM).then(|| Path::new(ca));
            return Ok(Self(tls::client(file).map_err(|error| error.path("ca"))?));
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Error::fatal(format!("TLS cannot be set up: {error}")).code("tls.set-up"))?;
        Ok(Self(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Believe(provider))).with_no_client_auth())))
    }
}

/// Takes any certificate, as `sslmode = require` does. Signatures are checked all the same.
#[derive(Debug)]
struct Believe(Arc<CryptoProvider>);

impl ServerCertVerifier for Believe {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl MakeTlsConnect<tokio_postgres::Socket> for Tls {
    type Stream = Encrypted<tokio_postgres::Socket>;
    type TlsConnect = Handshake;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> std::io::Result<Handshake> {
        let name = ServerName::try_from(domain.to_owned()).map_err(std::io::Error::other)?;
        Ok(Handshake { connector: TlsConnector::from(self.0.clone()), name })
    }
}

struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Encrypted<S>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Encrypted) })
    }
}

struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
