//! TLS as every component sets it up: whom a client trusts, what a listener shows. Certificates and keys are PEM files.
//!
//! TLS 1.2 and 1.3 with `ring` as cryptography, named here, so that no program and no other plugin has to install one.

use std::error::Error as Cause;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Error, Result};

pub use rustls;

/// Before another try where no connection can be taken: no file descriptor is left, say.
const PAUSE: Duration = Duration::from_secs(1);

/// Keys of a component that connects with TLS, each a PEM file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates of the authorities that are trusted; those that this machine trusts where absent.
    #[schemars(extend("format" = "path"))]
    pub ca: Option<PathBuf>,
    /// The own certificate, where the server asks for one; those that signed it after it.
    #[schemars(extend("format" = "path"))]
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`.
    #[schemars(extend("format" = "path"))]
    pub key: Option<PathBuf>,
}

impl Tls {
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.certificate.is_none() && self.key.is_none()
    }

    /// What is wrong without a look at the files.
    pub fn lint(&self) -> Vec<Error> {
        lint_pair(self.certificate.as_deref(), self.key.as_deref()).into_iter().collect()
    }

    /// # Errors
    /// As [`client`]; fatal where certificate and key cannot be used.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => connecting(self.ca.as_deref(), Some((certificate, key))),
            _ => connecting(self.ca.as_deref(), None),
        }
    }
}

/// What is wrong with the keys `tls.certificate` and `tls.key`, of a client or a listener.
pub fn lint_pair(certificate: Option<&Path>, key: Option<&Path>) -> Option<Error> {
    match (certificate, key) {
        (Some(_), None) => Some(Error::fatal("a certificate needs its key").path("tls.key")),
        (None, Some(_)) => Some(Error::fatal("a key needs its certificate").path("tls.certificate")),
        _ => None,
    }
}

/// For connections to servers whose certificate one of `ca_file` has signed, or where it is absent one that this machine trusts.
///
/// # Errors
/// Fatal: the file cannot be read or holds no certificate, or this machine trusts nobody.
pub fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    connecting(ca_file, None)
}

fn connecting(ca_file: Option<&Path>, own: Option<(&PathBuf, &PathBuf)>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unusable(file, &error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            if roots.add_parsable_certificates(found.certs).0 == 0 {
                let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
                return Err(Error::fatal(format!("this machine knows no certificate authority{why}"))
                    .code("tls.authorities")
                    .hint("install the package ca-certificates, or name the file of the authority that signed the server's certificate"));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|error| broken(&error))?;
    let builder = builder.with_root_certificates(roots);
    let Some((certificate, key)) = own else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let config = builder.with_client_auth_cert(certificates(certificate)?, private).map_err(|error| unusable(certificate, &error))?;
    Ok(Arc::new(config))
}

/// What a person can do about a connection that failed for the sake of a certificate, as an error's hint; `None` where it failed for
/// another reason. `error` and what it was caused by are looked through.
pub fn advice(error: &(dyn Cause + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return of_rustls(error);
        }
        // The source of an `io::Error` is what lies behind the error that it carries.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = carried.map(|it| it as &(dyn Cause + 'static)).or_else(|| error.source());
    }
    None
}

fn of_rustls(error: &rustls::Error) -> Option<&'static str> {
    use AlertDescription as Alert;
    use CertificateError as Why;
    Some(match error {
        rustls::Error::InvalidCertificate(Why::NotValidForName | Why::NotValidForNameContext { .. }) => "connect by a name that the server's certificate is for",
        rustls::Error::InvalidCertificate(Why::Expired | Why::ExpiredContext { .. } | Why::NotValidYet | Why::NotValidYetContext { .. }) => {
            "renew the server's certificate, unless the clock of this machine is wrong"
        }
        rustls::Error::InvalidCertificate(_) => "name the file of the authority that signed the server's certificate with `ca`",
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA,
        ) => "the server wants a certificate of its client: name one that it trusts with `tls.certificate` and `tls.key`",
        _ => return None,
    })
}

/// What a listener shows to its clients: a certificate, those that signed it after it, and its key.
///
/// The files are looked at again when somebody connects, so that a certificate can be renewed under a running process.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<(Age, Arc<ServerConfig>)>,
}

/// When the two files were changed last, as far as the system tells.
type Age = [Option<SystemTime>; 2];

impl Identity {
    /// # Errors
    /// Fatal: a file cannot be read, holds nothing of the kind, or the key is another certificate's.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let loaded = (age(certificate, key), server(certificate, key)?);
        Ok(Self { certificate: certificate.into(), key: key.into(), loaded: Mutex::new(loaded) })
    }

    /// For the next connection. Files that changed and cannot be used are left until they change again.
    pub fn current(&self) -> Arc<ServerConfig> {
        let now = age(&self.certificate, &self.key);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.0 != now {
            loaded.0 = now;
            match server(&self.certificate, &self.key) {
                Ok(config) => loaded.1 = config,
                Err(error) => tracing::warn!(%error, "the renewed certificate is not used"),
            }
        }
        loaded.1.clone()
    }

    /// Shakes hands with a client; `None` where that does not come about within `limit`.
    pub async fn shake(&self, stream: TcpStream, limit: Duration) -> Option<TlsStream<TcpStream>> {
        match tokio::time::timeout(limit, TlsAcceptor::from(self.current()).accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "no TLS came about"),
            Err(_) => tracing::debug!("TLS took too long"),
        }
        None
    }
}

/// The next connection, whatever becomes of those that cannot be taken.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn age(certificate: &Path, key: &Path) -> Age {
    [certificate, key].map(|file| file.metadata().and_then(|it| it.modified()).ok())
}

fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|error| broken(&error))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(|error| unusable(certificate, &error))?;
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unusable(file, &"it holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(file, &error)),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::fatal(format!("{} cannot be used for TLS: {why}", file.display()))
        .code("tls.file")
        .hint("a PEM file is wanted: `-----BEGIN CERTIFICATE-----` or `-----BEGIN PRIVATE KEY-----`")
}

fn broken(error: &rustls::Error) -> Error {
    Error::fatal(format!("TLS cannot be set up: {error}")).code("tls.set-up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_certificate_is_the_cause_of_has_an_advice() {
        let check = |error: &(dyn Cause + 'static), expected: &str| {
            let found = advice(error).unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{error}: {found}");
        };
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        check(&unknown(), "with `ca`");
        check(&io::Error::other(unknown()), "with `ca`");
        check(&io::Error::other(io::Error::other(unknown())), "with `ca`");
        check(&rustls::Error::InvalidCertificate(CertificateError::Expired), "clock");
        check(&rustls::Error::InvalidCertificate(CertificateError::NotValidForName), "name");
        check(&io::Error::other(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)), "`tls.certificate`");
        check(&rustls::Error::AlertReceived(AlertDescription::ProtocolVersion), "");
        check(&io::Error::from(io::ErrorKind::ConnectionRefused), "");
    }
}
