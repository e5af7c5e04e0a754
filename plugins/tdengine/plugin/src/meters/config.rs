//! Configuration of the generator and its entry in the plugin.

use std::time::Duration;

use pipeline_sdk::{ComponentDescription, Context, Error, Kind, Result, Service, ServiceConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use tdengine_wire::escape::is_usable_name;

use super::Meters;
use super::rows::ROWS_PER_SECOND_AND_TABLE_MAX;
use crate::client::SocketLimits;
use crate::dsn::Dsn;
use crate::names;
use crate::span::Span;

/// Writes smart-meter rows, and changes of schema, tags and tables and deletes among them, for trying and testing.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetersConfig {
    /// The site.
    pub dsn: Dsn,
    /// The database; made if missing.
    pub database: String,
    /// This site's name or number, in the names of what it writes, so that sites do not write the same keys.
    pub site: String,
    /// Vgroups of the database, if it is made here.
    #[serde(default = "vgroups")]
    pub vgroups: u16,
    /// The super table; made if missing.
    #[serde(default = "stable")]
    pub stable: String,
    /// Tables that this site alone writes.
    #[serde(default = "tables")]
    pub tables: u32,
    /// Tables that every site writes, each at timestamps of its own, one row a second.
    #[serde(default = "shared_tables")]
    pub shared_tables: u32,
    /// Rows a second, those of shared tables not counted.
    #[serde(default = "rate")]
    pub rate: u32,
    /// What is changed, and in which order, follows from the seed.
    #[serde(default)]
    pub seed: u64,
    /// Whether schemas, tags and tables are changed and ranges deleted.
    #[serde(default = "yes")]
    pub changes: bool,
    /// Between two changes.
    #[serde(default = "change_interval")]
    pub change_interval: Span,
    /// Between two statements with rows.
    #[serde(default = "write_interval")]
    pub write_interval: Span,
    /// Most rows in one statement.
    #[serde(default = "statement_rows_max")]
    pub statement_rows_max: usize,
    /// Most columns that this site has added to the super table: at that many it drops one before it adds another.
    #[serde(default = "columns_max")]
    pub columns_max: usize,
    /// Width up to which this site widens columns of text, in characters.
    #[serde(default = "width_max")]
    pub width_max: u32,
    /// Most tables that this site has beyond `tables`: at that many it drops one before it makes another.
    #[serde(default = "extra_tables_max")]
    pub extra_tables_max: usize,
    /// Until the site must have answered a statement.
    #[serde(default = "request_timeout")]
    pub request_timeout: Span,
    /// Longest wait between two tries to connect.
    #[serde(default = "reconnect_interval_max")]
    pub reconnect_interval_max: Span,
}

fn vgroups() -> u16 {
    2
}

fn stable() -> String {
    "meters".into()
}

fn tables() -> u32 {
    10
}

fn shared_tables() -> u32 {
    2
}

fn rate() -> u32 {
    100
}

fn yes() -> bool {
    true
}

fn change_interval() -> Span {
    Span::seconds(2)
}

fn write_interval() -> Span {
    Span(Duration::from_millis(100))
}

fn statement_rows_max() -> usize {
    2_000
}

fn columns_max() -> usize {
    6
}

fn width_max() -> u32 {
    64
}

fn extra_tables_max() -> usize {
    4
}

fn request_timeout() -> Span {
    Span::seconds(10)
}

fn reconnect_interval_max() -> Span {
    Span::seconds(2)
}

impl MetersConfig {
    pub(super) fn limits(&self) -> SocketLimits {
        SocketLimits { request_timeout: self.request_timeout.0, ..SocketLimits::default() }
    }
}

impl ServiceConfig for MetersConfig {
    fn describe() -> ComponentDescription {
        let summary = "Writes smart-meter rows, with changes of schema, tags and tables and deletes among them";
        ComponentDescription::new("tdengine-meters", Kind::Service, summary).generator()
    }

    fn lint(&self) -> Vec<Error> {
        let mut wrong = Vec::new();
        let mut check = |is_right: bool, path: &str, why: String| {
            if !is_right {
                wrong.push(Error::fatal(why).path(path));
            }
        };
        let is_ours = !names::is_reserved_database(&self.database) && is_usable_name(&self.database);
        check(is_ours, "database", format!("`{}` cannot be a database to write to", self.database));
        // Names of tables are made of both, with some characters between and behind.
        let is_short = self.stable.len() <= 64 && is_usable_name(&self.stable);
        check(is_short, "stable", "must be 1 to 64 bytes, without `.` and back-quote".into());
        let is_plain = (1..=32).contains(&self.site.len())
            && self.site.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        check(is_plain && self.site != super::SHARED, "site", "must be 1 to 32 of a–z and 0–9, not `shared`".into());
        check((1..=1_000).contains(&self.vgroups), "vgroups", "must be from 1 to 1000".into());
        check((1..=100_000).contains(&self.tables), "tables", "must be from 1 to 100000".into());
        check(self.shared_tables <= 1_000, "shared-tables", "must be at most 1000".into());
        let rate_max = u64::from(self.tables) * ROWS_PER_SECOND_AND_TABLE_MAX;
        let why = format!("must be from 1 to {rate_max}: a table takes one row a millisecond");
        check((1..=rate_max).contains(&u64::from(self.rate)), "rate", why);
        check(!self.change_interval.0.is_zero(), "change-interval", "must not be 0; `changes = false` turns them off".into());
        check(!self.write_interval.0.is_zero(), "write-interval", "must not be 0".into());
        check((1..=5_000).contains(&self.statement_rows_max), "statement-rows-max", "must be from 1 to 5000".into());
        check(self.columns_max <= 100, "columns-max", "must be at most 100".into());
        check((8..=1_000).contains(&self.width_max), "width-max", "must be from 8 to 1000".into());
        if let Err(error) = crate::transport::check(&self.dsn) {
            wrong.push(error.path("dsn"));
        }
        wrong
    }

    fn build(self, context: Context) -> Result<Box<dyn Service>> {
        Ok(Box::new(Meters { config: self, context }))
    }
}
