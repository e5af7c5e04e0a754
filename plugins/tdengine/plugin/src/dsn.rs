//! Where a TDengine is: one text, from `host` to `taos+ws://user:password@host:6041/db?token=…`.
//!
//! A [`Dsn`] never shows its password or token: not in `Debug`, not in `Display`, not in an error about it
//! (invariant `secret`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use percent_encoding::percent_decode_str;
use pipeline_sdk::{Error, Result};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::network::{Network, Tcp};

/// Of every address, unless it is told another one.
static TCP: LazyLock<Arc<dyn Network>> = LazyLock::new(|| Arc::new(Tcp));

/// Port of the WebSocket and REST endpoint (taosadapter).
pub const PORT_WEB_SOCKET: u16 = 6041;
/// Port of the native protocol (taosd).
pub const PORT_NATIVE: u16 = 6030;
/// Parameters that a DSN may carry.
const PARAMETERS: [&str; 5] = ["token", "bearer_token", "caFile", "libraryPath", "configDir"];
/// Those that are paths: who wrote the address and who reads it, a service say, may be in different folders.
const PATHS: [&str; 3] = ["caFile", "libraryPath", "configDir"];

/// How a site is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket { tls: bool },
    /// Through libtaos.
    Native,
}

/// The address of a site, read from configuration as a string.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Dsn {
    pub transport: Transport,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: Option<String>,
    password: SecretString,
    parameters: BTreeMap<String, SecretString>,
    network: Arc<dyn Network>,
}

impl Dsn {
    /// Reads any of the forms.
    ///
    /// # Errors
    /// Fatal, with what is wrong but without the text itself, which may hold a password.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let (rest, transport) = match text.split_once("://") {
            Some((scheme, rest)) => (rest, Some(transport_of(scheme)?)),
            None => (text, None),
        };
        let text = format!("tdengine://{}", with_escaped_user(rest));
        let url = Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let transport = transport.unwrap_or(match url.port() {
            Some(PORT_NATIVE) => Transport::Native,
            _ => Transport::WebSocket { tls: false },
        });
        let port = url.port().unwrap_or(match transport {
            Transport::WebSocket { .. } => PORT_WEB_SOCKET,
            Transport::Native => PORT_NATIVE,
        });
        let user = decode(url.username())?;
        let password = url.password().map(decode).transpose()?;
        let database = decode(url.path().trim_matches('/'))?;
        // `ws:/host:6041`, `ws//host:6041`: what should be the host stands where a database does.
        if database.contains(['/', ':']) || user.contains('/') {
            return Err(wrong("a scheme ends in `://`, and one path, the database, may follow the port"));
        }
        Ok(Self {
            transport,
            host: decode(host)?,
            port,
            user: if user.is_empty() { "root".into() } else { user },
            password: SecretString::from(password.unwrap_or_else(|| "taosdata".into())),
            database: (!database.is_empty()).then_some(database),
            parameters: parameters_of(&url)?,
            network: TCP.clone(),
        })
    }

    /// The same site, reached over another network.
    pub fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network, ..self }
    }

    /// Tells one network from another while both are in use.
    pub(crate) fn network_id(&self) -> usize {
        Arc::as_ptr(&self.network).cast::<()>() as usize
    }

    pub(crate) fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// For the one place where it goes onto the wire.
    pub fn password(&self) -> &str {
        self.password.expose_secret()
    }

    /// A parameter's value; some are secrets too.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(ExposeSecret::expose_secret)
    }

    /// The authority that signed the certificate of a `wss://` site, where this machine does not know it.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.parameter("caFile").map(Path::new)
    }

    /// `ws://host:port/PATH`, with the token where there is one: not for people.
    pub(crate) fn web_socket_url(&self, path: &str) -> String {
        let scheme = if self.transport == (Transport::WebSocket { tls: true }) { "wss" } else { "ws" };
        let mut url = format!("{scheme}://{}:{}{path}", self.host, self.port);
        for name in ["token", "bearer_token"] {
            if let Some(value) = self.parameter(name) {
                let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
                let separator = if url.contains('?') { '&' } else { '?' };
                url.push_str(&format!("{separator}{name}={value}"));
            }
        }
        url
    }
}

fn wrong(why: &str) -> Error {
    Error::fatal(format!("this is no TDengine address: {why}"))
        .code("tdengine.dsn")
        .hint("write host, host:6041, ws://user:password@host:6041, wss://…, or taos://host:6030 for libtaos")
}

fn transport_of(scheme: &str) -> Result<Transport> {
    Ok(match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" | "taosws" | "taos+ws" | "taos+http" => Transport::WebSocket { tls: false },
        "wss" | "https" | "taoswss" | "taos+wss" | "taos+https" => Transport::WebSocket { tls: true },
        "taos" | "taos+native" => Transport::Native,
        other => return Err(wrong(&format!("unknown scheme `{other}`"))),
    })
}

/// A password that came from a file or a variable is no URL: what would end the part before the host is escaped, up to the last `@`
/// that is not in a parameter. A `%` is left: it may be an escape already.
fn with_escaped_user(rest: &str) -> String {
    let starts = PARAMETERS.iter().filter_map(|name| rest.find(&format!("?{name}=")));
    let Some(at) = rest[..starts.min().unwrap_or(rest.len())].rfind('@') else { return rest.into() };
    let (user, host) = rest.split_at(at);
    user.replace('/', "%2F").replace('?', "%3F").replace('#', "%23") + host
}

fn parameters_of(url: &Url) -> Result<BTreeMap<String, SecretString>> {
    let mut parameters = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if !PARAMETERS.contains(&name.as_ref()) {
            return Err(wrong(&format!("unknown parameter `{name}`; known are {}", PARAMETERS.join(", "))));
        }
        if PATHS.contains(&name.as_ref()) && !Path::new(value.as_ref()).is_absolute() {
            return Err(wrong(&format!("{name} wants an absolute path, not `{value}`")));
        }
        parameters.insert(name.into_owned(), SecretString::from(value.into_owned()));
    }
    Ok(parameters)
}

fn decode(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| wrong("a part of it is no UTF-8"))?;
    Ok(text.into_owned())
}

impl TryFrom<String> for Dsn {
    type Error = String;

    /// The error as a text, since that is all that serde passes on.
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| format!("{}; {}", error.message, error.hint.unwrap_or_default()))
    }
}

impl JsonSchema for Dsn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dsn".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Address of a TDengine: host, host:6041, ws://user:password@host:6041, wss://…, taos://host:6030.",
        })
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::WebSocket { tls: false } => "ws",
            Transport::WebSocket { tls: true } => "wss",
            Transport::Native => "taos",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self}, user {})", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_says_the_same_as_its_long_one() {
        let ws = Transport::WebSocket { tls: false };
        let tls = Transport::WebSocket { tls: true };
        for (text, transport, host, port, user, password, database) in [
            ("db1", ws, "db1", 6041, "root", "taosdata", None),
            ("db1:7041", ws, "db1", 7041, "root", "taosdata", None),
            ("db1:6030", Transport::Native, "db1", 6030, "root", "taosdata", None),
            ("taos://db1", Transport::Native, "db1", 6030, "root", "taosdata", None),
            ("wss://u:p@h", tls, "h", 6041, "u", "p", None),
            ("taos+ws://u:p%40%2Fss@h:1/power", ws, "h", 1, "u", "p@/ss", Some("power")),
            ("ws://u:p@/s?s#@h:1/power", ws, "h", 1, "u", "p@/s?s#", Some("power")),
            ("ws://:p@h", ws, "h", 6041, "root", "p", None),
            ("u:p@h:6030", Transport::Native, "h", 6030, "u", "p", None),
            ("ws://[::1]:6041/", ws, "[::1]", 6041, "root", "taosdata", None),
        ] {
            let dsn = Dsn::parse(text).unwrap();
            assert_eq!((dsn.transport, dsn.host.as_str(), dsn.port), (transport, host, port), "{text}");
            assert_eq!((dsn.user.as_str(), dsn.password()), (user, password), "{text}");
            assert_eq!(dsn.database.as_deref(), database, "{text}");
        }
        assert_eq!(Dsn::parse("wss://h?caFile=/etc/ca.pem").unwrap().ca_file(), Some(Path::new("/etc/ca.pem")));
        let relative = Dsn::parse("wss://h?caFile=ca.pem").unwrap_err();
        assert!(relative.message.contains("caFile wants an absolute path, not `ca.pem`"), "{relative}");
        assert_eq!(Dsn::parse("wss://h?token=a@b").unwrap().parameter("token"), Some("a@b"));
        assert_eq!(Dsn::parse("wss://h?token=a%20b").unwrap().web_socket_url("/ws"), "wss://h:6041/ws?token=a%20b");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let dsn = Dsn::parse("ws://u:hush@h?token=hush").unwrap();
        assert!(!format!("{dsn} {dsn:?}").contains("hush"));
        for wrong in ["", "ws:/h:6041", "ws//h:6041", "ws//u:hush@h:6041", "ws://h:6041/a/b", "kafka://u:hush@h", "ws://u:hush@", "ws://u:hush@h?password=hush", "ws://u:hush@h:99999"] {
            let error = Dsn::parse(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
