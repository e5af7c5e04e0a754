//! The site facet: how replica commands reach a TDengine without knowing what it is.

mod digest;

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline_sdk::site::Digest;
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, LaneProgress, Result, Site, SiteConfig, async_trait};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tdengine_wire::escape::{identifier, literal};
use tokio::time::Instant;

use crate::client::{ClientError, SocketLimits, Subscription};
use crate::transport::{Connection, Consumer};
use crate::dsn::Dsn;
use crate::source::{lane_name, position};
use crate::{metadata, names};

/// How long forgetting waits for consumers that are on their way out.
const FORGET_TIMEOUT: Duration = Duration::from_secs(60);
const FORGET_POLL: Duration = Duration::from_millis(250);
/// Topics that a cluster allows unless told otherwise (FACTS F46).
const TOPICS_DEFAULT: usize = 20;
/// A log kept shorter than this loses what a replica that was stopped over night has not read.
const RETENTION_WARN_S: i64 = 86_400;

/// A TDengine as a site of a replica.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TdengineSiteConfig {
    /// The site.
    pub dsn: Dsn,
    /// Start of the names of topics.
    #[serde(default = "topic_prefix")]
    pub topic_prefix: String,
}

fn topic_prefix() -> String {
    names::PREFIX_DEFAULT.into()
}

impl SiteConfig for TdengineSiteConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("tdengine", Kind::Site, "A TDengine as a site of a replica")
    }

    fn lint(&self) -> Vec<Error> {
        crate::transport::check(&self.dsn).err().map(|error| error.path("dsn")).into_iter().collect()
    }

    fn build(self, _: Context) -> Result<Box<dyn Site>> {
        Ok(Box::new(TdengineSite { config: self, connection: None, observers: BTreeMap::new() }))
    }
}

struct TdengineSite {
    config: TdengineSiteConfig,
    connection: Option<Connection>,
    /// Consumers that only look at lanes, by database.
    observers: BTreeMap<String, Consumer>,
}

impl TdengineSite {
    fn limits() -> SocketLimits {
        SocketLimits { request_timeout: Duration::from_secs(600), ..SocketLimits::default() }
    }

    async fn connection(&mut self) -> Result<&Connection> {
        let is_open = match &self.connection {
            Some(connection) => connection.exec("select 1").await.is_ok(),
            None => false,
        };
        if !is_open {
            self.observers.clear();
            self.connection = Some(Connection::open(&self.config.dsn, None, Self::limits()).await?);
        }
        Ok(self.connection.as_ref().expect("it was just opened"))
    }

    async fn existing_topic(&mut self, database: &str) -> Result<Option<String>> {
        let topic = names::topic(&self.config.topic_prefix, database);
        let sql =
            format!("select topic_name from information_schema.ins_topics where topic_name = {}", literal(&topic));
        let found = self.connection().await?.query(&sql).await?.row_count()? > 0;
        Ok(found.then_some(topic))
    }
}

#[async_trait]
impl Site for TdengineSite {
    async fn identity(&mut self) -> Result<String> {
        metadata::cluster_id(self.connection().await?).await
    }

    async fn databases(&mut self) -> Result<Vec<String>> {
        metadata::databases(self.connection().await?).await
    }

    async fn schema(&mut self, database: &str) -> Result<Json> {
        digest::schema(self.connection().await?, database).await
    }

    async fn digest(&mut self, database: &str, range: Option<(i64, i64)>) -> Result<Digest> {
        digest::digest(self.connection().await?, database, range).await
    }

    /// From a consumer of its own group, which reads nothing: no SQL view of 3.3.0.1 shows a log's end (FACTS F72).
    async fn lanes(&mut self, database: &str) -> Result<Vec<LaneProgress>> {
        let Some(topic) = self.existing_topic(database).await? else { return Ok(Vec::new()) };
        let connection = self.connection().await?;
        let Some(found) = metadata::database(connection, database).await? else { return Ok(Vec::new()) };
        if !self.observers.contains_key(database) {
            let subscription = Subscription {
                topic,
                group: names::group("observer", &format!("{:016x}", rand::random::<u64>())),
                client: "pipeline".into(),
                exclude_marked: false,
                from_oldest: false,
                session_timeout: None,
                prefetch: 1,
            };
            let consumer = Consumer::subscribe(&self.config.dsn, &subscription, Self::limits()).await?;
            self.observers.insert(database.into(), consumer);
        }
        let assigned = match self.observers[database].assignment().await {
            Ok(assigned) => assigned,
            Err(error) => {
                self.observers.remove(database);
                return Err(error.into());
            }
        };
        let place = |offset: i64| Some(position(offset, found.created));
        Ok(assigned
            .into_iter()
            .map(|vgroup| LaneProgress {
                lane: lane_name(vgroup.vgroup_id),
                oldest: place(vgroup.begin),
                current: None,
                latest: place(vgroup.end),
                retention_seconds: found.retention_seconds,
            })
            .collect())
    }

    async fn plan(&mut self, databases: &[String]) -> Result<Json> {
        let prefix = self.config.topic_prefix.clone();
        let connection = self.connection().await?;
        let version = connection.query("select server_version()").await?.texts()?;
        let version = version.first().and_then(|row| row[0].clone()).unwrap_or_default();
        let identity = metadata::cluster_id(connection).await?;
        let topics: Vec<String> = connection
            .query("select topic_name from information_schema.ins_topics")
            .await?
            .texts()?
            .into_iter()
            .filter_map(|mut row| row[0].take())
            .collect();
        let mut warnings = Vec::new();
        let mut found = Vec::new();
        let mut needed = Vec::new();
        for name in databases {
            let Some(database) = metadata::database(connection, name).await? else {
                warnings.push(format!("database `{name}` does not exist; a sink makes it with the source's options"));
                continue;
            };
            let statement = metadata::create_database_statement(connection, name).await?;
            let retention = metadata::retention_seconds(&statement);
            if retention.is_some_and(|seconds| seconds < RETENTION_WARN_S) {
                warnings.push(format!(
                    "`{name}` keeps its log for {} s only: a replica that is stopped longer meets a hole",
                    retention.unwrap_or_default()
                ));
            }
            let wanted = [names::topic(&prefix, name), names::meta_topic(&prefix, name)];
            needed.extend(wanted.into_iter().filter(|topic| !topics.contains(topic)));
            let vgroups = metadata::vgroups(connection, name).await?.len();
            found.push(json!({
                "name": name, "lanes": vgroups, "precision": database.precision.name(), "statement": statement,
            }));
        }
        if topics.len() + needed.len() > TOPICS_DEFAULT {
            let (used, more) = (topics.len(), needed.len());
            warnings.push(format!("{used} topics exist and {more} are needed; a cluster allows {TOPICS_DEFAULT} by default"));
        }
        Ok(json!({
            "address": self.config.dsn.to_string(),
            "identity": identity,
            "version": version,
            "databases": found,
            "topics-used": topics.len(),
            "topics-needed": needed,
            "warnings": warnings,
        }))
    }

    async fn forget(&mut self, database: &str) -> Result<()> {
        if let Some(observer) = self.observers.remove(database) {
            // It leaves by itself when its connection ends, only later.
            let _ = observer.unsubscribe().await;
        }
        let prefix = self.config.topic_prefix.clone();
        let connection = self.connection().await?;
        for topic in [names::topic(&prefix, database), names::meta_topic(&prefix, database)] {
            let deadline = Instant::now() + FORGET_TIMEOUT;
            loop {
                drop_groups(connection, &topic).await?;
                match connection.exec(&format!("drop topic if exists {}", identifier(&topic))).await {
                    Ok(_) => break,
                    Err(ClientError::Server { code: 0x03eb | 0x03ec | 0x03d3 | 0x03ea, .. })
                        if Instant::now() < deadline =>
                    {
                        tokio::time::sleep(FORGET_POLL).await;
                    }
                    Err(error) => {
                        return Err(Error::from(error).hint("stop every pipeline that reads this database, then try again"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Groups without a consumer go; the others keep the topic, which is then tried again.
async fn drop_groups(connection: &Connection, topic: &str) -> Result<()> {
    let sql = format!(
        "select distinct consumer_group from information_schema.ins_subscriptions where topic_name = {}",
        literal(topic)
    );
    let Ok(groups) = connection.query(&sql).await else { return Ok(()) };
    for row in groups.texts()? {
        let Some(group) = row.into_iter().next().flatten() else { continue };
        let sql = format!("drop consumer group if exists {} on {}", identifier(&group), identifier(topic));
        if let Err(error) = connection.exec(&sql).await {
            tracing::debug!(%error, group, topic, "a consumer group is still in use");
        }
    }
    Ok(())
}
