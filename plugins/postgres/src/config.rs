//! Keys of the sink.

use std::time::Duration;

use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Sink, SinkConfig, units};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio_postgres::Config;

/// The longest name of a table or column, in bytes; the server cuts longer ones.
const NAME_BYTES_MAX: usize = 63;

/// Writes rows into a table of PostgreSQL.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PostgresSinkConfig {
    /// Where: `postgres://user@host:5432/database`, or `host=/run/postgresql user=me dbname=database`. With `sslmode` as libpq has it
    /// (`disable`, `prefer`, `require`); `prefer` where it is absent.
    pub url: String,
    /// Instead of one in `url`, where it would have to be percent-encoded: `"${PGPASSWORD}"`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// A file of certificates (PEM), or `system` for the system's: the server's certificate and name are checked, and nothing is sent
    /// without.
    #[serde(default)]
    pub ca: Option<String>,
    /// How long a connection may take.
    #[serde(default = "connect_timeout", with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub connect_timeout: Duration,
    /// The table's schema.
    #[serde(default = "public")]
    pub schema: String,
    /// The table.
    pub table: String,
    /// What is done with a row.
    #[serde(default)]
    pub mode: Mode,
    /// Of `upsert`: the columns that tell a row from others. The table needs a unique index or primary key over them; one that is made
    /// here gets it.
    #[serde(default)]
    pub key: Vec<String>,
    /// Makes the table from the first rows where it is missing.
    #[serde(default = "yes")]
    pub create_table: bool,
    /// Adds columns that the table lacks; without, rows that have such a column are rejected.
    #[serde(default)]
    pub add_columns: bool,
    /// What is done with times finer than a microsecond, which PostgreSQL cannot hold.
    #[serde(default)]
    pub nanoseconds: Nanoseconds,
    /// Of a message of which the server refuses rows: how many of them are looked for at a time, so that the others are written.
    #[serde(default = "rejected_rows_max")]
    #[schemars(range(min = 1))]
    pub rejected_rows_max: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every row is added.
    #[default]
    Append,
    /// A row takes the place of the one with its key: the columns that it has.
    Upsert,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nanoseconds {
    /// Such rows are rejected.
    #[default]
    Reject,
    /// Cut to the microsecond.
    Cut,
}

fn connect_timeout() -> Duration {
    Duration::from_secs(10)
}

fn public() -> String {
    "public".into()
}

fn yes() -> bool {
    true
}

fn rejected_rows_max() -> u32 {
    1_000
}

impl SinkConfig for PostgresSinkConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("postgres", Kind::Sink, "Writes rows into a table of PostgreSQL")
    }

    fn lint(&self) -> Vec<Error> {
        let mut problems: Vec<Error> = self.server().err().into_iter().collect();
        for (path, name) in [("schema", &self.schema), ("table", &self.table)].into_iter().chain(self.key.iter().map(|it| ("key", it))) {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
                problems.push(Error::fatal(format!("`{name}` is no name: 1 to {NAME_BYTES_MAX} bytes are")).path(path));
            }
        }
        if self.mode == Mode::Upsert && self.key.is_empty() {
            problems.push(Error::fatal("`upsert` needs to know which rows are the same").path("key").hint("name the columns: key = [\"id\"]"));
        }
        if self.mode == Mode::Append && !self.key.is_empty() {
            problems.push(Error::fatal("rows that are appended have no key").path("key").hint("set `mode = \"upsert\"`, or remove `key`"));
        }
        problems
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(super::sink::Postgres::new(self, context)?))
    }
}

impl PostgresSinkConfig {
    /// Where to connect, with the password.
    ///
    /// # Errors
    /// `url` is none, or names no host.
    pub fn server(&self) -> Result<Config> {
        let wrong = |text: String| Error::fatal(text).code("postgres.url").path("url");
        let mut config: Config = self.url.parse().map_err(|error: tokio_postgres::Error| {
            // Its cause says what is wrong; neither holds what was given.
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let error = wrong(format!("this is no address of a server: {cause}"));
            error.hint("write postgres://user@host:5432/database; percent-encode signs such as @ and / in a password, or use `password`")
        })?;
        if config.get_hosts().is_empty() {
            return Err(wrong("the address names no host".into()).hint("write postgres://user@host:5432/database"));
        }
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        config.connect_timeout(self.connect_timeout);
        Ok(config)
    }
}
