//! Where the server is and who one is; connecting.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use nkeys::{KeyPair, KeyPairType};
use pipeline_sdk::tls::{self, Tls};
use pipeline_sdk::{Error, Result};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Who one is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Login {
    /// A user with `password`.
    pub username: Option<String>,
    /// Of `username`: `"${PASSWORD}"`.
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// A token instead of a user.
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// A file of credentials (JWT and key) instead of a user.
    #[schemars(extend("format" = "path"))]
    pub credentials: Option<PathBuf>,
    /// The seed of an NKey instead of a user.
    #[schemars(with = "Option<String>")]
    pub nkey: Option<SecretString>,
}

/// A server with what it takes to connect.
#[derive(Clone, Debug)]
pub(crate) struct Server<'c> {
    pub url: &'c str,
    pub login: &'c Login,
    pub tls: &'c Tls,
    pub timeout: Duration,
}

impl Login {
    fn lint(&self) -> Vec<Error> {
        let ways = [self.username.is_some(), self.token.is_some(), self.credentials.is_some(), self.nkey.is_some()];
        let mut problems = Vec::new();
        if ways.iter().filter(|is_given| **is_given).count() > 1 {
            problems.push(Error::fatal("one of `username`, `token`, `credentials` and `nkey`").path("login"));
        }
        if self.username.is_some() != self.password.is_some() {
            problems.push(Error::fatal("`username` and `password` go together").path("login.username"));
        }
        let is_seed = |text: &SecretString| KeyPair::from_seed(text.expose_secret()).is_ok_and(|key| key.key_pair_type() == KeyPairType::User);
        if self.nkey.as_ref().is_some_and(|text| !is_seed(text)) {
            problems.push(Error::fatal("this is no seed of a user's NKey").path("login.nkey").hint("it begins with `SU`, as `nk -gen user` writes it"));
        }
        problems
    }
}

impl Server<'_> {
    pub fn lint(&self) -> Vec<Error> {
        let mut problems = self.login.lint();
        problems.extend(self.tls.lint());
        problems.extend(self.addresses().err());
        problems
    }

    /// # Errors
    /// Fatal: no addresses. The text is not shown, as it may hold a password.
    fn addresses(&self) -> Result<Vec<ServerAddr>> {
        let wrong = |text: String| {
            let error = Error::fatal(text).code("nats.url").path("url");
            error.hint("write it as `nats://host:4222`, with TLS `tls://host:4222`; servers of a cluster with commas between them")
        };
        self.url
            .split(',')
            .map(|part| {
                let scheme = part.trim().split("://").next().unwrap_or_default();
                if !part.contains("://") || !["nats", "tls"].contains(&scheme) {
                    return Err(wrong("an address begins with `nats://` or `tls://`".into()));
                }
                let address: ServerAddr = part.trim().parse().map_err(|_| wrong("it is no address".into()))?;
                if address.host().is_empty() {
                    return Err(wrong("it names no host".into()));
                }
                Ok(address)
            })
            .collect()
    }

    /// Connects; the client does not connect again by itself.
    ///
    /// # Errors
    /// Disconnected: nobody answers. Fatal: the login is refused, or a file cannot be used.
    pub async fn connect(&self, name: &str) -> Result<Client> {
        let addresses = self.addresses()?;
        let mut options = ConnectOptions::new().name(name).connection_timeout(self.timeout).request_timeout(Some(self.timeout)).max_reconnects(1);
        if !self.tls.is_empty() || addresses.iter().any(|it| it.scheme() == "tls") {
            options = options.require_tls(true).tls_client_config((*self.tls.client()?).clone());
        }
        let secret = |text: &SecretString| text.expose_secret().to_owned();
        options = match self.login {
            Login { username: Some(name), password: Some(password), .. } => options.user_and_password(name.clone(), secret(password)),
            Login { token: Some(token), .. } => options.token(secret(token)),
            Login { nkey: Some(seed), .. } => options.nkey(secret(seed)),
            Login { credentials: Some(file), .. } => options.credentials_file(file).await.map_err(|error| {
                Error::fatal(format!("{}: {error}", file.display())).code("nats.credentials").path("login.credentials").hint("a file is wanted as `nsc generate creds` writes it: a JWT and a seed")
            })?,
            _ => options,
        };
        options.connect(&addresses[..]).await.map_err(|error| match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Error::fatal(format!("the server refuses the login: {error}")).code("nats.login").hint("check `login`, and what the user may do")
            }
            _ => match tls::advice(&error) {
                Some(advice) => lost(error).code("nats.tls").hint(advice),
                None => lost(error),
            },
        })
    }
}

pub(crate) fn lost(error: impl std::fmt::Display) -> Error {
    Error::disconnected(format!("the connection to the server is lost: {error}")).code("nats.connection")
}

pub(crate) fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_its_key_and_no_password() {
        let check = |url: &str, login: serde_json::Value, tls: serde_json::Value, expected: &str| {
            let login: Login = serde_json::from_value(login).unwrap();
            let tls: Tls = serde_json::from_value(tls).unwrap();
            let server = Server { url, login: &login, tls: &tls, timeout: Duration::from_secs(1) };
            let found: Vec<String> = server.lint().iter().map(ToString::to_string).collect();
            let is_good = found.len() == usize::from(!expected.is_empty()) && found.iter().all(|it| it.starts_with(expected) && !it.contains("secret"));
            assert!(is_good, "{url}: {found:?}");
        };
        let none = serde_json::json!({});
        check("nats://u:secret@h:4222, nats://i", none.clone(), none.clone(), "");
        check("http://secret", none.clone(), none.clone(), "url: an address begins");
        check("secret", none.clone(), none.clone(), "url: an address begins");
        check("nats://", none.clone(), none.clone(), "url: it ");
        check("nats://h", serde_json::json!({ "username": "u" }), none.clone(), "login.username: ");
        check("nats://h", serde_json::json!({ "token": "secret", "username": "u", "password": "secret" }), none.clone(), "login: ");
        check("nats://h", serde_json::json!({ "nkey": "secret" }), none.clone(), "login.nkey: ");
        check("nats://h", serde_json::json!({ "nkey": KeyPair::new_user().seed().unwrap() }), none.clone(), "");
        check("tls://h", none, serde_json::json!({ "key": "x" }), "tls.certificate: ");
    }
}
