//! The site facet: how replica commands reach a TDengine without knowing what it is.

mod digest;
mod forget;
mod locks;
mod notes;
mod plan;
mod review;

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline_sdk::site::{Check, Digest, Holding};
use pipeline_sdk::{ComponentDescription, Context, Error, Kind, LaneProgress, Result, Site, SiteConfig, async_trait};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;
use tdengine_wire::escape::literal;

use crate::client::{SocketLimits, Subscription};
use crate::transport::{Connection, Consumer};
use crate::dsn::Dsn;
use crate::source::{lane_name, position};
use crate::{metadata, names};

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
        Ok(Box::new(TdengineSite { config: self, connection: None, observers: BTreeMap::new(), locks: None, notes: None }))
    }
}

struct TdengineSite {
    config: TdengineSiteConfig,
    connection: Option<Connection>,
    /// Consumers that only look at lanes, by database.
    observers: BTreeMap<String, Consumer>,
    locks: Option<locks::Locks>,
    notes: Option<notes::Notes>,
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
    async fn address(&mut self) -> Result<String> {
        Ok(self.config.dsn.to_string())
    }

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
                group: names::observer(rand::random()),
                client: "pipeline".into(),
                exclude_marked: false,
                from_oldest: false,
                prefetch: 1,
                rows_min: None,
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
                ends: false,
            })
            .collect())
    }

    async fn plan(&mut self, databases: &[String]) -> Result<Json> {
        let (dsn, prefix) = (self.config.dsn.clone(), self.config.topic_prefix.clone());
        let facts = plan::look(self.connection().await?, &dsn, &prefix, databases).await?;
        serde_json::to_value(facts).map_err(|error| Error::fatal(format!("a plan: {error}")))
    }

    async fn review(&mut self, source: &Json, sink: &Json) -> Result<Vec<Check>> {
        let read = |plan: &Json| {
            plan::Facts::deserialize(plan).map_err(|error| Error::fatal(format!("this is no plan of a TDengine: {error}")))
        };
        Ok(review::review(&read(source)?, &read(sink)?))
    }

    async fn forget(&mut self, database: &str, pipelines: &[String]) -> Result<()> {
        if let Some(observer) = self.observers.remove(database) {
            // It leaves by itself when its connection ends, only later.
            let _ = observer.unsubscribe().await;
        }
        let prefix = self.config.topic_prefix.clone();
        forget::forget(self.connection().await?, &prefix, database, pipelines).await
    }

    async fn hold(&mut self, group: &str) -> Result<Holding> {
        let mut locks = match self.locks.take() {
            Some(locks) => locks,
            None => locks::Locks::join(&self.config.dsn, group).await?,
        };
        // After an error nothing is known of it: the next call joins anew.
        let holding = locks.hold().await?;
        self.locks = Some(locks);
        Ok(holding)
    }

    async fn notes(&mut self, group: &str, written: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        let known = self.notes.take().filter(|notes| notes.group == group);
        let connection = self.connection().await?;
        let mut notes = match known {
            Some(notes) => notes,
            None => notes::Notes::open(connection, group).await?,
        };
        notes.write(connection, &written).await?;
        let all = notes.read(connection).await?;
        self.notes = Some(notes);
        Ok(all)
    }
}
